"""SemDeDup: within clusters, rows that no harder row resembles.

Source: arXiv 2303.09540 and facebookresearch/SemDeDup. In every cluster rows stand from the farthest from the centroid
to the nearest; M is a row's largest cosine to any row before it. The published code drops rows with M > 1 - eps and
tunes eps by hand; sorting M once meets any budget exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.errors import BudgetError, ParamsError
from tasks.linalg.grouping import gathered, members
from tasks.linalg.rescaled import unit_rows
from tasks.linalg.rounding import settle
from tasks.linalg.sampling import draws
from tasks.methods.clusters import find_clusters
from tasks.methods.contract import Columns, Notes, Tables, best_first, digest_order, signal_of

CHUNK_ROWS = 2048


@dataclass(frozen=True)
class Options:
    """`methods.semdedup`.

    features: embeddings compared by cosine.
    labels: a column of cluster numbers to use instead of clustering, where it is given.
    clusters: K of spherical k-means; default one for every 66 rows (10,000 for LLaVA-665K). Never more than rows.
    iterations, seed: of k-means.
    eps: drop rows with M > 1 - eps, then draw the budget from the survivors. Null: the `budget` rows of smallest M.
    rule: `official` compares a row with all before it, kept or dropped; `one_per_group` with the kept only (needs eps).
    """

    features: str = "pooled"
    labels: str = "clusters"
    clusters: Annotated[int, Field(gt=0)] | None = None
    iterations: Annotated[int, Field(ge=0)] = 50
    seed: int = 1234
    eps: Annotated[float, Field(ge=0, le=1)] | None = None
    rule: Literal["official", "one_per_group"] = "official"

    def __post_init__(self) -> None:
        if self.rule == "one_per_group" and self.eps is None:
            raise ParamsError("methods.semdedup.rule: one_per_group needs methods.semdedup.eps, for example 0.07")


def signals(options: Options) -> tuple[str, ...]:
    """The one signal whose features are compared."""
    return (signal_of(options.features),)


def score(tables: Tables, options: Options) -> Columns:
    """1 - M, with "cluster", "similarity" (M), and "kept" (1 where eps keeps the row) when eps is given."""
    return explain(tables, options)[0]


def explain(tables: Tables, options: Options) -> tuple[Columns, Notes]:
    """The scores, with the number of clusters and k-means updates."""
    matrix = tables.matrix(options.features)
    clusters = find_clusters(tables, options)
    by_digest = digest_order(tables.digests)
    groups = members(clusters.labels, by_digest, len(clusters.centroids))
    similarity = np.zeros(len(tables))
    kept = np.ones(len(tables), dtype=bool)
    for number, rows in gathered(matrix, groups):
        points = unit_rows(rows.astype(np.float64))
        distance = settle(1 - points @ clusters.centroids[number].astype(np.float64), 30)
        order = np.argsort(-distance, kind="stable")
        similarity[groups[number][order]] = earlier_similarity(points[order])
        if options.eps is not None:
            kept[groups[number][order]] = survivors(points[order], options.eps, options.rule)
    columns: Columns = {"score": 1 - similarity, "cluster": clusters.labels, "similarity": similarity}
    if options.eps is not None:
        columns["kept"] = kept.astype(np.int64)
    facts = {"clusters": len(clusters.centroids), "iterations": clusters.iterations, "kept": int(kept.sum())}
    return columns, Notes(facts)


def select(
    columns: Columns, tables: Tables, budget: int, rng: np.random.Generator, options: Options
) -> NDArray[np.int64]:
    """The `budget` rows of smallest M; with eps, a seeded draw from the survivors.

    Raises BudgetError when eps leaves fewer than `budget`.
    """
    if options.eps is None:
        return best_first(columns["score"], tables.digests)[:budget]
    left = np.flatnonzero(columns["kept"])
    if len(left) < budget:
        raise BudgetError(
            f"methods.semdedup.eps: {options.eps} keeps {len(left)} rows, the budget is {budget}: "
            "lower eps, or leave it null to meet any budget"
        )
    return left[best_first(draws(tables.digests[left], rng), tables.digests[left])[:budget]]


def earlier_similarity(points: NDArray[Any]) -> NDArray[np.float64]:
    """M of each unit row: its largest cosine to a row before it, at least 0; 0 for the first. Cost: m^2 d / 2."""
    result = np.zeros(len(points))
    for start in range(0, len(points), CHUNK_ROWS):
        rows = points[start : start + CHUNK_ROWS]
        cosine = rows @ points[: start + len(rows)].T
        position = np.arange(start, start + len(rows))[:, None]
        cosine[np.arange(cosine.shape[1]) >= position] = 0
        result[start : start + len(rows)] = cosine.max(axis=1, initial=0)
    return settle(result, 30)


def survivors(points: NDArray[Any], eps: float, rule: str) -> NDArray[np.bool_]:
    """Which unit rows stay, under the official rule or comparing with kept rows only."""
    if rule == "official":
        return earlier_similarity(points) <= 1 - eps
    kept = np.zeros(len(points), dtype=bool)
    for row in range(len(points)):
        kept[row] = not (points[:row][kept[:row]] @ points[row] > 1 - eps).any()
    return kept
