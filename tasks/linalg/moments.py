"""Count, mean and scatter of a tall matrix: in one streamed pass, and additive over parts.

Products of a block are formed in float32 around a shift (the mean of the first block) and accumulated in float64; what
is left of the mean is taken out once at the end by a low-rank update. The shift is what keeps precision: without it a
large column mean eats the digits of the covariance. Where float64 products cost less than a second, or the source is
float64, everything is float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.linalg.matrix import Block, Matrix, buffer_rows, rebatched
from tasks.linalg.products import HOST, Products, add_triangle, mirror

EXACT_PRODUCTS = 1 << 34
"""Multiplications n d^2 up to which float64 is used throughout."""


@dataclass(frozen=True)
class Sums:
    """What is known of `count` rows about a shift: the sum of x - shift, and of its products.

    shift, total: (d,) float64. gram: (d, d), of which the upper triangle counts. precision: unit roundoff of the
    products. Sums about one shift add up (`gather`); about several they make `Moments` (`combine`).
    """

    count: int
    shift: NDArray[np.float64]
    total: NDArray[np.float64]
    gram: NDArray[Any]
    precision: float


@dataclass(frozen=True)
class Moments:
    """What a covariance needs to know about `count` rows.

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


def measure(matrix: Matrix, products: Products = HOST) -> Moments:
    """Moments of all rows, in one pass.

    Memory: one buffer of at most 128 MiB, a float32 and a float64 d x d. Cost: n d^2 (symmetric product).
    """
    return combine([gather(_block_sums(matrix, products), matrix.shape[1])])


def sum_rows(rows: Block, shift: NDArray[Any], products: Products = HOST) -> Sums:
    """Sums of one block about `shift`, whose dtype is that of the products. `rows` may be overwritten."""
    moved = shifted(rows, shift)
    total = np.ones(len(moved), dtype=moved.dtype) @ moved
    precision = float(np.finfo(moved.dtype).eps)
    return Sums(len(moved), shift.astype(np.float64), total.astype(np.float64), products.gram(moved), precision)


def shift_of(rows: Block, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The mean of a block, as the number of type `dtype` that rows can be moved by."""
    mean: NDArray[Any] = rows.mean(axis=0, dtype=np.float64)
    return mean.astype(dtype)


def shifted(block: Block, shift: NDArray[Any]) -> Block:
    """block - shift, in the dtype of the shift; in place where the dtypes agree: the block must be the caller's."""
    rows: Block = block if block.dtype == shift.dtype else block.astype(shift.dtype)
    rows -= shift
    return rows


def gather(parts: Iterable[Sums], d: int) -> Sums:
    """Sums about one shift added up in float64, in the order given; zeros of width d when there is none."""
    count, shift, total, gram, precision = 0, np.zeros(d), np.zeros(d), np.zeros((d, d)), 0.0
    for part in parts:
        count, shift, precision = count + part.count, part.shift, max(precision, part.precision)
        total += part.total
        add_triangle(gram, part.gram)
    return Sums(count, shift, total, gram, precision)


def combine(parts: Iterable[Sums]) -> Moments:
    """Moments of the rows of all parts together, each about its own shift. Raises ValueError without parts.

    scatter = sum of grams - sum of t t^T / n + sum of n (m - mean)(m - mean)^T over the parts' own means m
    (Chan, Golub & LeVeque 1983): one product of low rank, however many parts. At most one part is held at a time.
    """
    scatter: NDArray[np.float64] | None = None
    counts, totals, means, precision = [], [], [], 0.0
    for part in parts:
        if scatter is None:
            scatter = np.zeros(part.gram.shape)
        add_triangle(scatter, part.gram)
        counts.append(part.count)
        totals.append(part.total)
        means.append(part.shift + part.total / max(part.count, 1))
        precision = max(precision, part.precision)
    if scatter is None:
        raise ValueError("no moments to combine")
    mean = _correct(scatter, np.array(counts), np.array(totals), np.array(means))
    mirror(scatter)
    return Moments(sum(counts), mean, scatter, precision)


def _correct(
    scatter: NDArray[np.float64], counts: NDArray[np.int64], totals: NDArray[np.float64], means: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Move every part of the scatter to the common mean, in place; returns that mean."""
    mean: NDArray[np.float64] = counts @ means / max(int(counts.sum()), 1)
    scatter -= (totals / np.maximum(counts, 1)[:, None]).T @ totals
    if len(counts) > 1:
        apart = means - mean
        scatter += (apart * counts[:, None]).T @ apart
    return mean


def _block_sums(matrix: Matrix, products: Products) -> Iterator[Sums]:
    shift: NDArray[Any] | None = None
    for _, block in rebatched(matrix, buffer_rows(*matrix.shape)):
        if shift is None:
            shift = shift_of(block, product_dtype(matrix.shape, block.dtype))
        yield sum_rows(block, shift, products)
