"""Rows and cells of Parquet and Arrow files, by position.

Row groups are read whole and the latest are remembered, because rows are mostly asked for in order. Arrow files (what
`datasets` saves) are mapped into memory, not read; those in object storage are fetched whole first.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks import places

REMEMBERED_BYTES = 512 << 20
_TRUSTED_SECONDS = 10.0  # of a stamp from object storage, where each costs a request
_GROUPS: OrderedDict[tuple[Any, ...], pa.Table] = OrderedDict()
_LOCK = threading.Lock()  # a ParquetFile may not be read from two threads at once


@dataclass(frozen=True, slots=True)
class RowRef:
    """A row of a Parquet or Arrow file, counted from 0 within the file."""

    path: Path
    row: int


def schema(path: Path) -> pa.Schema:
    """Column names and types, with metadata. Raises OSError or pyarrow.ArrowInvalid for what is not such a file."""
    if path.suffix == ".arrow":
        return _mapped(path, _stamp(path)).schema
    with _opened(path) as file:
        return file.schema_arrow


def count(path: Path) -> int:
    """Number of rows."""
    if path.suffix == ".arrow":
        return len(_mapped(path, _stamp(path)))
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def batches(path: Path, rows: int = 64) -> Iterator[pa.RecordBatch]:
    """All rows in order, at most `rows` at a time."""
    if path.suffix == ".arrow":
        yield from _mapped(path, _stamp(path)).to_batches(max_chunksize=rows)
        return
    with _opened(path) as file:
        # Asked for all groups at once, a file read ahead from object storage would be held whole.
        for group in range(file.num_row_groups):
            yield from file.iter_batches(batch_size=rows, row_groups=[group])


def read_row(ref: RowRef) -> pa.Table:
    """One row as a table of one row, all columns."""
    return _slice(ref.path, ref.row, None)


def read_image(path: Path, row: int, column: str, index: int) -> bytes:
    """Encoded bytes of the image in a cell: a binary, a {bytes, path} struct, or item `index` of a list of either.

    Raises LookupError when the cell holds no bytes.
    """
    cell = _slice(path, row, column).column(column)[0]
    if pa.types.is_list(cell.type) or pa.types.is_large_list(cell.type) or pa.types.is_fixed_size_list(cell.type):
        cell = cell.values[index]
    value: Any = cell.as_py()
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None:
        raise LookupError(f"no image bytes in row {row}, column {column}")
    return bytes(data)


def _slice(path: Path, row: int, column: str | None) -> pa.Table:
    stamp = _stamp(path)
    with _LOCK:
        if path.suffix == ".arrow":
            return _mapped(path, stamp).slice(row, 1)
        starts = _group_starts(path, stamp)
        group = bisect_right(starts, row) - 1
        return _group(path, stamp, group, column).slice(row - starts[group], 1)


def _stamp(path: Path) -> places.Stamp:
    """Changes when the file is replaced, so that nothing stale is remembered."""
    if places.is_url(path):
        return _remote_stamp(str(path), int(time.monotonic() / _TRUSTED_SECONDS))
    return places.stamp(path)


@lru_cache(maxsize=1024)
def _remote_stamp(url: str, period: int) -> places.Stamp:
    return places.stamp(url)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """From object storage a row group comes in few large requests, each for what is asked and no more."""
    if not places.is_url(path):
        with pq.ParquetFile(path) as file:
            yield file
        return
    with places.opened(path, cache_type="none") as source, pq.ParquetFile(source, pre_buffer=True) as file:
        yield file


def _local(path: Path) -> str:
    """A file that can be mapped: of a URL a copy, whose name is gone once it is open."""
    if not places.is_url(path):
        return str(path)
    with NamedTemporaryFile(suffix=".arrow", delete=False) as copy:
        places.get_file(path, Path(copy.name))
    return copy.name


@lru_cache(maxsize=64)
def _mapped(path: Path, stamp: places.Stamp) -> pa.Table:
    local = _local(path)
    source = pa.memory_map(local)
    if local != str(path):
        Path(local).unlink()
    try:
        return pa.ipc.open_stream(source).read_all()
    except pa.ArrowInvalid:  # the other kind of Arrow file, with a footer
        return pa.ipc.open_file(source).read_all()


@lru_cache(maxsize=64)
def _group_starts(path: Path, stamp: places.Stamp) -> list[int]:
    with _opened(path) as file:
        metadata = file.metadata
    return [0, *accumulate(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))]


def _group(path: Path, stamp: places.Stamp, group: int, column: str | None) -> pa.Table:
    """A row group, from memory if it was read lately. As many are kept as fit REMEMBERED_BYTES, one at least."""
    key = (path, stamp, group, column)
    if key in _GROUPS:
        _GROUPS.move_to_end(key)
        return _GROUPS[key]
    with _opened(path) as file:
        _GROUPS[key] = file.read_row_group(group, columns=None if column is None else [column])
    while len(_GROUPS) > 1 and sum(table.nbytes for table in _GROUPS.values()) > REMEMBERED_BYTES:
        _GROUPS.popitem(last=False)
    return _GROUPS[key]
