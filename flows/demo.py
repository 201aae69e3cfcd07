"""`scalselect demo`: the whole pipeline on the embedded demo, through DVC."""

from __future__ import annotations

from pathlib import Path

from flows.dvc import Lines, Outcome, reproduce
from flows.record import record
from flows.scaffold import prepare, scaffold
from flows.workspace import holding, refresh_code
from tasks.__main__ import STAGES
from tasks.errors import InputError
from tasks.params import load

DATA = Path("data/raw/demo")


def demo(start: Path, tell: Lines) -> tuple[Path, list[Outcome]]:
    """Build the demo where it is missing and reproduce every stage; returns the workspace and what DVC did.

    Works in the workspace at `start`, or in a new one, scalselect-demo/, when there is none.
    """
    from tasks.demo import build

    workspace = start if (start / "dvc.yaml").exists() else start / "scalselect-demo"
    if not (workspace / "dvc.yaml").exists():
        scaffold(workspace)
    _refuse_other_data(workspace)
    prepare(workspace)
    with holding(workspace, tell):
        build(workspace / DATA)
        refresh_code(workspace)
        outcomes = [reproduce(name, workspace, tell) for name in STAGES]
        record(workspace, tell)
    return workspace, outcomes


def _refuse_other_data(workspace: Path) -> None:
    path = load(workspace / "params.yaml").dataset.path
    if not Path(path).is_relative_to(DATA):
        raise InputError(f"{workspace}: params.yaml selects from {path}, not from the demo; run in another folder")
