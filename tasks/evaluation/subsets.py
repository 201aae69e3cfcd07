"""The rows each training sees: chosen from the shared features exactly as the selection stage would."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tasks.evaluation.planning import Run, settings_for
from tasks.evaluation.table import FULL, UNTRAINED
from tasks.layout import Layout
from tasks.methods import METHODS
from tasks.methods.contract import Columns
from tasks.params import Settings
from tasks.pool import PoolRows, read_pool
from tasks.rates import read_rates
from tasks.sample import Sample
from tasks.scoring import run as run_method
from tasks.selection import choose, read_candidates
from tasks.tables import as_sample


@dataclass(frozen=True)
class Subset:
    """rows: positions in the dataset, by content digest. seconds: T_select, None where extraction was not timed."""

    rows: tuple[int, ...]
    seconds: float | None


class Chooser:
    """Chooses subsets. A method is scored once for all its budgets and seeds.

    With `dataset.text_only: keep`, rows without images join every subset beside its budget, as they join an export.
    """

    def __init__(self, settings: Settings, layout: Layout) -> None:
        self._settings = settings
        self._layout = layout
        self._scored: dict[str, tuple[PoolRows, Columns, float | None]] = {}
        samples = pl.scan_parquet(layout.samples).select("row", "digest", "text_only").collect()
        self._digests: dict[int, str] = dict(samples.select("row", "digest").iter_rows())
        beside = samples.filter(pl.col("text_only")) if settings.dataset.text_only == "keep" else samples.clear()
        self._beside: list[int] = beside["row"].to_list()

    def choose(self, run: Run) -> Subset:
        """The run's subset. Raises BudgetError, FeatureError and ParamsError as the selection stage does."""
        if run.method == UNTRAINED:
            return Subset((), 0.0)
        if run.method == FULL:
            return self._subset(read_pool(self._layout).rows.tolist(), 0.0)
        settings = settings_for(self._settings, run)
        pool, columns, scoring = self._score(run.method, settings)
        started = time.perf_counter()
        picks = choose(settings, pool, columns).picks
        spent = time.perf_counter() - started
        return self._subset(pool.rows[picks].tolist(), None if scoring is None else scoring + spent)

    def digests(self, subset: Subset) -> list[str]:
        """The content digests of the subset's rows, in its order."""
        return [self._digests[row] for row in subset.rows]

    def _score(self, name: str, settings: Settings) -> tuple[PoolRows, Columns, float | None]:
        if name not in self._scored:
            method = METHODS[settings.score.method]
            options = method.parse(settings.methods[method.name])
            started = time.perf_counter()
            pool = read_candidates(settings, self._layout)
            columns, _ = run_method(method, pool.tables, options)
            spent = time.perf_counter() - started
            extraction = extraction_seconds(self._layout, method.signals(options), len(pool))
            self._scored[name] = pool, columns, None if extraction is None else extraction + spent
        return self._scored[name]

    def _subset(self, rows: Collection[int], seconds: float | None) -> Subset:
        # By content, so that two methods with the same rows share one training, whatever the dataset's order.
        return Subset(tuple(sorted([*rows, *self._beside], key=lambda row: (self._digests[row], row))), seconds)


def read_rows(samples: Path, rows: Collection[int]) -> list[Sample]:
    """The samples of the given dataset rows, in the order given."""
    found = pl.scan_parquet(samples).filter(pl.col("row").is_in(list(rows))).collect().to_arrow().to_pylist()
    by_row = {line["row"]: as_sample(line) for line in found}
    return [by_row[row] for row in rows]


def extraction_seconds(layout: Layout, signals: Collection[str], rows: int) -> float | None:
    """What extracting the signals of so many rows takes, by the rate of the last extraction; None where unknown.

    Signals extracted together share one pass over the model, whose whole time counts.
    """
    if not signals:
        return 0.0
    record = json.loads((layout.features / "extraction.json").read_text(encoding="utf-8"))["signals"]
    rates = read_rates(layout.store)
    passes: set[str] = set()
    for signal in signals:
        mark = record[signal]["fingerprint"][:16]
        known = [key for key in rates if mark in key.rsplit(":", maxsplit=1)[-1].split("+")]
        if not known:
            return None
        passes.add(min(known, key=len))
    return sum(rows / rates[one] for one in passes)
