"""@flow scalselect: the five stages in order, each a DVC stage, then the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows import artifacts, dvc
from flows.dvc import Outcome
from flows.record import Record, record
from flows.stages import STAGES, stage
from flows.workspace import find, holding, override, refresh_code
from tasks.errors import ScalSelectError


@flow(name="scalselect")
def curate(overrides: dict[str, Any] | None = None, workspace: str = ".") -> State[Any]:
    """Refresh the subset of `workspace`: validate, extract, score, select, export, record.

    overrides: dotted keys such as {"select.budget": 50000}, written into the workspace's params.yaml; unknown keys are
        refused before anything runs.
    workspace: a folder in the workspace.
    """
    log = get_run_logger()
    try:
        root = find(Path(workspace))
        with holding(root, log.info):
            override(root, overrides or {})
            if refresh_code(root):
                log.info("the installed code changed since the last run")
            return _refresh(root)
    except ScalSelectError as error:
        return Failed(message=str(error), data=error)


@task(name="record", task_run_name="record", cache_policy=NO_CACHE)
def record_run(workspace: str, unchanged: bool = False) -> Record:
    """Complete the manifest with DVC's digests; push, commit and tag as params.yaml says."""
    return record(Path(workspace), get_run_logger().info, unchanged)


def _refresh(root: Path) -> State[Any]:
    unchanged = dvc.unchanged(root, tuple(STAGES))
    outcomes: list[Outcome] = []
    for name in STAGES:
        try:
            outcomes.append(stage(name, str(root), name in unchanged).result())
        finally:
            # Also when a gate failed: the report is what tells why.
            if name == "validate":
                artifacts.publish_validation(root)
    recorded = record_run(str(root), len(unchanged) == len(STAGES))
    artifacts.publish_results(root, outcomes, recorded)
    cached = sum(one.cached for one in outcomes)
    message = f"{len(outcomes) - cached} stages ran, {cached} had nothing to do; manifest {recorded.digest[:12]}"
    return Completed(message=message, data=(outcomes, recorded))
