"""What kinds of rows there are - by source, length and number of turns - in the whole and in a subset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.comparison.measures import Rows, total_variation

Ints = NDArray[np.int64]

MANY_TURNS = 10


@dataclass(frozen=True)
class Trait:
    """A way to sort the n rows into kinds. kinds: their names. codes: (n,) the place of each row's kind among them."""

    name: str
    kinds: tuple[str, ...]
    codes: Ints

    def shares(self, picks: Rows | None = None) -> NDArray[np.float64]:
        """(kinds,) share of each kind among the picks, or among all rows; NaN without rows."""
        codes = self.codes if picks is None else self.codes[picks]
        counts = np.bincount(codes, minlength=len(self.kinds))
        return counts / len(codes) if len(codes) else np.full(len(self.kinds), np.nan)

    def shift(self, picks: Rows) -> float:
        """Total variation distance of the picks from the whole: 0 the same mix, 1 nothing in common."""
        return total_variation(self.shares(), self.shares(picks))


def sort_rows(sources: NDArray[np.str_], characters: Ints, turns: Ints) -> tuple[Trait, ...]:
    """The traits `source`, `length` (tenths of the whole by characters) and `turns` (messages; 10 and more as one)."""
    return (_by_source(sources), _by_length(characters), _by_turns(turns))


def _by_source(sources: NDArray[np.str_]) -> Trait:
    names, codes, counts = np.unique(sources, return_inverse=True, return_counts=True)
    order = np.lexsort((names, -counts))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Trait("source", tuple(names[order].tolist()), place[codes])


def _by_length(characters: Ints) -> Trait:
    if not len(characters):
        return Trait("length", (), np.zeros(0, dtype=np.int64))
    tenths = np.quantile(characters, np.arange(1, 10) / 10, method="inverted_cdf")
    edges = np.unique([*tenths, characters.max()]).astype(np.int64)
    starts = [0, *(edges[:-1] + 1).tolist()]
    kinds = tuple(f"{low} to {high} characters" for low, high in zip(starts, edges.tolist(), strict=True))
    return Trait("length", kinds, np.searchsorted(edges, characters).astype(np.int64))


def _by_turns(turns: Ints) -> Trait:
    values, codes = np.unique(np.minimum(turns, MANY_TURNS), return_inverse=True)
    kinds = tuple(f"{value} turns" if value < MANY_TURNS else f"{value} turns or more" for value in values.tolist())
    return Trait("turns", kinds, codes.astype(np.int64))
