"""The rows in play: those that were extracted, with everything a method or a constraint may ask about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.errors import FeatureError
from tasks.features import FeatureTable
from tasks.layout import Layout
from tasks.linalg.matrix import ColumnSlice, Matrix
from tasks.methods.contract import Tables
from tasks.params import PooledSettings, Settings


@dataclass(frozen=True)
class Pool:
    """n extracted rows, in row order. Rows rejected or set aside before scoring are simply not here.

    tables: what methods see. rows: (n,) position in the dataset. ids: the dataset's own ids, or None.
    samples: the file that the facts below are read from.
    """

    tables: Tables
    rows: NDArray[np.int64]
    ids: Sequence[str | None]
    samples: Path

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def images(self) -> list[list[str]]:
        """sha256 of each row's images, in order."""
        wanted = _read_samples(self.samples, ["row", "images.list.element.sha256"], self.rows)
        return [[image["sha256"] for image in images] for images in wanted["images"].to_pylist()]

    @cached_property
    def turns(self) -> NDArray[np.int64]:
        """(n,) number of turns."""
        return np.asarray(_read_samples(self.samples, ["row", "n_turns"], self.rows)["n_turns"], dtype=np.int64)

    @cached_property
    def characters(self) -> NDArray[np.int64]:
        """(n,) characters of text."""
        return np.asarray(_read_samples(self.samples, ["row", "characters"], self.rows)["characters"], dtype=np.int64)


def read_pool(settings: Settings, layout: Layout, signals: Sequence[str] = ()) -> Pool:
    """The extracted rows with the matrices and columns of the given signals, opened but not read.

    Without signals the rows are those of the first signal extracted: the same in all.
    Raises FeatureError when a signal is missing, or was extracted from other samples.
    """
    named = {name: FeatureTable(layout.features / name) for name in signals or settings.extract.signals[:1]}
    first = next(iter(named.values()))
    matrices: dict[str, Matrix] = {}
    columns: dict[str, NDArray[np.float64]] = {}
    for name, table in named.items():
        if not np.array_equal(table.digests, first.digests):
            raise FeatureError(f"{table.folder}: not the rows of {first.folder}; extract again")
        matrices |= dict(_matrices(name, table, settings))
        if name in signals:
            columns |= {f"{name}.{column}": table.column(column) for column in table.statistics}
    samples = _read_samples(layout.samples, ["row", "digest", "source"], first.rows)
    if samples["digest"].to_pylist() != first.digests.tolist():
        raise FeatureError(f"{first.folder}: extracted from other samples than {layout.samples}; extract again")
    sources = np.array([source or "" for source in samples["source"].to_pylist()], dtype=np.str_)
    ids = first.read(["id"])["id"].to_pylist()
    return Pool(Tables(first.digests, sources, matrices, columns), first.rows, ids, layout.samples)


def _matrices(name: str, table: FeatureTable, settings: Settings) -> Iterator[tuple[str, Matrix]]:
    """ "attended", "clip.image", ...; of `pooled` also the visual and the language halves."""
    for column in table.matrices:
        matrix = table.matrix(column)
        yield (name if column == "feature" else f"{name}.{column}"), matrix
        if name == "pooled" and column == "feature":
            yield from _halves(matrix, settings.extract.pooled)


def _halves(matrix: Matrix, pooled: PooledSettings) -> Iterator[tuple[str, Matrix]]:
    # Layer by layer, and in each layer part by part.
    blocks = np.arange(matrix.shape[1]).reshape(len(pooled.layers), len(pooled.parts), -1)
    for number, part in enumerate(pooled.parts):
        yield f"pooled.{part}", ColumnSlice(matrix, blocks[:, number].reshape(-1))


def _read_samples(path: Path, columns: list[str], rows: NDArray[np.int64]) -> Any:
    """The given dataset rows of samples.parquet, in that order. Raises FeatureError when one is not there."""
    table = pq.read_table(path, columns=columns)
    have = np.asarray(table["row"])
    place = np.searchsorted(have, rows)
    if len(rows) and (place[-1] >= len(have) or not np.array_equal(have[place], rows)):
        raise FeatureError(f"{path}: lacks rows that were extracted; validate and extract again")
    return table.take(place)
