"""The `pooled` signal: mean states of visual and of language tokens at chosen layers (COINCIDE, PRISM).

COINCIDE (arXiv 2406.10995) concatenates, over layers, the pooled visual and language halves of the attention block's
output, tanh-squashed and unit-length; PRISM (arXiv 2502.12119) averages visual tokens at a shallow layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tasks.params import ExtractSettings, PooledSettings
from tasks.problem import Problem
from tasks.vlm.batch import Batch, Prepared
from tasks.vlm.forward import Record, Taps


def statistics(settings: ExtractSettings) -> list[tuple[str, pa.DataType]]:
    """How many tokens each half averages."""
    return [("visual_tokens", pa.int32()), ("language_tokens", pa.int32())]


def taps(settings: ExtractSettings) -> Taps:
    """The chosen layers at the chosen tap; the forward stops after the deepest."""
    layers = frozenset(settings.pooled.layers)
    if settings.pooled.tap == "attention":
        return Taps(attention=layers)
    return Taps(visual=layers) if settings.pooled.parts == ("visual",) else Taps(layers=layers)


def options(settings: ExtractSettings) -> dict[str, Any]:
    """All settings of the section but its model, which the fingerprint knows by its tensors."""
    return settings.pooled.model_dump(mode="json", exclude={"model"})


def matrices(settings: ExtractSettings, width: int) -> dict[str, int]:
    """One vector: layer by layer, the parts in the order asked for."""
    return {"feature": width * len(settings.pooled.layers) * len(settings.pooled.parts)}


def examine(sample: Prepared, settings: ExtractSettings) -> Problem | None:
    """A half without tokens has no mean."""
    if "visual" in settings.pooled.parts and not sample.n_visual:
        return Problem("no_image", "the sample shows no image, so it has no visual states")
    if "language" in settings.pooled.parts and not (sample.instruction | sample.answer).any():
        return Problem("no_language", "no text token is left to average")
    return None


def compute(batch: Batch, record: Record, settings: ExtractSettings) -> dict[str, np.ndarray[Any, Any]]:
    """feature (B, layers x parts x d) float32 and the tokens averaged."""
    pooled = settings.pooled
    states = record.hidden if pooled.tap == "residual" else record.projected
    masks = {"visual": batch.visual, "language": batch.instruction | batch.answer}
    halves = [
        pool(states[layer], masks[part].to(states[layer].device), pooled)
        for layer in pooled.layers
        for part in pooled.parts
    ]
    feature = torch.cat(halves, dim=1)
    if pooled.normalise:
        feature = feature / len(halves) ** 0.5
    return {
        "feature": feature.cpu().numpy(),
        "visual_tokens": masks["visual"].sum(1).numpy().astype(np.int32),
        "language_tokens": masks["language"].sum(1).numpy().astype(np.int32),
    }


def pool(states: Tensor, mask: Tensor, settings: PooledSettings) -> Tensor:
    """(B, d) float32: the mean of states (B, L, d) under mask (B, L), squashed and scaled as asked."""
    values = states.float()
    if settings.tanh == "before":
        values = values.tanh()
    # Padding may hold anything, NaN included: it is left out, not multiplied by zero.
    kept = torch.where(mask[..., None], values, 0.0)
    mean = kept.sum(1) / mask.sum(1, keepdim=True)
    if settings.tanh == "after":
        mean = mean.tanh()
    return torch.nn.functional.normalize(mean, dim=1) if settings.normalise else mean
