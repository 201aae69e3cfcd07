"""sha256 of a checkpoint's files and of the tensors in them, remembered between runs.

A 7B model is 15 GB, which takes tens of seconds to hash and is the same every night. An entry is trusted while its
file's size and modification time (nanoseconds) are what they were; losing the memory costs only time.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tasks.atomic import write_json
from tasks.vlm.checkpoint import Checkpoint, read_header

_SHA256 = re.compile(r"[0-9a-f]{64}")

Entry = dict[str, Any]
"""size, mtime_ns; sha256 once the file was hashed whole; tensors: name -> [dtype, shape, sha256]."""


class Digests:
    """Digests of files, each computed once. Without a memory every byte is read, as a check has to.

    memory: a JSON file that keeps digests between processes. With it, a file of a hub cache that is named by its
    sha256 is taken at its name.
    """

    def __init__(self, memory: Path | None = None) -> None:
        self._memory = memory
        self._entries = _recall(memory) if memory else {}

    def file(self, path: Path) -> str:
        """sha256 of a file's bytes."""
        if self._memory and (named := name_in_hub(path)):
            return named
        entry = self._entry(path)
        if "sha256" not in entry:
            with path.open("rb") as file:
                entry["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
            self._keep(path, entry)
        found: str = entry["sha256"]
        return found

    def tensors(self, checkpoint: Checkpoint, names: Iterable[str]) -> str:
        """sha256 over the named tensors: name, dtype, shape and stored bytes, in order of name. None is kept in memory.

        The same tensors give the same digest however they are sharded. Pickled shards are hashed whole.
        """
        stamps: list[list[Any]] = []
        wanted = sorted(names)
        for shard in sorted({checkpoint.weights[name] for name in wanted}):
            path = checkpoint.shard(shard)
            if shard.endswith(".safetensors"):
                stamps += self._stamps(path, [name for name in wanted if checkpoint.weights[name] == shard])
            else:
                stamps.append([shard, self.file(path)])
        return hashlib.sha256(json.dumps(sorted(stamps)).encode()).hexdigest()

    def _stamps(self, path: Path, names: Sequence[str]) -> list[list[Any]]:
        entry = self._entry(path)
        known = entry.setdefault("tensors", {})
        if missing := [name for name in names if name not in known]:
            known |= _hash_tensors(path, missing)
            self._keep(path, entry)
        return [[name, *known[name]] for name in names]

    def _entry(self, path: Path) -> Entry:
        """What is known of the file as it is now."""
        stamp = _stamp(path)
        known = self._entries.get(_key(path), {})
        return known if known.items() >= stamp.items() else stamp

    def _keep(self, path: Path, entry: Entry) -> None:
        if not entry.items() >= _stamp(path).items():
            return  # it changed while it was read
        self._entries[_key(path)] = entry
        if self._memory:
            write_json(self._memory, self._entries)


def name_in_hub(path: Path) -> str | None:
    """The sha256 that a hub cache named a file's bytes by; None for files that lie elsewhere, and small ones."""
    real = path.resolve()
    return real.name if real.parent.name == "blobs" and path.is_symlink() and _SHA256.fullmatch(real.name) else None


def _recall(memory: Path) -> dict[str, Entry]:
    """The entries kept; none when the file is not there or is damaged."""
    try:
        entries = json.loads(memory.read_text(encoding="utf-8"))
        return {key: one for key, one in entries.items() if _whole(one)}
    except (OSError, ValueError, AttributeError):
        return {}


def _whole(entry: Any) -> bool:
    """Whether an entry can be what this module wrote."""
    return (
        isinstance(entry, dict)
        and _SHA256.fullmatch(str(entry.get("sha256", "0" * 64))) is not None
        and isinstance(tensors := entry.get("tensors", {}), dict)
        and all(isinstance(one, list) and len(one) == 3 for one in tensors.values())
    )


def _key(path: Path) -> str:
    return str(path.absolute())


def _stamp(path: Path) -> Entry:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _hash_tensors(path: Path, names: Iterable[str]) -> dict[str, list[Any]]:
    """[dtype, shape, sha256 of the stored bytes] of each."""
    header, start = read_header(path)
    found = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stored:
        for name in names:
            entry = header[name]
            first, last = entry["data_offsets"]
            with memoryview(stored)[start + first : start + last] as data:
                found[name] = [entry["dtype"], entry["shape"], hashlib.sha256(data).hexdigest()]
    return found
