"""A tall matrix that may not fit in memory: all that a numeric routine needs to know about features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Matrix(Protocol):
    """n rows of d columns, readable again and again in row order, a block at a time."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield (b, d) float32 blocks in row order; together they are the n rows. May be called repeatedly."""

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The given rows, in the order asked for, as (len(rows), d) float32."""


class ArrayMatrix:
    """A Matrix over an array in memory (or memory-mapped); float16 and float64 are cast block by block."""

    def __init__(self, array: NDArray[np.floating], block_rows: int = 8192) -> None:
        if array.ndim != 2:
            raise ValueError(f"expected a matrix (rows x columns), got shape {array.shape}")
        self._array = array
        self._block_rows = block_rows

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self._array.shape[0], self._array.shape[1]

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 blocks in row order."""
        for start in range(0, len(self._array), self._block_rows):
            yield np.asarray(self._array[start : start + self._block_rows], dtype=np.float32)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The given rows, in the order asked for."""
        return np.asarray(self._array[rows], dtype=np.float32)
