"""evaluation.html: the table, performance against budget, what each skill costs; one self-contained file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from tasks.evaluation.chart import performance_chart
from tasks.evaluation.table import FULL, RANDOM, UNTRAINED, Line, tell_score
from tasks.evaluation.truth import Kept

if TYPE_CHECKING:
    from tasks.evaluation.report import Cell


def render(lines: Sequence[Line], breakdown: Sequence[Cell], kept: Sequence[Kept], facts: Mapping[str, Any]) -> str:
    """The page as HTML text. Same findings, same bytes."""
    page = Environment(
        loader=ChoiceLoader(
            [PackageLoader("tasks.evaluation", "templates"), PackageLoader("tasks.report", "templates")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = page.get_template("evaluation.html.j2")
    return template.render(
        lines=lines,
        tell_score=tell_score,
        tasks=list(lines[0].tasks),
        charts=[(name, performance_chart(chosen)) for name, chosen in _by_matching(lines)],
        best=_best(lines),
        skills=_skills(breakdown),
        kept=kept,
        pool=next((one for one in kept if one.method == FULL), None),
        facts=facts,
        untrained=next((line for line in lines if line.method == UNTRAINED), None),
        record=json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False),
    )


def _by_matching(lines: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    """Charts to draw: one for epochs, one for steps, each with the controls."""
    controls = [line for line in lines if line.method in (FULL, UNTRAINED)]
    names = dict.fromkeys(line.matching for line in lines if line not in controls)
    return [
        (name, [*controls, *(one for one in lines if one.matching == name and one not in controls)]) for name in names
    ]


def _best(lines: Sequence[Line]) -> list[tuple[Line, str]]:
    """The best line of each budget, and in a word whether it beats random beyond the interval."""
    best: dict[tuple[str, float], Line] = {}
    for line in lines:
        if line.method not in (FULL, UNTRAINED):
            key = line.matching, float(line.budget)
            best[key] = max(best.get(key, line), line, key=lambda one: one.relative)
    return [(line, _verdict(line)) for _, line in sorted(best.items())]


def _verdict(line: Line) -> str:
    if line.method == RANDOM:
        return "no method beats random"
    if line.against_random is None:
        return "not compared with random"
    return "beyond random" if line.against_random[0] > 0 else "within the interval of random"


def _skills(breakdown: Sequence[Cell]) -> tuple[list[tuple[str, str]], list[tuple[str, list[float]]]]:
    """Columns (task, source) and a row of scores for each line of the table."""
    columns = list(dict.fromkeys((cell.task, cell.source) for cell in breakdown))
    rows: dict[str, dict[tuple[str, str], float]] = {}
    for cell in breakdown:
        matched = " (steps)" if cell.matching == "steps" else ""
        rows.setdefault(f"{cell.method} {cell.budget:g}{matched}", {})[cell.task, cell.source] = cell.score
    return columns, [(name, [scores[column] for column in columns]) for name, scores in rows.items()]
