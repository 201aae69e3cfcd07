"""What is known of each image file: read and decoded once, in parallel, and remembered between runs.

A nightly rerun over unchanged files costs one `stat` an image, in object storage a listing of each folder. An entry is
trusted while the file's size and modification time (nanoseconds; in object storage the ETag) and the checker (Pillow's
version, the pixel limit) are what they were.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import PIL

from tasks import places
from tasks.database import connect
from tasks.images import fetch, inspect
from tasks.places import Stamp
from tasks.problem import Problem
from tasks.sample import ImageRef, digest_bytes

SCHEMA = """
    CREATE TABLE IF NOT EXISTS findings (
        path TEXT, member TEXT, checker TEXT, size INTEGER, mtime_ns INTEGER,
        sha256 TEXT, width INTEGER, height INTEGER, reason TEXT, detail TEXT,
        PRIMARY KEY (path, member, checker)
    ) WITHOUT ROWID
"""
RECALL = "SELECT sha256, width, height, reason, detail FROM findings WHERE (path, member, checker, size, mtime_ns) = "
# Findings held in memory between two writes; beyond it they are looked up in the database again.
HELD = 65_536

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Finding:
    """An image as found: the digest of its encoded bytes, its size in pixels as displayed; or why it cannot be used."""

    sha256: str
    width: int
    height: int
    problem: Problem | None = None


class ImageIndex:
    """Findings by image. `begin` starts reading in the background, `finish` waits for the result."""

    def __init__(self, database: sqlite3.Connection, pool: ThreadPoolExecutor, maximum_pixels: int) -> None:
        self._database = database
        self._pool = pool
        self._maximum_pixels = maximum_pixels
        self._checker = f"pillow {PIL.__version__}, {maximum_pixels} pixels"
        self._held: dict[Key, Finding | Future[Finding]] = {}
        self._stamps: dict[Key, Stamp] = {}
        self._listed: dict[str, dict[str, Stamp]] = {}
        self._fresh: list[tuple[object, ...]] = []

    def begin(self, ref: ImageRef) -> None:
        """Start finding out about an image, unless it is known or under way."""
        key = (ref.path, ref.member)
        if key in self._held:
            return
        stamp = self._stamp(ref.path)
        known = self._recall(key, self._checker, stamp) if stamp else None
        if known is None and stamp:
            self._stamps[key] = stamp
        self._held[key] = known or self._pool.submit(_find, ref, self._maximum_pixels)

    def finish(self, ref: ImageRef) -> Finding:
        """What was found. Each distinct file is read at most once a run."""
        self.begin(ref)
        key = (ref.path, ref.member)
        found = self._held[key]
        if isinstance(found, Finding):
            return found
        finding = self._held[key] = found.result()
        if stamp := self._stamps.pop(key, None):
            self._remember(key, self._checker, stamp, finding)
        return finding

    def digest_file(self, path: Path) -> str:
        """sha256 of a whole file of the dataset, remembered in the same way."""
        key, stamp = (str(path), ""), self._stamp(str(path))
        known = self._recall(key, "sha256", stamp) if stamp else None
        if known is None:
            with places.opened(path) as file:
                known = Finding(hashlib.file_digest(file, "sha256").hexdigest(), 0, 0)
            if stamp:
                self._remember(key, "sha256", stamp, known)
        return known.sha256

    def flush(self) -> None:
        """Write new findings down, and let go of old ones when many are held."""
        with self._database:
            self._database.executemany(f"INSERT OR REPLACE INTO findings VALUES ({','.join('?' * 10)})", self._fresh)
        self._fresh.clear()
        if len(self._held) > HELD:
            self._held = {key: found for key, found in self._held.items() if isinstance(found, Future)}

    def _stamp(self, path: str) -> Stamp | None:
        """None for a file that is not there. A folder of object storage is listed once a run."""
        if not places.is_url(path):
            with suppress(OSError):
                return places.stamp(path)
            return None
        folder, _, name = path.rpartition("/")
        if folder not in self._listed:
            self._listed[folder] = places.list_stamps(folder)
        return self._listed[folder].get(name)

    def _recall(self, key: Key, checker: str, stamp: Stamp) -> Finding | None:
        values = (_absolute(key[0]), key[1], checker, *stamp)
        row = self._database.execute(f"{RECALL} (?,?,?,?,?)", values).fetchone()
        if row is None:
            return None
        sha256, width, height, reason, detail = row
        return Finding(sha256, width, height, Problem(reason, detail) if reason else None)

    def _remember(self, key: Key, checker: str, stamp: Stamp, found: Finding) -> None:
        reason, detail = (found.problem.reason, found.problem.detail) if found.problem else ("", "")
        place = (_absolute(key[0]), key[1], checker, *stamp)
        self._fresh.append((*place, found.sha256, found.width, found.height, reason, detail))


@contextmanager
def opened(path: Path, maximum_pixels: int, workers: int | None = None) -> Iterator[ImageIndex]:
    """The index kept at `path`, with `workers` reading threads (default: one per core we may use).

    Threads suffice: Pillow's decoders and sha256 work outside the interpreter lock.
    """
    database = connect(path, SCHEMA)
    pool = ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)), thread_name_prefix="images")
    try:
        index = ImageIndex(database, pool, maximum_pixels)
        yield index
        index.flush()
    finally:
        pool.shutdown(cancel_futures=True)
        database.close()


def _find(ref: ImageRef, maximum_pixels: int) -> Finding:
    data = fetch(ref)
    if isinstance(data, Problem):
        return Finding("", 0, 0, data)
    info = inspect(data, maximum_pixels)
    if isinstance(info, Problem):
        return Finding("", 0, 0, info)
    return Finding(digest_bytes(data), info.width, info.height)


def _absolute(path: str) -> str:
    return path if places.is_url(path) else os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118
