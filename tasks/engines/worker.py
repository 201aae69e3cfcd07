"""The work itself: prepare rows, batch them, run the model, and let no single row stop the others."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from tasks.engines.ahead import ahead
from tasks.engines.batching import plan_batches
from tasks.engines.preparation import Preparation
from tasks.engines.work import Extractor, Job, Outcome, Values
from tasks.params import RunSettings
from tasks.sample import Sample
from tasks.shards import Refusal

_WINDOW_BATCHES = 4
"""Full batches' worth of prepared rows held at once: enough to sort by length, little enough for memory."""

_STAGED = 2
"""Batches collated before the model asks for them."""

Rows = list[tuple[int, Any]]
"""Prepared rows of a job with their places in it."""


_MOST_PROCESSES = 16  # each holds torch and a processor: about half a gigabyte
_MOST_THREADS = 2  # on the CPU, image work is 1 % of a row


class Worker:
    """One loaded model and its preparation; callable on jobs."""

    def __init__(self, extractor: Extractor, device: str, run: RunSettings, devices: int = 1) -> None:
        self._extractor = extractor
        self._budget = run.token_budget
        # Beside a GPU, whole processes feed it; on the CPU the cores are the model's and threads cost less to start.
        beside_gpu = device.startswith("cuda")
        self._preparation = Preparation(extractor.preparer(), count_workers(run, beside_gpu, devices), beside_gpu)

    def __call__(self, job: Job, upcoming: Job | None = None) -> Outcome:
        """Do one job. Its batches depend on the job and the token budget alone: done again, it gives the same bytes."""
        tally = _Tally(job)
        with closing(ahead(self._stage(job, upcoming, tally), _STAGED)) as batches:
            for rows, staged in batches:
                self._compute(rows, staged, tally)
        return tally.outcome()

    def close(self) -> None:
        """End the preparing threads or processes."""
        self._preparation.close()

    def _stage(self, job: Job, upcoming: Job | None, tally: _Tally) -> Iterator[tuple[Rows, Any]]:
        """Batches, and each as the model takes it: collating is the host's work, done while the device is busy."""
        for window in self._windows(job, upcoming, tally):
            images = [tuple(image.sha256 for image in tally.sample(place).images) for place, _ in window]
            for batch in plan_batches([row.n_tokens for _, row in window], images, self._budget):
                rows = [window[at] for at in batch]
                yield rows, self._extractor.stage([prepared for _, prepared in rows])

    def _windows(self, job: Job, upcoming: Job | None, tally: _Tally) -> Iterator[Rows]:
        window: Rows = []
        tokens = 0
        for place, prepared in enumerate(self._preparation.stream(job, upcoming)):
            if isinstance(prepared, Refusal):
                tally.refuse(place, prepared)
                continue
            window.append((place, prepared))
            tokens += prepared.n_tokens
            if tokens >= _WINDOW_BATCHES * self._budget:
                yield window
                window, tokens = [], 0
        if window:
            yield window

    def _compute(self, batch: Rows, staged: Any, tally: _Tally) -> None:
        """Run a batch; out of memory it is halved, and a batch that fails otherwise is run row by row."""
        try:
            values = self._extractor.measure(staged)
        except Exception as error:
            exhausted = is_out_of_memory(error)
            detail = f"{type(error).__name__}: {error}"
        else:
            tally.add([place for place, _ in batch], values)
            return
        if exhausted:
            free_memory()
        if len(batch) == 1:
            reason = "out_of_memory" if exhausted else "extraction_failed"
            place = batch[0][0]
            tally.refuse(place, Refusal(tally.sample(place).digest, reason, detail, lasting=False))
            return
        step = (len(batch) + 1) // 2 if exhausted else 1
        for start in range(0, len(batch), step):
            part = batch[start : start + step]
            self._compute(part, self._extractor.stage([prepared for _, prepared in part]), tally)


def count_workers(run: RunSettings, beside_gpu: bool, devices: int) -> int:
    """Threads or processes that prepare rows for one device: as set, else its share of the cores within reason."""
    if run.workers is not None:
        return run.workers
    share = int(run.ray.cpus_per_actor) if run.engine == "ray" else ((os.cpu_count() or 1) - devices) // devices
    return max(1, min(share, _MOST_PROCESSES if beside_gpu else _MOST_THREADS))


class _Tally:
    """Collects a job's values from batches of any order, and gives them back in the job's."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._places: list[int] = []
        self._batches: list[Values] = []
        self._refusals: dict[int, Refusal] = {}

    def sample(self, place: int) -> Sample:
        return self._job.samples[place]

    def refuse(self, place: int, refusal: Refusal) -> None:
        self._refusals[place] = refusal

    def add(self, places: Sequence[int], values: Values) -> None:
        good = _finite_rows(values, len(places))
        for place in (place for place, fine in zip(places, good, strict=True) if not fine):
            detail = "the model's values for this row hold NaN or infinity"
            self._refusals[place] = Refusal(self.sample(place).digest, "not_finite", detail, lasting=True)
        self._places += [place for place, fine in zip(places, good, strict=True) if fine]
        self._batches.append({s: {c: array[good] for c, array in columns.items()} for s, columns in values.items()})

    def outcome(self) -> Outcome:
        order = np.argsort(self._places, kind="stable")
        return Outcome(
            number=self._job.number,
            digests=tuple(self.sample(self._places[at]).digest for at in order),
            values={
                signal: {name: np.concatenate([one[signal][name] for one in self._batches])[order] for name in columns}
                for signal, columns in (self._batches[0] if self._batches else {}).items()
            },
            refusals=tuple(self._refusals[place] for place in sorted(self._refusals)),
        )


def _finite_rows(values: Values, rows: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(rows,) whether every matrix column of the row is finite; statistics may be NaN where they mean nothing."""
    good = np.ones(rows, dtype=bool)
    for columns in values.values():
        for array in columns.values():
            if array.ndim == 2:
                good &= np.isfinite(array).all(axis=1)
    return good


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may succeed where this error was raised."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


def free_memory() -> None:
    """Give cached accelerator memory back before trying a smaller batch."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
