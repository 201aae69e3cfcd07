"""The `attended` signal of ScalSelect (arXiv 2602.11636, sections 3.1-3.2): what the instruction looks at.

Attention of decoder layer 0 from instruction tokens to visual tokens, averaged over heads and instruction tokens and
normalised, ranks the visual tokens; the smallest leading set whose mass exceeds the threshold is averaged, unweighted,
over the raw output of the same layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tasks.params import ExtractSettings
from tasks.problem import Problem
from tasks.vlm.batch import Batch, Prepared
from tasks.vlm.forward import Record, Taps


def statistics(settings: ExtractSettings) -> list[tuple[str, pa.DataType]]:
    """How many tokens were looked at, looked from, and averaged."""
    return [(f"{name}_tokens", pa.int32()) for name in ("visual", "instruction", "kept")]


def taps(settings: ExtractSettings) -> Taps:
    """Attention rows and output of the first layer."""
    return Taps(rows=True, visual=frozenset({0}))


def options(settings: ExtractSettings) -> dict[str, Any]:
    """The settings that change this signal beyond what all signals of the model share."""
    return {"attention_threshold": settings.attention_threshold}


def matrices(settings: ExtractSettings, width: int) -> dict[str, int]:
    """One vector of the decoder's width."""
    return {"feature": width}


def examine(sample: Prepared, settings: ExtractSettings) -> Problem | None:
    """Why a sample has no such feature, if so."""
    if not sample.n_visual:
        return Problem("no_image", "the sample shows no image, so nothing can be attended")
    if not sample.instruction.any():
        return Problem("no_instruction", "no instruction token is left to attend from")
    return None


def compute(batch: Batch, record: Record, settings: ExtractSettings) -> dict[str, np.ndarray[Any, Any]]:
    """feature (B, d) float32 and the counts of visual, instruction and kept tokens, (B,) int32 each."""
    hidden, attention = record.hidden[0], record.attention
    assert attention is not None
    chosen = leading(attention, batch.visual.to(attention.device), settings.attention_threshold)
    kept = chosen.sum(1)
    # Filled with zeros, not multiplied by them: what stands at other tokens need not be a number.
    sums = hidden.masked_fill(~chosen[:, :, None], 0).sum(1, dtype=torch.float32)
    return {
        "feature": (sums / kept[:, None]).cpu().numpy(),
        "visual_tokens": batch.visual.sum(1).numpy().astype(np.int32),
        "instruction_tokens": batch.instruction.sum(1).numpy().astype(np.int32),
        "kept_tokens": kept.cpu().numpy().astype(np.int32),
    }


def leading(attention: Tensor, visual: Tensor, threshold: float) -> Tensor:
    """(B, L) boolean: the fewest visual tokens whose share of the attention exceeds `threshold`; all if none do.

    attention (B, L) non-negative and zero off the visual tokens, visual (B, L) with one or more true in each row.
    Uniform where a row sums to zero. Ties go to the earlier token.
    """
    total = attention.sum(1, keepdim=True)
    share = torch.where(total > 0, attention / total, 1 / visual.sum(1, keepdim=True))
    ranked, order = share.masked_fill(~visual, -1).sort(dim=1, descending=True, stable=True)
    below = (ranked.clamp(min=0).cumsum(1) <= threshold).sum(1, keepdim=True)
    places = torch.arange(order.shape[1], device=order.device)
    return torch.zeros_like(visual).scatter(1, order, places <= below) & visual
