"""What can be measured on a batch, one file per signal.

A signal module gives: taps (what it needs of a forward), options (settings that only it depends on), matrices and
statistics (its columns), examine (why a sample cannot have it, if so) and compute (its columns, filled). To add one:
write the file, add a line to SIGNALS.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from tasks.params import ExtractSettings
from tasks.problem import Problem
from tasks.vlm.batch import Batch, Prepared
from tasks.vlm.forward import Record, Taps
from tasks.vlm.signals import answers, attended, gradients, pooled


class Signal(Protocol):
    """The functions a signal module has."""

    def statistics(self, settings: ExtractSettings) -> list[tuple[str, pa.DataType]]:
        """Per-row columns and their Arrow types."""

    def taps(self, settings: ExtractSettings) -> Taps:
        """What this signal needs of a forward."""

    def options(self, settings: ExtractSettings) -> dict[str, Any]:
        """Settings that change this signal only."""

    def matrices(self, settings: ExtractSettings, width: int) -> dict[str, int]:
        """Matrix columns and their widths, for a decoder of the given hidden width."""

    def examine(self, sample: Prepared, settings: ExtractSettings) -> Problem | None:
        """Why this sample cannot have the signal; None when it can."""

    def compute(self, batch: Batch, record: Record, settings: ExtractSettings) -> dict[str, np.ndarray[Any, Any]]:
        """Columns of the batch, row i for sample i."""


SIGNALS: dict[str, Signal] = {"attended": attended, "pooled": pooled, "answers": answers, "gradients": gradients}
