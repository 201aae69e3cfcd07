"""Self-supervised prototypes: how close a row lies to the centre of its k-means cluster.

Source: Sorscher et al., Beyond Neural Scaling Laws (arXiv 2206.14486): score = cosine distance to the nearest centroid;
keep the far, hard rows where data abound, the near, typical ones where the budget is small. What COINCIDE's tables used
is unpublished, so the direction is an option; near suits budgets up to about 0.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tasks.linalg.neighbours import cosines
from tasks.linalg.rounding import settle
from tasks.methods.clusters import find_clusters
from tasks.methods.contract import Columns, Tables, signal_of

_ROWS = 4096


@dataclass(frozen=True)
class Options:
    """`methods.self_sup`.

    keep: near or far.
    labels: a column of cluster numbers to use instead of clustering, where it is given.
    clusters, iterations, seed: of spherical k-means; K defaults to one for every 66 rows.
    """

    features: str = "pooled"
    keep: Literal["near", "far"] = "near"
    labels: str = "clusters"
    clusters: Annotated[int, Field(gt=0)] | None = None
    iterations: Annotated[int, Field(ge=0)] = 50
    seed: int = 1234


def signals(options: Options) -> tuple[str, ...]:
    """The signal of the features that are clustered."""
    return (signal_of(options.features),)


def score(tables: Tables, options: Options) -> Columns:
    """`score`, the cosine to the row's centroid (its negative for far); `cluster`; `prototypicality`, the cosine."""
    matrix = tables.matrix(options.features)
    if not len(tables):
        return {"score": np.empty(0), "cluster": np.empty(0, dtype=np.int64), "prototypicality": np.empty(0)}
    clusters = find_clusters(tables, options)
    cosine = np.empty(len(tables))
    for start in range(0, len(tables), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(tables)))
        centres = clusters.centroids[clusters.labels[rows]]
        cosine[rows] = cosines(matrix.take(rows).astype(np.float64), centres.astype(np.float64))
    cosine = settle(cosine)
    return {
        "score": cosine if options.keep == "near" else -cosine,
        "cluster": clusters.labels,
        "prototypicality": cosine,
    }
