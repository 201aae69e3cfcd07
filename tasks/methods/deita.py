"""DEITA: complexity times quality, then a filter that keeps representations apart.

Row score = sum over turns of complexity x quality (the "evol score"). Rows are walked best first; a row stays if its
cosine to every kept row is not above the threshold. Source: Liu et al. (arXiv 2312.15685), repository at b279f2c, with
batch size 1: larger batches also compare with rows already dropped. Text only: images play no part in the scorers.
Where the walk runs out of rows, the source returns fewer than asked; here the best of the refused fill the budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.linalg.separation import separated
from tasks.methods.contract import Columns, Tables, best_first, signal_of
from tasks.methods.ratings import ranked_ratings
from tasks.methods.windows import finite_column


@dataclass(frozen=True)
class Options:
    """Which columns and features to use.

    evol: column of finished scores, summed over turns; used when it is there. NaN: the reply could not be read.
    complexity, quality: columns multiplied otherwise: one pair a row, so a row counts as one turn.
    features, threshold: representations, and the largest cosine allowed between kept rows.
    """

    evol: str = "deita.evol"
    complexity: str = "deita.complexity"
    quality: str = "deita.quality"
    features: str = "pooled"
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.9


def signals(options: Options) -> tuple[str, ...]:
    """The signals that hold scores and features."""
    return tuple(dict.fromkeys(signal_of(name) for name in (options.complexity, options.quality, options.features)))


def score(tables: Tables, options: Options) -> Columns:
    """`score`, the evol score; with a column of evol scores also `unread`, 1.0 where a row has none: it ranks last."""
    if options.evol in tables.columns:
        return ranked_ratings(tables, options.evol)
    return {"score": finite_column(tables, options.complexity) * finite_column(tables, options.quality)}


def evol_score(complexity: NDArray[np.float64], quality: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) sums over turns of (n, turns) complexity x quality; NaN where a row has no such turn."""
    return np.asarray(np.nansum(complexity * quality, axis=1))


def select(
    columns: Columns, tables: Tables, budget: int, rng: np.random.Generator, options: Options
) -> NDArray[np.int64]:
    """The rows that pass the filter, best first; if they are fewer than the budget, the best of the refused after."""
    order = best_first(columns["score"], tables.digests)
    kept = separated(tables.matrix(options.features), order, options.threshold, budget)
    refused = order[~np.isin(order, kept)]
    return np.concatenate([kept, refused[: budget - len(kept)]])
