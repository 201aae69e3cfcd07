"""`scalselect plan`: what a run would do, before any of it is done."""

from __future__ import annotations

import time
from pathlib import Path

from flows import dvc
from tasks.__main__ import STAGES
from tasks.errors import InputError
from tasks.extraction import plan
from tasks.layout import Layout
from tasks.params import load


def describe_plan(workspace: Path) -> str:
    """Stages to run, rows cached and to extract, estimated time. Works from the current folder being `workspace`.

    Raises InputError when validation is not up to date: what is to be extracted depends on which rows are valid.
    """
    stale = dvc.status(workspace)
    lines = [f"  {name:<10}{'to run' if name in stale else 'up to date'}" for name in STAGES]
    if "validate" in stale:
        raise InputError("\n".join([*lines, "run `dvc repro validate` first: only valid rows can be counted"]))
    found = plan(load(workspace / "params.yaml"), Layout.workspace())
    lines += ["", f"  {found.rows:,} distinct samples with images"]
    for signal, cached in found.cached.items():
        lines.append(f"  {signal:<10}{cached:>12,} in the store{found.missing[signal]:>12,} to extract")
    return "\n".join([*lines, "", f"  estimated extraction time: {_span(found.seconds)}"])


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "unknown (nothing could be timed yet)"
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else time.strftime("%M min %S s", time.gmtime(rest))
