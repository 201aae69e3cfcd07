"""The rows in play: those that were extracted, with everything a method or a constraint may ask about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.errors import FeatureError
from tasks.features import FeatureTable, ShardMatrix
from tasks.layout import Layout
from tasks.linalg.matrix import ColumnSlice, Matrix
from tasks.linalg.moments import Moments
from tasks.linalg.pieces import Nothing, measure_pieces
from tasks.linalg.products import Products
from tasks.methods.contract import Tables
from tasks.moment_cache import MomentCache
from tasks.params import PooledSettings, RunSettings


@dataclass(frozen=True)
class PoolRows:
    """n extracted rows, in row order. Rows rejected or set aside before scoring are simply not here.

    tables: what methods see. rows: (n,) position in the dataset. ids: the dataset's own ids, or None.
    samples: the file that `images` is read from.
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


def read_pool(
    layout: Layout, signals: Sequence[str] = (), pooled: PooledSettings | None = None, run: RunSettings | None = None
) -> PoolRows:
    """The extracted rows with the matrices and columns of the given signals, opened but not read.

    pooled: how the `pooled` signal was laid out, which is what it takes to offer its halves by name.
    run: where moments are measured, and then kept in the store for the next time; they come out the same without.
    Without signals the rows are those of any signal: the same in all; where none was asked for, all that have images.
    Raises FeatureError when a signal is missing, or was extracted from other samples.
    """
    names = signals or _extracted(layout.features)[:1]
    if not names:
        return _read_unmeasured(layout.samples)
    named = {name: FeatureTable(layout.features / name) for name in names}
    first = next(iter(named.values()))
    matrices: dict[str, Matrix] = {}
    columns: dict[str, NDArray[np.float64]] = {}
    moments: dict[str, Callable[[Products], Moments]] = {}
    caches = _caches(layout) if run else {}
    for name, table in named.items():
        if not np.array_equal(table.digests, first.digests):
            raise FeatureError(f"{table.folder}: not the rows of {first.folder}; extract again")
        whole = {column: table.matrix(column) for column in table.matrices}
        matrices |= {**dict(_matrices(name, whole, pooled)), **_anchors(name, table.folder)}
        for column in whole:
            cache = MomentCache(caches[name] / column) if name in caches else None
            moments[_matrix_name(name, column)] = partial(_measure, table, column, cache, run)
        if name in signals:
            columns |= {f"{name}.{column}": table.column(column) for column in table.statistics}
    samples = _read_samples(layout.samples, ["row", "digest", "source"], first.rows)
    if samples["digest"].to_pylist() != first.digests.tolist():
        raise FeatureError(f"{first.folder}: extracted from other samples than {layout.samples}; extract again")
    sources = np.array([source or "" for source in samples["source"].to_pylist()], dtype=np.str_)
    ids = first.read(["id"])["id"].to_pylist()
    return PoolRows(Tables(first.digests, sources, matrices, columns, moments), first.rows, ids, layout.samples)


def _caches(layout: Layout) -> dict[str, Path]:
    """Where the moments of each signal are kept; none for features whose fingerprints nobody recorded."""
    record = layout.features / "extraction.json"
    if not record.is_file():
        return {}
    signals = json.loads(record.read_text(encoding="utf-8"))["signals"]
    return {name: layout.store / one["fingerprint"] / "moments" for name, one in signals.items()}


def _measure(
    table: FeatureTable, column: str, cache: MomentCache | None, run: RunSettings | None, products: Products
) -> Moments:
    matrix = table.matrix(column)
    if cache is not None and run is not None and run.engine == "ray":
        from tasks.engines.reduction import fill

        fill(table.folder, column, matrix.shape, table.digests, cache, run.ray)
    return measure_pieces(matrix.read_spans, matrix.shape, table.digests, cache or Nothing(), products)


def _matrix_name(signal: str, column: str) -> str:
    """ "attended", "clip.image", ..."""
    return signal if column == "feature" else f"{signal}.{column}"


def _matrices(name: str, whole: dict[str, ShardMatrix], pooled: PooledSettings | None) -> Iterator[tuple[str, Matrix]]:
    """The matrices of a signal; of `pooled` also the visual and the language halves."""
    for column, matrix in whole.items():
        yield _matrix_name(name, column), matrix
        if name == "pooled" and column == "feature" and pooled is not None:
            yield from _halves(matrix, pooled)


def _anchors(signal: str, folder: Path) -> dict[str, Matrix]:
    """ "gradients.anchor", ...: reference sets beside a signal, rows of their own."""
    parts = sorted(folder.glob("*/part-00000.parquet"))
    return {f"{signal}.{part.parent.name}": FeatureTable(part.parent).matrix() for part in parts}


def _extracted(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.glob("*/") if any(path.glob("*.parquet")))
    if not names and not (folder / "extraction.json").is_file():
        raise FeatureError(f"{folder}: no features; run the extract stage")
    return names


def _read_unmeasured(path: Path) -> PoolRows:
    """The rows that would be extracted, for a method that looks at nothing."""
    with pq.ParquetFile(path) as file:
        table = file.read(columns=["row", "id", "digest", "source", "text_only"])
    table = table.filter(pc.invert(table["text_only"]))
    digests, sources = table["digest"].to_pylist(), [source or "" for source in table["source"].to_pylist()]
    tables = Tables(np.array(digests, dtype="U64"), np.array(sources, dtype=np.str_))
    return PoolRows(tables, np.asarray(table["row"]), table["id"].to_pylist(), path)


def _halves(matrix: Matrix, pooled: PooledSettings) -> Iterator[tuple[str, Matrix]]:
    # Layer by layer, and in each layer part by part.
    blocks = np.arange(matrix.shape[1]).reshape(len(pooled.layers), len(pooled.parts), -1)
    for number, part in enumerate(pooled.parts):
        yield f"pooled.{part}", ColumnSlice(matrix, blocks[:, number].reshape(-1))


def _read_samples(path: Path, columns: list[str], rows: NDArray[np.int64]) -> Any:
    """The given dataset rows of samples.parquet, in that order. Raises FeatureError when one is not there."""
    with pq.ParquetFile(path) as file:
        table = file.read(columns=columns)
    have = np.asarray(table["row"])
    place = np.searchsorted(have, rows)
    if len(rows) and (place[-1] >= len(have) or not np.array_equal(have[place], rows)):
        raise FeatureError(f"{path}: lacks rows that were extracted; validate and extract again")
    return table.take(place)
