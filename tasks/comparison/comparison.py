"""Compare methods: run each, measure its subsets, write the record, the tables for plots and the page."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tasks.atomic import write_json, write_text
from tasks.comparison import page, tables
from tasks.comparison.measures import survey
from tasks.comparison.mix import sort_rows
from tasks.comparison.record import describe_budget, describe_curve, describe_space
from tasks.comparison.trials import attempt, choose_methods, is_extracted
from tasks.composition import budget_count
from tasks.errors import FeatureError, InputError
from tasks.layout import Layout
from tasks.methods.contract import signal_of
from tasks.params import Settings
from tasks.pool import PoolRows, read_pool

log = logging.getLogger(__name__)

RECORD, COSTS, PAGE = "comparison.json", "costs.csv", "comparison.html"

MATRICES = ("attended", "pooled", "clip.image", "gradients")
"""What distances are measured in, unless told: the first that was extracted."""

Json = dict[str, Any]


def compare(settings: Settings, layout: Layout, out: Path) -> None:
    """Write the comparison that `settings.compare` asks for into the folder `out`.

    Same features and settings, same bytes, but for costs.csv and the page, which hold seconds and bytes measured.
    Raises FeatureError for signals that were not extracted, ParamsError and BudgetError for what cannot be done.
    """
    methods = choose_methods(settings, layout)
    features = _features(settings, layout)
    pool = read_pool(layout, (signal_of(features),), settings.extract.pooled)
    record, costs = _compare(settings, layout, pool, methods, features)
    write_text(out / COSTS, tables.as_csv(costs))
    for name, lines in tables.tabulate(record).items():
        write_text(out / name, tables.as_csv(lines))
    write_text(out / PAGE, page.render(record, costs))
    write_json(out / RECORD, record)


def _compare(
    settings: Settings, layout: Layout, pool: PoolRows, methods: Sequence[str], features: str
) -> tuple[Json, list[Json]]:
    asked = settings.compare
    counts = {budget: budget_count(budget, len(pool)) for budget in dict.fromkeys(asked.budgets)}
    space = survey(pool.tables.matrix(features), pool.tables.digests, asked.clusters, asked.sample)
    log.info("compare: %d rows of %s, %d directions, %d clusters", len(pool), features, space.rank, space.clusters)
    sizes = list(dict.fromkeys([*asked.budgets, *asked.curve]))
    trials = [attempt(settings, layout, name, sizes, asked.seeds) for name in methods]
    traits = sort_rows(pool.tables.sources, *_lengths(layout, pool))
    record = {
        **describe_space(space, features),
        "near_duplicate": asked.near_duplicate,
        "methods": list(methods),
        "seeds": {one.method: max(len(subsets) for subsets in one.picks.values()) for one in trials},
        "budgets": [
            {"budget": budget, **describe_budget(space, traits, trials, count, asked.near_duplicate)}
            for budget, count in counts.items()
        ],
        "curve": describe_curve(space, trials),
    }
    return record, tables.list_costs(trials)


def read_comparison(out: Path) -> tuple[Json, dict[str, dict[str, float]]]:
    """The record, and method -> its costs, of a folder that `compare` wrote. Raises InputError where there is none."""
    try:
        record: Json = json.loads((out / RECORD).read_text(encoding="utf-8"))
        with (out / COSTS).open(encoding="utf-8", newline="") as lines:
            return record, {line.pop("method"): _numbers(line) for line in csv.DictReader(lines)}
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file; run `scalselect compare` first") from None


def _numbers(line: Mapping[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in line.items()}


def _features(settings: Settings, layout: Layout) -> str:
    named = settings.compare.features
    found = [named] if named else [name for name in MATRICES if is_extracted(layout, signal_of(name))]
    if not found:
        raise FeatureError(
            f"{layout.features}: no features to measure distances in; add `attended` to extract.signals and extract"
        )
    return found[0]


def _lengths(layout: Layout, pool: PoolRows) -> tuple[Any, Any]:
    """(n,) characters and (n,) messages of the rows in play."""
    with pq.ParquetFile(layout.samples) as file:
        table = file.read(columns=["row", "characters", "n_turns"])
    place = np.searchsorted(table["row"].to_numpy(), pool.rows)
    return tuple(table[name].to_numpy()[place].astype(np.int64) for name in ("characters", "n_turns"))
