"""The records of a run, read for the report. Each may be missing: a report of half a run is still a report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tasks.layout import Layout

STATUSES = ("selected", "not_selected", "set_aside", "rejected")
RANKED = {"row": pl.Int64, "rank": pl.Int64, "score": pl.Float64, "status": pl.String}

Ranked = tuple[int, int, float]
"""Row, rank (0 is best), score."""


@dataclass(frozen=True)
class Records:
    """What the stages wrote, as plain values.

    counts: rows by status. reasons: (status, reason, rows), most frequent first. spectrum, score_curve, sources: lines
    of the CSV files. validation, score_metrics, manifest: the JSON files, empty where there is none.
    """

    counts: dict[str, int]
    reasons: list[tuple[str, str, int]]
    spectrum: list[dict[str, Any]]
    score_curve: list[dict[str, Any]]
    sources: list[dict[str, Any]]
    validation: dict[str, Any]
    score_metrics: dict[str, Any]
    manifest: dict[str, Any]
    scored: pl.DataFrame

    @property
    def rows_in(self) -> int:
        """Rows of the dataset."""
        return sum(self.counts.values())

    @property
    def selected(self) -> int:
        """Rows selected."""
        return self.counts["selected"]

    @property
    def pool(self) -> int:
        """Rows that were scored: those the budget is counted against."""
        return self.scored.height or self.selected + self.counts["not_selected"]

    @property
    def rejects(self) -> list[tuple[str, int]]:
        """Rejected rows by reason, most frequent first."""
        return [(reason, count) for status, reason, count in self.reasons if status == "rejected"]

    def ranked(self, status: str) -> list[Ranked]:
        """Scored rows of that status, best first."""
        return list(self.scored.filter(status=status).sort("rank").select("row", "rank", "score").iter_rows())


def read_records(layout: Layout) -> Records:
    """Everything the report is made from."""
    counts, reasons = _count(layout)
    return Records(
        counts=counts,
        reasons=reasons,
        spectrum=_read_csv(layout.spectrum),
        score_curve=_read_csv(layout.score_curve),
        sources=_read_csv(layout.source_mix),
        validation=_read_json(layout.validation),
        score_metrics=_read_json(layout.score_metrics),
        manifest=_read_json(layout.manifest),
        scored=_read_scored(layout),
    )


def _count(layout: Layout) -> tuple[dict[str, int], list[tuple[str, str, int]]]:
    """From the selection, which holds every row; before there is one, from what validation counted."""
    if not layout.selection.exists():
        validation = _read_json(layout.validation)
        found = [("rejected", reason, count) for reason, count in validation.get("reasons", {}).items()]
        found.append(("not_selected", "", validation.get("accepted", 0)))
    else:
        lines = pl.scan_parquet(layout.selection).group_by("status", "reason").agg(pl.len()).collect()
        found = list(lines.iter_rows())
    counts = {status: sum(count for one, _, count in found if one == status) for status in STATUSES}
    named = [(status, reason, count) for status, reason, count in found if reason]
    return counts, sorted(named, key=lambda one: (STATUSES.index(one[0]), -one[2], one[1]))


def _read_scored(layout: Layout) -> pl.DataFrame:
    if not (layout.scores.exists() and layout.selection.exists()):
        return pl.DataFrame(schema=RANKED)
    scores = pl.scan_parquet(layout.scores).select("row", "rank", "score")
    statuses = pl.scan_parquet(layout.selection).select("row", "status")
    return scores.join(statuses, on="row", how="inner").collect()


def _read_csv(path: Path) -> list[dict[str, Any]]:
    """Lines as dictionaries. A source may be called anything, `001` included, so that column stays text."""
    if not path.exists():
        return []
    header = path.open(encoding="utf-8").readline()
    text = {"source": pl.String} if header.startswith("source,") else {}
    return pl.read_csv(path, schema_overrides=text).with_columns(pl.col(pl.String).fill_null("")).to_dicts()


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
