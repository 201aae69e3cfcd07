"""Uniform random rows: the control every method is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.linalg.sampling import draws
from tasks.methods.contract import Columns, Tables, best_first


@dataclass(frozen=True)
class Options:
    """`methods.random` has no options: the seed is `select.seed`."""


def signals(options: Options) -> tuple[str, ...]:
    """None: nothing about a row is looked at."""
    return ()


def score(tables: Tables, options: Options) -> Columns:
    """Zero for every row: the draw belongs to the selection and its seed."""
    return {"score": np.zeros(len(tables))}


def select(
    columns: Columns, tables: Tables, budget: int, rng: np.random.Generator, options: Options
) -> NDArray[np.int64]:
    """`budget` rows without replacement. A row's draw is its own: other rows, or their order, do not change it."""
    return best_first(draws(tables.digests, rng), tables.digests)[:budget]
