"""Compare methods: run each, measure its subsets, write the record, the tables for plots and the page."""

from __future__ import annotations

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
from tasks.errors import FeatureError
from tasks.layout import Layout
from tasks.manifest import describe_code, digest_file
from tasks.methods import METHODS
from tasks.methods.contract import signal_of
from tasks.params import Settings
from tasks.pool import PoolRows, read_pool
from tasks.sample import digest_json

log = logging.getLogger(__name__)

RECORD, COSTS, PAGE = "comparison.json", "costs.csv", "comparison.html"

MATRICES = ("attended", "pooled", "clip.image", "gradients")
"""What distances are measured in, unless told: the first that was extracted."""

Json = dict[str, Any]


def compare(settings: Settings, layout: Layout, out: Path) -> bool:
    """Write the comparison that `settings.compare` asks for into the folder `out`; False where it is there already.

    Same features and settings, same bytes, but for costs.csv and the page, which hold seconds and bytes measured.
    Raises FeatureError for signals that were not extracted, ParamsError and BudgetError for what cannot be done.
    """
    methods = choose_methods(settings, layout)
    features = _features(settings, layout)
    inputs = _describe_inputs(settings, layout, methods, features)
    if is_current(out, inputs):
        return False
    pool = read_pool(layout, (signal_of(features),), settings.extract.pooled)
    record, costs = _compare(settings, layout, pool, methods, features)
    _write(out, {**record, "inputs": inputs}, costs)
    return True


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


def is_current(out: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether `out` holds a whole comparison of these inputs."""
    path = out / RECORD
    files = [out / name for name in (COSTS, PAGE, *tables.FILES)]
    if not path.exists() or not all(one.exists() for one in files):
        return False
    return bool(json.loads(path.read_text(encoding="utf-8")).get("inputs") == inputs)


def _write(out: Path, record: Json, costs: list[Json]) -> None:
    # The record goes last: it says that the rest is there.
    write_text(out / COSTS, tables.as_csv(costs))
    for name, lines in tables.tabulate(record).items():
        write_text(out / name, tables.as_csv(lines))
    write_text(out / PAGE, page.render(record, costs))
    write_json(out / RECORD, record)


def _features(settings: Settings, layout: Layout) -> str:
    named = settings.compare.features
    found = [named] if named else [name for name in MATRICES if is_extracted(layout, signal_of(name))]
    if not found:
        raise FeatureError(
            f"{layout.features}: no features to measure distances in; add `attended` to extract.signals and extract"
        )
    return found[0]


def _describe_inputs(settings: Settings, layout: Layout, methods: Sequence[str], features: str) -> Json:
    """Digests of all that decides the result: features, samples, settings, code."""
    options = {name: METHODS[name].parse(settings.methods.get(name, {})) for name in methods}
    signals = {signal for name in methods for signal in METHODS[name].signals(options[name])} | {signal_of(features)}
    files = sorted(file for signal in signals for file in (layout.features / signal).glob("*.parquet"))
    sections = settings.model_dump(mode="json", by_alias=True, include={"compare", "select", "methods", "extract"})
    return {
        "features": digest_json({file.relative_to(layout.features).as_posix(): digest_file(file) for file in files}),
        "samples": digest_file(layout.samples),
        "settings": digest_json({**sections, "methods": {name: sections["methods"].get(name, {}) for name in methods}}),
        "code": describe_code()["digest"],
    }


def _lengths(layout: Layout, pool: PoolRows) -> tuple[Any, Any]:
    """(n,) characters and (n,) messages of the rows in play."""
    with pq.ParquetFile(layout.samples) as file:
        table = file.read(columns=["row", "characters", "n_turns"])
    place = np.searchsorted(table["row"].to_numpy(), pool.rows)
    return tuple(table[name].to_numpy()[place].astype(np.int64) for name in ("characters", "n_turns"))
