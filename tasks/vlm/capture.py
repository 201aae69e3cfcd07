"""Attention rows, taken inside the model's own attention call.

transformers hands every decoder layer's queries and keys, after norms and rotary embedding, to a registered function.
Ours lets SDPA compute the layer's output and, for the layer asked for, forms the probabilities of the instruction
tokens' rows alone, keeping their visual columns: never the L x L matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
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

# Probabilities held at once while forming rows: heads x rows x keys.
CHUNK_ELEMENTS = 1 << 24


@dataclass
class Rows:
    """What to take: layer `layer`, the batch's instruction rows and visual columns.

    `attention` receives, for each sample, the (n_visual,) float32 mean over heads and instruction tokens of the
    attention paid to each visual token; zeros where a sample has no instruction token.
    """

    batch: Batch
    layer: int = 0
    attention: list[Tensor] = field(default_factory=list)


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
    """Append each sample's mean attention from instruction tokens to visual tokens.

    query (B, H, L, D), key (B, H_kv, L, D), mask (B | 1, 1, L, L) boolean or additive, or None for plain causal.
    """
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    is_causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if is_causal is None else bool(is_causal)
    for index in range(len(rows.batch)):
        asking = rows.batch.instruction[index].nonzero().squeeze(1).to(query.device)
        seen = rows.batch.visual[index].nonzero().squeeze(1).to(query.device)
        own_mask = None if mask is None else mask[index if len(mask) > 1 else 0]
        rows.attention.append(mean_attention(query[index], key[index], own_mask, asking, seen, scaling, causal))


def mean_attention(
    query: Tensor, key: Tensor, mask: Tensor | None, asking: Tensor, seen: Tensor, scaling: float, causal: bool
) -> Tensor:
    """(n_seen,) float32: attention of the `asking` rows to the `seen` columns, averaged over heads and rows.

    query (H, L, D), key (H_kv, L, D), mask (1, L, L) or None. The softmax runs over every key a row may see, in
    float32; rows go through in chunks, so memory is bounded by CHUNK_ELEMENTS.
    """
    heads, length, _ = query.shape
    total = torch.zeros(len(seen), device=query.device, dtype=torch.float32)
    keys = key.float().transpose(1, 2)
    step = max(1, CHUNK_ELEMENTS // (heads * length))
    for part in torch.split(asking, step) if len(asking) else ():
        allowed = _allowed(mask, part, length, causal)
        logits = _logits(query[:, part].float() * scaling, keys)
        logits = logits + allowed if allowed.is_floating_point() else logits.masked_fill(~allowed, -torch.inf)
        total += logits.softmax(-1)[..., seen].sum((0, 1))
    return total / max(1, heads * len(asking))


def _logits(query: Tensor, keys: Tensor) -> Tensor:
    """(H, rows, L) from query (H, rows, D) and keys (H_kv, D, L): head h reads key head h // (H / H_kv)."""
    heads, rows, width = query.shape
    grouped = query.reshape(len(keys), -1, width)
    return (grouped @ keys).reshape(heads, rows, -1)


def _allowed(mask: Tensor | None, rows: Tensor, length: int, causal: bool) -> Tensor:
    """(rows, L): which keys each row may see, boolean, or an additive float mask as the model gave it."""
    if mask is not None:
        return mask[0, rows]
    positions = torch.arange(length, device=rows.device)
    return positions <= rows[:, None] if causal else torch.ones(len(rows), length, dtype=torch.bool, device=rows.device)
