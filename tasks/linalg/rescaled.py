"""A Matrix whose rows are centred, scaled by column and brought to unit length as they are read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tasks.linalg.matrix import ArrayMatrix, Block, Matrix, buffer_rows, load, rebatched
from tasks.linalg.moments import product_dtype

HELD_CELLS = 1 << 28
"""Cells up to which unit rows are kept in memory between passes: 1 GiB of float32."""


class Rescaled:
    """Rows (x - centre) / scale, then divided by their length when `unit`; a row of zeros stays zero.

    centre, scale: (d,) float64, or None to leave as is. Blocks are float64 where products would be (see moments).
    """

    def __init__(
        self,
        matrix: Matrix,
        centre: NDArray[np.float64] | None = None,
        scale: NDArray[np.float64] | None = None,
        unit: bool = False,
    ) -> None:
        self._matrix = matrix
        self._centre = centre
        self._scale = scale
        self._unit = unit

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self._matrix.shape

    def blocks(self) -> Iterator[Block]:
        """Yield rescaled blocks in row order."""
        for block in self._matrix.blocks():
            yield self._rescale(block)

    def take(self, rows: NDArray[np.int64]) -> Block:
        """The given rows, rescaled, in the order asked for."""
        return self._rescale(self._matrix.take(rows))

    def _rescale(self, block: Block) -> Block:
        rows: Block = block.astype(product_dtype(self.shape, block.dtype))
        if self._centre is not None:
            rows = centred(rows, self._centre)
        if self._scale is not None:
            rows /= self._scale.astype(rows.dtype)
        return unit_rows(rows) if self._unit else rows


def centred(rows: Block, centre: NDArray[np.float64]) -> Block:
    """rows - centre in the dtype of the rows; what rounding leaves of numbers equal to their centre becomes 0.

    Without this, scaling to unit length would make a direction out of rounding.
    """
    near = centre.astype(rows.dtype)
    left: Block = rows - near
    left[np.abs(left) <= 4 * np.finfo(rows.dtype).eps * np.abs(near)] = 0
    return left


def unit_rows(rows: Block) -> Block:
    """Rows divided by their Euclidean length, in their own dtype; rows of zeros stay zero."""
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return rows / np.where(length > 0, length, 1)[:, None]


def held_unit(matrix: Matrix) -> Matrix:
    """Unit rows for many passes: in memory where they fit (1 GiB), else normalised again on every pass."""
    unit = Rescaled(matrix, unit=True)
    n, d = matrix.shape
    return ArrayMatrix(load(unit)) if n * d <= HELD_CELLS else unit


def column_mean(matrix: Matrix) -> NDArray[np.float64]:
    """(d,) mean of every column, summed in float64. Zeros when there is no row."""
    n, d = matrix.shape
    total = np.zeros(d)
    for _, block in rebatched(matrix, buffer_rows(n, d)):
        total += block.sum(axis=0, dtype=np.float64)
    return total / max(n, 1)


def column_spread(matrix: Matrix, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """(d,) standard deviation of every column about `mean` (divisor n), 1 where a column is constant."""
    n, d = matrix.shape
    total = np.zeros(d)
    for _, block in rebatched(matrix, buffer_rows(n, d)):
        total += np.square(block - mean).sum(axis=0)
    spread: NDArray[np.float64] = np.sqrt(total / max(n, 1))
    # The mean of equal numbers is off by rounding; what is left is not spread.
    rounding = np.finfo(np.float64).eps * np.abs(mean) * np.sqrt(max(n, 1))
    return np.where(spread > rounding, spread, 1.0)
