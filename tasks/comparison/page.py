"""The comparison as a page of its own, in the report's style: everything inside, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from tasks.comparison.chart import Series, lines_chart
from tasks.comparison.trials import CONTROLS
from tasks.report.page import share

COLUMNS = {
    "captured": "Energy captured",
    "radius": "Radius",
    "distance": "Mean distance",
    "clusters": "Clusters hit",
    "near_duplicates": "Near duplicates",
    "source_shift": "Source shift",
    "length_shift": "Length shift",
    "turns_shift": "Turns shift",
}
"""What each measure is called to a reader."""


def render(record: Mapping[str, Any], costs: Sequence[Mapping[str, Any]]) -> str:
    """The page as HTML text."""
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("tasks.comparison", "templates"), PackageLoader("tasks.report", "templates")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": share, "figure": figure}
    return environment.get_template("comparison.html.j2").render(
        record=record,
        costs={one["method"]: one for one in costs},
        columns=COLUMNS,
        controls=CONTROLS,
        curve=_curve(record),
    )


def figure(measure: Mapping[str, float | None]) -> str:
    """0.912, or 0.912 ± 0.004 over seeds; a dash where there is no number."""
    if measure["mean"] is None:
        return "-"
    deviation = "" if measure["sd"] is None else f" ± {measure['sd']:.3f}"
    return f"{measure['mean']:.3f}{deviation}"


def _curve(record: Mapping[str, Any]) -> str:
    series = [
        Series(method, [(100 * one["share"], one["captured"]) for one in points if one["rows"]], method in CONTROLS)
        for method, points in record["curve"].items()
    ]
    return lines_chart([one for one in series if one.points], "rows selected, %", "share of energy captured")
