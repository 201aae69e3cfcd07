"""The clusters that a method works in: those it was given, or those that spherical k-means finds."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from tasks.linalg.kmeans import Clusters, initial_rows, label_sums, spherical_kmeans
from tasks.linalg.matrix import Matrix
from tasks.linalg.rescaled import held_unit, unit_rows
from tasks.methods.contract import Tables
from tasks.methods.windows import Floats, finite_column


class Clustered(Protocol):
    """The options of a method that works in clusters."""

    @property
    def features(self) -> str:
        """The matrix whose rows are clustered."""

    @property
    def labels(self) -> str:
        """A column of cluster numbers; where there is one, nothing is clustered."""

    @property
    def clusters(self) -> int | None:
        """K; None: one for every 66 rows."""

    @property
    def iterations(self) -> int:
        """Most passes of k-means."""

    @property
    def seed(self) -> int:
        """Of the rows k-means starts from."""


def find_clusters(tables: Tables, options: Clustered) -> Clusters:
    """The column `options.labels` where it was given, else spherical k-means. Raises FeatureError."""
    matrix = tables.matrix(options.features)
    if options.labels in tables.columns:
        return given_clusters(matrix, finite_column(tables, options.labels))
    initial = initial_rows(tables.digests, options.clusters, options.seed)
    return spherical_kmeans(matrix, initial, options.iterations)


def given_clusters(matrix: Matrix, labels: Floats) -> Clusters:
    """Clusters by (n,) numbers, equal ones together, in ascending order; centroids are the unit means of unit rows."""
    names, compact = np.unique(labels, return_inverse=True)
    compact = compact.astype(np.int64)
    sums = label_sums(held_unit(matrix), compact, len(names))
    return Clusters(compact, unit_rows(sums).astype(np.float32), 0)
