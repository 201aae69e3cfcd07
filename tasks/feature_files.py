"""One file of features: how many rows, how wide, and any rows of it as float32.

Files of `extract` keep each matrix in one piece (tasks.assembly.ONE_PAGE), which is read straight into place; other
Parquet files go through pyarrow, and .npy files are memory-mapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.assembly import ONE_PAGE
from tasks.errors import FeatureError

Floats = NDArray[np.float32]

_TORCH_PAYS = 1 << 26
"""Bytes of float16 from which importing torch costs less than numpy's slow cast (1.4 against 15 GB/s)."""


class FeatureFile(Protocol):
    """Some consecutive rows of a matrix."""

    path: Path
    shape: tuple[int, int]

    def read(self, start: int, stop: int, out: Floats) -> None:
        """Rows start to stop into `out`."""

    def take(self, rows: NDArray[np.int64]) -> Floats:
        """The given rows, in the order asked for."""


def open_file(path: Path, column: str | None = None) -> list[FeatureFile]:
    """The pieces of a .npy or Parquet file, in row order. Raises FeatureError naming the file."""
    if path.suffix == ".npy":
        return [NpyFile(path)]
    try:
        file = pq.ParquetFile(path, memory_map=True)
    except FileNotFoundError:
        raise FeatureError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise FeatureError(f"{path}: not a whole Parquet file: {error}") from None
    column = find_matrix(path, file.schema_arrow, column)
    kind = file.schema_arrow.field(column).type
    if ONE_PAGE.items() <= (file.schema_arrow.metadata or {}).items() and pa.types.is_fixed_size_list(kind):
        return [_map_group(path, file, group, column, kind.list_size) for group in range(file.num_row_groups)]
    return [ParquetGroup(path, file, group, column) for group in range(file.num_row_groups)]


def find_matrix(path: Path, schema: pa.Schema, column: str | None = None) -> str:
    """The column that holds vectors: the one named, or the only one."""
    vectors = [field.name for field in schema if _is_vector(field.type)]
    if column is None and len(vectors) == 1:
        return str(vectors[0])
    if column in vectors:
        return str(column)
    wanted = f"column `{column}`" if column else "exactly one column of vectors"
    raise FeatureError(f"{path}: expected {wanted}; its columns of vectors: {', '.join(vectors) or 'none'}")


class NpyFile:
    """A two-dimensional .npy file of float16, float32 or float64."""

    def __init__(self, path: Path) -> None:
        try:
            self._array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise FeatureError(f"{path}: no such file") from None
        except (ValueError, OSError, EOFError) as error:
            raise FeatureError(f"{path}: not a whole .npy file: {error}") from None
        if self._array.ndim != 2 or self._array.dtype.kind != "f":
            raise FeatureError(
                f"{path}: expected a matrix of floats, found {self._array.dtype} of shape {self._array.shape}"
            )
        self.path = path
        self.shape = (self._array.shape[0], self._array.shape[1])
        self._offset = int(getattr(self._array, "offset", 0))

    def read(self, start: int, stop: int, out: Floats) -> None:
        """Rows start to stop into `out`: by reading, since pages of a map would count as our memory."""
        rows = self._array[start:stop]
        if not (self._array.flags.c_contiguous and rows.dtype.isnative):
            cast_into(rows, out, self._array.nbytes)
            return
        raw = out if rows.dtype == out.dtype else np.empty(rows.shape, dtype=rows.dtype)
        with self.path.open("rb") as file:
            file.seek(self._offset + start * self.shape[1] * rows.itemsize)
            if file.readinto(raw.reshape(-1).view(np.uint8)) != raw.nbytes:  # type: ignore[arg-type]
                raise FeatureError(f"{self.path}: ends before row {stop}; it was cut short while being read")
        if raw is not out:
            cast_into(raw, out, self._array.nbytes)

    def take(self, rows: NDArray[np.int64]) -> Floats:
        """The given rows."""
        return np.asarray(self._array[rows], dtype=np.float32)


@dataclass
class MappedGroup:
    """Rows whose values lie in one piece at `offset` of the file."""

    path: Path
    shape: tuple[int, int]
    offset: int

    def read(self, start: int, stop: int, out: Floats) -> None:
        """Rows start to stop into `out`."""
        with self.path.open("rb") as file:
            file.seek(self.offset + start * self.shape[1] * 4)
            if file.readinto(out.data.cast("B")) != out.nbytes:
                raise FeatureError(f"{self.path}: ends before row {stop}; extract again")

    def take(self, rows: NDArray[np.int64]) -> Floats:
        """The given rows."""
        mapped = np.memmap(self.path, dtype=np.float32, mode="r", offset=self.offset, shape=self.shape)
        return np.asarray(mapped[rows])


class ParquetGroup:
    """One row group of any other Parquet file: decoded whole, and kept until another is asked for."""

    def __init__(self, path: Path, file: pq.ParquetFile, group: int, column: str) -> None:
        self.path = path
        self._file, self._group, self._column = file, group, column
        rows = file.metadata.row_group(group).num_rows
        kind = file.schema_arrow.field(column).type
        self.shape = (rows, kind.list_size if pa.types.is_fixed_size_list(kind) else self._decode().shape[1])

    def read(self, start: int, stop: int, out: Floats) -> None:
        """Rows start to stop into `out`."""
        cast_into(self._decode()[start:stop], out, 0)

    def take(self, rows: NDArray[np.int64]) -> Floats:
        """The given rows."""
        return np.asarray(self._decode()[rows], dtype=np.float32)

    def _decode(self) -> NDArray[Any]:
        chunk = self._file.read_row_group(self._group, columns=[self._column]).column(0).combine_chunks()
        lengths = pc.unique(pc.list_value_length(chunk)).to_pylist()
        if len(chunk) and (len(lengths) != 1 or lengths[0] is None or chunk.flatten().null_count):
            raise FeatureError(f"{self.path}: `{self._column}` holds nulls, or vectors of differing width")
        return np.asarray(chunk.flatten().to_numpy()).reshape(len(chunk), (lengths or [0])[0])


def cast_into(values: NDArray[Any], out: Floats, total_bytes: int) -> None:
    """Copy to float32. `total_bytes`, of the whole file, decide whether torch's float16 cast is worth importing."""
    if values.dtype == np.float16 and total_bytes >= _TORCH_PAYS:
        try:
            import torch
        except ImportError:
            pass
        else:
            torch.from_numpy(out).copy_(torch.from_numpy(values if values.flags.writeable else np.array(values)))
            return
    np.copyto(out, values, casting="same_kind")


def _map_group(path: Path, file: pq.ParquetFile, group: int, column: str, width: int) -> FeatureFile:
    facts = file.metadata.row_group(group)
    chunks = (facts.column(number) for number in range(facts.num_columns))
    chunk = next(one for one in chunks if one.path_in_schema.split(".")[0] == column)
    size = facts.num_rows * width * 4
    if chunk.compression != "UNCOMPRESSED" or chunk.total_compressed_size < size:
        return ParquetGroup(path, file, group, column)
    # The one data page ends with its values: header and list levels come before them.
    return MappedGroup(path, (facts.num_rows, width), chunk.data_page_offset + chunk.total_compressed_size - size)


def _is_vector(kind: pa.DataType) -> bool:
    is_list = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(is_list and pa.types.is_floating(kind.value_type))
