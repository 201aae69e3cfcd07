"""Running methods one after another: what each picks at each budget and seed, and what that cost."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.comparison.measures import Rows
from tasks.comparison.memory import watch_memory
from tasks.composition import budget_count
from tasks.errors import FeatureError, ParamsError
from tasks.layout import Layout
from tasks.methods import METHODS
from tasks.methods.contract import Columns, Method, Tables
from tasks.params import ScoreSettings, Settings
from tasks.scoring import run
from tasks.selection import choose, read_candidates

log = logging.getLogger(__name__)

CONTROLS = ("random", "stratified")
"""Always compared with: few published selectors beat them at every budget."""

RATED = ("judge", "deita")
"""Signals that come from an endpoint, which must be named."""


@dataclass(frozen=True)
class Cost:
    """Wall-clock seconds to score, and to select at one budget on average; peak of memory above the start, bytes."""

    score_seconds: float
    select_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Trial:
    """A method's subsets. picks: number of rows -> one subset for each seed, or one alone where no lots are drawn."""

    method: str
    picks: Mapping[int, tuple[Rows, ...]]
    cost: Cost


def choose_methods(settings: Settings, layout: Layout) -> list[str]:
    """The methods of `compare.methods`, by default all whose signals were extracted; then the controls.

    Raises ParamsError for an unknown method, FeatureError saying which signals to add.
    """
    named = settings.compare.methods
    unknown = [name for name in named or () if name not in METHODS]
    if unknown:
        raise ParamsError(f"compare.methods: no method `{unknown[0]}`; known: {', '.join(METHODS)}")
    candidates = [name for name in (METHODS if named is None else named) if name not in CONTROLS]
    lacking = {name: _lacking(settings, layout, name) for name in candidates}
    if named is not None:
        _refuse(settings, layout, {name: signals for name, signals in lacking.items() if signals})
    for name, signals in lacking.items():
        if signals:
            log.info("compare: %s left out, it needs %s", name, " and ".join(signals))
    return [*dict.fromkeys(name for name in candidates if not lacking[name]), *CONTROLS]


def attempt(settings: Settings, layout: Layout, name: str, budgets: Sequence[int | float], seeds: int) -> Trial:
    """Score once, then select as the select stage would, at every budget and from `seeds` seeds on from select.seed.

    budgets are counts or shares. Further seeds are tried only where the method draws lots from them; a `seed` among a
    method's own options (of its k-means, say) stays as it is. Raises BudgetError and FeatureError.
    """
    own = settings.model_copy(update={"score": ScoreSettings(method=name)})
    method = METHODS[name]
    options = method.parse(settings.methods.get(name, {}))
    with watch_memory() as peak:
        pool = read_candidates(own, layout)
        _ = pool.images  # read on first use, and no part of any method's work
        begun = time.perf_counter()
        columns, _notes = run(method, pool.tables, options)
        scored = time.perf_counter() - begun
        counts = sorted({budget_count(budget, len(pool)) for budget in budgets})
        tried = seeds if draws_lots(method, columns, pool.tables, counts, options) else 1
        begun = time.perf_counter()
        picks = {
            count: tuple(choose(_at(own, count, seed), pool, columns).picks for seed in range(tried))
            for count in counts
        }
        selected = time.perf_counter() - begun
    log.info("compare: %s scored %d rows in %.1f s", name, len(pool), scored)
    return Trial(name, picks, Cost(scored, selected / max(1, tried * len(counts)), peak.bytes))


def draws_lots(method: Method, columns: Columns, tables: Tables, counts: Sequence[int], options: Any) -> bool:
    """Whether the method takes anything from the random generator it is handed; asked at the smallest budget."""
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    method.select(columns, tables, min((count for count in counts if count), default=0), rng, options)
    return bool(rng.bit_generator.state != before)


def is_extracted(layout: Layout, signal: str) -> bool:
    """Whether there are features of the signal."""
    return any((layout.features / signal).glob("*.parquet"))


def _at(settings: Settings, count: int, number: int) -> Settings:
    select = settings.select.model_copy(update={"budget": count, "seed": settings.select.seed + number})
    return settings.model_copy(update={"select": select})


def _lacking(settings: Settings, layout: Layout, name: str) -> list[str]:
    method = METHODS[name]
    needed = method.signals(method.parse(settings.methods.get(name, {})))
    return [signal for signal in needed if not is_extracted(layout, signal)]


def _refuse(settings: Settings, layout: Layout, lacking: Mapping[str, Sequence[str]]) -> None:
    """Raise FeatureError with all that is missing at once, and how to get it."""
    if not lacking:
        return
    missing = list(dict.fromkeys(signal for signals in lacking.values() for signal in signals))
    lines = [f"compare.methods: {name} needs {' and '.join(signals)}" for name, signals in lacking.items()]
    wanted = ", ".join(dict.fromkeys([*settings.extract.signals, *missing]))
    lines.append(f"not extracted to {layout.features}: add it with --set extract.signals=[{wanted}]")
    if "clip" in missing and settings.extract.clip.model is None:
        lines.append("`clip` also needs a CLIP or SigLIP model: --set extract.clip.model.path=...")
    rated = [signal for signal in missing if signal in RATED]
    if rated and settings.extract.judge is None:
        lines.append(
            f"`{rated[0]}` also needs an endpoint that rates the rows: --set extract.judge.url=... and .model=..."
        )
    raise FeatureError("\n".join(lines))
