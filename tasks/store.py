"""The feature store: content-addressed, append-only, safe to kill at any moment.

    store/<fingerprint>/<shard>.arrow    rows extracted together; written beside, synced, renamed
    store/<fingerprint>/index.arrow      which shard holds which digest: derived from the shards, only a cache
    store/assembled/...                  parts of data/features, kept for hard links
    store/judge/...                      replies of an endpoint that rates rows (tasks.judge)

A fingerprint names one way of extracting one signal; a digest names one sample. A shard that is not complete does not
exist, and one that was damaged is named in the log, ignored, and extracted again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.digests import DigestIndex, Digests, pack, unpack
from tasks.index import INDEX, Catalogue, list_shards, load_catalogue
from tasks.mirror import Mirror
from tasks.shards import (
    CorruptShardError,
    Refusal,
    Shard,
    name_shard,
    open_keys,
    open_shard,
    rewrite_shard,
    write_shard,
)

log = logging.getLogger(__name__)

ASSEMBLED = "assembled"
JUDGED = "judge"
_OPEN_SHARDS = 256
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Found:
    """What a shelf knows of m wanted digests, each an (m,) mask: extracted, refused for good, failed and worth a retry.

    A digest in none of them was never tried.
    """

    extracted: NDArray[np.bool_]
    refused: NDArray[np.bool_]
    failed: NDArray[np.bool_]


class Shelf:
    """The shards of one fingerprint, here and in the mirror. Reads see those present at the last `refresh`."""

    def __init__(self, root: Path, fingerprint: str, mirror: Mirror | None = None) -> None:
        self.folder = root / fingerprint
        self._mirror = mirror
        self.fingerprint = fingerprint
        self._verified: set[str] = set()
        self._open: dict[str, Shard] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take in shards written since, by this process or another."""
        self._open.clear()
        self._catalogue: Catalogue = load_catalogue(self.folder, self._mirror)

    def find(self, wanted: Digests) -> Found:
        """What is known of the wanted digests."""
        positions = self._catalogue.locate(wanted)[1]
        return Found(positions >= 0, positions == Catalogue.REFUSED, positions == Catalogue.FAILED)

    def write(
        self,
        digests: Sequence[str],
        columns: Mapping[str, NDArray[Any]],
        refusals: Sequence[Refusal] = (),
        keys: Sequence[str] | None = None,
    ) -> Path:
        """Add one shard: rows `digests` with their columns, and the rows refused. Writing it twice changes nothing.

        `keys` are all rows of the shard in order, extracted or refused, which name it; by default `digests`.
        """
        path = self.folder / name_shard(self.fingerprint, digests if keys is None else keys)
        write_shard(path, pack(digests), columns, refusals)
        if self._mirror is not None:
            self._mirror.send(path)
        return path

    def publish(self) -> None:
        """Send what the mirror lacks: written before there was one, or by a run that was killed before it was sent."""
        if self._mirror is not None:
            there = self._mirror.list_files(self.folder)
            for path in list_shards(self.folder):
                if path.name not in there:
                    self._mirror.send(path)

    def gather(self, wanted: Digests) -> dict[str, NDArray[Any]]:
        """Columns of the wanted rows, in the order wanted. Raises KeyError for an unknown row, CorruptShardError."""
        shards, positions = self._catalogue.locate(wanted)
        if (positions < 0).any():
            missing = wanted[int(np.argmax(positions < 0))].tobytes().hex()
            raise KeyError(f"{self.folder}: no features of {missing}")
        self._fetch([self._catalogue.names[number] for number in np.unique(shards)])
        out: dict[str, NDArray[Any]] = {}
        for number in np.unique(shards):
            where = np.flatnonzero(shards == number)
            shard = self._shard(self._catalogue.names[number])
            if not np.array_equal(shard.digests[positions[where]], wanted[where]):
                raise CorruptShardError(self.folder / INDEX, "points at other rows")
            for name, values in shard.columns.items():
                if name not in out:
                    out[name] = np.empty((len(wanted), *values.shape[1:]), dtype=values.dtype)
                out[name][where] = values[positions[where]]
        return out

    def refusals(self, wanted: Digests) -> dict[str, Refusal]:
        """Why each wanted digest that was refused or failed was, by hex digest. Raises CorruptShardError."""
        shards, positions = self._catalogue.locate(wanted)
        refused = (positions == Catalogue.REFUSED) | (positions == Catalogue.FAILED)
        asked = set(unpack(wanted[refused]))
        self._fetch([self._catalogue.names[number] for number in np.unique(shards[refused])])
        reasons: dict[str, Refusal] = {}
        for number in np.unique(shards[refused]):
            for refusal in self._shard(self._catalogue.names[number], verified=False).refusals:
                if refusal.digest in asked and (refusal.lasting or refusal.digest not in reasons):
                    reasons[refusal.digest] = refusal
        return reasons

    def discard(self, path: Path) -> None:
        """Remove a damaged shard, so that its rows are extracted again."""
        path.unlink(missing_ok=True)
        self.refresh()

    def _fetch(self, names: Sequence[str]) -> None:
        """Bring shards that only the mirror holds here. One that is damaged there is removed there."""
        missing = [path for name in names if not (path := self.folder / name).exists()]
        if not missing or self._mirror is None:
            return
        self._mirror.fetch(missing)
        for path in missing:
            try:
                open_shard(path).verify()
            except CorruptShardError:
                self._mirror.remove(path)
                raise

    def _shard(self, name: str, verified: bool = True) -> Shard:
        shard = self._open.get(name)
        if shard is None:
            if len(self._open) >= _OPEN_SHARDS:
                self._open.pop(next(iter(self._open)))
            shard = self._open[name] = open_shard(self.folder / name)
        if verified and name not in self._verified:
            shard.verify()
            self._verified.add(name)
        return shard


def collect(
    root: Path, fingerprints: Collection[str], digests: Collection[str] | None = None, mirror: Mirror | None = None
) -> int:
    """Remove what is no longer wanted, here and in the mirror if one is given; returns the bytes freed here.

    Goes: shards of other fingerprints; with `digests`, rows of other samples; half-written files; assembled parts that
    data/features no longer links to. A judge's replies stay: they were paid for.
    """
    if not root.is_dir():
        return 0
    before = _size(root)
    for folder in _shelves(root, mirror):
        if folder.name not in fingerprints:
            _remove_tree(folder)
            _remove_copies(folder, mirror)
        elif digests is not None:
            _prune(folder, DigestIndex(pack(sorted(digests))), mirror)
    for leftover in root.rglob(".*.part"):
        leftover.unlink(missing_ok=True)
    for part in (root / ASSEMBLED).rglob("*.parquet"):
        if part.stat().st_nlink == 1 or part.parent.name not in fingerprints:
            part.unlink()
    return before - _size(root)


def _shelves(root: Path, mirror: Mirror | None) -> list[Path]:
    """The folders that hold shards: those named by a fingerprint. Others, such as finished trainings, are not ours."""
    found = {one for one in root.iterdir() if one.is_dir()} | set(mirror.list_folders(root) if mirror else ())
    return sorted(one for one in found if _FINGERPRINT.fullmatch(one.name))


def _prune(folder: Path, index: DigestIndex, mirror: Mirror | None) -> None:
    """Cut unwanted rows out of their shards. The mirror gets what is left of a shard before it loses the shard."""

    def wanted(digests: Digests) -> NDArray[np.bool_]:
        return index.find(digests) >= 0

    away = mirror.list_files(folder) if mirror else {}
    for path in sorted({*list_shards(folder), *(folder / name for name in away)}):
        kept = _cut(path, wanted, mirror)
        if kept == path:
            continue
        if mirror and kept:
            mirror.send(kept)
            mirror.finish()
        if mirror:
            mirror.remove(path)
        path.unlink(missing_ok=True)
    load_catalogue(folder, mirror)


def _cut(path: Path, wanted: Callable[[Digests], NDArray[np.bool_]], mirror: Mirror | None) -> Path | None:
    """The shard that holds the wanted rows of this one: itself, another, or None where there is no such row."""
    try:
        keys = open_keys(path if path.exists() or mirror is None else mirror.copy_of(path))
        if wanted(keys.every_digest()).all():
            return path
        if mirror is not None and not path.exists():
            mirror.fetch([path])
        shard = open_shard(path)
        shard.verify()
        return rewrite_shard(shard, path.parent.name, wanted)
    except CorruptShardError as error:
        log.warning("%s; removed", error)
        return None


def _remove_copies(folder: Path, mirror: Mirror | None) -> None:
    if mirror is not None:
        for name in mirror.list_files(folder):
            mirror.remove(folder / name)


def _remove_tree(folder: Path) -> None:
    if not folder.exists():
        return
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def _size(root: Path) -> int:
    """Bytes on disk under `root`; a file with another name elsewhere is not ours to free."""
    return sum(one.stat().st_size for one in root.rglob("*") if one.is_file() and one.stat().st_nlink == 1)
