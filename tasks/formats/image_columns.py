"""Image columns of a table: which they are, and where each row's images lie, without copying a single image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.sample import ImageRef

_USUAL = ("images", "image")


def find_image_columns(schema: pa.Schema) -> list[str]:
    """`images`, else `image`, else every column of {bytes, path} structs or lists of them, in the table's order."""
    for name in _USUAL:
        if name in schema.names:
            return [name]
    return [field.name for field in schema if _is_image(_item_type(field.type))]


def read_image_columns(batch: pa.RecordBatch, columns: list[str], path: Path, first_row: int) -> list[list[Any]]:
    """For each row its images in order: an ImageRef to the cell where there are bytes, else what the cell says instead
    (a path, or None for an item of a list that is null)."""
    rows: list[list[Any]] = [[] for _ in range(len(batch))]
    kind = "arrow" if path.suffix == ".arrow" else "parquet"
    for column in columns:
        array = batch.column(column)
        for row, (names, filled) in enumerate(zip(*_describe(array), strict=True)):
            for index, (name, has_bytes) in enumerate(zip(names, filled, strict=True)):
                member = f"{kind}:{first_row + row}:{column}:{index}"
                rows[row].append(ImageRef(str(path), name or "", member) if has_bytes else name)
    return rows


def _describe(array: pa.Array) -> tuple[list[list[str | None]], list[list[bool]]]:
    """Per row, each image's name and whether its bytes are there."""
    if _is_list(array.type):
        names, filled = _describe_items(array.flatten())
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_pylist()
        return _regroup(names, lengths), _regroup(filled, lengths)
    names, filled = _describe_items(array)
    there = pc.is_valid(array).to_pylist()
    return (
        [[name] if valid else [] for name, valid in zip(names, there, strict=True)],
        [[one] if valid else [] for one, valid in zip(filled, there, strict=True)],
    )


def _describe_items(items: pa.Array) -> tuple[list[str | None], list[bool]]:
    if pa.types.is_struct(items.type):
        names = {field.name for field in items.type}
        paths = pc.struct_field(items, "path").to_pylist() if "path" in names else [None] * len(items)
        filled = pc.is_valid(pc.struct_field(items, "bytes")).to_pylist() if "bytes" in names else [False] * len(items)
        return paths, filled
    if _is_bytes(items.type):
        return [None] * len(items), pc.is_valid(items).to_pylist()
    return items.to_pylist(), [False] * len(items)


def _regroup(flat: list[Any], lengths: list[int]) -> list[list[Any]]:
    rest = iter(flat)
    return [[next(rest) for _ in range(length)] for length in lengths]


def _is_image(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and {"bytes", "path"} <= {field.name for field in kind}


def _item_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if _is_list(kind) else kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
