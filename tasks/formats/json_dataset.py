"""Datasets that are one JSON array or JSON lines, whatever their fields are called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tasks.atomic import replacing
from tasks.errors import DatasetError
from tasks.formats import json_stream
from tasks.formats.conversation import Spelling, read_row
from tasks.formats.record import Row
from tasks.params import DatasetSettings
from tasks.places import place, read_bytes, stamp

_CLOSING = re.compile(rb"[ \t\n\r]*\][ \t\n\r]*\Z")


@dataclass(frozen=True)
class JsonDataset:
    """Rows of one file. `described_by`: a second file that says how to read it, LLaMA-Factory's dataset_info.json."""

    format: str
    path: Path
    root: Path
    spelling: Spelling
    source_field: str | None
    extension: str
    described_by: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The data file, and what describes it."""
        return (self.path, *self.described_by)

    def __iter__(self) -> Iterator[Row]:
        for row, (text, value) in enumerate(read_values(self.path, self.extension)):
            yield read_row(row, text, value, self.spelling, self.root, self.source_field, beside=self.path.parent)

    def write_native(self, rows: Iterable[Row], path: Path) -> None:
        """Each row's own text; an array also keeps the input's white space between rows."""
        texts = (row.original for row in rows)
        pieces = (text + "\n" for text in texts) if self.extension == ".jsonl" else _as_array(texts, self.path)
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.writelines(piece.encode("utf-8", "surrogateescape") for piece in pieces)


def open_json(settings: DatasetSettings, name: str, spelling: Spelling) -> JsonDataset:
    """Open a .json or .jsonl file. Raises DatasetError."""
    path = data_file(place(settings.path))
    root = place(settings.image_root) if settings.image_root else path.parent
    return JsonDataset(name, path, root, spelling, settings.source_field, layout(path))


def data_file(path: Path) -> Path:
    """The file itself, or the only JSON file of a folder. Raises DatasetError."""
    if not path.is_dir():
        return path
    found = sorted(
        one for one in path.iterdir() if one.suffix in (".json", ".jsonl") and one.name != "dataset_info.json"
    )
    if len(found) != 1:
        names = ", ".join(one.name for one in found) or "none"
        raise DatasetError(f"{path}: expected one .json or .jsonl file, found {names}; name the file in dataset.path")
    return found[0]


def layout(path: Path) -> str:
    """.json for an array, .jsonl for one value a line, told by the content. Raises DatasetError for neither."""
    first = json_stream.starts_with(path)
    if path.suffix in (".jsonl", ".ndjson"):
        return ".jsonl"
    if first == "{" and isinstance(next(json_stream.read_lines(path))[1], dict):
        return ".jsonl"
    if first == "[":
        return ".json"
    found = f"it starts with {first!a}" if first else "it is empty"
    raise DatasetError(f"{path}: expected a JSON array of rows, or JSON lines; {found}")


def read_values(path: Path, extension: str) -> Iterator[tuple[str, Any]]:
    """(text, value) of each row; the value of a broken line is a Problem."""
    if extension == ".jsonl":
        yield from json_stream.read_lines(path)
    else:
        yield from ((one.text, one.value) for one in json_stream.read_array(path))


def _as_array(texts: Iterable[str], like: Path) -> Iterator[str]:
    """A JSON array with the white space of `like`, so that all its rows together give the file again."""
    opening, separator = _gaps(like)
    size = stamp(like)[0]
    closing = _CLOSING.search(read_bytes(like, max(0, size - 256)))
    yield "[" + opening
    for index, text in enumerate(texts):
        yield separator + text if index else text
    yield closing.group().decode() if closing else "\n]\n"


def _gaps(path: Path) -> tuple[str, str]:
    gaps = [one.before for one in islice(json_stream.read_array(path), 2)]
    opening = gaps[0] if gaps else ""
    return opening, gaps[1] if len(gaps) == 2 else "," + opening
