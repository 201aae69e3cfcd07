"""What an evaluation found, and the files it is told in: JSON, CSV and Markdown (the page is tasks.evaluation.page)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tasks.atomic import write_json, write_text
from tasks.evaluation.page import render
from tasks.evaluation.table import Line, tell_score
from tasks.evaluation.truth import Kept


@dataclass(frozen=True)
class Cell:
    """Mean score of a line on the questions of one source of a task."""

    method: str
    budget: int | float
    matching: str
    task: str
    source: str
    questions: int
    score: float


@dataclass(frozen=True)
class Report:
    """lines: the table. breakdown: by source within each task. kept: against ground truth, where there is one.

    facts: what was evaluated, for the record: model, recipe, environment, runs.
    """

    lines: Sequence[Line]
    breakdown: Sequence[Cell] = ()
    kept: Sequence[Kept] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def write(report: Report, out: Path) -> None:
    """Write out/evaluation.json, table.csv, breakdown.csv, table.md and evaluation.html."""
    write_json(out / "evaluation.json", _finite(asdict(report)))
    header, *rows = flatten(report.lines)
    write_text(out / "table.csv", _csv([header, *rows]))
    write_text(out / "breakdown.csv", _csv(_breakdown_rows(report.breakdown)))
    write_text(out / "table.md", to_markdown(report.lines))
    write_text(out / "evaluation.html", render(report.lines, report.breakdown, report.kept, report.facts))


def flatten(lines: Sequence[Line]) -> list[list[Any]]:
    """The table with its header, one number a cell; "" where nothing is known."""
    tasks = list(lines[0].tasks)
    spans = ("interval", "against_random")
    header = ["method", "budget", "matching", "seeds", *tasks, "relative", "spread"]
    header += [f"{name}_{end}" for name in spans for end in ("low", "high")] + ["cost"]
    header += [f"perplexity_{task}" for task in tasks]
    rows = []
    for line in lines:
        ends = [end for name in spans for end in (getattr(line, name) or ("", ""))]
        scores = [line.tasks[task] for task in tasks]
        likelihood = [line.perplexity.get(task, "") for task in tasks]
        cost = "" if line.cost is None else line.cost
        known = [line.method, line.budget, line.matching, line.seeds]
        rows.append([*known, *scores, line.relative, line.spread, *ends, cost, *likelihood])
    return [header, *rows]


def to_markdown(lines: Sequence[Line]) -> str:
    """The table for people: scores and Rel. in percent (points as they are), intervals in brackets."""
    header, *rows = tell(lines)
    marks = ["---" if place < 2 else "---:" for place in range(len(header))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, marks, *rows))


def tell(lines: Sequence[Line]) -> list[list[str]]:
    """The table as text, header first; matching is named where more than one was used."""
    tasks = list(lines[0].tasks)
    several = len({line.matching for line in lines}) > 1
    header = ["method", "budget", *tasks, "Rel. (%)", "95 % interval", "against random", "C"]
    return [header, *(_tell_line(line, tasks, several) for line in lines)]


def _tell_line(line: Line, tasks: Sequence[str], several: bool) -> list[str]:
    budget = f"{line.budget:g}" if isinstance(line.budget, float) else f"{line.budget:,}"
    return [
        line.method,
        f"{budget} ({line.matching})" if several and line.interval else budget,
        *(tell_score(line.tasks[task]) for task in tasks),
        f"{line.relative:.1f}" + (f" ± {line.spread:.1f}" if line.seeds > 1 else ""),
        f"{line.interval[0]:.1f} to {line.interval[1]:.1f}" if line.interval else "",
        f"{line.against_random[0]:+.1f} to {line.against_random[1]:+.1f}" if line.against_random else "",
        "" if line.cost is None else f"{line.cost:.2f}",
    ]


def _breakdown_rows(cells: Sequence[Cell]) -> list[list[Any]]:
    names = ["method", "budget", "matching", "task", "source", "questions", "score"]
    return [names, *([getattr(cell, name) for name in names] for cell in cells)]


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _finite(value: Any) -> Any:
    """The value with infinities (a perplexity may be one) as null: JSON has no word for them."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
