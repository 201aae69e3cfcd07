"""A tall matrix that may not fit in memory: all that a numeric routine needs to know about features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Block = NDArray[Any]
"""(b, d) float32; float64 where the source is float64, so that precision somebody paid for is not thrown away."""

BUFFER_CELLS = 1 << 25
"""Cells of a working buffer: 128 MiB of float32."""


class Matrix(Protocol):
    """n rows of d columns, readable again and again in row order, a block at a time."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""

    def blocks(self) -> Iterator[Block]:
        """Yield (b, d) blocks in row order; together they are the n rows. May be called repeatedly."""

    def take(self, rows: NDArray[np.int64]) -> Block:
        """The given rows, in the order asked for, as (len(rows), d)."""


class ArrayMatrix:
    """A Matrix over an array in memory (or memory-mapped); anything but float64 becomes float32, block by block."""

    def __init__(self, array: NDArray[Any], block_rows: int = 8192) -> None:
        if array.ndim != 2:
            raise ValueError(f"expected a matrix (rows x columns), got shape {array.shape}")
        self._array = array
        self._block_rows = block_rows
        self._dtype = np.float64 if array.dtype == np.float64 else np.float32

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self._array.shape[0], self._array.shape[1]

    def blocks(self) -> Iterator[Block]:
        """Yield blocks in row order."""
        for start in range(0, len(self._array), self._block_rows):
            yield np.asarray(self._array[start : start + self._block_rows], dtype=self._dtype)

    def take(self, rows: NDArray[np.int64]) -> Block:
        """The given rows, in the order asked for."""
        return np.asarray(self._array[rows], dtype=self._dtype)


class ColumnSlice:
    """Some columns of a Matrix, as a Matrix: one half of a concatenated feature, for instance."""

    def __init__(self, matrix: Matrix, columns: slice | NDArray[np.int64]) -> None:
        self._matrix = matrix
        self._columns = np.arange(matrix.shape[1])[columns]

    @property
    def shape(self) -> tuple[int, int]:
        """(n, number of columns kept)."""
        return self._matrix.shape[0], len(self._columns)

    def blocks(self) -> Iterator[Block]:
        """Yield blocks in row order."""
        for block in self._matrix.blocks():
            yield block[:, self._columns]

    def take(self, rows: NDArray[np.int64]) -> Block:
        """The given rows, in the order asked for."""
        return self._matrix.take(rows)[:, self._columns]


class RowSlice:
    """Some rows of a Matrix, in the order given, as a Matrix; read a block at a time, never copied as a whole."""

    def __init__(self, matrix: Matrix, rows: NDArray[np.int64]) -> None:
        self._matrix = matrix
        self._rows = rows

    @property
    def shape(self) -> tuple[int, int]:
        """(number of rows kept, d)."""
        return len(self._rows), self._matrix.shape[1]

    def blocks(self) -> Iterator[Block]:
        """Yield blocks in the order given."""
        step = buffer_rows(*self.shape)
        for start in range(0, len(self._rows), step):
            yield self._matrix.take(self._rows[start : start + step])

    def take(self, rows: NDArray[np.int64]) -> Block:
        """The given ones of the rows kept, in the order asked for."""
        return self._matrix.take(self._rows[rows])


def buffer_rows(n: int, d: int) -> int:
    """Rows of a working buffer for n x d data: set by the shape alone, so results do not depend on how it is stored."""
    return max(1, min(n, max(256, min(65_536, BUFFER_CELLS // max(d, 1)))))


def rebatched(matrix: Matrix, rows: int) -> Iterator[tuple[int, Block]]:
    """Yield (first row, block) with exactly `rows` rows in every block but the last, however the matrix is cut.

    Blocks may be views of a buffer that the next step overwrites.
    """
    buffer: Block | None = None
    start = filled = 0
    for block in matrix.blocks():
        if buffer is None:
            buffer = np.empty((rows, matrix.shape[1]), dtype=block.dtype)
        taken = 0
        while taken < len(block):
            step = min(rows - filled, len(block) - taken)
            buffer[filled : filled + step] = block[taken : taken + step]
            filled, taken = filled + step, taken + step
            if filled == rows:
                yield start, buffer
                start, filled = start + rows, 0
    if buffer is not None and filled:
        yield start, buffer[:filled]


def load(matrix: Matrix) -> Block:
    """The whole matrix as one array."""
    blocks = list(matrix.blocks())
    return np.concatenate(blocks) if blocks else np.empty(matrix.shape, dtype=np.float32)
