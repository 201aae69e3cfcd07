"""Hugging Face Parquet with the images inside, as `datasets.load_dataset` decodes it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks import images
from tasks.formats.export import PathPolicy, turn_objects
from tasks.formats.parquet import write_table
from tasks.sample import Sample

SHARD_ROWS = 10_000
_TEXT = {"dtype": "string", "_type": "Value"}
_FEATURES = {
    "id": _TEXT,
    "source": _TEXT,
    "messages": [{"role": _TEXT, "content": _TEXT}],
    "images": [{"_type": "Image"}],
}
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


def write_parquet(rows: Iterable[tuple[Sample, Any]], out: Path, paths: PathPolicy, name: str = "subset") -> list[Path]:
    """Write out/<name>-00000.parquet, ...: id, source, messages, images. The path policy has no say: bytes go along."""
    written: list[Path] = []
    samples = (sample for sample, _ in rows)
    while (first := next(samples, None)) is not None or not written:
        shard = islice(chain([first] if first else [], samples), SHARD_ROWS)
        path = out / f"{name}-{len(written):05d}.parquet"
        write_table(path, SCHEMA, _tables(shard))
        written.append(path)
    return written


def _tables(samples: Iterable[Sample]) -> Iterator[pa.Table]:
    for sample in samples:
        row = {
            "id": sample.id,
            "source": sample.source,
            "messages": turn_objects(sample),
            "images": [{"bytes": images.read_bytes(ref), "path": Path(ref.name).name or None} for ref in sample.images],
        }
        yield pa.Table.from_pylist([row], schema=SCHEMA)
