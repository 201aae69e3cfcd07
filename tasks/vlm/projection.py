"""Random projection of very long vectors, its matrix made block by block and never held whole.

R is (P, d) with entries +-1 or N(0, 1), over sqrt(d): lengths and inner products are kept in expectation (Johnson and
Lindenstrauss). Each block of rows has its own counter in Philox streams, so R depends on the seed alone.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

# Entries of R in memory at once.
BLOCK_ELEMENTS = 1 << 24
# Up to this many bytes, what R is made from is kept instead of drawn again for every batch.
KEPT_BYTES = 1 << 28

PROJECTION_STREAM = 0


def philox(seed: int, stream: int, counter: int = 0) -> np.random.Philox:
    """An independent stream of random bits for each seed, stream and counter."""
    return np.random.Philox(key=np.array([seed, stream], dtype=np.uint64), counter=[0, counter, 0, 0])


class Projection:
    """(n, size) -> (n, dimension)."""

    def __init__(self, size: int, dimension: int, kind: Literal["rademacher", "gaussian"], seed: int) -> None:
        self.size = size
        self._dimension = dimension
        self._kind = kind
        self._seed = seed
        self._step = max(1, BLOCK_ELEMENTS // dimension)
        bytes_each = dimension / 8 if kind == "rademacher" else 4 * dimension
        self._keeps = size * bytes_each <= KEPT_BYTES
        self._drawn: dict[int, Tensor] = {}

    def __call__(self, vectors: Tensor) -> Tensor:
        """(n, dimension) float64 of (n, size) float32 vectors: products in float32, sums over blocks in float64."""
        total = torch.zeros(len(vectors), self._dimension, dtype=torch.float64, device=vectors.device)
        for number, start in enumerate(range(0, self.size, self._step)):
            part = vectors[:, start : start + self._step]
            total += part @ self.block(number, part.shape[1], vectors.device)
        return total.div_(self._dimension**0.5)

    def block(self, number: int, rows: int, device: torch.device) -> Tensor:
        """(rows, dimension) float32: the first rows of block `number` of sqrt(d) R."""
        drawn = self._drawn.get(number)
        if drawn is None:
            drawn = self._draw(number, rows).to(device)
            if self._keeps:
                self._drawn[number] = drawn
        return drawn if self._kind == "gaussian" else self._signs(drawn)

    def _draw(self, number: int, rows: int) -> Tensor:
        bits = philox(self._seed, PROJECTION_STREAM, number)
        if self._kind == "gaussian":
            drawn = np.random.Generator(bits).standard_normal((rows, self._dimension), dtype=np.float32)
            return torch.from_numpy(drawn)
        words = -(-self._dimension // 64)
        drawn_bits = bits.random_raw(rows * words).astype("<u8", copy=False)
        return torch.from_numpy(drawn_bits.view(np.uint8).reshape(rows, words * 8))

    def _signs(self, drawn: Tensor) -> Tensor:
        """One bit a sign, the lowest bit of a byte first."""
        shifts = torch.arange(8, dtype=torch.uint8, device=drawn.device)
        bits = (drawn[:, :, None] >> shifts) & 1
        return bits.reshape(len(drawn), -1)[:, : self._dimension].float().mul_(2).sub_(1)
