"""PreSel: budgets by task from a small reference, then typical images from every cluster of the task.

A task's (here: a source's) weight is softmax(-r / T) with r the mean loss ratio over a random reference and T one over
the root of the number of tasks. Inside a task rows are clustered (1 % of them clusters), clusters get quotas by size,
and each gives its most typical rows: highest mean cosine to the k nearest of the cluster.
Source: Safaei et al. (CVPR 2025), repository at 2dd6709. We differ: the published ratio is loss with the question over
loss without it; the `answers` signal measures without the image, so that is the default denominator (name another
column if you have it). Tasks are capped at their size, which the source's LLaVA path forgets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.linalg.apportion import carry, largest_remainder
from tasks.linalg.kmeans import initial_rows, spherical_kmeans
from tasks.linalg.matrix import ArrayMatrix, Matrix
from tasks.linalg.neighbours import nearest
from tasks.linalg.rounding import settle
from tasks.methods.anchors import draw
from tasks.methods.contract import Columns, Tables, best_first, signal_of
from tasks.methods.windows import digest_ranks, finite_column

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Options:
    """Reference, clusters and typicality.

    loss, baseline: the columns whose ratio says how much a task needs its input. reference: its share of the pool; the
        reference rows are selected first. temperature: null is 1/sqrt(tasks).
    clusters: per row of a task. neighbours: of the typicality.
    """

    features: str = "clip.image"
    loss: str = "answers.nll"
    baseline: str = "answers.nll_without_image"
    reference: Annotated[float, Field(gt=0, le=1)] = 0.05
    temperature: Annotated[float, Field(gt=0)] | None = None
    clusters: Annotated[float, Field(gt=0, le=1)] = 0.01
    neighbours: Annotated[int, Field(gt=0)] = 5
    iterations: Annotated[int, Field(ge=0)] = 50
    seed: int = 0


def signals(options: Options) -> tuple[str, ...]:
    """The signals of features and losses."""
    return tuple(dict.fromkeys(signal_of(name) for name in (options.features, options.loss, options.baseline)))


def score(tables: Tables, options: Options) -> Columns:
    """`score`, the typicality; `cluster`, numbered through all tasks; `reference`, 1.0; `weight`, of the row's task."""
    matrix = tables.matrix(options.features)
    reference = draw(tables, max(1, round(options.reference * len(tables))), options.seed)
    tasks, member = np.unique(tables.sources, return_inverse=True)
    weights = task_weights(_ratios(tables, options), member, reference, len(tasks), options.temperature)
    typicality, cluster = np.zeros(len(tables)), np.zeros(len(tables), dtype=np.int64)
    for task in range(len(tasks)):
        rows = np.nonzero(member == task)[0]
        labels = _cluster(matrix, tables.digests, rows, options)
        cluster[rows] = labels + (cluster.max() + 1 if task else 0)
        for label in range(labels.max() + 1):
            mine = rows[labels == label]
            typicality[mine] = _typicality(matrix, tables.digests, mine, options)
    return {
        "score": settle(typicality),
        "cluster": cluster,
        "reference": np.isin(np.arange(len(tables)), reference).astype(np.float64),
        "weight": weights[member] if len(member) else np.empty(0),
    }


def select(columns: Columns, tables: Tables, budget: int, rng: np.random.Generator, options: Options) -> Ints:
    """The reference first (as far as the budget goes), then each task's quota, most typical of its clusters first."""
    order = best_first(columns["score"], tables.digests)
    first = order[columns["reference"][order] > 0][:budget]
    rest = order[columns["reference"][order] == 0]
    tasks, member = np.unique(tables.sources, return_inverse=True)
    room = np.bincount(member[rest], minlength=len(tasks)).astype(np.int64)
    weights = np.array([columns["weight"][member == task][0] for task in range(len(tasks))])
    quotas = task_quotas(weights, room, budget - len(first))
    chosen = [first]
    for task, quota in enumerate(quotas):
        chosen.append(_spread(rest[member[rest] == task], columns["cluster"], int(quota)))
    return np.concatenate(chosen)


def task_weights(ratio: Floats, member: Ints, reference: Ints, tasks: int, temperature: float | None) -> Floats:
    """(t,) softmax(-r / T) with r the mean ratio over the task's reference rows; a task without any gets the mean r."""
    counts = np.bincount(member[reference], minlength=tasks)
    sums = np.bincount(member[reference], weights=ratio[reference], minlength=tasks)
    overall = ratio[reference].mean() if len(reference) else 0.0
    means = np.where(counts > 0, sums / np.maximum(counts, 1), overall)
    logits = -means / (temperature or 1.0 / np.sqrt(max(1, tasks)))
    weights = np.exp(logits - logits.max()) if tasks else logits
    return np.asarray(weights / weights.sum())


def task_quotas(weights: Floats, room: Ints, budget: int) -> Ints:
    """Whole numbers near weight x budget, within each task's room, summing to `budget`."""
    order = np.argsort(-weights, kind="stable")
    quotas = np.zeros_like(room)
    quotas[order] = carry(weights[order], room[order], np.zeros_like(room), budget)
    return quotas


def _ratios(tables: Tables, options: Options) -> Floats:
    loss, baseline = finite_column(tables, options.loss), finite_column(tables, options.baseline)
    return loss / np.maximum(baseline, np.finfo(np.float64).tiny)


def _cluster(matrix: Matrix, digests: NDArray[np.str_], rows: Ints, options: Options) -> Ints:
    block = ArrayMatrix(matrix.take(rows))
    count = max(1, round(options.clusters * len(rows)))
    return spherical_kmeans(block, initial_rows(digests[rows], count, options.seed), options.iterations).labels


def _typicality(matrix: Matrix, digests: NDArray[np.str_], rows: Ints, options: Options) -> Floats:
    """Mean cosine to the nearest rows of the same cluster; 1 for a row alone in its cluster."""
    block = ArrayMatrix(matrix.take(rows))
    found = nearest(block, options.neighbours, "cosine", digest_ranks(digests[rows]))
    return np.asarray(1.0 - found.distances.mean(axis=1)) if len(rows) > 1 else np.ones(len(rows))


def _spread(rows: Ints, cluster: Ints, quota: int) -> Ints:
    """`quota` of the rows (most typical first), each cluster in proportion to its size."""
    if not len(rows):
        return rows
    labels, member, sizes = np.unique(cluster[rows], return_inverse=True, return_counts=True)
    quotas = largest_remainder(sizes.astype(np.int64), quota)
    place = np.empty(len(rows), dtype=np.int64)
    for label in range(len(labels)):
        mine = np.nonzero(member == label)[0]
        place[mine] = np.arange(len(mine))
    return rows[place < quotas[member]]
