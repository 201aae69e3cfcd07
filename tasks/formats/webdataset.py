"""WebDataset: tar shards in which neighbouring files of one base name make a row: 000.jpg, 000.json or 000.txt.

The JSON member holds `messages` or `conversations`; a text member is a caption, shown the image alone. Images
are read by byte range, so shards must not be compressed.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from tasks import images
from tasks.atomic import replacing
from tasks.errors import DatasetError
from tasks.formats import json_stream, messages
from tasks.formats.conversation import read_row
from tasks.formats.record import Row
from tasks.params import DatasetSettings
from tasks.places import expand, opened, place, read_bytes
from tasks.problem import Problem
from tasks.sample import IMAGE_PLACEHOLDER, ImageRef
from tasks.unicode import escape

_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a shard: its name (key.suffix), and where its header, its bytes and its last block lie.

    `text`: its bytes, where they are read in passing: the conversation of a row.
    """

    path: Path
    name: str
    header: int
    offset: int
    size: int
    text: bytes | None = None

    @property
    def key(self) -> str:
        """Everything before the first dot of the base name: what rows are grouped by."""
        return _split(self.name)[0]

    @property
    def suffix(self) -> str:
        """Everything after that dot, in lower case; `0.jpg` for the first of several images."""
        return _split(self.name)[1]

    @property
    def is_image(self) -> bool:
        """Told by the last suffix."""
        return self.suffix.rpartition(".")[2] in images.SUFFIXES

    def read(self) -> bytes:
        """The member's bytes."""
        return read_bytes(self.path, self.offset, self.size) if self.text is None else self.text


@dataclass(frozen=True)
class ShardDataset:
    """Rows of tar shards, shard by shard."""

    root: Path
    files: tuple[Path, ...]
    source_field: str | None
    format: str = "webdataset"
    extension: str = ".tar"

    def __iter__(self) -> Iterator[Row]:
        row = 0
        for path in self.files:
            for _, group in groupby(read_members(path), key=lambda member: member.key):
                members = tuple(group)
                yield read_row(row, members, read_fields(members), messages.SPELLING, self.root, self.source_field)
                row += 1

    def write_native(self, rows: Iterable[Row], path: Path) -> None:
        """One tar of the rows' members, headers and all, copied block by block.

        Where two neighbours from different shards share a key, the later one is put in a folder of its row number:
        side by side they would read as one row.
        """
        previous = ""
        with replacing(path) as temporary, temporary.open("wb") as file:
            for row in rows:
                members: tuple[Member, ...] = row.original
                clash = members[0].key == previous
                for member in members:
                    file.write(_renamed(member, f"{row.row:09d}/{member.name}") if clash else _blocks(member))
                previous = f"{row.row:09d}/{members[0].key}" if clash else members[0].key
            close_tar(file)


def open_webdataset(settings: DatasetSettings) -> ShardDataset:
    """Open a shard, a folder of shards, or a pattern such as data/{000..031}.tar or data/*.tar. Raises DatasetError."""
    files = shard_files(settings.path)
    if not files:
        raise DatasetError(f"{settings.path}: no .tar shards there")
    root = place(settings.image_root) if settings.image_root else files[0].parent
    return ShardDataset(root, files, settings.source_field)


def shard_files(path: str) -> tuple[Path, ...]:
    """Shards in order: by name for folders and globs, as counted for braces."""
    named = place(path)
    if named.is_dir():
        return tuple(sorted(named.glob("*.tar")))
    if named.is_file():
        return (named,)
    return tuple(one for spelled in expand_braces(path) for one in expand(spelled))


def expand_braces(pattern: str) -> list[str]:
    """{000..031} counted out, zero padding kept."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    numbers = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
    return [
        one for number in numbers for one in expand_braces(pattern[: match.start()] + number + pattern[match.end() :])
    ]


def read_members(path: Path) -> Iterator[Member]:
    """Files of a shard in order; folders, links and names without a suffix belong to no row. Raises DatasetError."""
    try:
        with opened(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else it remembers every header it has seen
                if info.isreg() and _NAME.fullmatch(info.name):
                    text = _text(tar, info)
                    yield Member(path, info.name, info.offset, info.offset_data, info.size, text)
    except (tarfile.TarError, OSError) as error:
        raise DatasetError(f"{path}: not a readable, uncompressed tar file: {error}") from None


def _text(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes | None:
    if not info.name.lower().endswith((".json", ".txt")):
        return None
    file = tar.extractfile(info)
    return file.read() if file else None


def close_tar(file: IO[bytes]) -> None:
    """Write the two empty blocks that end a tar, padded as tar pads."""
    file.write(b"\0" * (2 * tarfile.BLOCKSIZE))
    file.write(b"\0" * (-file.tell() % tarfile.RECORDSIZE))


def _split(name: str) -> tuple[str, str]:
    match = _NAME.fullmatch(name)
    assert match is not None
    return match.group(1), match.group(2).lower()


def read_fields(members: tuple[Member, ...]) -> Mapping[str, Any] | Problem:
    """The JSON member's fields, `images` replaced by the members that are images; or a caption as a conversation."""
    pictures = {member.suffix: _ref(member) for member in members if member.is_image}
    spoken = {member.suffix: member for member in members if not member.is_image}
    if "json" in spoken:
        value = json_stream.parse(spoken["json"].read().decode("utf-8", "surrogateescape"))
        if isinstance(value, Mapping):
            value = {**value, "images": _in_order(value, pictures), "image": None} if pictures else {**value}
        elif not isinstance(value, Problem):
            value = Problem("not_an_object", f"{spoken['json'].name!a} holds no JSON object")
    elif "txt" in spoken:
        caption = spoken["txt"].read().decode("utf-8", "surrogateescape")
        turns = [("user", IMAGE_PLACEHOLDER * len(pictures)), ("assistant", caption)]
        value = {
            "messages": [{"role": role, "content": content} for role, content in turns],
            "images": [*pictures.values()],
        }
    else:
        value = Problem("no_turns", f"{members[0].key!a} has no .json and no .txt member")
    if isinstance(value, dict):
        value.setdefault("id", members[0].key)
    found: Mapping[str, Any] | Problem = value
    return found


def _in_order(value: Mapping[str, Any], pictures: Mapping[str, ImageRef]) -> list[ImageRef]:
    """Image members in the order the JSON lists them by suffix or name; without such a list, as they lie in the tar."""
    listed = value.get("images")
    named = {**pictures, **{ref.name: ref for ref in pictures.values()}}
    if isinstance(listed, list) and listed and all(isinstance(name, str) and name in named for name in listed):
        return [named[name] for name in listed]
    return list(pictures.values())


def _ref(member: Member) -> ImageRef:
    return ImageRef(str(member.path), escape(member.name), f"tar:{member.offset}:{member.size}")


def _blocks(member: Member) -> bytes:
    end = member.offset + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return read_bytes(member.path, member.header, end - member.header)


def _renamed(member: Member, name: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = member.size
    return info.tobuf(tarfile.PAX_FORMAT) + _blocks(member)[member.offset - member.header :]
