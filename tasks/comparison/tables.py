"""A comparison as flat tables: CSV files for `dvc plots` and for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasks.comparison.trials import Trial

FILES = ("measures.csv", "overlap.csv", "curve.csv", "mix.csv")

Line = dict[str, Any]


def tabulate(record: Mapping[str, Any]) -> dict[str, list[Line]]:
    """The lines of each file of FILES.

    measures: a line for each budget and method, `subset` naming both. overlap: one for each pair. curve: one for each
    number of rows, a column for each method. mix: one for each budget, trait, kind and method.
    """
    return dict(
        zip(
            FILES,
            (list(_measures(record)), list(_overlaps(record)), _curve(record["curve"]), list(_mix(record))),
            strict=True,
        )
    )


def list_costs(trials: Iterable[Trial]) -> list[Line]:
    """What each method cost, as it was measured."""
    return [
        {
            "method": one.method,
            "score_seconds": round(one.cost.score_seconds, 4),
            "select_seconds": round(one.cost.select_seconds, 4),
            "peak_bytes": one.cost.peak_bytes,
        }
        for one in trials
    ]


def as_csv(lines: Sequence[Line]) -> str:
    """The lines under one header; an absent number is an empty cell."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _measures(record: Mapping[str, Any]) -> Iterable[Line]:
    for at in record["budgets"]:
        for method in record["methods"]:
            line = {"subset": f"{method} {at['budget']}", "method": method, "budget": at["budget"], "rows": at["rows"]}
            for name, value in at["measures"][method].items():
                line |= {name: value["mean"], f"{name}_sd": value["sd"]}
            yield line


def _overlaps(record: Mapping[str, Any]) -> Iterable[Line]:
    for at in record["budgets"]:
        for one, shares in zip(record["methods"], at["overlap"], strict=True):
            for other, share in zip(record["methods"], shares, strict=True):
                yield {"budget": at["budget"], "method": one, "other": other, "jaccard": share}


def _curve(curve: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Line]:
    columns = list(curve.values())
    return [
        {
            "share": points[0]["share"],
            "rows": points[0]["rows"],
            **{method: point["captured"] for method, point in zip(curve, points, strict=True)},
        }
        for points in zip(*columns, strict=True)
    ]


def _mix(record: Mapping[str, Any]) -> Iterable[Line]:
    for at in record["budgets"]:
        for trait, mix in at["mix"].items():
            for place, kind in enumerate(mix["kinds"]):
                for method, shares in mix["methods"].items():
                    yield {
                        "budget": at["budget"],
                        "trait": trait,
                        "kind": kind,
                        "method": method,
                        "whole": mix["whole"][place],
                        "selected": shares[place],
                    }
