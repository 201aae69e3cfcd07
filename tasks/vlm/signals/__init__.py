"""What can be measured on a batch, one file per signal.

A signal module gives: STATISTICS (name and Arrow type of its per-row columns), taps(settings) (what it needs of a
forward), options(settings) (settings that only it depends on), matrices(settings, width) (its matrix columns and their
widths), examine(prepared) (why a sample cannot have it, if so) and compute(batch, record, settings) (its columns).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from tasks.formats.record import Problem
from tasks.params import ExtractSettings
from tasks.vlm.batch import Batch, Prepared
from tasks.vlm.forward import Record, Taps
from tasks.vlm.signals import attended


class Signal(Protocol):
    """The functions a signal module has."""

    STATISTICS: list[tuple[str, pa.DataType]]

    def taps(self, settings: ExtractSettings) -> Taps:
        """What this signal needs of a forward."""

    def options(self, settings: ExtractSettings) -> dict[str, Any]:
        """Settings that change this signal only."""

    def matrices(self, settings: ExtractSettings, width: int) -> dict[str, int]:
        """Matrix columns and their widths, for a decoder of the given hidden width."""

    def examine(self, sample: Prepared) -> Problem | None:
        """Why this sample cannot have the signal; None when it can."""

    def compute(self, batch: Batch, record: Record, settings: ExtractSettings) -> dict[str, np.ndarray[Any, Any]]:
        """Columns of the batch, row i for sample i."""


SIGNALS: dict[str, Signal] = {"attended": attended}
