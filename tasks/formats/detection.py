"""Which format a dataset is in, told by its files and, for JSON, by the fields of its first rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from tasks.errors import DatasetError
from tasks.formats import llamafactory, parquet, webdataset
from tasks.formats.json_dataset import data_file, layout, read_values
from tasks.places import place

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w-]+")
_LOOK_AT = 100
_FORMATS = "llava, messages, llamafactory, parquet, webdataset"


def detect(path: Path | str) -> str:
    """A name in FORMATS. Raises DatasetError saying what was found and how to go on."""
    there = place(str(path))
    if there.suffix == ".tar" or (there.is_dir() and webdataset.shard_files(str(path))):
        return "webdataset"
    if not there.exists():
        is_file_name = there.suffix in (".json", ".jsonl", ".ndjson", ".parquet", ".arrow")
        if parquet.local_shards(there, "train") or (_HUB_ID.fullmatch(str(path)) and not is_file_name):
            return "parquet"
        raise DatasetError(f"{path}: no such file or folder")
    if llamafactory.describes(there):
        return "llamafactory"
    if there.suffix in (".parquet", ".arrow") or (there.is_dir() and _holds_tables(there)):
        return "parquet"
    return _detect_json(data_file(there))


def _holds_tables(folder: Path) -> bool:
    markers = ("state.json", "dataset_dict.json")
    return any((folder / name).exists() for name in markers) or bool(parquet.folder_shards(folder, "train"))


def _detect_json(path: Path) -> str:
    if path.suffix not in (".json", ".jsonl", ".ndjson"):
        raise DatasetError(
            f"{path}: unknown kind of file; expected .json, .jsonl, .parquet, .tar, or set dataset.format"
        )
    seen: dict[str, None] = {}
    values = [value for _, value in islice(read_values(path, layout(path)), _LOOK_AT)]
    if not values:
        raise DatasetError(f"{path}: it has no rows")
    for value in values:
        if isinstance(value, Mapping):
            if name := _spelled_as(value):
                return name
            seen.update(dict.fromkeys(value))
    fields = ", ".join(f"`{name}`" for name in islice(seen, 20)) or "none"
    raise DatasetError(
        f"{path}: cannot tell the format: neither `conversations` nor `messages` in the first rows (fields: {fields}); "
        f"set dataset.format ({_FORMATS}), or dataset.columns for other field names"
    )


def _spelled_as(value: Mapping[str, Any]) -> str | None:
    if isinstance(value.get("messages"), list):
        return "messages"
    turns = value.get("conversations")
    if isinstance(turns, list) and turns and isinstance(turns[0], Mapping):
        return "messages" if "role" in turns[0] else "llava"
    return None
