"""The pick loop of the D2 copy used for visual instructions: a walk down the first ranking, kept for comparison.

It compares a row only with the next one of the first ranking and with the rows it set aside earlier, so it is not an
argmax: on the reference case it shares 10 of 19 picks with one. Source: COINCIDE repository at 629f776. Near the end,
where the source runs past its list, a row is compared with nothing and taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def walk(graph: Any, scores: NDArray[np.float64], members: NDArray[np.int64], budget: int, gamma: float) -> Any:
    """(budget,) picks in order. `graph` is a directed `d2.Graph`; `members` break ties, the last of them first."""
    current = scores.copy()
    ranking = members[np.argsort(current[members], kind="stable")[::-1]]
    picks: list[int] = []
    standby: list[int] = []
    place = 0
    while len(picks) < budget:
        row = int(ranking[place]) if place < len(ranking) else None
        best = max(standby, key=current.__getitem__, default=None)
        if best is not None and (row is None or current[best] >= current[row]):
            standby.remove(best)
            _take(graph, current, best, gamma)
            picks.append(best)
            continue
        assert row is not None
        place += 1
        if place < len(ranking) and current[row] < current[ranking[place]]:
            standby.append(row)
            continue
        _take(graph, current, row, gamma)
        picks.append(row)
    return np.array(picks, dtype=np.int64)


def _take(graph: Any, current: NDArray[np.float64], row: int, gamma: float) -> None:
    edges = slice(graph.starts[row], graph.starts[row + 1])
    current[graph.targets[edges]] -= current[row] * np.exp(-gamma * graph.distances[edges])
