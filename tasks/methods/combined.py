"""Several methods as one: their orders of preference are merged, and the budget is filled from the merged order.

rank_average: the mean of the ranks. intersection: a row is as good as its worst rank, so the best M rows are those that
all members hold high. union: as good as its best rank, so members take turns. chain: each member but the last keeps its
share of the pool out of what the members before it kept; the last one fills the budget from the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.errors import ParamsError
from tasks.methods.contract import Columns, Tables, best_first

if TYPE_CHECKING:
    from tasks.methods.contract import Method

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Options:
    """members: method name -> its own options, in order. rule. shares: for chain, of every member but the last."""

    members: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"scalselect": {}, "clip_score": {}})
    rule: Literal["rank_average", "intersection", "union", "chain"] = "rank_average"
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.rule == "chain" and len(self.shares) != len(self.members) - 1:
            raise ParamsError(
                f"methods.combined.shares: chain of {len(self.members)} members needs {len(self.members) - 1} shares"
            )
        if any(not 0 < share <= 1 for share in self.shares):
            raise ParamsError("methods.combined.shares: every share lies above 0 and at most at 1")

    @property
    def features(self) -> str | None:
        """The matrix that its first member with one reads: what features brought by the user are taken for."""
        found = (getattr(own, "features", None) for _, own in _members(self))
        return next((name for name in found if name is not None), None)


def signals(options: Options) -> tuple[str, ...]:
    """The signals of all members."""
    return tuple(dict.fromkeys(name for method, own in _members(options) for name in method.signals(own)))


def score(tables: Tables, options: Options) -> Columns:
    """`score` of the merged orders, and each member's columns as `<member>.<column>`."""
    columns: Columns = {}
    orders = []
    for method, own in _members(options):
        found = method.score(tables, own)
        orders.append(best_first(found["score"], tables.digests))
        columns |= {f"{method.name}.{name}": values for name, values in found.items()}
    return {"score": merge(orders, options.rule, options.shares, tables.digests), **columns}


def select(columns: Columns, tables: Tables, budget: int, rng: np.random.Generator, options: Options) -> Ints:
    """The best of the merged orders, where each member's order is its own picks at this budget, then its scores."""
    orders = []
    for method, own in _members(options):
        prefix = f"{method.name}."
        mine = {name.removeprefix(prefix): values for name, values in columns.items() if name.startswith(prefix)}
        picks = method.select(mine, tables, budget, rng, own)
        order = best_first(mine["score"], tables.digests)
        orders.append(np.concatenate([picks, order[~np.isin(order, picks)]]))
    return best_first(merge(orders, options.rule, options.shares, tables.digests), tables.digests)[:budget]


def merge(orders: Sequence[Ints], rule: str, shares: Sequence[float], digests: NDArray[np.str_]) -> NDArray[np.float64]:
    """(n,) scores in [0, 1], higher is better, of the merged (n,) orders. Equal scores are for the digest to settle."""
    n = len(digests)
    ranks = np.empty((len(orders), n))
    for member, order in enumerate(orders):
        ranks[member, order] = np.arange(n)
    if rule == "chain":
        merged = _chain(ranks, shares)
    elif rule == "rank_average":
        merged = ranks.mean(axis=0)
    else:
        merged = ranks.max(axis=0) if rule == "intersection" else ranks.min(axis=0)
    return np.asarray(1.0 - merged / max(1, n))


def _chain(ranks: NDArray[np.float64], shares: Sequence[float]) -> NDArray[np.float64]:
    """(n,) final ranks: the last member's order of the survivors, then the dropped, those dropped last first."""
    n = ranks.shape[1]
    survivors = np.arange(n)
    passed = np.zeros(n, dtype=np.int64)
    for member, share in enumerate(shares):
        ordered = survivors[np.argsort(ranks[member, survivors])]
        survivors = ordered[: round(share * n)]
        passed[survivors] += 1
    final = np.empty(n)
    final[np.lexsort((ranks[passed, np.arange(n)], -passed))] = np.arange(n)
    return final


def _members(options: Options) -> list[tuple[Method, Any]]:
    from tasks.methods import METHODS

    if not options.members:
        raise ParamsError(
            "methods.combined.members: name at least one method, for example {scalselect: {}, clip_score: {}}"
        )
    pairs = []
    for name, values in options.members.items():
        if name not in METHODS or name == "combined":
            raise ParamsError(f"methods.combined.members: no method `{name}`; methods: {', '.join(sorted(METHODS))}")
        pairs.append((METHODS[name], METHODS[name].parse(values)))
    return pairs
