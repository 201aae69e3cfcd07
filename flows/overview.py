"""What a finished run says on the terminal: where every row went, and where to look."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.dvc import Outcome
from tasks.layout import Layout


def describe(layout: Layout) -> str:
    """Accounting and paths of a finished run, from its manifest."""
    manifest = json.loads(layout.manifest.read_text(encoding="utf-8"))
    counts = manifest["accounting"]
    lines = [f"{counts['selected']:,} of {counts['rows_in']:,} rows selected by {manifest['method']['name']}"]
    for status in ("not_selected", "set_aside", "rejected"):
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts["reasons"][status].items()))
        lines.append(f"  {status.replace('_', ' '):<13}{counts[status]:>9,}{'  ' + reasons if reasons else ''}")
    lines += ["", "where to look", *(f"  {what:<13}{path}" for what, path in _places(layout))]
    return "\n".join(lines)


def describe_outcomes(outcomes: Sequence[Outcome]) -> str:
    """One line per stage: ran, unchanged or restored, and how long it took."""
    return "\n".join(f"  {one.stage:<13}{one.how:<11}{one.seconds:>7.1f} s" for one in outcomes)


def _places(layout: Layout) -> Iterator[tuple[str, Path]]:
    yield from (("subset", path) for path in sorted(layout.subset.glob("subset*")))
    yield "scores", layout.scores
    yield "all rows", layout.selection
    yield "rejects", layout.all_rejects
    yield "manifest", layout.manifest
    yield "report", layout.report
    yield "validation", layout.docs / "index.html"
