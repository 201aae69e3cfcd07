"""Stage 3: one score for every extracted row, by the method of `score.method`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.arithmetic import choose_products
from tasks.atomic import write_json, write_text
from tasks.errors import ParamsError
from tasks.layout import Layout
from tasks.methods import METHODS
from tasks.methods.contract import Columns, Method, Notes, Tables, best_first
from tasks.params import Settings
from tasks.pool import read_pool
from tasks.scores import write_scores

log = logging.getLogger(__name__)

CURVE_POINTS = 1000


def score(settings: Settings, layout: Layout) -> None:
    """Read features, write scores, spectrum, score curve and metrics. Raises FeatureError and ParamsError.

    Only scalselect has a spectrum; another method's spectrum.csv holds its header alone.
    """
    method = find_method(settings.score.method)
    options = method.parse(settings.methods.get(method.name, {}))
    pool = read_pool(layout, method.signals(options), settings.extract.pooled, settings.run)
    products = choose_products(settings.run, _multiplications(pool.tables))
    columns, notes = run(method, replace(pool.tables, products=products), options)
    order = best_first(columns["score"], pool.tables.digests)
    write_scores(layout.scores, pool.rows, pool.ids, pool.tables.digests.tolist(), columns, order)
    write_text(layout.spectrum, _csv("component,singular_value,energy,cumulative", _spectrum(notes.spectrum)))
    write_text(layout.score_curve, _csv("rank,score", _curve(columns["score"][order])))
    write_json(layout.score_metrics, {"method": method.name, "rows": len(pool), **_facts(notes)})
    log.info("%d rows scored by %s", len(pool), method.name)


def find_method(name: str) -> Method:
    """The method of that name. Raises ParamsError listing the known ones."""
    if name not in METHODS:
        raise ParamsError(f"score.method: no method `{name}`; known: {', '.join(METHODS)}")
    return METHODS[name]


def run(method: Method, tables: Tables, options: Any) -> tuple[Columns, Notes]:
    """Scores and what was noted on the way."""
    if method.explain is not None:
        return method.explain(tables, options)
    return method.score(tables, options), Notes()


def _multiplications(tables: Tables) -> int:
    """Of the largest matrix's covariance: n d^2."""
    return max((n * d * d for n, d in (matrix.shape for matrix in tables.matrices.values())), default=0)


def _spectrum(singular_values: NDArray[np.float64] | None) -> Iterable[tuple[int, float, float, float]]:
    if singular_values is None:
        return []
    energy = np.square(singular_values)
    share = energy / (energy.sum() or 1.0)
    rows = zip(singular_values.tolist(), share.tolist(), np.cumsum(share).tolist(), strict=True)
    return [(number, *row) for number, row in enumerate(rows, 1)]


def _curve(descending: NDArray[np.float64]) -> Iterable[tuple[int, float]]:
    """At most 1000 evenly spaced points, the best and the last rank among them."""
    n = len(descending)
    points = np.unique(np.rint(np.linspace(0, n - 1, min(n, CURVE_POINTS))).astype(np.int64))
    return zip(points.tolist(), descending[points].tolist(), strict=True)


def _csv(header: str, rows: Iterable[tuple[float, ...]]) -> str:
    # Twelve digits: what lies beyond depends on the number of threads.
    return "\n".join([header, *(",".join(f"{number:.12g}" for number in row) for row in rows)]) + "\n"


def _facts(notes: Notes) -> dict[str, Any]:
    facts = {key: float(f"{one:.12g}") if isinstance(one, float) else one for key, one in notes.facts.items()}
    return {key: one for key, one in facts.items() if not (isinstance(one, float) and math.isnan(one))}
