"""The feature store's copy in object storage (`run.store`): what one machine extracted, every other finds.

The local store stays what it is: shards are written there and read from there. Beside that each is sent to the URL, in
the background, and what only the URL holds is listed, and fetched when its rows are needed. An object appears whole or
not at all, and a file's name says its content, so two machines may write to one URL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tasks import places
from tasks.atomic import replacing
from tasks.places import Stamp

_PARALLEL = 8


class Mirror:
    """Files under `root` and their copies under `url`, each under the same relative name."""

    def __init__(self, url: str, root: Path, pool: ThreadPoolExecutor) -> None:
        self._url, self._root, self._pool = url.rstrip("/"), root, pool
        self._sending: list[Future[None]] = []

    def copy_of(self, path: Path) -> Path:
        """Where the copy of a local file or folder lies."""
        return places.place("/".join([self._url, *path.relative_to(self._root).parts]))

    def list_files(self, folder: Path) -> dict[str, Stamp]:
        """The copies right under that of a folder, by name. Raises StorageError."""
        return places.list_stamps(self.copy_of(folder))

    def list_folders(self, folder: Path) -> list[Path]:
        """The folders right under that of a folder, by the names they have here. Raises StorageError."""
        return [folder / name for name in places.list_folders(self.copy_of(folder))]

    def send(self, path: Path) -> None:
        """Begin copying a local file. Raises StorageError when an earlier copy failed."""
        for done in [one for one in self._sending if one.done()]:
            self._sending.remove(done)
            done.result()
        self._sending.append(self._pool.submit(places.put_file, path, self.copy_of(path)))

    def finish(self) -> None:
        """Wait until everything sent has arrived. Raises StorageError."""
        while self._sending:
            self._sending.pop().result()

    def fetch(self, paths: Iterable[Path]) -> None:
        """Copy files from the URL, several at a time, each complete when it appears. Raises StorageError."""
        for _ in self._pool.map(self._fetch, paths):
            pass

    def share(self, folder: Path) -> None:
        """Give either side the files below a folder that only the other holds. Raises StorageError."""
        here = {path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".part")}
        there = {folder / name for name in places.find(self.copy_of(folder))}
        self.fetch(there - here)
        for path in here - there:
            self.send(path)
        self.finish()

    def remove(self, path: Path) -> None:
        """Remove the copy of a file; one that is gone already is none to remove."""
        places.remove(self.copy_of(path))

    def _fetch(self, path: Path) -> None:
        with replacing(path) as temporary:
            places.get_file(self.copy_of(path), temporary)


@contextmanager
def mirrored(url: str | None, root: Path) -> Iterator[Mirror | None]:
    """The mirror of the store at `root`, if there is to be one; at the end everything sent has arrived.

    Raises DatasetError where there is no such bucket, StorageError, ParamsError for a URL that nothing here can open.
    """
    if url is None:
        yield None
        return
    places.reach_bucket(url, "run.store")
    with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="store") as pool:
        mirror = Mirror(url, root, pool)
        yield mirror
        mirror.finish()
