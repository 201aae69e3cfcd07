"""`scalselect plan`: what a run would do, before any of it is done."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path

from flows import dvc
from tasks.__main__ import STAGES
from tasks.errors import InputError
from tasks.extraction import Plan, plan
from tasks.layout import Layout
from tasks.params import load


def describe_plan(workspace: Path) -> str:
    """Stages to run, rows cached and to extract, estimated time. Works from the current folder being `workspace`.

    Raises InputError when validation is not up to date: what is to be extracted depends on which rows are valid.
    """
    stale = dvc.status(workspace)
    if "validate" in stale:
        said = "validation is not up to date, and only valid rows can be counted: run `dvc repro validate` first"
        raise InputError("\n".join([said, *_stage_lines(stale)]))
    return describe(plan(load(workspace / "params.yaml"), Layout.workspace()), stale)


def describe(found: Plan, stale: Container[str]) -> str:
    """The plan in words; `stale` are the stages that are not up to date."""
    lines = [*_stage_lines(stale), "", f"  {found.rows:,} distinct samples with images"]
    for signal, cached in found.cached.items():
        lines.append(f"  {signal:<10}{cached:>12,} in the store{found.missing[signal]:>12,} to extract")
    if "extract" in stale:
        return "\n".join([*lines, "", f"  estimated extraction time: {_span(found.seconds)}"])
    # A clone that pulled its features has an empty store.
    return "\n".join([*lines, "", "  data/features is up to date: nothing will be extracted now"])


def _stage_lines(stale: Container[str]) -> list[str]:
    return [f"  {name:<10}{state}" for name, state in _states(stale)]


def _states(stale: Container[str]) -> Iterator[tuple[str, str]]:
    """What is known of each stage: DVC looks no further than a stage's own inputs as they lie there now."""
    before = False
    for name in STAGES:
        yield name, "to run" if name in stale else "depends on those before" if before else "up to date"
        before = before or name in stale


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "unknown (nothing could be timed yet)"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"
