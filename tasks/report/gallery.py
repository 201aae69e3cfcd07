"""Contact sheets: small pictures of chosen rows with what is said about them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from PIL import Image

from tasks.images import decode, fetch
from tasks.problem import Problem
from tasks.report.records import Ranked
from tasks.sample import IMAGE_PLACEHOLDER, ImageRef, Sample
from tasks.tables import as_sample

EDGE = 176
QUALITY = 72
QUESTION, ANSWER = 160, 220


@dataclass(frozen=True, slots=True)
class Card:
    """One row on a sheet. `thumbnail` is a data URI, "" where the image can no longer be read."""

    row: int
    id: str
    rank: int
    score: str
    source: str
    thumbnail: str
    images: int
    question: str
    answer: str
    exchanges: int


def show(samples: Path, ranked: Sequence[Ranked]) -> Iterator[Card]:
    """Cards of the rows, in the order given. Only their lines of samples.parquet are read."""
    wanted = [row for row, _, _ in ranked]
    table = pl.scan_parquet(samples).filter(pl.col("row").is_in(wanted)).collect().to_arrow()
    found = {line["row"]: as_sample(line) for line in table.to_pylist()}
    for row, rank, score in ranked:
        yield _card(found[row], rank, score)


def _card(sample: Sample, rank: int, score: float) -> Card:
    said = {
        role: [
            " ".join(turn.content.replace(IMAGE_PLACEHOLDER, " ").split()) for turn in sample.turns if turn.role == role
        ]
        for role in ("user", "assistant")
    }
    return Card(
        row=sample.row,
        id=sample.id or "",
        rank=rank,
        score=f"{score:.4g}",
        source=sample.source,
        thumbnail=thumbnail(sample.images[0]) if sample.images else "",
        images=len(sample.images),
        question=_shorten(said["user"][0] if said["user"] else "", QUESTION),
        answer=_shorten(said["assistant"][0] if said["assistant"] else "", ANSWER),
        exchanges=len(said["assistant"]),
    )


def thumbnail(ref: ImageRef) -> str:
    """A JPEG of at most EDGE pixels a side, as a data URI; "" when the image is gone or broken."""
    data = fetch(ref)
    if isinstance(data, Problem):
        return ""
    try:
        small = decode(data)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    small.thumbnail((EDGE, EDGE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
