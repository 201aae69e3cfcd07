"""Count, mean and scatter of a tall matrix: in one streamed pass, and additive over parts.

Products of a block are formed in float32 around a shift (the mean of the first block) and accumulated in float64; what
is left of the mean is taken out once at the end by a rank-1 update. The shift is what keeps precision: without it a
large column mean eats the digits of the covariance. Where float64 products cost less than a second, or the source is
float64, everything is float64.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.linalg.matrix import Block, Matrix, buffer_rows, rebatched

EXACT_PRODUCTS = 1 << 34
"""Multiplications n d^2 up to which float64 is used throughout."""


@dataclass(frozen=True)
class Moments:
    """What a covariance needs to know about `count` rows. Combining parts gives the moments of the whole.

    mean: (d,) float64. scatter: (d, d) float64, sum over rows of (x - mean)(x - mean)^T.
    precision: unit roundoff of the products it was formed from.
    """

    count: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]
    precision: float

    def about_origin(self) -> NDArray[np.float64]:
        """(d, d) sum of x x^T: the scatter with the mean put back."""
        return self.scatter + self.count * np.outer(self.mean, self.mean)


def product_dtype(shape: tuple[int, int], source: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of block products for n x d data: float64 where the source is, or where it is cheap."""
    n, d = shape
    return np.dtype(np.float64 if source == np.float64 or n * d * d <= EXACT_PRODUCTS else np.float32)


def measure(matrix: Matrix) -> Moments:
    """Moments of all rows, in one pass.

    Memory: one buffer of at most 128 MiB, a float32 and a float64 d x d. Cost: n d^2 (symmetric product).
    """
    n, d = matrix.shape
    total, gram = np.zeros(d), np.zeros((d, d))
    shift: NDArray[Any] = np.zeros(d)
    dtype: np.dtype[Any] = np.dtype(np.float64)
    for start, block in rebatched(matrix, buffer_rows(n, d)):
        if start == 0:
            dtype = product_dtype(matrix.shape, block.dtype)
            shift = block.mean(axis=0, dtype=np.float64).astype(dtype)
        rows = shifted(block, shift)
        total += np.ones(len(rows), dtype=dtype) @ rows
        gram += rows.T @ rows
    return _central(n, shift.astype(np.float64), total, gram, float(np.finfo(dtype).eps))


def shifted(block: Block, shift: NDArray[Any]) -> Block:
    """block - shift, in the dtype of the shift; in place where the dtypes agree: the block must be the caller's."""
    rows: Block = block if block.dtype == shift.dtype else block.astype(shift.dtype)
    rows -= shift
    return rows


def combine(parts: Iterable[Moments]) -> Moments:
    """Moments of the rows of all parts together (Chan, Golub & LeVeque 1983). Raises ValueError without parts."""
    held = list(parts)
    if not held:
        raise ValueError("no moments to combine")
    return reduce(_merge, held)


def _merge(one: Moments, other: Moments) -> Moments:
    count = one.count + other.count
    if count == 0:
        return one
    delta = other.mean - one.mean
    between = one.count * other.count / count
    return Moments(
        count,
        one.mean + delta * (other.count / count),
        one.scatter + other.scatter + between * np.outer(delta, delta),
        max(one.precision, other.precision),
    )


def _central(
    n: int, shift: NDArray[np.float64], total: NDArray[np.float64], gram: NDArray[np.float64], precision: float
) -> Moments:
    left = total / max(n, 1)
    gram -= np.outer(left, total)
    return Moments(n, shift + left, gram, precision)
