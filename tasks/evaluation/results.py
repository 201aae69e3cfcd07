"""results.json: scores that were measured elsewhere, by any trainer and any tester, for the same table.

    [{"method": "full", "budget": 1.0, "seed": 0, "tasks": {"gqa": 0.612, "textvqa": [1, 0, 0.33, ...]}},
     {"method": "random", "budget": 0.16, "seed": 0, "lmms_eval": "random-s0/", "seconds": {"tune": 3600}},
     ...]

A task's score is its mean, or one number for each question, which alone allows intervals. `lmms_eval` names a results
file of lmms-eval, or a folder that holds one: its first metric of each task is taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.errors import InputError
from tasks.evaluation.table import Outcome


class Entry(BaseModel):
    """One line of results.json."""

    model_config = ConfigDict(extra="forbid")

    method: str
    budget: int | float
    seed: int = 0
    matching: Literal["epochs", "steps"] = "epochs"
    tasks: dict[str, float | list[float]] = Field(default_factory=dict)
    lmms_eval: str | None = None
    seconds: dict[Literal["select", "tune"], float] = Field(default_factory=dict)


def read_results(path: Path) -> list[Outcome]:
    """The outcomes that results.json holds. Raises InputError naming the entry and what is wrong with it."""
    try:
        lines = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(lines, list) or not lines:
        raise InputError(f"{path}: expected a list of results, one object for each training")
    return [_read_entry(path, number, line) for number, line in enumerate(lines)]


def _read_entry(path: Path, number: int, line: Any) -> Outcome:
    try:
        entry = Entry.model_validate(line)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: entry {number}: `{key}`: {first['msg']}") from None
    tasks: Mapping[str, float | list[float]] = entry.tasks
    if entry.lmms_eval is not None:
        tasks = {**read_lmms_eval(path.parent / entry.lmms_eval), **entry.tasks}
    if not tasks:
        raise InputError(f"{path}: entry {number} ({entry.method}): neither `tasks` nor `lmms_eval`")
    answers = {name: np.atleast_1d(np.array(score, dtype=np.float64)) for name, score in sorted(tasks.items())}
    seconds = {str(name): value for name, value in entry.seconds.items()}
    return Outcome(entry.method, entry.budget, entry.seed, answers, seconds, entry.matching)


def read_lmms_eval(path: Path) -> dict[str, float]:
    """Task -> score of a results file of lmms-eval; of a folder, the newest one in it. Raises InputError."""
    if path.is_dir():
        found = sorted(path.rglob("*results.json"), key=lambda one: one.stat().st_mtime)
        if not found:
            raise InputError(f"{path}: holds no results.json of lmms-eval")
        path = found[-1]
    try:
        results = json.loads(path.read_text(encoding="utf-8"))["results"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not a results file of lmms-eval (JSON with `results`)") from None
    return {task: score for task, values in results.items() if (score := _first_metric(values)) is not None}


def _first_metric(values: Mapping[str, Any]) -> float | None:
    """`metric,filter` keys hold the scores; their `_stderr` companions, aliases and counts do not."""
    for key, value in values.items():
        metric, comma, _ = key.partition(",")
        if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
            return float(value)
    return None
