"""What became of every row, as columns: kept small while rows stream by, a polars frame in the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tasks.checks import CHECKS, POLICIES, check_of
from tasks.formats.record import Row

COLUMNS: dict[str, Any] = {
    "row": pl.Int64,
    "source": pl.String,
    "n_turns": pl.Int32,
    "n_images": pl.Int32,
    "characters": pl.Int64,
    "text_only": pl.Boolean,
    "duplicate": pl.Boolean,
    "reason": pl.String,  # null: accepted
}
BATCH = 65_536


@dataclass
class Tally:
    """Collects one line for each row in, accepted or not."""

    _batches: list[pl.DataFrame] = field(default_factory=list)
    _lines: list[tuple[Any, ...]] = field(default_factory=list)

    def add(self, row: Row, reason: str | None, duplicate: bool) -> None:
        """Count a row. `duplicate`: it repeats an accepted row, whether or not that is a reason to reject it."""
        text_only = bool(row.turns) and not row.images
        characters = sum(len(turn.content) for turn in row.turns)
        line = (row.row, row.source, len(row.turns), len(row.images), characters, text_only, duplicate, reason)
        self._lines.append(line)
        if len(self._lines) == BATCH:
            self._pack()

    def frame(self) -> pl.DataFrame:
        """COLUMNS, then `accepted`, `defective` (0 or 1, for sums and shares) and one boolean `<check>_ok` a check."""
        self._pack()
        reason = pl.col("reason")
        policy = reason.is_in(POLICIES).fill_null(value=False)
        return pl.concat(self._batches).with_columns(
            pl.col("text_only", "duplicate").cast(pl.Int8),
            accepted=reason.is_null().cast(pl.Int8),
            defective=(reason.is_not_null() & ~policy).cast(pl.Int8),
            **{f"{check}_ok": _ok(check, reason) for check in CHECKS},
        )

    def _pack(self) -> None:
        self._batches.append(pl.DataFrame(self._lines, schema=COLUMNS, orient="row"))
        self._lines.clear()


def count_reasons(frame: pl.DataFrame) -> dict[str, int]:
    """How many rows were rejected for each reason; most frequent first, then by name."""
    counts = frame.drop_nulls("reason").group_by("reason").len().sort(["len", "reason"], descending=[True, False])
    return dict(counts.iter_rows())


def count_sources(frame: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Rows in, accepted and rejected of each source, by name."""
    counts = frame.group_by("source").agg(rows=pl.len(), accepted=pl.col("accepted").sum()).sort("source")
    return {
        source: {"rows": rows, "accepted": accepted, "rejected": rows - accepted}
        for source, rows, accepted in counts.iter_rows()
    }


def _ok(check: str, reason: pl.Expr) -> pl.Expr:
    seen = reason.replace_strict(_all_reasons(), default=check_of(""), return_dtype=pl.String)
    return (reason.is_null() | (seen != check)).fill_null(value=True)


def _all_reasons() -> dict[str, str]:
    return {reason: check for check, reasons in CHECKS.items() for reason in reasons}
