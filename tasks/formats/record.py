"""A row as a reader hands it over: the untouched original, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tasks.sample import ImageRef, Turn


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row is rejected: a named reason (snake_case, listed in docs/formats.md) and the detail for a person."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a dataset, in order.

    `original` is what the writer of the same format emits again, unchanged: the exact JSON text (str) for JSON and
    JSONL, the column dict for Parquet, {suffix: bytes} for WebDataset. `images` are resolved but not yet opened or
    hashed. `problem` is set when the reader could not make turns or images of it.
    """

    row: int
    original: Any
    id: str | None
    source: str
    turns: tuple[Turn, ...]
    images: tuple[ImageRef, ...]
    problem: Problem | None = None
