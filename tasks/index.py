"""Which shard of a folder holds which digest: read from the shards' footers, and cached beside them.

The cache is trusted for a shard only while name, size and modification time (its ETag, where only the mirror holds it)
agree, so losing it, or being killed while writing it, costs a scan and nothing else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.atomic import replacing
from tasks.digests import DigestIndex, Digests, from_arrow, to_arrow
from tasks.mirror import Mirror
from tasks.shards import SUFFIX, CorruptShardError, open_keys

log = logging.getLogger(__name__)

INDEX = "index.arrow"
_META = b"shards"

Stamp = tuple[str, int, int | str]
"""A shard as it was when read: name, bytes, modification time in ns or ETag."""

_AT_A_TIME = 16


@dataclass(frozen=True)
class Entries:
    """Rows of some shards: digest (n, 32), number of the shard (n,), position in it (n,) or a negative mark."""

    digests: Digests
    shards: NDArray[np.int32]
    positions: NDArray[np.int32]


@dataclass(frozen=True)
class Catalogue:
    """The sorted index of a folder. `names[shards[i]]` holds the i-th digest of `index` at `positions[i]`."""

    names: tuple[str, ...]
    index: DigestIndex
    shards: NDArray[np.int32]
    positions: NDArray[np.int32]

    ABSENT: ClassVar[int] = -1
    REFUSED: ClassVar[int] = -2  # the row's content is why: final
    FAILED: ClassVar[int] = -3  # a fault at the time: worth another attempt

    def locate(self, wanted: Digests) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Shard number of each wanted digest, and its position there or ABSENT, REFUSED, FAILED."""
        found = self.index.find(wanted)
        known = found >= 0
        shards, positions = np.full((2, len(wanted)), self.ABSENT, dtype=np.int32)
        shards[known] = self.shards[found[known]]
        positions[known] = self.positions[found[known]]
        return shards, positions


def load_catalogue(folder: Path, mirror: Mirror | None = None) -> Catalogue:
    """The index of every whole shard in `folder` or its mirror; damaged ones are named in the log and left out.

    Raises StorageError when the mirror cannot be read.
    """
    places = {path.name: path for path in list_shards(folder)}
    stamps = [_stamp(path) for path in places.values()]
    if mirror is not None:
        away = {name: stamp for name, stamp in mirror.list_files(folder).items() if _is_shard(name)}
        stamps = sorted([*stamps, *((name, *stamp) for name, stamp in away.items() if name not in places)])
        places = {name: mirror.copy_of(folder / name) for name in away} | places
    cached_stamps, cached = _read_cache(folder / INDEX)
    if stamps and stamps == cached_stamps and cached is not None:
        return _catalogue(stamps, cached, presorted=True)
    kept = set(cached_stamps) if cached is not None else set()
    numbers = {stamp: number for number, stamp in enumerate(stamps)}
    pieces = list(_carry_over(cached_stamps, cached, numbers)) if cached is not None else []
    fresh = [stamp for stamp in stamps if stamp not in kept]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:  # of use where each is a request or two
        pieces += pool.map(_read_entries, (places[name] for name, _, _ in fresh), map(numbers.__getitem__, fresh))
    catalogue = _catalogue(stamps, _join(pieces))
    if stamps:
        _write_cache(folder / INDEX, stamps, catalogue)
    return catalogue


def list_shards(folder: Path) -> list[Path]:
    """The shard files of a folder, by name."""
    return sorted(path for path in folder.glob("*" + SUFFIX) if _is_shard(path.name))


def _is_shard(name: str) -> bool:
    return name.endswith(SUFFIX) and name != INDEX


def _stamp(path: Path) -> Stamp:
    facts = path.stat()
    return path.name, facts.st_size, facts.st_mtime_ns


def _read_entries(path: Path, number: int) -> Entries:
    try:
        shard = open_keys(path)
    except CorruptShardError as error:
        log.warning("%s; ignored, its rows will be extracted again", error)
        return _join([])
    marks = [Catalogue.REFUSED if one.lasting else Catalogue.FAILED for one in shard.refusals]
    digests = shard.every_digest()
    positions = np.concatenate([np.arange(len(shard.digests)), marks]).astype(np.int32)
    return Entries(digests, np.full(len(digests), number, dtype=np.int32), positions)


def _carry_over(stamps: list[Stamp], cached: Entries, numbers: dict[Stamp, int]) -> Iterator[Entries]:
    """The cached rows of shards that are still there, under their new numbers."""
    renumber = np.array([numbers.get(stamp, -1) for stamp in stamps], dtype=np.int32)
    shards = renumber[cached.shards]
    still = shards >= 0
    yield Entries(cached.digests[still], shards[still], cached.positions[still])


def _join(pieces: list[Entries]) -> Entries:
    none = np.empty(0, dtype=np.int32)
    return Entries(
        np.concatenate([np.empty((0, 32), dtype=np.uint8), *(one.digests for one in pieces)]),
        np.concatenate([none, *(one.shards for one in pieces)]),
        np.concatenate([none, *(one.positions for one in pieces)]),
    )


def _catalogue(stamps: list[Stamp], entries: Entries, presorted: bool = False) -> Catalogue:
    names = tuple(name for name, _, _ in stamps)
    if presorted:
        return Catalogue(names, DigestIndex(entries.digests, presorted=True), entries.shards, entries.positions)
    # Features before refusals before failures, then by shard name: the first of equal digests is the one that counts.
    preferred = np.lexsort((entries.shards, np.minimum(entries.positions, 0) * -1))
    index = DigestIndex(entries.digests[preferred])
    order = preferred[index.order]
    return Catalogue(names, index, entries.shards[order], entries.positions[order])


def _read_cache(path: Path) -> tuple[list[Stamp], Entries | None]:
    try:
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            batch = reader.get_batch(0)
            stamps = [(name, size, time) for name, size, time in json.loads(reader.schema.metadata[_META])]
        numbers = (batch.column(name).to_numpy() for name in ("shard", "position"))
        return stamps, Entries(from_arrow(batch.column("digest")), *numbers)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return [], None


def _write_cache(path: Path, stamps: list[Stamp], catalogue: Catalogue) -> None:
    schema = pa.schema([("digest", pa.binary(32)), ("shard", pa.int32()), ("position", pa.int32())])
    schema = schema.with_metadata({_META: json.dumps(stamps).encode()})
    arrays = [to_arrow(catalogue.index.digests), pa.array(catalogue.shards), pa.array(catalogue.positions)]
    batch = pa.record_batch(arrays, schema=schema)
    with replacing(path) as temporary, pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch)
