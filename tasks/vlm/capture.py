"""Attention rows, taken inside the model's own attention call.

transformers hands every decoder layer's queries and keys, after norms and rotary embedding, to a registered function.
Ours lets SDPA compute the layer's output and, for the layer asked for, forms the probabilities of the instruction
tokens' rows alone, keeping their visual columns: never the L x L matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tasks.errors import ModelError
from tasks.vlm.batch import Batch

NAME = "scalselect_rows"

# Keyword arguments by which transformers changes the softmax; SDPA, which computes the layer, knows none of them.
UNREADABLE = {"softcap": "soft-capped logits", "s_aux": "attention sinks", "position_bias": "a position bias"}

# Probabilities held at once while forming rows: samples x heads x rows x keys.
CHUNK_ELEMENTS = 1 << 24


@dataclass
class Rows:
    """What to take: layer `layer`, the rows of the batch's instruction tokens.

    `attention` becomes (B, L) float32: what each token is paid, the mean over heads and instruction tokens, zero
    where it is not visual and where a sample has no instruction token. None until the layer has spoken.
    """

    batch: Batch
    layer: int = 0
    attention: Tensor | None = None


_wanted: ContextVar[Rows | None] = ContextVar("rows", default=None)


def register() -> None:
    """Make the capture known to transformers under NAME, with SDPA's masks (padding and sliding windows included)."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def capturing(batch: Batch, layer: int = 0) -> Iterator[Rows]:
    """Within the block, a forward of `batch` leaves its attention rows in the object yielded."""
    rows = Rows(batch, layer)
    token = _wanted.set(rows)
    try:
        yield rows
    finally:
        _wanted.reset(token)


def attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """An attention function of transformers: SDPA's output, and the rows that are wanted. Raises ModelError."""
    for name, what in UNREADABLE.items():
        if options.get(name) is not None:
            raise ModelError(f"{type(module).__name__} uses {what}, which SDPA and the captured rows do not have")
    rows = _wanted.get()
    if rows is not None and getattr(module, "layer_idx", None) == rows.layer:
        take(rows, module, query, key, attention_mask, options)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)  # type: ignore[no-any-return]


def take(
    rows: Rows, module: torch.nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, options: dict[str, Any]
) -> None:
    """Leave the mean attention from instruction tokens to visual tokens.

    query (B, H, L, D), key (B, H_kv, L, D), mask (B | 1, 1, L, L) boolean or additive, or None for plain causal.
    """
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    is_causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if is_causal is None else bool(is_causal)
    paid = mean_attention(query, key, mask, rows.batch.instruction, scaling, causal)
    rows.attention = paid * rows.batch.visual.to(query.device, non_blocking=True)


def mean_attention(
    query: Tensor, key: Tensor, mask: Tensor | None, asking: Tensor, scaling: float, causal: bool
) -> Tensor:
    """(B, L) float32: attention paid to every token by the sample's `asking` rows, averaged over heads and rows.

    query (B, H, L, D), key (B, H_kv, L, D), mask (B | 1, 1, L, L) or None, asking (B, L) boolean on the CPU. The
    softmax runs over every key a row may see, in float32; samples and rows go through in chunks of CHUNK_ELEMENTS
    probabilities, with nothing read back from the device.
    """
    batch, heads, length, _ = query.shape
    places, real = _padded(asking)
    many = max(1, CHUNK_ELEMENTS // max(1, heads * length * places.shape[1]))
    step = max(1, CHUNK_ELEMENTS // (many * heads * length))
    total = torch.zeros(batch, length, device=query.device, dtype=torch.float32)
    for start in range(0, batch, many):
        own = slice(start, start + many)
        keys = key[own].float().transpose(2, 3)
        for first in range(0, places.shape[1], step):
            part = places[own, first : first + step].to(query.device, non_blocking=True)
            counts = real[own, first : first + step].to(query.device, non_blocking=True)
            chosen = query[own].gather(2, part[:, None, :, None].expand(-1, heads, -1, query.shape[-1]))
            logits = _logits(chosen.float() * scaling, keys)
            allowed = _allowed(mask if mask is None or len(mask) == 1 else mask[own], part, length, causal)
            logits = logits + allowed if allowed.is_floating_point() else logits.masked_fill(~allowed, -torch.inf)
            # A row that pads the table may see nothing at all; its softmax is then not a number.
            total[own] += logits.softmax(-1).masked_fill(~counts[:, None, :, None], 0).sum((1, 2))
    asked = asking.sum(1, keepdim=True).clamp(min=1).to(query.device, non_blocking=True)
    return total / (heads * asked)


def _padded(asking: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the true entries of each row, (B, R) int64, and which of them are no padding."""
    most = int(asking.sum(1).max())
    places = asking.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return places, asking.gather(1, places)


def _logits(query: Tensor, keys: Tensor) -> Tensor:
    """(B, H, R, L) from query (B, H, R, D) and keys (B, H_kv, D, L): head h reads key head h // (H / H_kv)."""
    batch, heads, rows, width = query.shape
    grouped = query.reshape(batch, keys.shape[1], -1, width)
    return (grouped @ keys).reshape(batch, heads, rows, -1)


def _allowed(mask: Tensor | None, rows: Tensor, length: int, causal: bool) -> Tensor:
    """(B, 1, R, L): which keys each row may see, boolean, or an additive float mask as the model gave it."""
    if mask is not None:
        whole = mask.expand(len(rows), 1, -1, length)
        return whole.gather(2, rows[:, None, :, None].expand(-1, 1, -1, length))
    positions = torch.arange(length, device=rows.device)
    allowed = positions <= rows[:, None, :, None]
    return allowed if causal else torch.ones_like(allowed)
