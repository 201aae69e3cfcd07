"""Anchor rows drawn from the pool, for gradient methods that were given no trusted set of their own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.linalg.apportion import largest_remainder
from tasks.linalg.sampling import draws
from tasks.methods.contract import Tables, best_first


def draw(tables: Tables, count: int, seed: int) -> NDArray[np.int64]:
    """Up to `count` rows, each source in proportion (largest remainder), drawn by content; in row order."""
    names, member, sizes = np.unique(tables.sources, return_inverse=True, return_counts=True)
    quotas = largest_remainder(sizes.astype(np.int64), min(count, len(tables)))
    order = best_first(draws(tables.digests, np.random.default_rng(seed)), tables.digests)
    mine = [order[member[order] == source][: quotas[source]] for source in range(len(names))]
    return np.sort(np.concatenate(mine)) if mine else np.empty(0, dtype=np.int64)


def hold_out(score: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The scores with the held-out rows behind all others: measured by themselves, they would rank themselves high."""
    held = score.copy()
    if len(rows):
        held[rows] = score.min() - 1.0
    return held
