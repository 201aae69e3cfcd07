"""Principal directions of a tall matrix: from its moments, or from its rows when they are fewer than its columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.linalg.matrix import Matrix, load
from tasks.linalg.moments import Moments

EPS = float(np.finfo(np.float64).eps)
SLACK = 1e-12
"""An energy threshold met up to rounding is met: eigenvalues 9 and 1 reach 0.9 with one component."""


@dataclass(frozen=True)
class Spectrum:
    """Right singular vectors of X - centre, largest singular value first.

    centre: (d,). values: (c,) squared singular values, zero where below rounding. vectors: (d, c) float64.
    """

    centre: NDArray[np.float64]
    values: NDArray[np.float64]
    vectors: NDArray[np.float64]

    @property
    def numerical_rank(self) -> int:
        """Number of directions that are more than rounding."""
        return int(np.count_nonzero(self.values))

    def rank_for(self, energy: float) -> int:
        """The smallest number of directions that hold at least `energy` of the total; 0 when all rows are equal."""
        cumulative = np.cumsum(self.values)
        if not len(cumulative) or cumulative[-1] == 0:
            return 0
        reached = int(np.searchsorted(cumulative, (energy - SLACK) * cumulative[-1])) + 1
        return min(reached, self.numerical_rank)


def from_moments(moments: Moments, centred: bool = True) -> Spectrum:
    """Eigenvectors of the scatter (about the mean or the origin). Cost: 9 d^3; memory: about six d x d float64."""
    centre = moments.mean if centred else np.zeros_like(moments.mean)
    values, vectors = np.linalg.eigh(moments.scatter if centred else moments.about_origin())
    values = _without_noise(values[::-1], moments.precision, moments.count, centre)
    return Spectrum(centre, values, vectors[:, ::-1])


def from_rows(matrix: Matrix, centred: bool = True) -> Spectrum:
    """The same from the n x n product, in float64: for n < d, where a d x d product would be mostly null space."""
    rows = load(matrix).astype(np.float64)
    centre = rows.mean(axis=0) if centred and len(rows) else np.zeros(matrix.shape[1])
    rows -= centre
    values, left = np.linalg.eigh(rows @ rows.T)
    values = _without_noise(values[::-1], EPS, len(rows), centre)
    inverse = np.divide(1.0, np.sqrt(values), out=np.zeros_like(values), where=values > 0)
    return Spectrum(centre, values, (rows.T @ left[:, ::-1]) * inverse)


def _without_noise(
    values: NDArray[np.float64], precision: float, count: int, centre: NDArray[np.float64]
) -> NDArray[np.float64]:
    # Random rounding of c x c products moves an eigenvalue by about sqrt(c) units of roundoff of the largest; and
    # equal rows, less a mean that is itself rounded, leave a little that is no spread at all.
    products = 8 * precision * np.sqrt(len(values)) * np.max(values, initial=0.0)
    centring = count * (4 * max(EPS, precision**1.5) * np.linalg.norm(centre)) ** 2
    return np.where(values > max(products, centring), values, 0.0)
