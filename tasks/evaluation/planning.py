"""Which trainings an evaluation is made of, and the settings that each one's subset is chosen under."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.errors import ParamsError
from tasks.evaluation.table import FULL, RANDOM, UNTRAINED
from tasks.methods import METHODS
from tasks.params import EvaluateSettings, Settings, TuneSettings, VariantSettings, parse

_WITH_VECTORS = {"attended", "pooled", "clip", "gradients"}
"""Signals in which rows can be near each other."""


LORA_DROPOUT = 0.05
"""Of adapters, here and in recipes."""


@dataclass(frozen=True, slots=True)
class Run:
    """One training: `method` (a name of METHODS, a variant, "full" or "untrained") at a budget, with a seed."""

    method: str
    budget: int | float
    seed: int
    matching: str = "epochs"

    @property
    def label(self) -> str:
        """Its name in logs and of folders: `random-0.16-s0`, with `-steps` where updates are matched."""
        return f"{self.method}-{self.budget}-s{self.seed}" + ("-steps" if self.matching == "steps" else "")


def plan_runs(evaluate: EvaluateSettings) -> list[Run]:
    """Every training, seed by seed, so that an evaluation that is cut short holds whole comparisons.

    Random is always among them: a method that is not compared with it says nothing. Raises ParamsError for unknown
    methods and for names that are spoken for.
    """
    _check_names(evaluate)
    full = [Run(FULL, 1.0, seed) for seed in range(evaluate.full_seeds)]
    return [Run(UNTRAINED, 0.0, 0), *full, *_subset_runs(evaluate)]


def settings_for(settings: Settings, run: Run) -> Settings:
    """The settings that choose the run's subset: its method or variant, its budget, its seed. Raises ParamsError."""
    variant = settings.evaluate.variants.get(run.method) or VariantSettings(method=run.method)
    tree = settings.model_dump(by_alias=True)
    seed = settings.select.seed + run.seed
    changes = {
        "score.method": variant.method,
        f"methods.{variant.method}": {**settings.methods.get(variant.method, {}), **variant.options},
        "select": {**tree["select"], **variant.select, "budget": run.budget, "seed": seed},
    }
    return parse(tree, changes, where=f"evaluate.variants.{run.method}")


def needed_signals(settings: Settings) -> tuple[str, ...]:
    """The signals that the methods and variants need together."""
    found: dict[str, None] = {}
    for run in _subset_runs(settings.evaluate):
        chosen = settings_for(settings, run)
        method = METHODS[chosen.score.method]
        found |= dict.fromkeys(method.signals(method.parse(chosen.methods[method.name])))
        if chosen.select.near_duplicates is not None and not _WITH_VECTORS & found.keys():
            found["attended"] = None
    return tuple(found)


def count_steps(rows: int, tune: TuneSettings) -> int:
    """Optimiser steps of tune.epochs over so many rows, counted as transformers' Trainer does."""
    batches = math.ceil(rows / (tune.batch_size * tune.processes))
    return max(1, math.ceil(tune.epochs * math.ceil(batches / tune.accumulate)))


def _subset_runs(evaluate: EvaluateSettings) -> Iterator[Run]:
    names = dict.fromkeys([*evaluate.methods, RANDOM])
    for seed in range(evaluate.seeds):
        for matching in evaluate.matching:
            for budget in evaluate.budgets:
                yield from (Run(name, budget, seed, matching) for name in names)


def _check_names(evaluate: EvaluateSettings) -> None:
    for name, variant in evaluate.variants.items():
        if name in (*METHODS, FULL, UNTRAINED):
            raise ParamsError(f"evaluate.variants.{name}: the name is taken; call the variant otherwise")
        if variant.method not in METHODS:
            raise ParamsError(
                f"evaluate.variants.{name}.method: no method `{variant.method}`; see `scalselect methods`"
            )
    known = [*evaluate.variants, *METHODS]
    for name in evaluate.methods:
        if name not in known:
            raise ParamsError(f"evaluate.methods: no method or variant `{name}`; known: {', '.join(known)}")
