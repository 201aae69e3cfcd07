"""From finished trainings to the field's table: a column per task, Rel. (%), spread, intervals and cost.

`Rel.` is the mean over tasks of score / full-data score. The interval is a paired bootstrap over held-out questions
against random selection at the same budget: questions are resampled, both methods keep their own answers to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.errors import InputError

FULL = "full"
RANDOM = "random"


@dataclass(frozen=True)
class Outcome:
    """One finished training: what it was trained on, and its score on every held-out question.

    answers: task -> (questions,) scores in [0, 1], the same questions in the same order for every outcome.
    seconds: {"select": ..., "tune": ...} wall time, where known.
    """

    method: str
    budget: float
    seed: int
    answers: Mapping[str, NDArray[np.float64]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    matching: str = "epochs"

    def scores(self) -> dict[str, float]:
        """Mean score per task."""
        return {task: float(np.mean(values)) for task, values in self.answers.items()}


@dataclass(frozen=True)
class Line:
    """One row of the table: a method at a budget, over its seeds.

    tasks: mean score per task. relative and spread are in percent; spread is the standard deviation over seeds.
    against_random: (low, high) of the 95 % interval of relative minus random's relative, in points; None for the
    controls themselves or where random was not trained. cost: C of PRISM, below 1 means a real saving.
    """

    method: str
    budget: float
    matching: str
    seeds: int
    tasks: dict[str, float]
    relative: float
    spread: float
    against_random: tuple[float, float] | None
    cost: float | None


def relative(scores: Mapping[str, float], full: Mapping[str, float]) -> float:
    """Mean over tasks of score / full-data score, in percent. Tasks the full-data model scores 0 on are refused."""
    hopeless = [task for task, value in full.items() if value <= 0]
    if hopeless:
        raise InputError(f"task {hopeless[0]}: the full-data model scores 0, so a share of it means nothing; drop it")
    return 100 * float(np.mean([scores[task] / full[task] for task in full]))


def tabulate(outcomes: Sequence[Outcome], resamples: int = 2000, seed: int = 0) -> list[Line]:
    """The table's lines: full data first, then by budget and descending Rel. Needs at least one full-data outcome."""
    _check_same_questions(outcomes)
    full = [one for one in outcomes if one.method == FULL]
    if not full:
        raise InputError("no full-data training: Rel. (%) is a share of its score; evaluate `full` too")
    groups: dict[tuple[str, float, str], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault((one.matching, one.budget, one.method), []).append(one)
    lines = [
        _line(group, full, groups.get((matching, budget, RANDOM)), resamples, seed)
        for (matching, budget, _), group in groups.items()
    ]
    return sorted(
        lines, key=lambda line: (line.method != FULL, line.matching, line.budget, -line.relative, line.method)
    )


def paired_bootstrap(
    ours: Sequence[Outcome], others: Sequence[Outcome], full: Sequence[Outcome], resamples: int, seed: int
) -> tuple[float, float]:
    """95 % interval of Rel.(ours) - Rel.(others) in points, resampling questions within each task.

    Seeds are averaged per question first, so the interval speaks of the questions, the spread of the seeds.
    """
    rng = np.random.default_rng(seed)
    differences = np.zeros(resamples)
    for task in full[0].answers:
        mine, theirs, ceiling = (
            np.mean([one.answers[task] for one in group], axis=0) for group in (ours, others, full)
        )
        picks = rng.integers(len(mine), size=(resamples, len(mine)))
        # The full-data score is resampled with the same questions: it is as uncertain as the rest.
        top = np.maximum(ceiling[picks].mean(axis=1), 1e-12)
        differences += (mine[picks].mean(axis=1) - theirs[picks].mean(axis=1)) / top
    low, high = np.percentile(100 * differences / len(full[0].answers), [2.5, 97.5])
    return float(low), float(high)


def cost_ratio(
    full: Sequence[Outcome], sub: Sequence[Outcome], full_relative: float, sub_relative: float
) -> float | None:
    """C = P(full)/P(sub) x (T_select + T_tune(sub)) / T_tune(full) (PRISM). None where a time is unknown."""
    if any("tune" not in one.seconds for one in [*full, *sub]) or sub_relative <= 0:
        return None
    whole = float(np.mean([one.seconds["tune"] for one in full]))
    part = float(np.mean([one.seconds["tune"] + one.seconds.get("select", 0.0) for one in sub]))
    return full_relative / sub_relative * part / whole if whole > 0 else None


def _line(
    group: Sequence[Outcome], full: Sequence[Outcome], random: Sequence[Outcome] | None, resamples: int, seed: int
) -> Line:
    ceiling = _mean_scores(full)
    each = [relative(one.scores(), ceiling) for one in group]
    first = group[0]
    control = first.method in (FULL, RANDOM) or not random
    return Line(
        method=first.method,
        budget=first.budget,
        matching=first.matching,
        seeds=len(group),
        tasks=_mean_scores(group),
        relative=float(np.mean(each)),
        spread=float(np.std(each, ddof=1)) if len(each) > 1 else 0.0,
        against_random=None if control or not random else paired_bootstrap(group, random, full, resamples, seed),
        cost=cost_ratio(full, group, 100.0, float(np.mean(each))),
    )


def _mean_scores(group: Sequence[Outcome]) -> dict[str, float]:
    return {task: float(np.mean([one.scores()[task] for one in group])) for task in group[0].answers}


def _check_same_questions(outcomes: Sequence[Outcome]) -> None:
    if not outcomes:
        raise InputError("no finished trainings to tabulate")
    shape = {task: len(values) for task, values in outcomes[0].answers.items()}
    for one in outcomes:
        found = {task: len(values) for task, values in one.answers.items()}
        if found != shape:
            raise InputError(f"{one.method} at {one.budget}, seed {one.seed}: questions {found}, others have {shape}")
