"""Sums of pieces of the features, kept in the store between runs: a cache that any run may lose or rebuild.

    store/<fingerprint>/moments/<column>/<key>.npz

Only pieces of the present rows stay: with d columns, about d / 32,000 of the size of the features, and the sums of the
last piece's leaves. `scalselect gc` removes them with the features of a fingerprint.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tasks.atomic import replacing
from tasks.linalg.moments import Sums
from tasks.linalg.products import pack_triangle, unpack_triangle

log = logging.getLogger(__name__)


class MomentCache:
    """The sums kept in one folder. Damaged files are ignored; where nothing can be written, nothing is kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, key: str) -> bool:
        """Whether there is a file under this key."""
        return self._path(key).is_file()

    def get(self, key: str) -> Sums | None:
        """The sums, or None when they are not there or not whole (every array carries a checksum)."""
        try:
            with np.load(self._path(key), allow_pickle=False) as held:
                shift = held["shift"]
                gram = unpack_triangle(held["triangle"], len(shift))
                return Sums(int(held["count"]), shift, held["total"], gram, float(held["precision"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s: not whole (%s); measured again", self._path(key), error)
            return None

    def put(self, key: str, sums: Sums) -> None:
        """Keep sums."""
        try:
            with replacing(self._path(key)) as temporary, temporary.open("wb") as file:
                np.savez(
                    file,
                    shift=sums.shift,
                    total=sums.total,
                    triangle=pack_triangle(sums.gram),
                    count=np.int64(sums.count),
                    precision=np.float64(sums.precision),
                )
        except OSError as error:
            log.warning("%s: cannot be kept: %s", self._path(key), error)

    def retain(self, keys: Iterable[str]) -> None:
        """Remove the files of other rows."""
        wanted = {self._path(key).name for key in keys}
        for path in self._folder.glob("*.npz"):
            if path.name not in wanted:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.npz"
