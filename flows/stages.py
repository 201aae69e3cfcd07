"""stage(name): the one Prefect task that reproduces one DVC stage.

DVC owns the files and the cache; Prefect owns when, how often and who is told. Prefect's own result cache is off: with
fixed output paths it would report `Cached` while the file on disk holds another parameter's result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Failed
from prefect.tasks import Task

from flows import dvc
from tasks.__main__ import STAGES
from tasks.errors import AwayError, BusyError, EngineError, ScalSelectError

__all__ = ["STAGES", "stage"]


def _transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry what may go away by itself: a held workspace, dead workers, storage out of reach. A wrong input stays."""
    return isinstance(state.data, AwayError | BusyError | EngineError)


@task(
    name="stage",
    task_run_name="{name}",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[10, 60],
    retry_condition_fn=_transient,
)
def stage(name: str, workspace: str, unchanged: bool = False) -> State[Any]:
    """Reproduce one stage; ends Completed, Cached when its command did not have to run, or Failed with the message.

    `unchanged`: DVC has just said that it and all before it are up to date, and need not be asked again.
    `.result()` of the state is the Outcome, or raises the stage's error.
    """
    try:
        outcome = _unchanged(name) if unchanged else dvc.reproduce(name, Path(workspace), get_run_logger().info)
    except ScalSelectError as error:
        return Failed(message=str(error), data=error)
    label, message = ("Cached", f"{outcome.how}: the command did not run") if outcome.cached else ("Completed", None)
    return Completed(name=label, message=message, data=outcome)


def _unchanged(name: str) -> dvc.Outcome:
    get_run_logger().info("Stage '%s' didn't change", name)
    return dvc.Outcome(name, "unchanged", 0.0)
