"""LLaMA-Factory's sharegpt layout: which columns and tags hold what is written in a dataset_info.json, or in params.

The entry may be beside the data file, or be opened itself; of several entries `dataset.config` names one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.atomic import write_json
from tasks.errors import DatasetError
from tasks.formats.conversation import Spelling
from tasks.formats.export import ImageFiles, PathPolicy, uniform_object, write_array
from tasks.formats.json_dataset import JsonDataset, open_json
from tasks.params import DatasetSettings
from tasks.places import place, read_bytes
from tasks.sample import Sample

INFO = "dataset_info.json"
# LLaMA-Factory's own defaults for what an entry leaves out.
_COLUMNS = {"messages": "conversations", "images": "", "system": ""}
_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "system_tag": "system",
}
_UNUSED_TAGS = {"observation_tag", "function_tag"}  # tool turns are rejected by row: unknown_role
_EXPORT_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}


def open_llamafactory(settings: DatasetSettings) -> JsonDataset:
    """Open a data file, a dataset_info.json, or a folder that holds one. Raises DatasetError."""
    info, entry = _entry_of(settings)
    columns = {**_COLUMNS, **entry.get("columns", {}), **settings.columns}
    tags = {**_TAGS, **entry.get("tags", {}), **settings.tags}
    path = info.parent / entry["file_name"] if info else place(settings.path)
    opened = open_json(settings.model_copy(update={"path": str(path)}), "llamafactory", spell(columns, tags))
    return replace(opened, described_by=(info,) if info else ())


def spell(columns: Mapping[str, str], tags: Mapping[str, str]) -> Spelling:
    """The Spelling that a complete mapping describes. Raises DatasetError for tags that LLaMA-Factory does not know."""
    unknown = sorted(set(tags) - set(_TAGS) - _UNUSED_TAGS)
    if unknown:
        raise DatasetError(f"dataset.tags: unknown tag `{unknown[0]}`; known: {', '.join(_TAGS)}")
    return Spelling(
        turns=(columns["messages"],),
        role=(tags["role_tag"],),
        content=(tags["content_tag"],),
        images=(columns["images"],) if columns["images"] else ("images",),
        system=columns["system"] or None,
        roles={tags["user_tag"]: "user", tags["assistant_tag"]: "assistant", tags["system_tag"]: "system"},
    )


def describes(path: Path) -> bool:
    """Whether a dataset_info.json lies at or beside `path` and has a sharegpt entry for it."""
    info = find_info(path)
    if info is None:
        return False
    entries = [entry for entry in _read(info).values() if _is_sharegpt(entry)]
    return (
        bool(entries) if path.is_dir() or path.name == INFO else any(path.name == one["file_name"] for one in entries)
    )


def find_info(path: Path) -> Path | None:
    """The dataset_info.json that speaks for a file or folder. (`datasets` uses the name too, for other content.)"""
    info = path if path.name == INFO else (path if path.is_dir() else path.parent) / INFO
    return info if info.is_file() and not (info.parent / "state.json").exists() else None


def _entry_of(settings: DatasetSettings) -> tuple[Path | None, Mapping[str, Any]]:
    path = place(settings.path)
    info = find_info(path)
    entries = _read(info) if info else {}
    if path.name != INFO and not path.is_dir():
        entries = {name: entry for name, entry in entries.items() if entry.get("file_name") == path.name}
        if info is None or not entries:
            return None, {}
    if info is None:
        raise DatasetError(f"{path}: no {INFO} in it; name the data file, and the mapping in dataset.columns and .tags")
    if settings.config is None and len(entries) == 1:
        name = next(iter(entries))
    elif settings.config in entries:
        name = settings.config
    else:
        raise DatasetError(f"{info}: set dataset.config to one of its entries: {', '.join(entries) or 'it has none'}")
    return info, _usable(info, name, entries[name])


def _usable(info: Path, name: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    if "file_name" not in entry:
        raise DatasetError(f"{info}: `{name}` names no file_name; for a hub dataset set dataset.path to its id")
    if not _is_sharegpt(entry) or entry.get("ranking"):
        raise DatasetError(f"{info}: `{name}` is not a sharegpt conversation set (formatting: sharegpt, no ranking)")
    return entry


def _is_sharegpt(entry: Any) -> bool:
    return isinstance(entry, Mapping) and entry.get("formatting") in ("sharegpt", "openai") and "file_name" in entry


def _read(info: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(read_bytes(info).decode("utf-8"))
    except ValueError as error:
        raise DatasetError(f"{info}: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise DatasetError(f"{info}: expected an object of entries, found {type(found).__name__}")
    return {name: entry for name, entry in found.items() if isinstance(entry, dict)}


def write_llamafactory(
    rows: Iterable[tuple[Sample, Any]], out: Path, paths: PathPolicy, name: str = "subset"
) -> list[Path]:
    """Write out/<name>.json and the out/dataset_info.json that describes it: train with `dataset_dir: out`."""
    files = ImageFiles(out, paths)
    data, info = out / f"{name}.json", out / INFO
    write_array(data, (uniform_object(sample, files) for sample, _ in rows))
    entry = {
        "file_name": data.name,
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": _EXPORT_TAGS,
    }
    write_json(info, {name: entry})
    return [data, info, *files.written]
