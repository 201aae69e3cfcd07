"""Evaluate: one DVC stage beside the pipeline's five, behind both doors.

The stage lives in a dvc.yaml of its own, evaluation/dvc.yaml, written when it is first asked for: `dvc repro` of the
pipeline never trains a model. Its output, data/evaluation, is kept between runs (DVC's `persist`), because the records
of finished trainings lie in it: `dvc push` shares them, and whoever pulls them repeats none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.evaluate_direct import with_needed_signals
from flows.stages import stage
from flows.workspace import PACKAGE, find, holding, override, refresh_code
from tasks.atomic import write_json, write_text
from tasks.errors import ScalSelectError
from tasks.params import Settings
from tasks.sample import digest_bytes, digest_json

FOLDER = Path("evaluation")
STAGE = f"{FOLDER}/dvc.yaml:evaluate"
OUT = Path("data/evaluation")
BEFORE = ("validate", "extract")
"""Stages that evaluation builds on: it scores and selects by itself, once for each method."""


@flow(name="scalselect-evaluate")
def evaluate(overrides: dict[str, Any] | None = None, workspace: str = ".") -> State[Any]:
    """Fine-tune on each subset and write the table of relative performance to data/evaluation.

    overrides: dotted keys such as {"evaluate.seeds": 5}, written into the workspace's params.yaml.
    workspace: a folder in the workspace. Finished trainings are never repeated.
    """
    log = get_run_logger()
    try:
        root = find(Path(workspace))
        with holding(root, log.info):
            prepare(root, overrides or {})
            outcomes = [stage(name, str(root)).result() for name in (*BEFORE, STAGE)]
    except ScalSelectError as error:
        return Failed(message=str(error), data=error)
    return Completed(message=f"table in {OUT / 'table.md'}", data=outcomes)


def prepare(root: Path, overrides: Mapping[str, Any]) -> Settings:
    """Write the overrides, the signals the methods need, and the stage. Raises ParamsError."""
    settings = override(root, overrides)
    signals = with_needed_signals(settings).extract.signals
    settings = override(root, {"extract.signals": list(signals)})
    refresh_code(root)
    write_stage(root, settings)
    return settings


def write_stage(root: Path, settings: Settings) -> None:
    """Write evaluation/dvc.yaml and the digest of our own code that it depends on, where they are not so already."""
    path, text = root / FOLDER / "dvc.yaml", yaml.safe_dump({"stages": {"evaluate": describe_stage(root, settings)}})
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    # A scaffolded workspace holds no code that DVC could watch; this file stands in for it, in a checkout too.
    write_json(root / FOLDER / "code.lock.json", {"evaluate": _digest_code()})


def describe_stage(root: Path, settings: Settings) -> dict[str, Any]:
    """The stage as DVC is told it; paths are relative to the workspace."""
    held_out = [path for task in settings.evaluate.tasks.values() for path in (task.path, task.image_root) if path]
    local = [path for path in (settings.model.path, *held_out) if (root / path).exists()]
    return {
        "desc": "Fine-tune on each subset, ask the held-out questions, write the table",
        "wdir": "..",
        "cmd": "python -m tasks.evaluation",
        "deps": ["data/samples/samples.parquet", "data/features", *dict.fromkeys(local)],
        "params": [
            "model",
            "select",
            "methods",
            "evaluate",
            "dataset.text_only",
            "extract.pooled",
            {f"{FOLDER}/code.lock.json": ["evaluate"]},
        ],
        "outs": [{OUT.as_posix(): {"persist": True}}],
    }


def _digest_code() -> str:
    files = sorted((PACKAGE / "tasks").rglob("*.py"))
    return digest_json({path.relative_to(PACKAGE).as_posix(): digest_bytes(path.read_bytes()) for path in files})
