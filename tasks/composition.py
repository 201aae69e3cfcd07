"""From an order of preference to a subset of exact size: what must be in, what may not be in together, and the rest.

Pins come first, then every quota and floor from the best of its source, then whatever the order offers next. A row is
taken unless a limit refuses it: a content twin, a near duplicate, an image used too often, a full quota. Every limit
is met exactly or BudgetError says which ones stood in the way and what budget they leave room for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.errors import BudgetError
from tasks.linalg.matrix import Matrix
from tasks.linalg.separation import Separation, chunks

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Candidates:
    """What the n scored rows are: content digests, sources, each row's image digests, and features for likeness."""

    digests: NDArray[np.str_]
    sources: NDArray[np.str_]
    images: Sequence[Sequence[str]]
    features: Matrix | None = None


@dataclass(frozen=True)
class Constraints:
    """What a subset must be like. `quotas` and `floors` are counts by source; `keep` and `drop` are row positions."""

    deduplicate: bool = False
    near_duplicates: float | None = None
    per_image: int | None = None
    quotas: Mapping[str, int] = field(default_factory=dict)
    floors: Mapping[str, int] = field(default_factory=dict)
    keep: Rows = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    drop: Rows = field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class Composition:
    """picks: the subset, most preferred first. refused: row -> the limit that kept it out when its turn came."""

    picks: Rows
    refused: Mapping[int, str]


class Limit(Protocol):
    """A rule about rows that may not be in together."""

    reason: str

    def prepare(self, rows: Rows) -> None:
        """These candidates come next."""

    def refuses(self, row: int) -> bool:
        """Whether the rows taken so far exclude this one."""

    def take(self, row: int) -> None:
        """The row is in."""


class _Tally:
    """At most so many rows for each key: content, image or source."""

    def __init__(self, reason: str, keys: Sequence[Iterable[str]], most: Mapping[str, int] | int) -> None:
        self.reason = reason
        self._keys = keys
        self._most = most
        self._count: Counter[str] = Counter()

    def prepare(self, rows: Rows) -> None:
        pass

    def refuses(self, row: int) -> bool:
        return any(self._count[key] >= self._limit(key) for key in set(self._keys[row]))

    def take(self, row: int) -> None:
        self._count.update(set(self._keys[row]))

    def _limit(self, key: str) -> float:
        return self._most if isinstance(self._most, int) else self._most.get(key, math.inf)


class _Apart:
    """No row too like another."""

    reason = "near_duplicate"

    def __init__(self, features: Matrix, threshold: float) -> None:
        self._separation = Separation(features, threshold)

    def prepare(self, rows: Rows) -> None:
        self._separation.prepare(rows)

    def refuses(self, row: int) -> bool:
        return self._separation.refuses(row)

    def take(self, row: int) -> None:
        self._separation.keep(row)


@dataclass
class _Walk:
    """The subset so far, grown by walking rows past the limits."""

    limits: list[Limit]
    taken: dict[int, None] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)

    def admit(self, rows: Rows, count: int) -> int:
        """Take up to `count` of the rows in order; returns how many were taken."""
        admitted = 0
        for chunk in chunks(rows):
            if admitted >= count:
                break
            for limit in self.limits:
                limit.prepare(chunk)
            for row in chunk.tolist():
                if admitted < count and row not in self.taken and row not in self.refused:
                    admitted += self._offer(row)
        return admitted

    def _offer(self, row: int) -> bool:
        reason = next((limit.reason for limit in self.limits if limit.refuses(row)), None)
        if reason is not None:
            self.refused[row] = reason
            return False
        for limit in self.limits:
            limit.take(row)
        self.taken[row] = None
        return True


def compose(order: Rows, pool: Candidates, budget: int, constraints: Constraints) -> Composition:
    """Exactly `budget` rows of the pool, most preferred first.

    order: (n,) every row position once, most preferred first: the method's own picks, then the others by score.
    Raises BudgetError naming the constraint that makes the budget impossible and the largest budget that is possible.
    """
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    order = order[~np.isin(order, constraints.drop)]
    _check_counts(order, pool, budget, constraints)
    walk = _Walk(_limits(pool, constraints))
    _admit_pins(walk, order, pool, constraints)
    _admit_sources(walk, order, pool, constraints)
    walk.admit(order, budget - len(walk.taken))
    if len(walk.taken) != budget:
        _explain(walk, budget, len(order))
    picks = np.array(list(walk.taken), dtype=np.int64)
    refused = dict.fromkeys(constraints.drop.tolist(), "dropped") | walk.refused
    return Composition(picks[np.argsort(place[picks])], refused)


def budget_count(budget: int | float, rows: int) -> int:
    """Rows to select: an int is a count, a float the floor of that share of `rows` (0.07 of 100 is 7, not 6).

    Raises BudgetError below 0, above `rows`, or for a share above 1.
    """
    if isinstance(budget, float) and not 0 <= budget <= 1:
        raise BudgetError(f"select.budget: {budget} is not a share between 0 and 1; write a count as a whole number")
    count = math.floor(budget * rows + 1e-9) if isinstance(budget, float) else budget
    if count > rows == 0:
        raise BudgetError(f"select.budget: {count} rows asked for, but none was scored: only rows with images are")
    if not 0 <= count <= rows:
        raise BudgetError(
            f"select.budget: {count} rows asked for, {rows} rows were scored: the largest budget is {rows}"
        )
    return count


def source_counts(
    shares: Mapping[str, int | float], budget: int, sources: NDArray[np.str_], key: str
) -> dict[str, int]:
    """Counts by source: ints stand; shares of the budget are rounded together by largest remainder, name breaking ties.

    Raises BudgetError naming a source that no scored row has.
    """
    known = sorted(set(sources.tolist()))
    for source in shares:
        if source not in known:
            raise BudgetError(f"select.{key}: no scored row has source `{source}`; sources: {', '.join(known)}")
    parts = {source: share * budget for source, share in shares.items() if isinstance(share, float)}
    counts = {source: math.floor(part + 1e-9) for source, part in parts.items()}
    spare = math.floor(sum(parts.values()) + 1e-9) - sum(counts.values())
    for source in sorted(parts, key=lambda name: (counts[name] - parts[name], name))[: max(0, spare)]:
        counts[source] += 1
    return counts | {source: share for source, share in shares.items() if isinstance(share, int)}


def _check_counts(order: Rows, pool: Candidates, budget: int, constraints: Constraints) -> None:
    """Refuse what no walk could satisfy: sums that do not fit, sources too small."""
    if budget > len(order):
        raise BudgetError(
            f"select.drop leaves {len(order)} rows of a budget of {budget}: the largest budget is {len(order)}"
        )
    if len(constraints.keep) > budget:
        raise BudgetError(f"select.keep pins {len(constraints.keep)} rows, more than the budget of {budget}")
    available = Counter(pool.sources[order].tolist())
    for key, counts in (("quotas", constraints.quotas), ("floors", constraints.floors)):
        for source, count in counts.items():
            if count > available[source]:
                raise BudgetError(
                    f"select.{key}.{source}: {count} rows asked for, the source has {available[source]} to choose from"
                )
    least = _least(constraints)
    if sum(least.values()) > budget:
        raise BudgetError(f"select.quotas and select.floors ask for {sum(least.values())} rows, the budget is {budget}")
    quotas = constraints.quotas
    room = sum(quotas.values()) + sum(count for source, count in available.items() if source not in quotas)
    if room < budget:
        raise BudgetError(
            f"select.quotas leave room for {room} rows, the budget is {budget}: the largest budget is {room}"
        )


def _least(constraints: Constraints) -> dict[str, int]:
    """The fewest rows of each source that will do. Raises BudgetError where a floor exceeds the source's quota."""
    for source, floor in constraints.floors.items():
        if floor > constraints.quotas.get(source, floor):
            raise BudgetError(f"select.floors.{source} is {floor}, above its quota of {constraints.quotas[source]}")
    return {**constraints.floors, **constraints.quotas}


def _limits(pool: Candidates, constraints: Constraints) -> list[Limit]:
    """The limits in force, cheapest first: the first that refuses a row names the reason."""
    limits: list[Limit] = []
    if constraints.quotas:
        limits.append(_Tally("quota", [(source,) for source in pool.sources.tolist()], constraints.quotas))
    if constraints.deduplicate:
        limits.append(_Tally("duplicate", [(digest,) for digest in pool.digests.tolist()], 1))
    if constraints.per_image is not None:
        limits.append(_Tally("per_image", pool.images, constraints.per_image))
    if constraints.near_duplicates is not None:
        if pool.features is None:
            raise BudgetError(
                "select.near_duplicates needs features to compare: add a matrix signal to extract.signals"
            )
        limits.append(_Apart(pool.features, constraints.near_duplicates))
    return limits


def _admit_pins(walk: _Walk, order: Rows, pool: Candidates, constraints: Constraints) -> None:
    """Pinned rows go in first; of pinned twins under `deduplicate` one is enough."""
    pins = order[np.isin(order, constraints.keep)]
    both = np.intersect1d(constraints.keep, constraints.drop)
    if len(both):
        digest = pool.digests[both[0]]
        raise BudgetError(f"select.keep and select.drop name the same row, digest {digest}: take it out of one of them")
    walk.admit(pins, len(pins))
    for row, reason in walk.refused.items():
        if reason != "duplicate":
            raise BudgetError(f"select.keep: row with digest {pool.digests[row]} is refused by the limit `{reason}`")


def _admit_sources(walk: _Walk, order: Rows, pool: Candidates, constraints: Constraints) -> None:
    """Bring every source up to its quota or floor, from its own best rows."""
    sources = pool.sources[order]
    for source, least in sorted(_least(constraints).items()):
        have = sum(pool.sources[row] == source for row in walk.taken)
        have += walk.admit(order[sources == source], least - have)
        if have < least:
            raise BudgetError(
                f"select: source `{source}` reaches {have} of {least} rows{_because(walk)}: ask for fewer"
            )


def _explain(walk: _Walk, budget: int, rows: int) -> None:
    raise BudgetError(
        f"select.budget: {budget} rows asked for, {len(walk.taken)} of {rows} can be taken{_because(walk)}: "
        f"the largest budget is {len(walk.taken)}"
    )


def _because(walk: _Walk) -> str:
    """How many rows each limit turned away, most first."""
    counts = Counter(walk.refused.values()).most_common()
    return "".join(f", `{reason}` refused {count}" for reason, count in counts)
