"""One shard of the feature store: an immutable Arrow file of rows that were extracted together.

Arrow IPC, uncompressed: read by memory map without a copy, 13 GB/s against 0.8 GB/s for Parquet (docs/store.md). Rows
that could not be extracted are remembered in the file's metadata, so that they are not tried again and again.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.atomic import replacing
from tasks.digests import Digests, from_arrow, pack, to_arrow, unpack
from tasks.places import opened

SUFFIX = ".arrow"
_META = b"scalselect"


class CorruptShardError(Exception):
    """A shard that cannot be read, or whose bytes are not those written: its rows must be extracted again."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that could not be extracted. `lasting`: its content is why, so trying again cannot help."""

    digest: str
    reason: str
    detail: str
    lasting: bool


@dataclass(frozen=True)
class Shard:
    """An open shard. digests: (n, 32). columns: (n, d) float32 or (n,) arrays over the mapped file."""

    path: Path
    digests: Digests
    columns: Mapping[str, NDArray[Any]]
    refusals: tuple[Refusal, ...]
    checksum: int

    def every_digest(self) -> Digests:
        """Digests of all its rows: the extracted, then the refused."""
        return np.concatenate([self.digests, pack([one.digest for one in self.refusals])])

    def verify(self) -> None:
        """Read every column. Raises CorruptShardError where the bytes are not those written."""
        if _checksum_columns(self.columns) != self.checksum:
            raise CorruptShardError(self.path, "checksum differs: the file was damaged after it was written")


def name_shard(fingerprint: str, digests: Sequence[str]) -> str:
    """File name of the shard that holds these rows, in this order, under this fingerprint."""
    hasher = hashlib.sha256(fingerprint.encode())
    for digest in digests:
        hasher.update(bytes.fromhex(digest))
    return hasher.hexdigest() + SUFFIX


def write_shard(
    path: Path, digests: Digests, columns: Mapping[str, NDArray[Any]], refusals: Sequence[Refusal] = ()
) -> None:
    """Write a shard atomically. Same rows, same bytes."""
    record: dict[str, Any] = {"refusals": [asdict(one) for one in refusals], "columns": _checksum_columns(columns)}
    record["keys"] = _checksum_keys(digests, record["refusals"])
    arrays = {"digest": to_arrow(digests), **{name: _as_arrow(values) for name, values in sorted(columns.items())}}
    schema = pa.schema([(name, array.type) for name, array in arrays.items()])
    schema = schema.with_metadata({_META: json.dumps(record, sort_keys=True).encode()})
    batch = pa.record_batch(list(arrays.values()), schema=schema)
    with replacing(path) as temporary, pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch)


def open_shard(path: Path) -> Shard:
    """Map a shard. Raises CorruptShardError for a file cut short; `Shard.verify` checks the columns."""
    with _telling_damage(path), pa.memory_map(str(path)) as source:
        return _read(path, pa.ipc.open_file(source))


def open_keys(path: Path) -> Shard:
    """Digests and refusals of a shard here or at a URL, without its columns: few bytes of it are read.

    Raises CorruptShardError, StorageError.
    """
    only = pa.ipc.IpcReadOptions(included_fields=[0])
    with _telling_damage(path), opened(path, cache_type="none") as source:
        return _read(path, pa.ipc.open_file(source, options=only))


@contextmanager
def _telling_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptShardError(path, f"not a whole shard ({error})") from None


def _read(path: Path, reader: pa.RecordBatchFileReader) -> Shard:
    batch = reader.get_batch(0)
    record = json.loads(reader.schema.metadata[_META])
    digests = from_arrow(batch.column("digest"))
    if _checksum_keys(digests, record["refusals"]) != record["keys"]:
        raise CorruptShardError(path, "checksum of its digests differs")
    refusals = tuple(Refusal(**one) for one in record["refusals"])
    columns = {name: _as_numpy(batch.column(name)) for name in batch.schema.names if name != "digest"}
    return Shard(path, digests, columns, refusals, record["columns"])


def rewrite_shard(shard: Shard, fingerprint: str, wanted: Callable[[Digests], NDArray[np.bool_]]) -> Path | None:
    """Write the wanted rows of a shard as a shard beside it; returns its path, None when none is wanted."""
    keep = wanted(shard.digests)
    refused = wanted(pack([one.digest for one in shard.refusals]))
    refusals = [one for one, kept in zip(shard.refusals, refused, strict=True) if kept]
    digests = shard.digests[keep]
    if not len(digests) and not refusals:
        return None
    path = shard.path.parent / name_shard(fingerprint, [*unpack(digests), *(one.digest for one in refusals)])
    write_shard(path, digests, {name: values[keep] for name, values in shard.columns.items()}, refusals)
    return path


def _checksum_keys(digests: Digests, refusals: list[dict[str, Any]]) -> int:
    return zlib.crc32(np.ascontiguousarray(digests).data, zlib.crc32(json.dumps(refusals, sort_keys=True).encode()))


def _checksum_columns(columns: Mapping[str, NDArray[Any]]) -> int:
    total = 0
    for name in sorted(columns):
        total = zlib.crc32(np.ascontiguousarray(columns[name]).data, zlib.crc32(name.encode(), total))
    return total


def _as_arrow(values: NDArray[Any]) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _as_numpy(array: pa.Array) -> NDArray[Any]:
    if not pa.types.is_fixed_size_list(array.type):
        return np.asarray(array.to_numpy(zero_copy_only=not pa.types.is_boolean(array.type)))
    width = array.type.list_size
    return np.asarray(array.flatten().to_numpy()).reshape(len(array), width)
