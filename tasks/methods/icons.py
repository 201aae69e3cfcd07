"""ICONS: every target task votes for the rows whose gradients point its way; the rows with most votes win.

Influence of a row on a task = mean over the task's validation rows of the cosine of gradients; a task votes for its top
share; score = votes. Source: Wu et al. (arXiv 2501.00654), repository at b8ce8c8 (LoRA gradients after 500 steps,
projected to 5,120 dimensions). We differ twice: all tasks' gradients are normalised (the source leaves MME's as they
are), and equal votes, resolved by row order there, go to the higher mean influence rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.linalg.matrix import Matrix, buffer_rows, rebatched
from tasks.linalg.rounding import settle
from tasks.methods.anchors import draw, hold_out
from tasks.methods.contract import Columns, Tables, best_first, signal_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """Tasks and votes.

    features: the gradients. Every matrix `<features>.<task>` but `.anchor` is a task's validation gradients; where
        there is none, each source is a task, judged by its part of `anchors` held-out rows (at most a tenth of the
        pool), drawn by `seed`.
    share: part of the pool that each task votes for.
    """

    features: str = "gradients"
    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    anchors: Annotated[int, Field(gt=0)] = 500
    seed: int = 0


def signals(options: Options) -> tuple[str, ...]:
    """The signal of the gradients."""
    return (signal_of(options.features),)


def score(tables: Tables, options: Options) -> Columns:
    """`score`, votes plus the mean influence rank in [0, 1); `votes`; `anchor`, 1.0 for held-out rows."""
    gradients = tables.matrix(options.features)
    directions, held = _tasks(tables, gradients, options)
    influence = influences(gradients, directions)
    votes, standing = vote(influence, tables.digests, options.share)
    return {
        "score": hold_out(votes + standing, held),
        "votes": votes,
        "anchor": np.isin(np.arange(len(tables)), held).astype(np.float64),
    }


def influences(gradients: Matrix, directions: Floats) -> Floats:
    """(n, t) cosine-mean influence: unit gradient rows times the (t, d) means of each task's unit gradients."""
    n, d = gradients.shape
    result = np.empty((n, len(directions)))
    for start, block in rebatched(gradients, min(buffer_rows(n, d), 8192)):
        result[start : start + len(block)] = unit(block) @ directions.T
    return settle(result)


def vote(influence: Floats, digests: NDArray[np.str_], share: float) -> tuple[Floats, Floats]:
    """(n,) votes, and (n,) mean over tasks of 1 - (rank + 1) / n. Each task votes for floor(share n) rows, or for 1."""
    n, tasks = influence.shape
    votes, standing = np.zeros(n), np.zeros(n)
    count = max(1, int(share * n + 1e-9))
    for task in range(tasks):
        order = best_first(influence[:, task], digests)
        votes[order[:count]] += 1.0
        standing[order] += 1.0 - (np.arange(n) + 1.0) / n
    return votes, standing / max(1, tasks)


def unit(block: NDArray[np.floating]) -> Floats:
    """Rows scaled to length 1, in float64; zero rows stay zero."""
    rows = block.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0))


def _tasks(tables: Tables, gradients: Matrix, options: Options) -> tuple[Floats, NDArray[np.int64]]:
    """(t, d) mean unit gradient of each task, and the rows of the pool held out for it."""
    prefix = f"{options.features}."
    names = sorted(name for name in tables.matrices if name.startswith(prefix) and name != f"{prefix}anchor")
    if names:
        given = [tables.reference(name) for name in names]
        return np.array([unit(one.take(np.arange(one.shape[0]))).mean(axis=0) for one in given]), np.empty(0, np.int64)
    held = draw(tables, min(options.anchors, max(1, len(tables) // 10)), options.seed)
    sources = tables.sources[held]
    rows = unit(gradients.take(held))
    means = [rows[sources == source].mean(axis=0) for source in sorted(set(sources.tolist()))]
    return np.array(means).reshape(-1, gradients.shape[1]), held
