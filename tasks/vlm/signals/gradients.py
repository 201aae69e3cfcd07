"""The `gradients` signal: where a training step on the sample would take the model (OST, ICONS).

The gradient of the mean response loss with respect to chosen parameters, randomly projected for storage: inner products
of rows estimate those of whole gradients, with an error of about |g| |h| / sqrt(dimension).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tasks.anchor_rows import read_step_anchors
from tasks.params import ExtractSettings
from tasks.problem import Problem
from tasks.vlm.batch import Batch, Prepared
from tasks.vlm.forward import Record, Taps


def statistics(settings: ExtractSettings) -> list[tuple[str, pa.DataType]]:
    """The loss, the length of the gradient before projection, how many tokens the loss is a mean of; `drop` with steps.

    drop: what a step on the sample takes off the anchors' loss.
    """
    plain = [("nll", pa.float64()), ("norm", pa.float64()), ("tokens", pa.int32())]
    return plain if settings.gradients.step is None else [*plain, ("drop", pa.float64())]


def taps(settings: ExtractSettings) -> Taps:
    """Gradients: a forward and a backward of its own for each sample."""
    return Taps(gradients=True)


def options(settings: ExtractSettings) -> dict[str, Any]:
    """All settings of the section but its model, which the fingerprint knows by its tensors, and the anchors.

    Where steps are taken, the anchors' content decides what they do, so their digests are in.
    """
    chosen = settings.gradients
    if chosen.step is None:
        return chosen.model_dump(mode="json", exclude={"model", "anchors", "step", "step_along"})
    plain = chosen.model_dump(mode="json", exclude={"model", "anchors"})
    return {**plain, "anchor": [one.digest for one in read_step_anchors(settings)]}


def matrices(settings: ExtractSettings, width: int) -> dict[str, int]:
    """One projected gradient."""
    return {"feature": settings.gradients.dimension}


def examine(sample: Prepared, settings: ExtractSettings) -> Problem | None:
    """Without an answer there is nothing to learn."""
    return None if sample.answer.any() else Problem("no_answer", "no answer token is left to learn from")


def compute(batch: Batch, record: Record, settings: ExtractSettings) -> dict[str, np.ndarray[Any, Any]]:
    """feature (B, dimension) float32 and the columns named by `statistics`, (B,) each."""
    measured = record.gradients
    assert measured is not None
    columns: dict[str, np.ndarray[Any, Any]] = {
        "feature": measured.feature,
        "nll": measured.nll,
        "norm": measured.norm,
        "tokens": batch.answer.sum(1).numpy().astype(np.int32),
    }
    return columns if settings.gradients.step is None else {**columns, "drop": measured.drop}
