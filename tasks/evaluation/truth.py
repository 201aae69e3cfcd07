"""What each subset kept, where the pool's ground truth is known: groups covered, repeats, wrong answers.

The truth lies beside the dataset as truth.jsonl ({"row", "group", "duplicate_of", "noise"} a line).
No selector sees it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.errors import InputError


@dataclass(frozen=True, slots=True)
class Truth:
    """Of one row: its group, the row it repeats (itself when it repeats none), whether its answer is wrong."""

    group: str
    original: int
    noise: bool


@dataclass(frozen=True)
class Kept:
    """What a method's subsets at a budget hold, mean over seeds. repeats: share of rows that repeat a kept one."""

    method: str
    budget: int | float
    rows: float
    groups: float
    repeats: float
    noise: float


def read_truth(dataset: Path) -> dict[int, Truth]:
    """Ground truth by row, {} where there is none. Raises InputError for a line that is not as described."""
    path = dataset.parent / "truth.jsonl"
    truths = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else [], 1):
        try:
            one = json.loads(line)
            row, copied = int(one["row"]), one["duplicate_of"]
            truths[row] = Truth(str(one["group"]), row if copied is None else int(copied), bool(one["noise"]))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: line {number} is not {{row, group, duplicate_of, noise}}: {error!r}") from None
    return truths


def describe(method: str, budget: int | float, subsets: Sequence[Sequence[int]], truths: Mapping[int, Truth]) -> Kept:
    """What the subsets (one for each seed) hold."""
    each = [_count([truths[row] for row in rows]) for rows in subsets]
    rows, groups, repeats, noise = (float(value) for value in np.mean(each, axis=0))
    return Kept(method, budget, rows, groups, repeats, noise)


def _count(kept: Sequence[Truth]) -> tuple[float, float, float, float]:
    rows = max(1, len(kept))
    distinct = len({one.original for one in kept})
    return len(kept), len({one.group for one in kept}), 1 - distinct / rows, sum(one.noise for one in kept) / rows
