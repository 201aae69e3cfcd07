"""Which samples are still to be extracted, and in what order they become jobs.

Planning sees five columns of samples.parquet; whole samples are copied to a spool file on disk and read back a job at a
time, so that a hundred million rows are planned in the memory of their digests.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.digests import Digests, first_of_each, pack
from tasks.engines.work import Job
from tasks.errors import DatasetError
from tasks.sample import Sample
from tasks.tables import as_sample

_BATCH_ROWS = 4096


@dataclass(frozen=True)
class Census:
    """The rows with images, in row order.

    total: rows of samples.parquet, text-only ones included. rows: (n,) row in the dataset. places: (n,) position in
    samples.parquet. ids: n strings or nulls. digests: (n, 32). images: (n,) first image, numbered by first appearance.
    """

    total: int
    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    ids: pa.ChunkedArray
    digests: Digests
    images: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def distinct(self) -> NDArray[np.int64]:
        """The first row of every distinct digest, in the order to extract: rows that share an image are neighbours."""
        first = first_of_each(self.digests)
        return first[np.argsort(self.images[first], kind="stable")]


def take_census(samples: Path) -> Census:
    """Read what planning needs. Raises DatasetError when validation has not run."""
    if not samples.is_file():
        raise DatasetError(f"{samples}: no validated samples; run the validate stage first")
    columns = ["row", "id", "digest", "text_only", "images.list.element.sha256"]
    with pq.ParquetFile(samples) as file:
        table = file.read(columns=columns)
    places = np.flatnonzero(~table["text_only"].to_numpy())
    shown = table.filter(pc.invert(table["text_only"]))
    digests = [pack(batch.column(0).to_pylist()) for batch in shown.select(["digest"]).to_batches()]
    return Census(
        total=len(table),
        rows=shown["row"].to_numpy(),
        places=places,
        ids=shown["id"],
        digests=np.concatenate([np.empty((0, 32), dtype=np.uint8), *digests]),
        images=_first_images(shown["images"]),
    )


def _first_images(images: pa.ChunkedArray) -> NDArray[np.int64]:
    first = pc.struct_field(pc.list_element(images, 0), "sha256") if len(images) else pa.chunked_array([], pa.string())
    codes = pc.dictionary_encode(first).combine_chunks()
    return np.asarray(codes.indices if len(codes) else [], dtype=np.int64)


class Spool:
    """Some rows of samples.parquet in a file of their own, read at any place. It is unlinked as soon as it is open."""

    def __init__(self, samples: Path, places: NDArray[np.int64], folder: Path) -> None:
        """`places`: ascending positions in samples.parquet. `folder`: where there is room for the file."""
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".spool.", suffix=".part", dir=folder)
        os.close(handle)
        try:
            self._starts = np.cumsum([0, *_copy_rows(samples, places, name)])
            self._reader = pa.ipc.open_file(pa.memory_map(name))
        finally:
            Path(name).unlink()
        self._places = places

    def take(self, places: NDArray[np.int64]) -> list[Sample]:
        """The samples at these places, in the order asked for."""
        rows = np.searchsorted(self._places, places)
        batches = np.searchsorted(self._starts, rows, side="right") - 1
        found: dict[int, Sample] = {}
        for number in np.unique(batches):
            inside = np.flatnonzero(batches == number)
            taken = self._reader.get_batch(int(number)).take(pa.array(rows[inside] - self._starts[number]))
            found.update(zip(inside.tolist(), map(as_sample, taken.to_pylist()), strict=True))
        return [found[at] for at in range(len(places))]

    def jobs(self, places: NDArray[np.int64], rows: int, first: int = 0) -> Iterator[Job]:
        """Jobs of `rows` samples each, in the order given; numbered from `first`."""
        for number, start in enumerate(range(0, len(places), rows), first):
            yield Job(number, tuple(self.take(places[start : start + rows])))


def _copy_rows(samples: Path, places: NDArray[np.int64], target: str) -> list[int]:
    """Copy the rows at `places` to an Arrow file; returns how many each of its batches holds."""
    counts: list[int] = []
    start = 0
    with (
        pq.ParquetFile(samples) as file,
        pa.OSFile(target, "wb") as sink,
        pa.ipc.new_file(sink, file.schema_arrow) as writer,
    ):
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            low, high = np.searchsorted(places, (start, start + len(batch)))
            if high > low:
                writer.write_batch(batch.take(pa.array(places[low:high] - start)))
                counts.append(int(high - low))
            start += len(batch)
    return counts
