"""Evaluate in this process, into one folder: no repository, no DVC, no Prefect."""

from __future__ import annotations

from pathlib import Path

from tasks.evaluation.planning import needed_signals, plan_runs
from tasks.extraction import extract
from tasks.layout import Layout
from tasks.params import Settings
from tasks.validation import validate


def with_needed_signals(settings: Settings) -> Settings:
    """The settings with every signal that the methods need, besides those asked for already. Raises ParamsError."""
    plan_runs(settings.evaluate)
    signals = tuple(dict.fromkeys([*settings.extract.signals, *needed_signals(settings)]))
    return settings.model_copy(update={"extract": settings.extract.model_copy(update={"signals": signals})})


def ready(settings: Settings, out: Path) -> tuple[Settings, Layout]:
    """Validate and extract all that evaluation reads, into `out`; what is in its store already is not done again."""
    settings, layout = with_needed_signals(settings), Layout.flat(out)
    validate(settings, layout)
    extract(settings, layout)
    return settings, layout


def evaluate(settings: Settings, out: Path) -> Path:
    """Validate, extract and evaluate; returns the report's folder. A second run goes on where the first stopped."""
    from tasks.evaluation.evaluation import evaluate as measure

    settings, layout = ready(settings, out)
    measure(settings, layout, out / "evaluation")
    return out / "evaluation"
