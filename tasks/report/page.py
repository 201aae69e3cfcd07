"""The page: what the records say, charts, pictures, provenance; styles and images inside, nothing fetched.

Same records, same bytes: no times, no host, nothing drawn at random.
"""

from __future__ import annotations

import json
import os

from jinja2 import Environment, PackageLoader, StrictUndefined

from tasks.atomic import write_text
from tasks.layout import Layout
from tasks.params import Settings
from tasks.report.charts import Mark, line_chart
from tasks.report.gallery import show
from tasks.report.records import Records, read_records

# Pictures in each of the three sheets, and sources listed by name.
SHOWN = 12
SOURCES = 24


def write(layout: Layout, settings: Settings) -> None:
    """Write `layout.report` from whatever records exist; a missing one leaves its section out."""
    write_text(layout.report, render(layout, settings))


def render(layout: Layout, settings: Settings) -> str:
    """The report as HTML text."""
    records = read_records(layout)
    page = Environment(
        loader=PackageLoader("tasks.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters["share"] = share
    template = page.get_template("report.html.j2")
    return template.render(
        settings=settings,
        records=records,
        method=settings.score.method,
        status_names=STATUS_NAMES,
        spectrum=_spectrum_chart(records),
        curve=_curve_chart(records),
        sources=records.sources[:SOURCES],
        sources_left=len(records.sources) - SOURCES,
        sheets=_sheets(layout, records),
        docs=_docs_link(layout),
        neighbours=NEIGHBOURS,
        parameters=_parameters(settings),
    )


NEIGHBOURS = (
    ("comparison", "Beside other methods", "scalselect compare"),
    ("evaluation", "Trained on", "scalselect evaluate"),
)
"""Pages written later, into folders beside the report's: shown in it as soon as they are there."""

STATUS_NAMES = {
    "selected": "Selected",
    "not_selected": "Not selected",
    "set_aside": "Set aside",
    "rejected": "Rejected",
}


def share(part: float, whole: float = 1.0) -> str:
    """A share as a percentage with three significant digits: 0.0512 of 1 is `5.12 %`."""
    return f"{100 * part / whole:.3g} %" if whole else "0 %"


def _spectrum_chart(records: Records) -> str | None:
    points = [(line["component"], line["cumulative"]) for line in records.spectrum]
    if not points:
        return None
    rank = records.score_metrics.get("k")
    marks = [Mark(float(rank), f"k = {rank:,}")] if rank else []
    return line_chart(
        points, "component", "share of energy, cumulative", marks, zero=True, logarithmic=len(points) > 50
    )


def _curve_chart(records: Records) -> str | None:
    points = [(line["rank"] + 1, line["score"]) for line in records.score_curve]
    if not points:
        return None
    marks = [Mark(float(records.selected), f"{records.selected:,} rows selected")] if records.selected else []
    return line_chart(points, "rank", "score", marks, zero=min(score for _, score in points) >= 0)


def _sheets(layout: Layout, records: Records) -> list[tuple[str, str, list[object]]]:
    """Three contact sheets: the best and the last of the selection, and the others at even steps of rank."""
    chosen, others = records.ranked("selected"), records.ranked("not_selected")
    last = chosen[max(SHOWN, len(chosen) - SHOWN) :]
    sheets = [
        ("highest", "Selected, highest scores", chosen[:SHOWN]),
        ("lowest", "Selected, lowest scores", last),
        ("others", "Not selected, at even steps from the highest score to the lowest", _evenly(others, SHOWN)),
    ]
    return [(name, title, list(show(layout.samples, ranks))) for name, title, ranks in sheets if ranks]


def _evenly(values: list[tuple[int, int, float]], count: int) -> list[tuple[int, int, float]]:
    if len(values) <= count:
        return values
    return [values[round(step * (len(values) - 1) / (count - 1))] for step in range(count)]


def _docs_link(layout: Layout) -> str | None:
    index = layout.docs / "index.html"
    if not index.exists():
        return None
    return os.path.relpath(index.absolute(), layout.report.parent.absolute()).replace(os.sep, "/")


def _parameters(settings: Settings) -> str:
    tree = settings.model_dump(mode="json", by_alias=True, exclude={"run", "record"})
    return json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False)
