"""The tables that stages hand to each other: schemas, and reading and writing samples.

Stages never import each other; they meet in these files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.atomic import replacing
from tasks.sample import ImageRef, Sample, Turn

SAMPLES = pa.schema(
    [
        ("row", pa.int64()),  # position in the dataset, counted from 0
        ("id", pa.string()),  # the dataset's own id as text; null where it has none
        ("source", pa.string()),
        ("digest", pa.string()),
        ("turns", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        (
            "images",
            pa.list_(
                pa.struct(
                    [
                        ("path", pa.string()),
                        ("name", pa.string()),
                        ("member", pa.string()),
                        ("sha256", pa.string()),
                        ("width", pa.int32()),
                        ("height", pa.int32()),
                    ]
                )
            ),
        ),
        ("n_turns", pa.int32()),
        ("n_images", pa.int32()),
        ("characters", pa.int32()),
        ("text_only", pa.bool_()),
    ]
)

# scores.parquet: these columns, then the method's own. `rank` 0 is the best row.
SCORES = pa.schema(
    [("row", pa.int64()), ("id", pa.string()), ("digest", pa.string()), ("score", pa.float64()), ("rank", pa.int64())]
)

# selection.parquet: one line for every row of the dataset, in row order.
#   status   selected | not_selected | set_aside | rejected
#   reason   why: "" for selected and not_selected by score, else a named reason
#   position place in the selection, 0 first; null unless selected
#   exported whether the export holds the row (selected, or set aside with text_only: keep)
SELECTION = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("digest", pa.string()),
        ("source", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("position", pa.int64()),
        ("exported", pa.bool_()),
    ]
)


def features_schema(width: int, statistics: Iterable[tuple[str, pa.DataType]] = ()) -> pa.Schema:
    """features/<signal>/*.parquet of a matrix signal: row, id, digest, feature (d float32), then per-row statistics."""
    feature = pa.list_(pa.float32(), width)
    return pa.schema(
        [("row", pa.int64()), ("id", pa.string()), ("digest", pa.string()), ("feature", feature), *statistics]
    )


def write_samples(path: Path, samples: Iterable[Sample], batch_rows: int = 4096) -> int:
    """Stream samples to Parquet, in order; returns how many. Same samples, same bytes."""
    count = 0
    with replacing(path) as temporary, pq.ParquetWriter(temporary, SAMPLES, compression="zstd") as writer:
        batch: list[dict[str, Any]] = []
        for sample in samples:
            batch.append(_as_row(sample))
            count += 1
            if len(batch) == batch_rows:
                writer.write_table(pa.Table.from_pylist(batch, schema=SAMPLES))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, schema=SAMPLES))
    return count


def read_samples(path: Path, batch_rows: int = 4096) -> Iterator[Sample]:
    """Stream the samples back, in row order."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=batch_rows):
            for row in batch.to_pylist():
                yield as_sample(row)


def _as_row(sample: Sample) -> dict[str, Any]:
    return {
        "row": sample.row,
        "id": sample.id,
        "source": sample.source,
        "digest": sample.digest,
        "turns": [{"role": turn.role, "content": turn.content} for turn in sample.turns],
        "images": [
            {key: getattr(image, key) for key in ("path", "name", "member", "sha256", "width", "height")}
            for image in sample.images
        ],
        "n_turns": len(sample.turns),
        "n_images": len(sample.images),
        "characters": sum(len(turn.content) for turn in sample.turns),
        "text_only": sample.text_only,
    }


def as_sample(row: dict[str, Any]) -> Sample:
    """One row of samples.parquet, as pyarrow's `to_pylist` gives it."""
    return Sample(
        row=row["row"],
        id=row["id"],
        source=row["source"],
        turns=tuple(Turn(**turn) for turn in row["turns"]),
        images=tuple(ImageRef(**image) for image in row["images"]),
        digest=row["digest"],
    )
