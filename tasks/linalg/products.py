"""The two matrix products that scoring spends its time in, behind one small seam: a GPU may take them over."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

from tasks.linalg.matrix import Block

_STRIP = 256


class Products(Protocol):
    """Products of a block of rows, in the block's own dtype (float32 or float64)."""

    def gram(self, rows: Block) -> Block:
        """(d, d) X^T X of (b, d) rows; only the upper triangle counts."""

    def times(self, rows: Block, basis: Block) -> Block:
        """(b, k) product of (b, d) rows and a (d, k) basis."""


class HostProducts:
    """BLAS on the CPU. The symmetric product leaves the lower triangle alone: half the work, and no copying over."""

    def gram(self, rows: Block) -> Block:
        """X^T X by syrk."""
        if not len(rows):
            return np.zeros((rows.shape[1], rows.shape[1]), dtype=rows.dtype)
        syrk = blas.dsyrk if rows.dtype == np.float64 else blas.ssyrk
        product: Block = syrk(1.0, rows.T, lower=1).T
        return product

    def times(self, rows: Block, basis: Block) -> Block:
        """X B."""
        product: Block = rows @ basis
        return product


HOST = HostProducts()


def add_triangle(total: NDArray[np.float64], part: NDArray[Any]) -> None:
    """Add the upper triangle of `part` to that of `total`, in place; what lies below it is left undefined."""
    for start in range(0, len(total), _STRIP):
        total[start : start + _STRIP, start:] += part[start : start + _STRIP, start:]


def mirror(square: NDArray[Any]) -> None:
    """Copy the upper triangle onto the lower, in place."""
    for start in range(0, len(square), _STRIP):
        stop = start + _STRIP
        corner = square[start:stop, start:stop]
        corner[:] = np.triu(corner) + np.triu(corner, 1).T
        square[stop:, start:stop] = square[start:stop, stop:].T


def pack_triangle(square: NDArray[Any]) -> NDArray[Any]:
    """The upper triangle, row after row, in d (d + 1) / 2 numbers."""
    return np.concatenate([np.empty(0, square.dtype), *(row[number:] for number, row in enumerate(square))])


def unpack_triangle(packed: NDArray[Any], d: int) -> NDArray[Any]:
    """What `pack_triangle` packed, zeros below the diagonal. Raises ValueError when it is not of that size."""
    if packed.shape != (d * (d + 1) // 2,):
        raise ValueError(f"{packed.shape} numbers are no triangle of {d}")
    square = np.zeros((d, d), dtype=packed.dtype)
    start = 0
    for number in range(d):
        square[number, number:] = packed[start : start + d - number]
        start += d - number
    return square
