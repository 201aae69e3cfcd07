"""Batches under a token budget: rows of similar length together, rows that share an image beside each other."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby


def plan_batches(lengths: Sequence[int], images: Sequence[Hashable], budget: int) -> list[list[int]]:
    """Positions of n rows in batches, longest first, such that longest * rows <= budget, padding included.

    Neighbours with equal `images` stay neighbours, so that one vision pass can serve them all. A row longer than the
    budget is a batch of its own. The plan depends on nothing but the arguments.
    """
    runs = [list(run) for _, run in groupby(range(len(lengths)), key=lambda row: images[row])]
    runs.sort(key=lambda run: -max(lengths[row] for row in run))
    batches: list[list[int]] = []
    longest = 0
    for row in (row for run in runs for row in run):
        longest = max(longest, lengths[row])
        if not batches or longest * (len(batches[-1]) + 1) > budget:
            batches.append([])
            longest = lengths[row]
        batches[-1].append(row)
    return batches
