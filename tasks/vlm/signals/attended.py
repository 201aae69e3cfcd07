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
    hidden = record.hidden[0]
    rows, kept = [], []
    for index, attention in enumerate(record.attention):
        chosen = leading(attention, settings.attention_threshold)
        visual = batch.visual[index].nonzero().squeeze(1).to(hidden.device)
        rows.append(hidden[index, visual[chosen]].float().mean(0))
        kept.append(len(chosen))
    return {
        "feature": torch.stack(rows).cpu().numpy(),
        "visual_tokens": batch.visual.sum(1).numpy().astype(np.int32),
        "instruction_tokens": batch.instruction.sum(1).numpy().astype(np.int32),
        "kept_tokens": np.array(kept, dtype=np.int32),
    }


def leading(attention: Tensor, threshold: float) -> Tensor:
    """Positions, highest attention first, of the smallest set whose share exceeds `threshold`; all if none does.

    attention (n,) non-negative, n >= 1; uniform when it sums to zero. Ties go to the earlier token.
    """
    total = attention.sum()
    share = torch.where(total > 0, attention / total, torch.full_like(attention, 1 / len(attention)))
    ranked, order = share.sort(descending=True, stable=True)
    below = int((ranked.cumsum(0) <= threshold).sum())
    return order[: min(below + 1, len(order))]
