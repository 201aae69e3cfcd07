"""Logits at a few positions, never all of them at once: the vocabulary goes by in chunks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Logits held at once: positions x vocabulary chunk.
CHUNK_ELEMENTS = 1 << 24


@torch.inference_mode()
def score_tokens(hidden: Tensor, tokens: Tensor, head: Any) -> dict[str, Tensor]:
    """nll, el2n, margin and entropy, each (t,) float64 on the CPU: see tasks.linalg.tokens, whose results these are.

    hidden (t, d): final states that predict the tokens (t,); head: the model's output embedding (weight (v, d), maybe
    bias). The softmax is accumulated over vocabulary chunks in float64: its running maximum m, and over the tokens
    other than the right one sum e^(z-m), sum e^2(z-m), sum z e^(z-m) and the largest z.
    """
    weight, bias = head.weight, getattr(head, "bias", None)
    low = torch.full((len(hidden),), -torch.inf, device=hidden.device, dtype=torch.float64)
    top, best, own = low, low, low.clone()
    first = second = product = torch.zeros_like(low)
    step = max(1, CHUNK_ELEMENTS // max(1, len(hidden)))
    for start in range(0, len(weight), step):
        part = slice(start, start + step)
        z = torch.nn.functional.linear(hidden, weight[part], None if bias is None else bias[part]).double()
        here = (tokens >= start) & (tokens < start + z.shape[1])
        own[here] = z[here, tokens[here] - start]
        fresh = torch.maximum(top, z.amax(1))
        z[here, tokens[here] - start] = -torch.inf
        best = torch.maximum(best, z.amax(1))
        shrink, weights = (top - fresh).exp(), (z - fresh[:, None]).exp()
        first = first * shrink + weights.sum(1)
        second = second * shrink**2 + (weights**2).sum(1)
        product = product * shrink + torch.where(weights > 0, weights * z, 0.0).sum(1)
        top = fresh
    mine = (own - top).exp()
    total = first + mine
    scores = {
        "nll": total.log() + top - own,
        "el2n": (second + first**2).sqrt() / total,
        "margin": (mine - (best - top).exp()) / total,
        "entropy": total.log() + top - (product + mine * own) / total,
    }
    return {name: value.cpu() for name, value in scores.items()}
