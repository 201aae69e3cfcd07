"""Whole numbers from shares, with room for only so many: every rule meets the budget exactly where there is room."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def largest_remainder(sizes: Counts, budget: int) -> Counts:
    """`budget` split in proportion to `sizes` (Hamilton's rule); equal remainders favour the earlier. budget <= sum."""
    total = int(sizes.sum())
    if total == 0:
        return np.zeros_like(sizes)
    quotas, remainders = sizes * budget // total, sizes * budget % total
    short = budget - int(quotas.sum())
    quotas[np.argsort(-remainders, kind="stable")[:short]] += 1
    return quotas


def round_in_turn(shares: NDArray[np.float64], room: Counts, budget: int) -> tuple[Counts, Counts]:
    """One pass of COINCIDE's rule: (taken, wanted). Groups are visited in the order given (largest share first).

    Each wants round-half-even(what is left of the budget x its share among those not yet visited) and takes at most its
    room. When the last groups are full the budget is missed: `carry` repairs that.
    """
    taken, wanted = np.zeros_like(room), np.zeros_like(room)
    left = budget
    ahead = np.cumsum(shares[::-1])[::-1]
    for group, share in enumerate(shares):
        part = share / ahead[group] if ahead[group] > 0 else 1 / (len(shares) - group)
        wanted[group] = int(np.rint(left * part))
        taken[group] = min(wanted[group], room[group])
        left -= int(taken[group])
    return taken, wanted


def carry(shares: NDArray[np.float64], room: Counts, taken: Counts, budget: int) -> Counts:
    """Complete `taken` to exactly `budget`: what is missing is rounded in turn over the groups that still have room.

    A surplus is taken back from the last groups. Raises ValueError when there is not enough room.
    """
    if budget > room.sum():
        raise ValueError(f"{budget} do not fit: there is room for {room.sum()}")
    result: Counts = np.minimum(taken, np.maximum(budget - np.cumsum(taken) + taken, 0))
    while (missing := budget - int(result.sum())) > 0:
        open_groups = np.flatnonzero(room > result)
        more, _ = round_in_turn(shares[open_groups], (room - result)[open_groups], missing)
        result[open_groups] += more
    return result


def round_up(shares: NDArray[np.float64], room: Counts, budget: int) -> Counts:
    """min(ceil(budget x share), room): COINCIDE's loop as its paper writes it. May exceed the budget."""
    quotas: Counts = np.minimum(np.ceil(budget * shares).astype(np.int64), room)
    return quotas
