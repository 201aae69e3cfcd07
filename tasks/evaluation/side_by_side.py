"""Several runs at once: one small training leaves most of a GPU, or the other cores, idle."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from tasks.atomic import write_json
from tasks.engines.lifetime import end_with_parent
from tasks.evaluation.bench import Bench
from tasks.evaluation.planning import Run
from tasks.evaluation.subsets import Chooser, Subset

log = logging.getLogger(__name__)

_bench: Bench


@dataclass(frozen=True)
class Errand:
    """A run that is not finished: the key of its training, and where its record will be."""

    run: Run
    subset: Subset
    key: str
    path: Path


def unfinished(bench: Bench, subsets: Mapping[Run, Subset], chooser: Chooser) -> list[Errand]:
    """Runs without a record, the longest first; of those that come to the same training, one."""
    found: dict[Path, Errand] = {}
    for run, subset in subsets.items():
        key, path = bench.locate(run, subset, chooser)
        if not path.exists():
            found.setdefault(path, Errand(run, subset, key, path))
    return sorted(found.values(), key=lambda one: -bench.steps(one.run, one.subset))


def work_off(bench: Bench, errands: Sequence[Errand], jobs: int) -> None:
    """Do them, `jobs` at a time, each process with its share of the threads. Raises what a run raises."""
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(errands) or 1), context, _open, (bench, threads)) as pool:
        begun = {pool.submit(_do, errand): errand for errand in errands}
        try:
            for number, done in enumerate(as_completed(begun), 1):
                done.result()
                log.info("evaluate: %d of %d done, %s", number, len(errands), begun[done].run.label)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _open(bench: Bench, threads: int) -> None:
    global _bench  # noqa: PLW0603
    end_with_parent()
    torch.set_num_threads(threads)
    transformers_logging.disable_progress_bar()
    _bench = bench


def _do(errand: Errand) -> None:
    write_json(errand.path, _bench.work(errand.run, errand.subset, errand.key))
