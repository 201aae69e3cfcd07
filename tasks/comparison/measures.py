"""What a subset is like: against another subset, and against the whole set in a space of features.

All are exact but two, which above `sample` rows are measured at a sample drawn by content: the distances to the nearest
selected row (the largest is then a lower bound), and the share of near duplicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.linalg.kmeans import initial_rows, spherical_kmeans
from tasks.linalg.matrix import ArrayMatrix, Matrix, RowSlice, load
from tasks.linalg.moments import Moments, measure
from tasks.linalg.neighbours import nearest_to
from tasks.linalg.rescaled import HELD_CELLS, Rescaled
from tasks.linalg.sampling import draws
from tasks.linalg.spectrum import from_moments, from_rows

Rows = NDArray[np.int64]

ENERGY = 0.9
"""Share of the whole set's energy that decides how many directions are compared, as in ScalSelect (section 3.2)."""
CLUSTERS, ITERATIONS = 1000, 10


@dataclass(frozen=True)
class Space:
    """The whole set as the measures see it, worked out once.

    moments: of all n rows. rank: directions that hold ENERGY of the spread; held: the share they do hold, which no
    subset can exceed. labels: (n,) spherical k-means cluster of each row. clusters: how many there are.
    draw: (n,) a number in (0, 1) for each row's content. sample: rows measured at, at most; queries: those rows.
    """

    matrix: Matrix
    moments: Moments
    rank: int
    held: float
    labels: NDArray[np.int64]
    clusters: int
    draw: NDArray[np.float64]
    sample: int
    queries: Matrix

    @property
    def spread(self) -> float:
        """Root mean square distance of a row from the mean: the unit of distances."""
        return float(np.sqrt(np.trace(self.moments.scatter) / max(1, self.moments.count)))


def survey(matrix: Matrix, digests: NDArray[np.str_], clusters: int | None, sample: int) -> Space:
    """Take in the (n, d) whole. clusters: by default the root of n, at most 1000.

    Cost: n d^2 + 9 d^3, and 2 n d clusters for each of at most ten passes of k-means.
    """
    n, d = matrix.shape
    held: Matrix = ArrayMatrix(load(matrix)) if n * d <= HELD_CELLS else matrix
    moments = measure(held)
    spectrum = from_rows(held) if n < d else from_moments(moments)
    rank, total = spectrum.rank_for(ENERGY), float(spectrum.values.sum())
    draw = draws(digests, np.random.default_rng(0))
    found = spherical_kmeans(held, initial_rows(digests, clusters or _root(n), seed=0), ITERATIONS)
    return Space(
        matrix=held,
        moments=moments,
        rank=rank,
        held=float(spectrum.values[:rank].sum()) / total if total else 1.0,
        labels=found.labels,
        clusters=len(found.centroids),
        draw=draw,
        sample=sample,
        queries=RowSlice(held, _sampled(np.arange(n), draw, sample)),
    )


def captured(space: Space, picks: Rows) -> float:
    """Share of the whole set's energy in the span of the subset's own `rank` strongest directions.

    Energy is the squared distance from the mean of the whole, for both: a subset that lies off-centre has a direction
    there. 1 where all rows of the whole are equal, 0 for an empty subset. Cost: N d^2 + 9 d^3, or N^2 d where N < d.
    """
    total = float(np.trace(space.moments.scatter))
    if not len(picks) or total <= 0:
        return float(len(picks) > 0)
    rows = Rescaled(RowSlice(space.matrix, np.sort(picks)), space.moments.mean)
    few = rows.shape[0] < rows.shape[1]
    spectrum = from_rows(rows, centred=False) if few else from_moments(measure(rows), centred=False)
    basis = spectrum.vectors[:, : min(space.rank, spectrum.numerical_rank)]
    return float(np.einsum("ij,ij->", basis, space.moments.scatter @ basis)) / total


def radius(space: Space, picks: Rows) -> tuple[float, float]:
    """Largest and mean distance of a row from its nearest selected row, in units of the spread; NaN without picks.

    The largest is the radius of the k-center problem. Cost: min(n, sample) x N x d.
    """
    if not len(picks):
        return float("nan"), float("nan")
    near = nearest_to(space.queries, RowSlice(space.matrix, np.sort(picks)), 1).distances[:, 0]
    unit = space.spread or 1.0
    return float(near.max()) / unit, float(near.mean()) / unit


def clusters_hit(space: Space, picks: Rows) -> float:
    """Share of the clusters of the whole that hold a selected row."""
    return len(np.unique(space.labels[picks])) / max(1, space.clusters)


def near_duplicates(space: Space, picks: Rows, threshold: float) -> float:
    """Share of the selected rows whose cosine to another selected row is above `threshold`; 0 below two rows.

    Cost: min(N, sample) x N x d.
    """
    if len(picks) < 2:
        return 0.0
    asked = RowSlice(space.matrix, _sampled(picks, space.draw, space.sample))
    # Every row finds itself too, so the second nearest is the nearest other.
    near = nearest_to(asked, RowSlice(space.matrix, np.sort(picks)), 2, "cosine").distances[:, 1]
    return float(np.mean(1.0 - near > threshold))


def jaccard(one: Rows, other: Rows) -> float:
    """Rows in both over rows in either; 1 for two empty subsets."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    either = len(one) + len(other) - both
    return both / either if either else 1.0


def overlap(subsets: Sequence[Sequence[Rows]]) -> NDArray[np.float64]:
    """(m, m) mean Jaccard of m methods, each with the subsets of its seeds, over all pairs of two seeds.

    Draws of one seed are alike in every method, so pairs of equal seeds do not count where both have several. A method
    against itself: how much of a subset another seed would keep; 1 where there is one subset.
    """
    return np.array([[_mean_overlap(mine, theirs) for theirs in subsets] for mine in subsets])


def _mean_overlap(mine: Sequence[Rows], theirs: Sequence[Rows]) -> float:
    several = len(mine) > 1 and len(theirs) > 1
    pairs = [(i, j) for i in range(len(mine)) for j in range(len(theirs)) if i != j or not several]
    return float(np.mean([jaccard(mine[i], theirs[j]) for i, j in pairs]))


def total_variation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Half the sum of differences of two distributions: the share of rows that would have to change their kind."""
    return float(np.abs(one - other).sum()) / 2


def _sampled(rows: Rows, draw: NDArray[np.float64], count: int) -> Rows:
    """At most `count` of the rows, by their draw, in row order."""
    return np.sort(rows[np.argsort(draw[rows], kind="stable")[:count]])


def _root(n: int) -> int:
    return min(CLUSTERS, max(1, round(float(np.sqrt(n)))))
