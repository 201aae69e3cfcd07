"""A row as a reader hands it over, and what a reader is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tasks.params import DatasetSettings
from tasks.problem import Problem
from tasks.sample import ImageRef, Turn

__all__ = ["Dataset", "Format", "Problem", "Row"]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a dataset, in order.

    `original` is what the writer of the same format emits again, unchanged: the exact JSON text (str) for JSON and
    JSONL, else where the row lies (tasks.cells.RowRef for Parquet and Arrow, a tuple of webdataset.Member). `images`
    are resolved but not yet opened or hashed. `problem` is set when the reader could not make turns or images of it.
    """

    row: int
    original: Any
    id: str | None
    source: str
    turns: tuple[Turn, ...]
    images: tuple[ImageRef, ...]
    problem: Problem | None = None


class Dataset(Protocol):
    """An opened dataset: rows in order, again and again, a few at a time in memory."""

    @property
    def format(self) -> str:
        """Name in FORMATS."""

    @property
    def root(self) -> Path:
        """The folder that images lie under, as the user spelled it."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Files the rows come from, in order; empty for a dataset of the hub."""

    @property
    def extension(self) -> str:
        """Suffix of the subset in the dataset's own format: .json, .jsonl, .parquet or .tar."""

    def __iter__(self) -> Iterator[Row]:
        """Rows 0, 1, ... Raises DatasetError where the file cannot be read any further."""

    def write_native(self, rows: Iterable[Row], path: Path) -> None:
        """Write rows of this dataset, in the order given, as they stand in the input."""


@dataclass(frozen=True, slots=True)
class Format:
    """One line of FORMATS: how a dataset of this format is opened."""

    name: str
    open: Callable[[DatasetSettings], Dataset]
