"""Evaluate: does the subset train as well as the whole? Samples, features and held-out tasks in, the table out.

held-out tasks -> proof that they are apart -> one subset, training and set of answers for each run -> report
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers.utils import logging as transformers_logging

from tasks.atomic import replacing
from tasks.errors import FeatureError
from tasks.evaluation.bench import Bench
from tasks.evaluation.held_out import Task, check_apart, read_tasks
from tasks.evaluation.planning import Run, needed_signals, plan_runs
from tasks.evaluation.report import Cell, Report, write
from tasks.evaluation.side_by_side import unfinished, work_off
from tasks.evaluation.subsets import Chooser, Subset
from tasks.evaluation.table import FULL, UNTRAINED, Outcome, tabulate
from tasks.evaluation.truth import Kept, describe, read_truth
from tasks.layout import Layout
from tasks.params import Settings
from tasks.places import place

log = logging.getLogger(__name__)

_PACKAGES = ("torch", "transformers", "accelerate", "peft")


def evaluate(settings: Settings, layout: Layout, out: Path) -> Report:
    """Do every run that is not yet done, then write the report to `out`; finished runs are in `out`/runs.

    Reads samples, features and the dataset's images. Raises InputError where a held-out row lies in the pool,
    FeatureError where a method's signal was not extracted, and whatever choosing and training raise.
    """
    transformers_logging.disable_progress_bar()
    tasks = read_tasks(settings.evaluate)
    runs = plan_runs(settings.evaluate)
    check_signals(settings, layout)
    check_apart(layout.samples, tasks)
    chooser = Chooser(settings, layout)
    subsets = {run: chooser.choose(run) for run in runs}
    write_subsets(out / "subsets.parquet", subsets, chooser)
    full = next(len(subset.rows) for run, subset in subsets.items() if run.method == FULL)
    bench = Bench(settings, layout, out / "runs", tasks, full)
    if settings.evaluate.jobs > 1:
        errands = unfinished(bench, subsets, chooser)
        log.info("evaluate: %d of %d runs to do, %d at a time", len(errands), len(runs), settings.evaluate.jobs)
        work_off(bench, errands, settings.evaluate.jobs)
    outcomes = []
    for number, run in enumerate(runs, 1):
        log.info("evaluate: run %d of %d, %s", number, len(runs), run.label)
        outcomes.append(bench.measure(run, subsets[run], chooser))
    report = Report(
        lines=tabulate(outcomes),
        breakdown=break_down(outcomes, tasks),
        kept=look_inside(settings, subsets),
        facts=_facts(settings, subsets),
    )
    write(report, out)
    return report


def check_signals(settings: Settings, layout: Layout) -> None:
    """Raise FeatureError, before anything is trained, when a method's signal was not extracted."""
    missing = [one for one in needed_signals(settings) if not any((layout.features / one).glob("*.parquet"))]
    if missing:
        raise FeatureError(f"{layout.features}: no `{missing[0]}`; add it to extract.signals and extract")


def write_subsets(path: Path, subsets: dict[Run, Subset], chooser: Chooser) -> None:
    """Which rows each run is trained on: method, budget, seed, row, digest. Full data, being all rows, is left out."""
    chosen = [(run, subset) for run, subset in subsets.items() if run.method not in (FULL, UNTRAINED)]
    lines = [
        (run.method, float(run.budget), run.seed, row, digest)
        for run, subset in chosen
        if run.matching == chosen[0][0].matching
        for row, digest in zip(subset.rows, chooser.digests(subset), strict=True)
    ]
    names = ("method", "budget", "seed", "row", "digest")
    columns = zip(*lines, strict=True) if lines else [()] * len(names)
    with replacing(path) as temporary:
        pq.write_table(pa.table(dict(zip(names, map(list, columns), strict=True))), temporary, compression="zstd")


def break_down(outcomes: Sequence[Outcome], tasks: Sequence[Task]) -> list[Cell]:
    """Mean scores by source within each task, over seeds."""
    groups: dict[tuple[str, int | float, str], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((one.method, one.budget, one.matching), []).append(one)
    cells = []
    for key, group in groups.items():
        for task in tasks:
            mean = np.mean([one.answers[task.name] for one in group], axis=0)
            sources = np.array([sample.source for sample in task.samples])
            for source in sorted(set(sources.tolist())):
                mine = sources == source
                cells.append(Cell(*key, task.name, source, int(mine.sum()), float(mean[mine].mean())))
    return cells


def look_inside(settings: Settings, subsets: dict[Run, Subset]) -> list[Kept]:
    """What each method kept, where truth.jsonl lies beside the dataset; else nothing."""
    truths = read_truth(place(settings.dataset.path))
    if not truths:
        return []
    groups: dict[tuple[str, int | float], list[Sequence[int]]] = {}
    for run, subset in subsets.items():
        if run.method != UNTRAINED:
            groups.setdefault((run.method, run.budget), []).append(subset.rows)
    return [describe(method, budget, rows, truths) for (method, budget), rows in groups.items()]


def _facts(settings: Settings, subsets: dict[Run, Subset]) -> dict[str, Any]:
    return {
        "model": settings.model.path,
        "dataset": settings.dataset.path,
        "evaluate": settings.evaluate.model_dump(mode="json"),
        "packages": {name: _version(name) for name in _PACKAGES},
        "machine": f"{platform.machine()}, {_device()}",
        "runs": [{**asdict(run), "rows": len(subset.rows)} for run, subset in subsets.items()],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
