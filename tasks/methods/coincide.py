"""COINCIDE: clusters that transfer and are not dense get more of the budget; inside a cluster, rows that cover it.

Source: arXiv 2406.10995 and G-JWLee/COINCIDE_code. The paper and its code are two different methods, hence two presets.
A cluster's share of the budget is softmax(S / (tau D)): S its transferability (mean cosine to other centroids), D its
density (mean Gaussian kernel). Rows are picked by greedy MMD minimisation. docs/methods.md lists the differences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import softmax

from tasks.linalg.apportion import carry, round_in_turn, round_up
from tasks.linalg.grouping import gathered, members
from tasks.linalg.kmeans import Clusters, label_sums
from tasks.linalg.matrix import Matrix
from tasks.linalg.mmd import Kernel, gaussian, greedy_mmd
from tasks.linalg.rescaled import unit_rows
from tasks.methods.clusters import find_clusters
from tasks.methods.contract import Columns, Notes, Tables, digest_order, signal_of


@dataclass(frozen=True)
class Options:
    """`methods.coincide`.

    preset: `paper`: S over all centroids and whole vectors, D over pairs of different rows. `official`: S over language
        halves without cosines above 0.9, D with the diagonal.
    features: pooled states of several layers, visual and language halves.
    language: the language halves alone; only the official preset reads them.
    labels: a column of cluster numbers to use instead of clustering, where it is given.
    clusters: K of spherical k-means; default one for every 66 rows (10,000 for LLaVA-665K). Never more than rows.
    iterations, seed: of k-means.
    temperature, sigma: tau of the softmax; width of the Gaussian kernel.
    twins: language cosines above this, a centroid's own among them, do not count in the official S.
    rounding: `carry` rounds what is left of the budget in turn; `ceil` rounds every quota up, as the paper's loop does.
        Either is then completed to exactly the budget.
    """

    preset: Literal["paper", "official"] = "paper"
    features: str = "pooled"
    language: str = "pooled.language"
    labels: str = "clusters"
    clusters: Annotated[int, Field(gt=0)] | None = None
    iterations: Annotated[int, Field(ge=0)] = 50
    seed: int = 1234
    temperature: Annotated[float, Field(gt=0)] = 0.1
    sigma: Annotated[float, Field(gt=0)] = 1.0
    twins: Annotated[float, Field(gt=0, le=1)] = 0.9
    rounding: Literal["carry", "ceil"] = "carry"


def signals(options: Options) -> tuple[str, ...]:
    """The pooled states, and their language halves under the official preset."""
    names = (options.features, options.language) if options.preset == "official" else (options.features,)
    return tuple(dict.fromkeys(signal_of(name) for name in names))


def score(tables: Tables, options: Options) -> Columns:
    """The order in which a growing budget takes rows: share / (place + 1/2), place being the row's in its cluster.

    Also "cluster", "place" (greedy MMD, 0 first), "share", "transferability" and "density" of the cluster.
    """
    return explain(tables, options)[0]


def explain(tables: Tables, options: Options) -> tuple[Columns, Notes]:
    """The scores, with the number of clusters and k-means updates."""
    matrix = tables.matrix(options.features)
    clusters = find_clusters(tables, options)
    groups = members(clusters.labels, digest_order(tables.digests), len(clusters.centroids))
    place, density = _look_inside(matrix, groups, options)
    transfer = _transferability(tables, clusters, options)
    share = shares(transfer, density, options.temperature)
    of_row = clusters.labels
    columns: Columns = {
        "score": share[of_row] / (place + 0.5),
        "cluster": of_row,
        "place": place,
        "share": share[of_row],
        "transferability": transfer[of_row],
        "density": density[of_row],
    }
    return columns, Notes({"clusters": len(clusters.centroids), "iterations": clusters.iterations})


def select(
    columns: Columns, tables: Tables, budget: int, rng: np.random.Generator, options: Options
) -> NDArray[np.int64]:
    """Exactly `budget` rows: clusters by descending share, in each the first of its greedy order.

    Where the official code takes a cluster whole it lists it in row order; here, by digest.
    """
    found, first, labels, sizes = np.unique(
        columns["cluster"], return_index=True, return_inverse=True, return_counts=True
    )
    by_place = members(labels, np.argsort(columns["place"], kind="stable"), len(found))
    by_digest = members(labels, digest_order(tables.digests), len(found))
    order = np.argsort(-columns["share"][first], kind="stable")
    share, room = columns["share"][first][order], sizes[order].astype(np.int64)
    taken, wanted = round_in_turn(share, room, budget)
    whole = (wanted > room) & (options.preset == "official")
    quotas = carry(share, room, taken if options.rounding == "carry" else round_up(share, room, budget), budget)
    picks = [
        (by_digest if whole[turn] and quotas[turn] == room[turn] else by_place)[cluster][: quotas[turn]]
        for turn, cluster in enumerate(order)
    ]
    return np.concatenate([np.empty(0, dtype=np.int64), *picks])


def shares(transfer: NDArray[np.float64], density: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """softmax(S / (tau D)): each cluster's share of the budget."""
    result: NDArray[np.float64] = softmax(transfer / (temperature * density)) if len(transfer) else transfer
    return result


def transferability_paper(centroids: NDArray[np.floating]) -> NDArray[np.float64]:
    """S: mean cosine of each centroid to all centroids, itself included; (K,)."""
    unit = unit_rows(centroids.astype(np.float64))
    total: NDArray[np.float64] = unit @ unit.sum(axis=0)
    return total / max(len(unit), 1)


def transferability_official(halves: NDArray[np.floating], twins: float = 0.9) -> NDArray[np.float64]:
    """S of the published code: mean of the language-half cosines not above `twins`; 0 where none is left; (K,)."""
    unit = unit_rows(halves.astype(np.float64))
    result = np.zeros(len(unit))
    for row, vector in enumerate(unit):
        cosine = unit @ vector
        kept = cosine <= twins
        result[row] = cosine[kept].sum() / max(int(kept.sum()), 1)
    return result


def density_of(kernel: Kernel, diagonal: bool) -> float:
    """D: mean of a cluster's kernel; without its diagonal a single row has no pair, and counts as fully dense (1)."""
    size = len(kernel.means)
    if diagonal or size == 1:
        return float(kernel.means.mean())
    return float((kernel.means.sum() - 1) / (size - 1))


def _look_inside(
    matrix: Matrix, groups: list[NDArray[np.int64]], options: Options
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Each row's place in the greedy order of its cluster, and each cluster's density."""
    place = np.zeros(matrix.shape[0], dtype=np.int64)
    density = np.ones(len(groups))
    for number, rows in gathered(matrix, groups):
        kernel = gaussian(unit_rows(rows.astype(np.float64)), options.sigma)
        place[groups[number][greedy_mmd(kernel)[0]]] = np.arange(len(rows))
        density[number] = density_of(kernel, diagonal=options.preset == "official")
    return place, density


def _transferability(tables: Tables, clusters: Clusters, options: Options) -> NDArray[np.float64]:
    if options.preset == "paper":
        return transferability_paper(clusters.centroids)
    halves = tables.matrix(options.language)
    return transferability_official(label_sums(halves, clusters.labels, len(clusters.centroids)), options.twins)
