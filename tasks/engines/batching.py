"""Batches under a token budget: rows of similar length together, rows that share an image beside each other."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby


def plan_batches(lengths: Sequence[int], images: Sequence[Hashable], budget: int) -> list[list[int]]:
    """Positions of n rows in batches, longest first, such that longest * rows <= budget, padding included.

    Neighbours with equal `images` go into one batch where the budget allows it, so that one vision pass can serve them
    all. A row longer than the budget is a batch of its own. The plan depends on nothing but the arguments.
    """
    runs = [list(run) for _, run in groupby(range(len(lengths)), key=lambda row: images[row])]
    runs.sort(key=lambda run: -max(lengths[row] for row in run))
    batches: list[list[int]] = []
    longest = 0
    for part in (part for run in runs for part in _split(run, lengths, budget)):
        most = max(lengths[row] for row in part)
        if not batches or max(longest, most) * (len(batches[-1]) + len(part)) > budget:
            batches.append([])
            longest = 0
        batches[-1] += part
        longest = max(longest, most)
    return batches


def _split(run: list[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """A run cut into as few parts as the budget allows, its rows in order; most runs are one part."""
    parts: list[list[int]] = []
    longest = 0
    for row in run:
        longest = max(longest, lengths[row])
        if not parts or longest * (len(parts[-1]) + 1) > budget:
            parts.append([])
            longest = lengths[row]
        parts[-1].append(row)
    return parts
