"""ScalSelect: rows that reach furthest into the dominant subspace of instruction-attended visual features.

Source: arXiv 2602.11636, sections 3.1-3.2. Centre the columns, keep the first k directions that hold 90 % of the
energy, score a row by its rank-k leverage, keep the highest. docs/methods.md says where the authors' code differs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.linalg.leverage import coordinates, leverage
from tasks.linalg.matrix import Matrix
from tasks.linalg.moments import measure
from tasks.linalg.rescaled import Rescaled, column_mean, column_spread
from tasks.linalg.residual import greedy_residual
from tasks.linalg.rounding import settle
from tasks.linalg.sampling import draws, weighted_keys
from tasks.linalg.spectrum import Spectrum, from_moments, from_rows
from tasks.methods.contract import Columns, Notes, Tables, best_first, digest_order, signal_of, take_best


@dataclass(frozen=True)
class Options:
    """`methods.scalselect`.

    preset: `paper` and `official` (what the authors' run_cur.sh passes) score alike, by centring only; `official-cli`
        is what their command does when given no flag: columns divided by their spread, then rows of unit length.
    energy: share of the squared singular values that the kept directions hold.
    rank: keep this many directions instead.
    ridge: lambda of x^T (X^T X + lambda I)^-1 x. With a ridge every direction counts, unless `rank` is given.
    standardise, row_normalise: divide columns by their spread; bring rows to unit length. Null: as the preset says.
    sampling: `top` takes the highest scores; `leverage` draws without replacement, in proportion to score; `residual`
        takes the highest leverage left after what was picked, so that picks spread over directions.
    features: the matrix to score.
    """

    preset: Literal["paper", "official", "official-cli"] = "paper"
    energy: Annotated[float, Field(gt=0, le=1)] = 0.9
    rank: Annotated[int, Field(gt=0)] | None = None
    ridge: Annotated[float, Field(ge=0)] = 0.0
    standardise: bool | None = None
    row_normalise: bool | None = None
    sampling: Literal["top", "leverage", "residual"] = "top"
    features: str = "attended"

    def resolved(self) -> Options:
        """The options with what the preset decides spelled out."""
        scaled = self.preset == "official-cli"
        return replace(
            self,
            standardise=scaled if self.standardise is None else self.standardise,
            row_normalise=scaled if self.row_normalise is None else self.row_normalise,
        )


def signals(options: Options) -> tuple[str, ...]:
    """The one signal whose features are scored."""
    return (signal_of(options.features),)


def score(tables: Tables, options: Options) -> Columns:
    """Rank-k leverage of every row; all zero when all rows are equal."""
    return explain(tables, options)[0]


def explain(tables: Tables, options: Options) -> tuple[Columns, Notes]:
    """The scores, with k, the energy held and the singular values."""
    matrix, spectrum = decompose(tables, options.resolved())
    rank = choose_rank(spectrum, options)
    columns: Columns = {"score": settle(leverage(matrix, spectrum, rank, options.ridge, tables.products))}
    if options.sampling == "residual":
        # A column of zeros where there is no direction: files cannot hold a matrix without columns.
        columns["coordinates"] = coordinates(matrix, spectrum, max(rank, 1), options.ridge, tables.products)
    total = float(spectrum.values.sum())
    facts = {
        "d": matrix.shape[1],
        "k": rank,
        "energy": float(spectrum.values[:rank].sum()) / total if total else 0.0,
        "numerical_rank": spectrum.numerical_rank,
    }
    return columns, Notes(facts, np.sqrt(spectrum.values))


def select(
    columns: Columns, tables: Tables, budget: int, rng: np.random.Generator, options: Options
) -> NDArray[np.int64]:
    """The `budget` best rows under `options.sampling`."""
    if options.sampling == "leverage":
        keys = weighted_keys(columns["score"], draws(tables.digests, rng))
        return best_first(keys, tables.digests)[:budget]
    if options.sampling == "residual":
        ties = np.empty(len(tables), dtype=np.int64)
        ties[digest_order(tables.digests)] = np.arange(len(tables))
        return greedy_residual(columns["coordinates"], budget, ties)
    return take_best(columns, tables, budget, rng, options)


def decompose(tables: Tables, options: Options) -> tuple[Matrix, Spectrum]:
    """The rows as they are scored, and their directions, by whichever of the d x d and n x n products is smaller.

    Scaling comes after centring and is not followed by a second centring, as in the authors' code.
    """
    matrix = tables.matrix(options.features)
    n, d = matrix.shape
    if not (options.standardise or options.row_normalise):
        return matrix, from_rows(matrix) if n < d else from_moments(tables.measure(options.features))
    scaled = rescaled(matrix, options)
    return scaled, from_rows(scaled, False) if n < d else from_moments(measure(scaled, tables.products), False)


def rescaled(matrix: Matrix, options: Options) -> Matrix:
    """Rows less the mean, divided by the spread of columns and brought to unit length, as far as asked for."""
    mean = column_mean(matrix)
    scale = column_spread(matrix, mean) if options.standardise else None
    return Rescaled(matrix, mean, scale, unit=bool(options.row_normalise))


def choose_rank(spectrum: Spectrum, options: Options) -> int:
    """Directions that count: `rank`, every one under a ridge, else as many as hold `energy`."""
    if options.rank is not None:
        return min(options.rank, spectrum.numerical_rank)
    return spectrum.numerical_rank if options.ridge else spectrum.rank_for(options.energy)
