"""Spherical k-means: rows and centroids of unit length, nearest by cosine.

The result is the same on any number of threads: float32 products only shortlist, near ties are settled by float64 dot
products taken row by row, and centroid sums run in row order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tasks.linalg.matrix import BUFFER_CELLS, Block, Matrix, rebatched
from tasks.linalg.rescaled import held_unit, unit_rows
from tasks.linalg.sampling import draws

NEAR = 1e-5
"""Cosines closer than this may be told apart wrongly by float32."""
ROWS_PER_CLUSTER = 66
"""COINCIDE's 10,000 clusters for the 665K rows of LLaVA-1.5."""


@dataclass(frozen=True)
class Clusters:
    """labels: (n,) int64, 0..K-1, none empty. centroids: (K, d) float32 of unit length. iterations: updates done."""

    labels: NDArray[np.int64]
    centroids: NDArray[np.float32]
    iterations: int


def initial_rows(digests: NDArray[np.str_], clusters: int | None, seed: int) -> NDArray[np.int64]:
    """Rows to start from, drawn by content. `clusters`: at most one a row; None: one for every 66 rows, as COINCIDE."""
    n = len(digests)
    count = min(n, clusters or max(1, round(n / ROWS_PER_CLUSTER)))
    drawn = draws(digests, np.random.default_rng(seed))
    return np.lexsort((digests, drawn))[:count].astype(np.int64)


def spherical_kmeans(matrix: Matrix, initial: NDArray[np.int64], iterations: int) -> Clusters:
    """Lloyd's algorithm from the rows `initial`; equal ones count once. Stops early when no label changes.

    A cluster that loses its last row keeps its centroid, and is dropped at the end if still empty.
    Cost: 2 n d K a pass. Memory: unit rows when they fit in 1 GiB, centroids in float32 and float64, a 128 MiB buffer.
    """
    unit = held_unit(matrix)
    centroids = _distinct(unit.take(initial).astype(np.float32))
    labels, sums = assign(unit, centroids)
    done = 0
    while done < iterations:
        centroids = _updated(centroids, sums)
        previous, (labels, sums) = labels, assign(unit, centroids)
        done += 1
        if np.array_equal(previous, labels):
            break
    kept, compact = np.unique(labels, return_inverse=True)
    return Clusters(compact.astype(np.int64), centroids[kept], done)


def assign(unit: Matrix, centroids: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Nearest centroid of every unit row, and the (K, d) float64 sums of the rows of each."""
    n, d = unit.shape
    labels = np.zeros(n, dtype=np.int64)
    sums = np.zeros(centroids.shape)
    rows = max(1, min(n, BUFFER_CELLS // (2 * max(d, len(centroids)))))
    for start, block in rebatched(unit, rows):
        found = nearest(block, centroids)
        labels[start : start + len(block)] = found
        sums += _sum_by(found, block, len(centroids))
    return labels, sums


def label_sums(matrix: Matrix, labels: NDArray[np.int64], clusters: int) -> NDArray[np.float64]:
    """(K, d) float64 sums of the rows of each label, in row order."""
    n, d = matrix.shape
    sums = np.zeros((clusters, d))
    for start, block in rebatched(matrix, max(1, min(n, BUFFER_CELLS // (2 * max(d, 1))))):
        sums += _sum_by(labels[start : start + len(block)], block, clusters)
    return sums


def _sum_by(labels: NDArray[np.int64], block: Block, clusters: int) -> NDArray[np.float64]:
    ones = (np.ones(len(block)), (labels, np.arange(len(block))))
    sums: NDArray[np.float64] = sparse.csr_array(ones, shape=(clusters, len(block))) @ block.astype(np.float64)
    return sums


def nearest(block: Block, centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """The centroid of largest dot product with each row; the lower one on a tie."""
    cosine = block.astype(np.float32) @ centroids.T
    rows = np.arange(len(block))
    best: NDArray[np.int64] = cosine.argmax(axis=1)
    top = cosine[rows, best]
    cosine[rows, best] = -np.inf
    close = np.flatnonzero(cosine.max(axis=1) >= top - NEAR)
    cosine[rows, best] = top
    contender = cosine[close] >= (top[close] - NEAR)[:, None]
    best[close] = _settle_ties(block[close], centroids, contender)
    return best


def _settle_ties(block: Block, centroids: NDArray[np.float32], contender: NDArray[np.bool_]) -> NDArray[np.int64]:
    exact = np.full(contender.shape, -np.inf)
    row, centroid = np.nonzero(contender)
    step = max(1, BUFFER_CELLS // (4 * centroids.shape[1]))
    for start in range(0, len(row), step):
        some = slice(start, start + step)
        left, right = block[row[some]].astype(np.float64), centroids[centroid[some]].astype(np.float64)
        exact[row[some], centroid[some]] = np.einsum("ij,ij->i", left, right)
    winner: NDArray[np.int64] = exact.argmax(axis=1)
    return winner


def _updated(centroids: NDArray[np.float32], sums: NDArray[np.float64]) -> NDArray[np.float32]:
    alive = np.einsum("ij,ij->i", sums, sums) > 0
    return np.where(alive[:, None], unit_rows(sums).astype(np.float32), centroids)


def _distinct(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    first = np.unique(rows, axis=0, return_index=True)[1]
    return rows[np.sort(first)]
