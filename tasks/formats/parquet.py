"""Hugging Face tables: Parquet files, folders of shards, `save_to_disk` folders, or a dataset id of the hub.

Turns come from `messages`, `conversations` or `texts` ({user, assistant} pairs, as in the Cauldron), images from
image columns: bytes, {bytes, path}, paths, or lists of these. A hub dataset is fetched by `datasets` and
read from its cache.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks import cells
from tasks.atomic import replacing
from tasks.errors import DatasetError
from tasks.formats.conversation import Spelling, read_row
from tasks.formats.image_columns import find_image_columns, read_image_columns
from tasks.formats.record import Row
from tasks.params import DatasetSettings
from tasks.places import expand, place, read_bytes, telling_faults

# A row with images and no `<image>` at all shows them first: what TRL does with such rows, and what `texts` means.
SPELLING = Spelling(
    turns=("messages", "conversations", "conversation"),
    role=("role", "from"),
    content=("content", "value"),
    images=("images",),
    system="system",
    leading_images=True,
)
_GROUP_ROWS = 100
_GROUP_BYTES = 64 << 20


@dataclass(frozen=True)
class TableDataset:
    """Rows of Parquet or Arrow files of one schema: `shards`. `files` are those the user named: none for the hub."""

    root: Path
    shards: tuple[Path, ...]
    files: tuple[Path, ...]
    source_field: str | None
    format: str = "parquet"
    extension: str = ".parquet"

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the first file, with the metadata that tells `datasets` which columns are images."""
        return _schema(self.shards[0])

    def __iter__(self) -> Iterator[Row]:
        row = 0
        for path in self.shards:
            for ref, fields in _read(path):
                yield read_row(row, ref, fields, SPELLING, self.root, self.source_field)
                row += 1

    def write_native(self, rows: Iterable[Row], path: Path) -> None:
        """The rows as one Parquet file of the input's schema and metadata, all columns."""
        write_table(path, self.schema, (self._conform(row.original) for row in rows))

    def _conform(self, ref: cells.RowRef) -> pa.Table:
        """A row as the first file types it: shards may order columns otherwise, or know one only as null."""
        row = cells.read_row(ref)
        if set(row.column_names) != set(self.schema.names):
            raise DatasetError(f"{ref.path}: columns differ from those of {self.shards[0]}")
        try:
            return row.select(self.schema.names).cast(self.schema)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DatasetError(f"{ref.path}: types differ from those of {self.shards[0]}: {error}") from None


def open_parquet(settings: DatasetSettings) -> TableDataset:
    """Open a file, folder, saved dataset or hub id. Raises DatasetError."""
    path = place(settings.path)
    if shards := local_shards(path, settings.split):
        root = path if path.is_dir() else shards[0].parent
        return TableDataset(_root(settings, root), shards, shards, settings.source_field)
    if path.exists():
        raise DatasetError(f"{path}: no .parquet files and no saved dataset with a split `{settings.split}` in it")
    shards = hub_shards(settings)
    return TableDataset(_root(settings, shards[0].parent), shards, (), settings.source_field)


def local_shards(path: Path, split: str) -> tuple[Path, ...]:
    """The files that a file, a folder or a pattern such as data/train-*.parquet stands for."""
    if path.is_dir():
        return saved_shards(path, split) or folder_shards(path, split)
    if path.is_file():
        return (path,)
    return tuple(one for one in expand(str(path)) if one.suffix == ".parquet")


def saved_shards(path: Path, split: str) -> tuple[Path, ...]:
    """Arrow files of what `save_to_disk` wrote: a dataset, or a dictionary of splits. Empty for other folders."""
    for folder in (path, path / split):
        state = folder / "state.json"
        if state.is_file():
            found = json.loads(read_bytes(state))
            return tuple(folder / one["filename"] for one in found["_data_files"])
    return ()


def folder_shards(path: Path, split: str) -> tuple[Path, ...]:
    """Parquet files below a folder, by name: those of the split where names tell splits apart, else all."""
    found = sorted(one for one in path.rglob("*.parquet") if not one.name.startswith("."))
    named = [one for one in found if one.stem == split or one.stem.startswith(f"{split}-") or one.parent.name == split]
    return tuple(named or found)


def hub_shards(settings: DatasetSettings) -> tuple[Path, ...]:
    """Arrow files that `datasets` keeps for a hub dataset at a revision. Raises DatasetError."""
    import datasets

    where = f"dataset.path: `{settings.path}` is no local file, and as a hub dataset"
    try:
        found = datasets.load_dataset(settings.path, settings.config, revision=settings.revision, split=settings.split)
    # Whatever `datasets` and its network stack raise, the cure is the user's.
    except Exception as error:
        raise DatasetError(f"{where} it cannot be loaded: {type(error).__name__}: {error}") from error
    shards = tuple(Path(one["filename"]) for one in found.cache_files)
    if sum(cells.count(path) for path in shards) != len(found):
        raise DatasetError(f"{where} split `{settings.split}` is a slice; name a whole split")
    return shards


def write_table(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Stream small tables to one Parquet file in row groups of bounded size."""
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="snappy") as writer:
        waiting: list[pa.Table] = []
        for table in tables:
            waiting.append(table)
            if len(waiting) >= _GROUP_ROWS or sum(one.nbytes for one in waiting) >= _GROUP_BYTES:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))


def _root(settings: DatasetSettings, default: Path) -> Path:
    return place(settings.image_root) if settings.image_root else default


def _schema(path: Path) -> pa.Schema:
    try:
        with telling_faults(path):
            return cells.schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetError(f"{path}: not a readable {_kind(path)} file: {error}") from None


def _kind(path: Path) -> str:
    return "Arrow" if path.suffix == ".arrow" else "Parquet"


def _read(path: Path) -> Iterator[tuple[cells.RowRef, dict[str, Any]]]:
    """Rows of one file: where each lies, and its fields with `images` resolved to ImageRef; no image bytes copied."""
    schema = _schema(path)
    pictures = find_image_columns(schema)
    plain = [name for name in schema.names if name not in pictures]
    row = 0
    try:
        for batch in cells.batches(path):
            shown = read_image_columns(batch, pictures, path, row)
            for fields, images in zip(_plain(batch, plain), shown, strict=True):
                yield cells.RowRef(path, row), {**_spell_texts(fields), "images": images}
                row += 1
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetError(f"{path}: cannot be read past row {row}: {error}") from None


def _plain(batch: pa.RecordBatch, names: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = batch.select(names).to_pylist() if names else [{} for _ in range(len(batch))]
    return rows


def _spell_texts(fields: dict[str, Any]) -> dict[str, Any]:
    """`texts` of {user, assistant, source} as messages; other rows as they are."""
    texts = fields.get("texts")
    if "messages" in fields or not isinstance(texts, list) or not all(isinstance(one, Mapping) for one in texts):
        return fields
    turns = [{"role": role, "content": one.get(role)} for one in texts for role in ("user", "assistant")]
    source = next((one["source"] for one in texts if one.get("source")), None)
    return {"source": source, **fields, "messages": turns}
