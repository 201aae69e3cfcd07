"""From the store to data/features: one Parquet file per 4096 rows and signal, the same rows in every signal.

A part's bytes are decided by its rows and the fingerprint, so a part made before is linked from store/assembled
instead of written again. Its name there ends in its modification time: a file that anyone has written into no longer
matches its name and is not used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.atomic import replacing
from tasks.digests import unpack
from tasks.pending import Census
from tasks.store import ASSEMBLED, Shelf

PART_ROWS = 4096
ONE_PAGE = {b"scalselect.pages": b"one plain page per column chunk"}
"""Mark of a file whose matrix values lie in one piece at the end of their column chunk: tasks.features maps them."""


@dataclass(frozen=True)
class SignalShape:
    """Columns of a signal: matrices by width, statistics by Arrow type."""

    matrices: Mapping[str, int]
    statistics: Sequence[tuple[str, pa.DataType]]

    def schema(self) -> pa.Schema:
        """row, id, digest, the matrices, the statistics."""
        fields = [("row", pa.int64()), ("id", pa.string()), ("digest", pa.string())]
        fields += [(name, pa.list_(pa.float32(), width)) for name, width in self.matrices.items()]
        return pa.schema([*fields, *self.statistics], metadata=ONE_PAGE)


def assemble(
    root: Path, folder: Path, shelf: Shelf, shape: SignalShape, census: Census, rows: NDArray[np.int64]
) -> int:
    """Write the parts of one signal for the given rows of the census; returns how many. Raises CorruptShardError.

    `root` is the store, `folder` features/<signal>. A table without rows is one empty part.
    """
    schema = shape.schema()
    starts = range(0, max(1, len(rows)), PART_ROWS)
    for number, start in enumerate(starts):
        part = rows[start : start + PART_ROWS]
        ready = _find_or_write(root / ASSEMBLED / shelf.fingerprint, shelf, schema, census, part)
        _link(ready, folder / f"part-{number:05d}.parquet")
    return len(starts)


def _find_or_write(folder: Path, shelf: Shelf, schema: pa.Schema, census: Census, rows: NDArray[np.int64]) -> Path:
    ids = census.ids.take(pa.array(rows)).combine_chunks()
    key = _key(shelf.fingerprint, schema, census, ids, rows)
    for path in folder.glob(f"{key}-*.parquet"):
        if path.stem == f"{key}-{path.stat().st_mtime_ns}":
            return path
        path.unlink()
    columns: dict[str, Any] = shelf.gather(census.digests[rows]) if len(rows) else {}
    digests = pa.array(unpack(census.digests[rows]), pa.string())
    arrays = [pa.array(census.rows[rows]), ids, digests, *(_column(columns.get(f.name), f) for f in list(schema)[3:])]
    return _write_part(folder, key, pa.Table.from_arrays(arrays, schema=schema))


def _write_part(folder: Path, key: str, table: pa.Table) -> Path:
    unnamed = folder / f"{key}.parquet"
    with replacing(unnamed) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            row_group_size=PART_ROWS,
            data_page_size=2**31 - 1,
        )
    named = folder / f"{key}-{unnamed.stat().st_mtime_ns}.parquet"
    return unnamed.replace(named)


def _key(fingerprint: str, schema: pa.Schema, census: Census, ids: pa.Array, rows: NDArray[np.int64]) -> str:
    hasher = hashlib.sha256(f"{fingerprint}\n{schema.to_string()}\n{pa.__version__}\n".encode())
    hasher.update(census.rows[rows].data)
    hasher.update(census.digests[rows].data)
    hasher.update(repr(ids.to_pylist()).encode())
    return hasher.hexdigest()


def _column(values: NDArray[Any] | None, field: pa.Field) -> pa.Array:
    if values is None:
        return pa.array([], field.type)
    if not pa.types.is_fixed_size_list(field.type):
        return pa.array(values).cast(field.type)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=field.type)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
