"""D2-Pruning: difficulty and diversity by messages on a nearest-neighbour graph.

Forward, every row adds its neighbours' difficulty: g_i = s_i + sum_j exp(-gamma_f dist_ij) max(s_j, 1e-7). Then, again
and again, the row with the largest g is picked and takes exp(-gamma_r dist) g off each of its neighbours.
Source: Maharana et al. (arXiv 2310.07931, repository at bf1ea46), and the copy used for visual instructions (COINCIDE
repository at 629f776). Neighbours are exact here; both take O((M k) log N) picks from a heap instead of O(N) scans.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.errors import ParamsError
from tasks.linalg.matrix import ArrayMatrix, Matrix
from tasks.linalg.neighbours import nearest
from tasks.methods.contract import Columns, Tables, best_first, signal_of
from tasks.methods.d2_walk import walk
from tasks.methods.windows import digest_ranks, finite_column

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_EPSILON = 1e-7


@dataclass(frozen=True)
class Options:
    """What the graph is made of, and how it is read.

    difficulty, features: any column (higher is preferred) and any matrix, of which distances are taken.
    graph: union, the original: neighbours either way, Euclidean distance, own score as it is. directed, the copy for
        visual instructions: a row's own neighbours only, squared distance, own score at least 1e-7.
    rule: exact, a true argmax; official_vit, the copy's walk down the first ranking (needs the directed graph).
    strata: 0, or cut the difficulty into this many equal ranges, each with a graph and an even budget of its own.
    """

    difficulty: str = "answers.margin"
    features: str = "pooled"
    neighbours: Annotated[int, Field(gt=0)] = 5
    gamma_forward: Annotated[float, Field(ge=0)] = 1.0
    gamma_reverse: Annotated[float, Field(ge=0)] = 0.4
    graph: Literal["union", "directed"] = "union"
    rule: Literal["exact", "official_vit"] = "exact"
    strata: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        if self.rule == "official_vit" and self.graph == "union":
            raise ParamsError("methods.d2.rule: official_vit needs methods.d2.graph: directed")


@dataclass(frozen=True)
class Graph:
    """Edges in compressed rows: those of row i are starts[i]:starts[i + 1] of targets and distances."""

    starts: Ints
    targets: Ints
    distances: Floats


def signals(options: Options) -> tuple[str, ...]:
    """The signals that hold the difficulty and the features."""
    return tuple(dict.fromkeys([signal_of(options.difficulty), signal_of(options.features)]))


def score(tables: Tables, options: Options) -> Columns:
    """`score`, the graph score after the forward pass; `difficulty`; `stratum`; `neighbours` and `distances` (n, k).

    Where a stratum has k rows or fewer, the missing neighbours are row -1 at distance infinity.
    """
    difficulty = finite_column(tables, options.difficulty)
    strata = stratum_of(difficulty, options.strata)
    rows, distances = _neighbours(tables, strata, options)
    graph = graph_of(rows, distances, options.graph)
    return {
        "score": forward(graph, difficulty, options.gamma_forward, clamp_own=options.graph == "directed"),
        "difficulty": difficulty,
        "stratum": strata,
        "neighbours": rows,
        "distances": distances,
    }


def select(columns: Columns, tables: Tables, budget: int, rng: np.random.Generator, options: Options) -> Ints:
    """The first `budget` picks; with strata, each stratum's even share of them, best graph score first."""
    graph = graph_of(columns["neighbours"], columns["distances"], options.graph)
    ranks = digest_ranks(tables.digests)
    strata = columns["stratum"]
    sizes = np.bincount(strata.astype(np.int64), minlength=max(1, options.strata))
    picks = [
        _pick(graph, columns["score"], np.nonzero(strata == stratum)[0], int(share), ranks, options)
        for stratum, share in enumerate(even_budgets(budget, sizes))
    ]
    if options.strata < 2:
        return picks[0]
    chosen = np.concatenate(picks)
    return chosen[best_first(columns["score"][chosen], tables.digests[chosen])]


def stratum_of(difficulty: Floats, strata: int) -> Ints:
    """The equal-width range of each row, 0 lowest; the upper edge is the maximum times 1.0001 as in the source."""
    if strata < 2 or len(difficulty) == 0:
        return np.zeros(len(difficulty), dtype=np.int64)
    low, high = difficulty.min(), difficulty.max()
    width = (high + 1e-4 * abs(high) - low) / strata
    if width <= 0:
        return np.zeros(len(difficulty), dtype=np.int64)
    return np.asarray(np.minimum(((difficulty - low) / width).astype(np.int64), strata - 1))


def even_budgets(budget: int, sizes: Ints) -> Ints:
    """An even share for each stratum, smallest first; what a small one cannot hold goes to the larger ones. Exact."""
    shares = np.zeros(len(sizes), dtype=np.int64)
    left = budget
    for place, stratum in enumerate(np.argsort(sizes, kind="stable")):
        shares[stratum] = min(sizes[stratum], left // (len(sizes) - place))
        left -= shares[stratum]
    return shares


def graph_of(rows: Ints, distances: Floats, kind: str) -> Graph:
    """The graph on (n, k) nearest neighbours: their union both ways, or directed with squared distances."""
    n, k = rows.shape
    real = rows.ravel() >= 0
    source, target = np.repeat(np.arange(n), k)[real], rows.ravel()[real]
    length = distances.ravel()[real]
    if kind == "directed":
        return Graph(np.searchsorted(source, np.arange(n + 1)).astype(np.int64), target, np.square(length))
    source, target = np.concatenate([source, target]), np.concatenate([target, source])
    edges, first = np.unique(source * n + target, return_index=True)
    source, target = edges // max(1, n), edges % max(1, n)
    length = np.concatenate([length, length])[first]
    return Graph(np.searchsorted(source, np.arange(n + 1)).astype(np.int64), target, length)


def forward(graph: Graph, difficulty: Floats, gamma: float, clamp_own: bool) -> Floats:
    """(n,) graph scores. Each row's messages are added in the order of their size, so row order plays no part."""
    n = len(difficulty)
    source = np.repeat(np.arange(n), np.diff(graph.starts))
    messages = np.exp(-gamma * graph.distances) * np.maximum(difficulty[graph.targets], _EPSILON)
    messages = messages[np.lexsort((messages, source))]
    sums = np.bincount(source, weights=messages, minlength=n)
    return np.asarray(sums + (np.maximum(difficulty, _EPSILON) if clamp_own else difficulty))


def _neighbours(tables: Tables, strata: Ints, options: Options) -> tuple[Ints, Floats]:
    """The nearest rows of each row inside its own stratum, as row numbers of the whole."""
    matrix = tables.matrix(options.features)
    n, k = len(tables), max(1, min(options.neighbours, len(tables) - 1))
    rows, distances = np.full((n, k), -1, dtype=np.int64), np.full((n, k), np.inf)
    ranks = digest_ranks(tables.digests)
    for stratum in np.unique(strata):
        members = np.nonzero(strata == stratum)[0]
        part: Matrix = matrix if len(members) == n else ArrayMatrix(matrix.take(members))
        found = nearest(part, k, ranks=ranks[members])
        width = found.rows.shape[1]
        rows[members, :width] = members[found.rows]
        distances[members, :width] = found.distances
    return rows, distances


def _pick(graph: Graph, scores: Floats, members: Ints, budget: int, ranks: Ints, options: Options) -> Ints:
    if options.rule == "official_vit":
        members = members[np.argsort(-ranks[members])]
        return np.asarray(walk(graph, scores, members, budget, options.gamma_reverse))
    return pick_largest(graph, scores, members, budget, ranks, options.gamma_reverse)


def pick_largest(graph: Any, scores: Floats, members: Ints, budget: int, ranks: Ints, gamma: float) -> Ints:
    """Repeat: pick the row of largest score (ties by rank), take exp(-gamma dist) times it off its neighbours.

    A score that goes below zero adds to its neighbours when picked, as in the source. Every change pushes a fresh heap
    entry; an entry that no longer tells the row's score is skipped.
    """
    current = scores.copy()
    free = np.zeros(len(scores), dtype=bool)
    free[members] = True
    heap = [(-current[row], ranks[row], row) for row in members]
    heapq.heapify(heap)
    picks: list[int] = []
    while len(picks) < budget:
        value, _, row = heapq.heappop(heap)
        if not free[row] or -value != current[row]:
            continue
        free[row] = False
        picks.append(row)
        edges = slice(graph.starts[row], graph.starts[row + 1])
        targets = graph.targets[edges]
        alive = free[targets]
        targets = targets[alive]
        current[targets] -= np.exp(-gamma * graph.distances[edges][alive]) * current[row]
        for target in targets:
            heapq.heappush(heap, (-current[target], ranks[target], target))
    return np.array(picks, dtype=np.int64)
