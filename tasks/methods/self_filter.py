"""Self-Filter: the hardest rows, each time discounting those that look like the one just taken.

Stage 1 trains a bias-free linear score net on frozen features; difficulty = -(theta . f). Stage 2 takes the row of
highest difficulty x and subtracts x cos^2 gamma from its k nearest rows still free, again and again.
Source: Chen et al. (arXiv 2402.12501), repository at ace4618. We differ in stage 1: the source trains the VLM jointly
with the net for three epochs; here the losses are frozen (one forward pass), only theta learns. In stage 2 a negative
difficulty would turn the penalty into a bonus: `clamp` makes it zero, `official` keeps it.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.linalg.matrix import ArrayMatrix, Matrix
from tasks.linalg.neighbours import cosines, nearest
from tasks.linalg.rounding import settle
from tasks.methods.contract import Columns, Tables, digest_order, signal_of
from tasks.methods.score_net import train
from tasks.methods.windows import digest_ranks, finite_column

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_LISTED = 8


@dataclass(frozen=True)
class Options:
    """Both stages.

    features, beside: two matrices (or one: `beside: null`) set side by side, each row of each scaled to unit length.
    difficulty: a column of difficulties to use instead of stage 1. losses: the column that stage 1 learns from.
    epochs, batch, learning_rate, seed: of stage 1 (Adam from zero; batches are drawn by content, not by position).
    neighbours, gamma, negative: of stage 2.
    """

    features: str = "clip.image"
    beside: str | None = "clip.text"
    difficulty: str | None = None
    losses: str = "answers.nll"
    epochs: Annotated[int, Field(gt=0)] = 3
    batch: Annotated[int, Field(gt=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    seed: int = 0
    neighbours: Annotated[int, Field(gt=0)] = 10
    gamma: Annotated[float, Field(ge=0)] = 1.0
    negative: Literal["clamp", "official"] = "clamp"


def signals(options: Options) -> tuple[str, ...]:
    """The signals of the features, and of the losses or difficulties."""
    return tuple(dict.fromkeys(signal_of(name) for name in (*_names(options), options.difficulty or options.losses)))


def score(tables: Tables, options: Options) -> Columns:
    """`score`: the difficulty before any neighbour was taken."""
    if options.difficulty is not None:
        return {"score": finite_column(tables, options.difficulty)}
    features = joined(tables, _names(options))
    losses = finite_column(tables, options.losses)
    order = digest_order(tables.digests)
    theta = train(features, losses, order, options.epochs, options.batch, options.learning_rate, options.seed)
    return {"score": settle(-np.asarray((features.astype(np.float64) * theta).sum(axis=1)))}


def _names(options: Options) -> tuple[str, ...]:
    return (options.features,) if options.beside is None else (options.features, options.beside)


def joined(tables: Tables, names: tuple[str, ...]) -> NDArray[np.float32]:
    """(n, sum of widths) float32: the named matrices, each row of each scaled to unit length (zero rows stay zero)."""
    parts = []
    for name in names:
        block = tables.matrix(name).take(np.arange(len(tables)))
        norms = np.linalg.norm(block.astype(np.float64), axis=1, keepdims=True)
        parts.append((block / np.where(norms > 0, norms, 1.0)).astype(np.float32))
    return np.concatenate(parts, axis=1)


def select(columns: Columns, tables: Tables, budget: int, rng: np.random.Generator, options: Options) -> Ints:
    """The first `budget` rows of the stage-2 walk."""
    return filter_diverse(
        columns["score"],
        ArrayMatrix(joined(tables, _names(options))),
        budget,
        digest_ranks(tables.digests),
        options.neighbours,
        options.gamma,
        clamp=options.negative == "clamp",
    )


def filter_diverse(
    difficulty: Floats, features: Matrix, budget: int, ranks: Ints, k: int, gamma: float, clamp: bool
) -> Ints:
    """Stage 2: (budget,) picks in order; ties by rank.

    Neighbours come from a list of the 8 k nearest, made once; when too few of a row's list are still free, the row is
    compared with all that are. Same picks as comparing every time, without the N cosines a pick.
    """
    listed = nearest(features, _LISTED * k, "cosine", ranks)
    current = difficulty.copy()
    free = np.ones(len(current), dtype=bool)
    heap = [(-value, rank, row) for row, (value, rank) in enumerate(zip(current, ranks, strict=True))]
    heapq.heapify(heap)
    picks: list[int] = []
    while len(picks) < budget:
        value, _, row = heapq.heappop(heap)
        if not free[row] or -value != current[row]:
            continue
        free[row] = False
        picks.append(row)
        if clamp and current[row] <= 0:
            continue
        rows, cosine = _nearest_free(features, row, free, k, ranks, listed.rows[row], 1.0 - listed.distances[row])
        current[rows] -= current[row] * np.square(cosine) * gamma
        for neighbour in rows.tolist():
            heapq.heappush(heap, (-current[neighbour], ranks[neighbour], neighbour))
    return np.array(picks, dtype=np.int64)


def _nearest_free(
    features: Matrix, row: int, free: NDArray[np.bool_], k: int, ranks: Ints, listed: Ints, cosine: Floats
) -> tuple[Ints, Floats]:
    """The k free rows nearest to `row` by cosine (all of them where fewer are free), and those cosines."""
    alive = free[listed]
    if alive.sum() >= k or len(listed) == len(free) - 1:
        return listed[alive][:k], cosine[alive][:k]
    rows = np.nonzero(free)[0]
    own = features.take(np.array([row])).astype(np.float64)
    exact = np.empty(len(rows))
    for start in range(0, len(rows), 4096):
        block = features.take(rows[start : start + 4096]).astype(np.float64)
        exact[start : start + 4096] = cosines(np.broadcast_to(own, block.shape), block)
    order = np.lexsort((ranks[rows], -exact))[:k]
    return rows[order], exact[order]
