"""Features brought by the user: arrays in files, as the tables that methods read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.errors import FeatureError
from tasks.features import FeatureTable, open_array
from tasks.linalg.matrix import ArrayMatrix, Matrix
from tasks.methods.contract import Tables


@dataclass(frozen=True)
class Arrays:
    """tables: what methods see. rows, ids, digests: as the file names them, else row numbers and None."""

    tables: Tables
    rows: NDArray[np.int64]
    ids: Sequence[str | None]
    digests: Sequence[str | None]


def read_arrays(features: Path, name: str | None, files: Mapping[str, Path]) -> Arrays:
    """n rows: `features` as the matrix called `name`, and `files` as matrices or columns by their names.

    Rows without a digest tie by position, and all come from one source. Raises FeatureError naming the file.
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
    rows, ids, digests = _identity(features, n)
    ties = digests if None not in digests else [f"{row:012d}" for row in range(n)]
    tables = Tables(np.array(ties, dtype=np.str_), np.full(n, "all"), matrices, columns)
    return Arrays(tables, rows, ids, digests)


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


def _load(path: Path) -> NDArray[np.generic]:
    try:
        array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FeatureError(f"{path}: not a whole .npy file: {error}") from None
    return array


def _identity(path: Path, n: int) -> tuple[NDArray[np.int64], Sequence[str | None], Sequence[str | None]]:
    """row, id and digest of features that `extract` wrote; numbers alone for any other file."""
    if path.is_dir() and any(path.glob("*.parquet")):
        table = FeatureTable(path)
        if {"row", "id", "digest"} <= set(table.schema.names):
            return table.rows, table.read(["id"])["id"].to_pylist(), table.digests.tolist()
    return np.arange(n), [None] * n, [None] * n
