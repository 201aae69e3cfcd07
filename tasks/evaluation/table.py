"""From finished trainings to the field's table: a column per task, Rel. (%), spread, intervals and cost.

`Rel.` is the mean over tasks of score / full-data score. Intervals are bootstraps over held-out questions and over
seeds at once; against random selection at the same budget the questions are paired: both methods answer the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.errors import InputError
from tasks.evaluation.metrics import perplexity

FULL = "full"
RANDOM = "random"
UNTRAINED = "untrained"

Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Outcome:
    """One finished training: what it was trained on, and its score on every held-out question.

    answers: task -> (questions,) scores in [0, 1], the same questions in the same order for every outcome.
    seconds: {"select": ..., "tune": ...} wall time, where known.
    nll: task -> (questions,) mean negative log-likelihood of the right answer, nats a token, where known.
    """

    method: str
    budget: int | float
    seed: int
    answers: Mapping[str, Floats]
    seconds: Mapping[str, float] = field(default_factory=dict)
    matching: str = "epochs"
    nll: Mapping[str, Floats] = field(default_factory=dict)

    def scores(self) -> dict[str, float]:
        """Mean score per task."""
        return {task: float(np.mean(values)) for task, values in self.answers.items()}


@dataclass(frozen=True)
class Line:
    """One row of the table: a method at a budget, over its seeds.

    tasks: mean score per task. relative and spread are in percent; spread is the standard deviation over seeds.
    interval: 95 % interval of relative; against_random: of relative minus random's, in points. Both are None where
    there is nothing to resample (the full data itself, imported means) or random was not trained.
    cost: C of PRISM, below 1 means a real saving. perplexity: of the right answers, per task.
    """

    method: str
    budget: int | float
    matching: str
    seeds: int
    tasks: dict[str, float]
    relative: float
    spread: float
    interval: Interval | None
    against_random: Interval | None
    cost: float | None
    perplexity: dict[str, float]


def tell_score(score: float) -> str:
    """A mean score for people: shares in percent, points (MME counts to 2,800) as they are."""
    return f"{100 * score:.1f}" if score <= 1 else f"{score:,.1f}"


def relative(scores: Mapping[str, float], full: Mapping[str, float]) -> float:
    """Mean over tasks of score / full-data score, in percent, over the tasks that `counted` names."""
    return 100 * float(np.mean([scores[task] / full[task] for task in counted(full)]))


def counted(full: Mapping[str, float]) -> list[str]:
    """Tasks that count in Rel.: a share of a full-data score of 0 means nothing. Raises InputError when none does."""
    found = [task for task, score in full.items() if score > 0]
    if not found:
        raise InputError(
            f"the full-data model scores 0 on every task ({', '.join(full)}): train longer, or check evaluate.tasks"
        )
    return found


def mean_scores(group: Sequence[Outcome]) -> dict[str, float]:
    """Mean score per task over the group's seeds."""
    return {task: float(np.mean([one.scores()[task] for one in group])) for task in group[0].answers}


def tabulate(outcomes: Sequence[Outcome], resamples: int = 2000, seed: int = 0) -> list[Line]:
    """The table's lines: full data first, then by budget and descending Rel. Needs at least one full-data outcome."""
    _check_same_questions(outcomes)
    full = [one for one in outcomes if one.method == FULL]
    if not full:
        raise InputError("no full-data training: Rel. (%) is a share of its score; evaluate `full` too")
    groups: dict[tuple[str, int | float, str], list[Outcome]] = {}
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
) -> Interval:
    """95 % interval of Rel.(ours) - Rel.(others) in points, resampling seeds, and questions within each task."""
    mine, theirs = resample([ours, others], full, resamples, seed)
    return _percentiles(mine - theirs)


def resample(groups: Sequence[Sequence[Outcome]], full: Sequence[Outcome], resamples: int, seed: int) -> list[Floats]:
    """(resamples,) values of Rel. for each group, all on the same draws of questions; each draws its own seeds."""
    rng = np.random.default_rng(seed)
    trained = [*groups, full]
    # How often each seed of each group is drawn: a method is its seeds as much as its questions.
    drawn = [rng.multinomial(len(group), np.full(len(group), 1 / len(group)), size=resamples) for group in trained]
    shares = np.zeros((len(groups), resamples))
    tasks = counted(mean_scores(full))
    for task in tasks:
        values = full[0].answers[task]
        picks = rng.integers(len(values), size=(resamples, len(values)))
        *scores, ceiling = (
            _mean_of_draws(group, task, picks, often) for group, often in zip(trained, drawn, strict=True)
        )
        # The full-data score is resampled with the same questions: it is as uncertain as the rest.
        top = np.maximum(ceiling, 1 / len(values))
        shares += np.stack(scores) / top
    return list(100 * shares / len(tasks))


def cost_ratio(
    full: Sequence[Outcome], sub: Sequence[Outcome], full_relative: float, sub_relative: float
) -> float | None:
    """C = P(full)/P(sub) x (T_select + T_tune(sub)) / T_tune(full) (PRISM). None where a time is unknown."""
    if any("tune" not in one.seconds for one in [*full, *sub]) or sub_relative <= 0:
        return None
    if any("select" not in one.seconds for one in sub):
        return None
    whole = float(np.mean([one.seconds["tune"] for one in full]))
    part = float(np.mean([one.seconds["tune"] + one.seconds["select"] for one in sub]))
    return full_relative / sub_relative * part / whole if whole > 0 else None


def _line(
    group: Sequence[Outcome], full: Sequence[Outcome], random: Sequence[Outcome] | None, resamples: int, seed: int
) -> Line:
    ceiling = mean_scores(full)
    each = [relative(one.scores(), ceiling) for one in group]
    first = group[0]
    known = first.method != FULL and all(len(values) > 1 for values in first.answers.values())
    compared = known and first.method != RANDOM and random is not None
    return Line(
        method=first.method,
        budget=first.budget,
        matching=first.matching,
        seeds=len(group),
        tasks=mean_scores(group),
        relative=float(np.mean(each)),
        spread=float(np.std(each, ddof=1)) if len(each) > 1 else 0.0,
        interval=_percentiles(resample([group], full, resamples, seed)[0]) if known else None,
        against_random=paired_bootstrap(group, random or (), full, resamples, seed) if compared else None,
        cost=cost_ratio(full, group, 100.0, float(np.mean(each))),
        perplexity={task: perplexity(float(np.mean([one.nll[task].mean() for one in group]))) for task in first.nll},
    )


def _mean_of_draws(group: Sequence[Outcome], task: str, picks: NDArray[np.int64], often: NDArray[np.int64]) -> Floats:
    """(resamples,) mean score of the drawn questions over the drawn seeds."""
    total = np.zeros(len(picks))
    for place, one in enumerate(group):
        total += often[:, place] * one.answers[task][picks].mean(axis=1)
    return total / len(group)


def _percentiles(values: Floats) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _check_same_questions(outcomes: Sequence[Outcome]) -> None:
    if not outcomes:
        raise InputError("no finished trainings to tabulate")
    shape = {task: len(values) for task, values in outcomes[0].answers.items()}
    for one in outcomes:
        found = {task: len(values) for task, values in one.answers.items()}
        if found != shape:
            raise InputError(f"{one.method} at {one.budget}, seed {one.seed}: questions {found}, others have {shape}")
