"""Where a file lies: a local path, or a URL of object storage such as s3://bucket/folder (any that fsspec knows).

A URL becomes a universal-pathlib UPath, which answers to what readers ask of a Path. Addresses of the web are refused:
what is trained on must be in one's own keeping. Credentials and endpoints come from the environment, as each provider
reads it.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from glob import glob, has_magic
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from tasks.errors import AwayError, DatasetError, ParamsError, ScalSelectError, StorageError

Stamp = tuple[int, int | str]
"""Changes when a file does: its bytes, and its modification time in ns or, in object storage, its ETag."""

READERS = 32
"""Requests under way at once where many small objects are read: each is answered in tens of milliseconds."""

_WEB = ("http", "https", "ftp")
_VERSIONS = ("ETag", "etag", "generation", "LastModified", "last_modified", "mtime", "created")
# What the clients of object stores raise besides OSError comes from these packages.
_CLIENTS = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "adlfs", "azure")
_SEE_CREDENTIALS = "see to the credentials (s3: AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) and rights"
_SEE_NETWORK = "see to the network and the endpoint (s3: AWS_ENDPOINT_URL) and run again: it goes on from what is done"


def is_url(name: str | Path) -> bool:
    """Whether a place is a URL. A local Path never holds two slashes."""
    return "://" in str(name)


def place(name: str) -> Path:
    """A local Path, or a UPath. Nothing is asked of a server. Raises ParamsError for what no package here can open."""
    if not is_url(name):
        return Path(name)
    from upath import UPath

    file_system(name)
    return cast(Path, UPath(name.rstrip("/"), use_listings_cache=False))


def file_system(url: str | Path) -> Any:
    """The fsspec file system of a URL, one for all threads. Raises ParamsError naming the URL and the fix."""
    scheme = str(url).partition("://")[0]
    if scheme in _WEB:
        raise ParamsError(f"{url}: an address of the web is no storage; download it, or copy it to a bucket")
    try:
        return _file_system(scheme, os.getpid())
    except ValueError:
        raise ParamsError(f"{url}: no kind of storage is called {scheme}://; known are s3://, gs://, az://") from None
    except ImportError as error:
        extra = "pip install 'scalselect[s3]'" if scheme in ("s3", "s3a") else str(error)
        raise ParamsError(f"{url}: the package for {scheme}:// is not installed; {extra}") from None


@lru_cache(maxsize=16)
def _file_system(scheme: str, process: int) -> Any:
    import fsspec

    # Kept listings would hide what others write; where many objects are looked at, they are listed by us.
    return fsspec.filesystem(scheme, use_listings_cache=False)


@contextmanager
def telling_faults(where: str | Path) -> Iterator[None]:
    """Raise StorageError, naming the URL and the fix, when object storage refuses or cannot be reached.

    What is not there stays FileNotFoundError, and errors of local files stay what they are.
    """
    try:
        yield
    except (ScalSelectError, FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise
    except Exception as error:
        kind = type(error)
        if not is_url(where) or not (isinstance(error, OSError) or kind.__module__.split(".")[0] in _CLIENTS):
            raise
        refused = isinstance(error, PermissionError) or "Credential" in kind.__name__
        fix = _SEE_CREDENTIALS if refused else _SEE_NETWORK
        raise (StorageError if refused else AwayError)(f"{where}: {kind.__name__}: {error}; {fix}") from error


def reach(name: str, key: str) -> None:
    """Raise DatasetError or StorageError unless something lies at a URL. Local paths and patterns are not looked at."""
    if not is_url(name) or has_magic(name) or "{" in name:
        return
    files = file_system(name)
    with telling_faults(name):
        try:
            files.info(name)
        except FileNotFoundError:
            raise DatasetError(f"{key}: {name}: {_what_is_missing(files, name)}") from None


def reach_bucket(url: str, key: str) -> None:
    """Raise DatasetError or StorageError unless the bucket of a URL is there; what is to lie in it may not be yet."""
    reach(_bucket_of(url), key)


def within_reach(name: str) -> bool:
    """Whether something lies at a URL and can be asked for from here."""
    try:
        reach(name, "")
    except ScalSelectError:
        return False
    return True


def _what_is_missing(files: Any, url: str) -> str:
    bucket = _bucket_of(url)
    try:
        files.info(bucket)
    except FileNotFoundError:
        return f"there is no bucket {bucket}, or not at this endpoint; correct the name"
    return f"the bucket is there, but nothing of that name in it; correct {key_of(url)!r} (case matters)"


def _bucket_of(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def key_of(url: str) -> str:
    """What follows the bucket."""
    return url.partition("://")[2].partition("/")[2]


@contextmanager
def opened(path: Path, **how: Any) -> Iterator[BufferedReader]:
    """The file, open for reading bytes; `how` goes to fsspec for a URL. Raises as `telling_faults`."""
    with telling_faults(path), path.open("rb", **(how if is_url(path) else {})) as file:
        yield file


def read_bytes(path: str | Path, start: int = 0, size: int | None = None) -> bytes:
    """The file's bytes, or `size` of them from `start`, in one request. Raises OSError, StorageError."""
    if size == 0:
        return b""
    if not is_url(path):
        with Path(path).open("rb") as file:
            file.seek(start)
            return file.read(-1 if size is None else size)
    with telling_faults(path):
        stop = None if size is None else start + size
        return bytes(file_system(path).cat_file(str(path), start=start or None, end=stop))


def stamp(path: str | Path) -> Stamp:
    """The stamp of one file. Raises FileNotFoundError, StorageError."""
    if not is_url(path):
        status = os.stat(path)  # noqa: PTH116  pathlib would take a fifth of the time of a known row
        return status.st_size, status.st_mtime_ns
    with telling_faults(path):
        return _stamp_of(file_system(path).info(str(path)))


def list_stamps(folder: str | Path) -> dict[str, Stamp]:
    """The files right under a folder URL, by name, in as few requests as the store allows. No folder, no files."""
    return {posixpath.basename(one["name"]): _stamp_of(one) for one in _list(folder) if one["type"] == "file"}


def list_folders(folder: str | Path) -> list[str]:
    """Names of the folders right under a folder URL."""
    return sorted(posixpath.basename(one["name"].rstrip("/")) for one in _list(folder) if one["type"] == "directory")


def _list(folder: str | Path) -> list[dict[str, Any]]:
    """What lies right under a folder URL; nothing where there is no such folder."""
    with telling_faults(folder):
        try:
            found: list[dict[str, Any]] = file_system(folder).ls(str(folder), detail=True)
        except FileNotFoundError:
            return []
    return found


def find(folder: str | Path) -> list[str]:
    """Names, as seen from a folder URL, of all files below it."""
    files = file_system(folder)
    with telling_faults(folder):
        found = files.find(str(folder))
    base = str(files._strip_protocol(str(folder))).rstrip("/") + "/"
    return [one.removeprefix(base) for one in found]


def put_file(source: Path, url: str | Path) -> None:
    """Copy a local file to a URL, where it appears whole or not at all. Raises StorageError."""
    with telling_faults(url):
        try:
            file_system(url).put_file(str(source), str(url))
        except FileNotFoundError as error:
            raise StorageError(f"{url}: cannot be written: {error}") from error


def get_file(url: str | Path, target: Path) -> None:
    """Copy a URL to a local file. Raises FileNotFoundError, StorageError."""
    with telling_faults(url):
        file_system(url).get_file(str(url), str(target))


def remove(url: str | Path) -> None:
    """Remove a file, if it is there. Raises StorageError."""
    with telling_faults(url), suppress(FileNotFoundError):
        file_system(url).rm_file(str(url))


def _stamp_of(info: dict[str, Any]) -> Stamp:
    return int(info["size"]), str(next((info[name] for name in _VERSIONS if info.get(name)), ""))


def expand(pattern: str) -> list[Path]:
    """The files that a pattern with `*`, `?` or `[...]` stands for, by name."""
    if not is_url(pattern):
        return [Path(one) for one in sorted(glob(pattern))]  # noqa: PTH207
    scheme = pattern.partition("://")[0]
    with telling_faults(pattern):
        found = file_system(pattern).glob(pattern)
    return [place(f"{scheme}://{one.lstrip('/')}") for one in sorted(found)]


def name_below(path: Path, root: Path) -> str:
    """`path` as seen from `root`, or its bare name when it lies elsewhere."""
    inside = is_url(path) == is_url(root) and path.is_relative_to(root)
    return path.relative_to(root).as_posix() if inside else path.name
