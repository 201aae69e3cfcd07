"""Gaussian kernels and greedy minimisation of the maximum mean discrepancy (MMD) between a subset and its whole.

MMD^2(S) = mean K + mean K[S, S] - 2 mean K[all, S], diagonals included, K = exp(-|x - y|^2 / (2 sigma^2)). Keeping
c = row means of K, a = sum K[S, S], b = sum c[S] and r = K[S, :] summed over S makes each pick O(n), against O(n m^2)
of the definition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DENSE_ROWS = 8192
"""Rows up to which a kernel is held as a float64 matrix: 512 MiB."""
TIE = 1e-12
"""MMD^2 values closer than this are rounding apart: the earlier row wins."""


@dataclass(frozen=True)
class Kernel:
    """means: (n,) mean of each row of K. column(j): (n,) column j of K, computed when asked for if K is not held."""

    means: NDArray[np.float64]
    column: Callable[[int], NDArray[np.float64]]


def gaussian(points: NDArray[Any], sigma: float, dense_rows: int = DENSE_ROWS) -> Kernel:
    """The Gaussian kernel of `points` (n, d) in float64: held when n <= dense_rows, else columns are made on demand."""
    x = points.astype(np.float64)
    if len(x) <= dense_rows:
        held = gaussian_block(x, x, sigma)
        np.fill_diagonal(held, 1.0)
        return Kernel(held.sum(axis=1) / max(len(x), 1), lambda j: held[:, j])
    step = max(1, dense_rows**2 // len(x))
    means = [gaussian_block(x[i : i + step], x, sigma).mean(axis=1) for i in range(0, len(x), step)]
    return Kernel(np.concatenate(means), lambda j: gaussian_block(x, x[j : j + 1], sigma)[:, 0])


def gaussian_block(x: NDArray[np.float64], y: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """(len(x), len(y)) kernel values."""
    square = np.einsum("ij,ij->i", x, x)[:, None] + np.einsum("ij,ij->i", y, y) - 2 * (x @ y.T)
    kernel: NDArray[np.float64] = np.exp(np.maximum(square, 0) / (-2 * sigma**2))
    return kernel


def greedy_mmd(kernel: Kernel) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """All n rows in greedy order, and MMD^2 after each pick. Any count is a prefix; ties go to the earlier row."""
    means, n = kernel.means, len(kernel.means)
    order, values = np.empty(n, dtype=np.int64), np.empty(n)
    overall = float(means.mean()) if n else 0.0
    inside = across = 0.0  # sum K[S, S] and sum c[S]
    reached = np.zeros(n)  # r: sum of K over the rows picked
    closed = np.zeros(n)
    for size in range(1, n + 1):
        value = (inside + 2 * reached + 1.0) / size**2 - 2 * (across + means) / size + closed
        pick = int(np.argmax(value <= value.min() + TIE))
        order[size - 1], values[size - 1] = pick, overall + value[pick]
        inside += 2 * reached[pick] + 1.0
        across += means[pick]
        reached += kernel.column(pick)
        closed[pick] = np.inf
    return order, values
