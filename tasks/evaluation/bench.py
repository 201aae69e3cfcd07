"""One run after another: choose the subset, train, ask the held-out questions, write the answers down.

A run is known by what decides its result (base model, rows, recipe, seed, questions), so one that is finished is never
repeated: not after an interruption, not for another method with the same rows, not on another machine that has the
records. Models lie in the store; records are small and lie in the evaluation's own folder.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tasks.atomic import write_json
from tasks.evaluation.answering import answer
from tasks.evaluation.held_out import Task
from tasks.evaluation.launching import train
from tasks.evaluation.material import Memory
from tasks.evaluation.metrics import METRICS
from tasks.evaluation.planning import Run, count_steps
from tasks.evaluation.subsets import Chooser, Subset, read_rows
from tasks.evaluation.table import UNTRAINED, Outcome
from tasks.evaluation.training import digest_model, training_key, whole_checkpoint
from tasks.layout import Layout
from tasks.params import Settings
from tasks.sample import digest_json

log = logging.getLogger(__name__)


@dataclass
class Bench:
    """Where runs are done. records: folder of finished runs, by content; memory: prepared samples, shared by them."""

    settings: Settings
    layout: Layout
    records: Path
    tasks: Sequence[Task]
    full_rows: int

    def __post_init__(self) -> None:
        self._model = digest_model(self.settings.model)
        self._memory = Memory()

    def measure(self, run: Run, subset: Subset, chooser: Chooser) -> Outcome:
        """The run's scores: read from its record, or trained for. Raises ModelError, DatasetError and OSError."""
        key, path = self.locate(run, subset, chooser)
        if path.exists():
            log.info("%s: finished before", run.label)
        else:
            write_json(path, self.work(run, subset, key))
        return read_outcome(json.loads(path.read_text(encoding="utf-8")), run, subset, self.tasks)

    def locate(self, run: Run, subset: Subset, chooser: Chooser) -> tuple[str, Path]:
        """The training's key, and the file that its answers to these tasks are in once it is finished."""
        tune = self.settings.evaluate.tune
        key = training_key(self._model, chooser.digests(subset), tune, run.seed, self.steps(run, subset))
        asked = [[task.name, task.digest] for task in self.tasks]
        name = digest_json([key, asked, self.settings.evaluate.new_tokens])
        return key, self.records / f"{name}.json"

    def steps(self, run: Run, subset: Subset) -> int:
        """Updates of the run: of its own rows, or with matched steps as many as the full data gets."""
        if run.method == UNTRAINED:
            return 0
        rows = self.full_rows if run.matching == "steps" else len(subset.rows)
        return count_steps(rows, self.settings.evaluate.tune)

    def work(self, run: Run, subset: Subset, key: str) -> dict[str, Any]:
        """Train and ask: what the run's record will hold. Raises ModelError, DatasetError and OSError."""
        settings, evaluate = self.settings.model, self.settings.evaluate
        folder, record = self.layout.store / "runs" / key, None
        model = folder / "model"
        if run.method == UNTRAINED:
            model = whole_checkpoint(settings)
        else:
            samples = read_rows(self.layout.samples, subset.rows)
            steps = self.steps(run, subset)
            log.info("%s: training on %d rows, %d updates", run.label, len(samples), steps)
            record = train(settings, samples, evaluate.tune, run.seed, steps, folder, self._memory)
        asked = [sample for task in self.tasks for sample in task.samples]
        given = answer(settings, model, asked, evaluate.batch_size, evaluate.new_tokens, self._memory)
        if record is not None and not evaluate.keep_models:
            shutil.rmtree(folder)
        texts, losses = iter(given.given), iter(given.nll.tolist())
        answers = {
            task.name: _score(task, list(islice(texts, len(task.samples))), list(islice(losses, len(task.samples))))
            for task in self.tasks
        }
        return {"training": record, "key": key, "tasks": answers}


def read_outcome(record: dict[str, Any], run: Run, subset: Subset, tasks: Sequence[Task]) -> Outcome:
    """A finished run as the table wants it."""
    answers = {task.name: record["tasks"][task.name] for task in tasks}
    tuned = (record["training"] or {}).get("seconds")
    seconds = {} if tuned is None else {"tune": float(tuned)}
    if subset.seconds is not None:
        seconds["select"] = subset.seconds
    return Outcome(
        method=run.method,
        budget=run.budget,
        seed=run.seed,
        answers={name: np.array(one["scores"], dtype=np.float64) for name, one in answers.items()},
        seconds=seconds,
        matching=run.matching,
        nll={name: np.array(one["nll"], dtype=np.float64) for name, one in answers.items()},
    )


def _score(task: Task, given: list[str], nll: list[float]) -> dict[str, Any]:
    metric = METRICS[task.metric]
    scores = [metric(text, list(wanted)) for text, wanted in zip(given, task.references, strict=True)]
    return {"metric": task.metric, "given": given, "scores": scores, "nll": [round(one, 6) for one in nll]}
