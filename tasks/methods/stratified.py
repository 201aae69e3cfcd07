"""Random rows, each source in proportion: a stronger control than plain random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.linalg.apportion import largest_remainder
from tasks.linalg.sampling import draws
from tasks.methods.contract import Columns, Tables, best_first


@dataclass(frozen=True)
class Options:
    """`methods.stratified` has no options: the strata are the sources, the seed is `select.seed`."""


def signals(options: Options) -> tuple[str, ...]:
    """None: only a row's source is looked at."""
    return ()


def score(tables: Tables, options: Options) -> Columns:
    """Zero for every row: the draw belongs to the selection and its seed."""
    return {"score": np.zeros(len(tables))}


def select(
    columns: Columns, tables: Tables, budget: int, rng: np.random.Generator, options: Options
) -> NDArray[np.int64]:
    """`budget` rows, shared among sources by largest remainder, drawn within each; in the order of their draws."""
    sources, member, sizes = np.unique(tables.sources, return_inverse=True, return_counts=True)
    quotas = largest_remainder(sizes.astype(np.int64), budget)
    order = best_first(draws(tables.digests, rng), tables.digests)
    # Place of each row among the rows of its own source, in the order of the draws.
    place = np.empty(len(order), dtype=np.int64)
    for source in range(len(sources)):
        mine = order[member[order] == source]
        place[mine] = np.arange(len(mine))
    return order[place[order] < quotas[member[order]]]
