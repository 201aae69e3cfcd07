"""Features brought by the user: arrays in files, scored as the tables that methods read. No model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.composition import budget_count
from tasks.errors import FeatureError, ParamsError
from tasks.features import FeatureTable, open_array
from tasks.linalg.matrix import ArrayMatrix, Matrix
from tasks.methods.contract import Tables, best_first
from tasks.scores import write_scores
from tasks.scoring import find_method, run


@dataclass(frozen=True)
class Arrays:
    """tables: what methods see. rows, ids, digests: as the file names them, else row numbers and None."""

    tables: Tables
    rows: NDArray[np.int64]
    ids: Sequence[str | None]
    digests: Sequence[str | None]


def score_array(
    features: Path,
    method: str,
    options: Mapping[str, Any],
    out: Path,
    files: Mapping[str, Path] | None = None,
    budget: int | float | None = None,
    seed: int = 0,
) -> None:
    """Score features from anywhere and write `out` (row, id, digest, score, rank, the method's columns).

    features: a .npy, a Parquet file, or a folder of either. options: of the method, as `key` or `methods.<name>.key`.
    files: further inputs by the name a method calls them, such as "clip.text" or "answers.nll". No model is loaded.
    budget: then `picked` says which place a row has in the method's subset of that size, -1 where it has none.
    Raises FeatureError, ParamsError and BudgetError.
    """
    chosen = find_method(method)
    parsed = chosen.parse({_own_key(chosen.name, key): value for key, value in options.items()})
    arrays = read_arrays(features, getattr(parsed, "features", None), files or {})
    columns, _ = run(chosen, arrays.tables, parsed)
    order = best_first(columns["score"], arrays.tables.digests)
    if budget is not None:
        count = budget_count(budget, len(arrays.tables))
        picks = chosen.select(columns, arrays.tables, count, np.random.default_rng(seed), parsed)
        columns["picked"] = np.full(len(arrays.tables), -1, dtype=np.int64)
        columns["picked"][picks] = np.arange(count)
    write_scores(out, arrays.rows, arrays.ids, arrays.digests, columns, order)


def read_arrays(features: Path, name: str | None, files: Mapping[str, Path]) -> Arrays:
    """n rows: `features` as the matrix called `name`, and `files` as matrices or columns by their names.

    Parquet features may name each row's `id`, `digest` and `source`: rows without a digest tie by position, rows
    without a source come from one. Raises FeatureError naming the file.
    """
    main = open_matrix(features)
    n = main.shape[0]
    matrices: dict[str, Matrix] = {name: main} if name else {}
    columns: dict[str, NDArray[np.float64]] = {}
    for extra, path in files.items():
        if (column := read_column(path)) is None:
            matrices[extra] = open_matrix(path)
        elif len(column) != n:
            raise FeatureError(f"{path}: {len(column)} numbers for {n} rows of {features}")
        else:
            columns[extra] = column
    names = _identity(features, n)
    ties = names["digest"] if None not in names["digest"] else [f"{row:012d}" for row in range(n)]
    sources = [one or "" for one in names["source"]]
    tables = Tables(np.array(ties, dtype=np.str_), np.array(sources, dtype=np.str_), matrices, columns)
    return Arrays(tables, _rows(features, n), names["id"], names["digest"])


def open_matrix(path: Path) -> Matrix:
    """A matrix file or folder; a single .npy of float64 keeps its precision. Raises FeatureError."""
    if path.suffix == ".npy" and path.is_file():
        array = _load(path)
        if array.ndim == 2 and array.dtype == np.float64:
            return ArrayMatrix(array)
    return open_array(path)


def read_column(path: Path) -> NDArray[np.float64] | None:
    """(n,) numbers of a one-dimensional .npy, or of a Parquet file whose only number column it is; None otherwise."""
    if path.suffix == ".npy" and path.is_file():
        array = _load(path)
        return np.asarray(array, dtype=np.float64) if array.ndim == 1 else None
    if path.suffix == ".parquet" and path.is_file():
        try:
            schema = pq.read_schema(path)
        except pa.ArrowException as error:
            raise FeatureError(f"{path}: not a whole Parquet file: {error}") from None
        numbers = [field.name for field in schema if _is_number(field)]
        if len(numbers) == 1 and not any(pa.types.is_nested(field.type) for field in schema):
            return np.asarray(pq.read_table(path, columns=numbers)[numbers[0]].to_numpy(), dtype=np.float64)
    return None


def _is_number(field: pa.Field) -> bool:
    return field.name != "row" and bool(pa.types.is_floating(field.type) or pa.types.is_integer(field.type))


def _own_key(method: str, key: str) -> str:
    section, _, name = key.rpartition(".")
    if section not in ("", method, f"methods.{method}"):
        raise ParamsError(f"--set {key}: expected methods.{method}.{name}; scoring an array reads nothing else")
    return name


def _load(path: Path) -> NDArray[np.generic]:
    try:
        array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FeatureError(f"{path}: not a whole .npy file: {error}") from None
    return array


def _identity(path: Path, n: int) -> dict[str, list[str | None]]:
    """id, digest and source of the rows, as far as Parquet features name them; None for each row otherwise."""
    found: dict[str, list[str | None]] = {name: [None] * n for name in ("id", "digest", "source")}
    parts = sorted(path.glob("*.parquet")) if path.is_dir() else [path] if path.suffix == ".parquet" else []
    for name in found if parts else ():
        if all(name in pq.read_schema(part).names for part in parts):
            columns = [pq.ParquetFile(part).read(columns=[name])[name] for part in parts]
            found[name] = [one for column in columns for one in column.cast(pa.string()).to_pylist()]
    return found


def _rows(path: Path, n: int) -> NDArray[np.int64]:
    """Rows in the dataset, of features that `extract` wrote; else 0, 1, 2, ..."""
    if path.is_dir() and any(path.glob("*.parquet")):
        table = FeatureTable(path)
        if {"row", "id", "digest"} <= set(table.schema.names):
            return table.rows
    return np.arange(n)
