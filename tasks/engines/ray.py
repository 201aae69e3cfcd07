"""Many machines: Ray actors, each with its share of a node, fed shard by shard by the driver, which alone writes.

Plain actors rather than Ray Data: every shard is then a unit of ours, known by its rows' digests, that can be handed to
another actor when one dies, and blocks cannot regroup rows. An actor gets work only once it has loaded, so one that
finds no room in the cluster holds nothing up.
"""

from __future__ import annotations

import logging
import math
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayError

from tasks.engines.work import Job, Make, Outcome, guard, name_rows
from tasks.errors import EngineError
from tasks.params import RaySettings, RunSettings

log = logging.getLogger(__name__)

_ATTEMPTS = 3
_LOAD_ATTEMPTS = 3
_REACH_SECONDS = 10.0


def run_jobs(make: Make, jobs: Iterator[Job], run: RunSettings) -> Iterator[Outcome]:
    """Outcomes as they finish. Raises EngineError when a job kills its actors or all stand still."""
    first = next(jobs, None)
    if first is None:
        return
    with connected(run.ray):
        yield from _Crew(make, first, jobs, run.ray).run()


@contextmanager
def connected(settings: RaySettings) -> Iterator[None]:
    """Join the cluster of `run.ray.address`, or start one here; leave it as it was. Raises EngineError."""
    if ray.is_initialized():
        yield
        return
    _check_address(settings.address)
    try:
        ray.init(address=settings.address, include_dashboard=False, logging_level=logging.WARNING)
    except (ConnectionError, RayError, ValueError) as error:
        raise EngineError(f"run.ray.address {settings.address}: cannot join the Ray cluster: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Ray itself waits more than five minutes for a cluster that is not there."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise EngineError(f"run.ray.address {address}: cannot join the Ray cluster: {error}") from None


class _Actor:
    """Runs on a node of the cluster: loads once, then does jobs."""

    def __init__(self, make: Make, device: str) -> None:
        self._loaded = guard(lambda: make(device))

    def load(self) -> tuple[str, Any]:
        """("done", None) when the model is there."""
        return self._loaded if self._loaded[0] == "failed" else ("done", None)

    def work(self, job: Job) -> tuple[str, Any]:
        """("done", Outcome) or ("failed", error)."""
        return guard(lambda: self._loaded[1](job))


@dataclass
class _Task:
    """What an actor is doing; `job` is None while it loads."""

    actor: Any
    job: Job | None


class _Crew:
    def __init__(self, make: Make, first: Job, rest: Iterator[Job], settings: RaySettings) -> None:
        self._make = ray.put(make)
        self._settings = settings
        self._device = "cuda" if settings.gpus_per_actor else "cpu"
        self._waiting: deque[Job] = deque([first])
        self._rest = rest
        self._lost: dict[int, int] = {}
        self._failed_loads = 0
        self._tasks: dict[Any, _Task] = {}

    def run(self) -> Iterator[Outcome]:
        """Keep every loaded actor at one job until none is left."""
        count, cpus = plan_actors(ray.cluster_resources(), self._settings)
        log.info("ray: %d actors of %g CPUs and %g GPUs", count, cpus, self._settings.gpus_per_actor)
        options = {"num_cpus": cpus, "num_gpus": self._settings.gpus_per_actor}
        self._class = ray.remote(_Actor).options(**options)
        for _ in range(count):
            self._hire()
        progress = time.monotonic()
        while self._unfinished():
            done, _ = ray.wait(list(self._tasks), num_returns=1, timeout=min(1.0, self._settings.stall_seconds / 4))
            for reference in done:
                outcome = self._settle(reference)
                progress = time.monotonic()
                if outcome is not None:
                    yield outcome
            if time.monotonic() - progress > self._settings.stall_seconds:
                raise EngineError(self._describe_stall())

    def _unfinished(self) -> bool:
        return self._next_waiting() or any(task.job is not None for task in self._tasks.values())

    def _next_waiting(self) -> bool:
        """Whether a job waits; fetches one from the source when none does."""
        if not self._waiting and (job := next(self._rest, None)) is not None:
            self._waiting.append(job)
        return bool(self._waiting)

    def _hire(self) -> None:
        actor = self._class.remote(self._make, self._device)
        self._tasks[actor.load.remote()] = _Task(actor, None)

    def _settle(self, reference: Any) -> Outcome | None:
        task = self._tasks.pop(reference)
        try:
            word, value = ray.get(reference)
        except (RayActorError, ActorDiedError, ActorUnavailableError) as error:
            self._replace(task, error)
            return None
        if word == "failed":
            raise value
        if self._next_waiting():
            job = self._waiting.popleft()
            self._tasks[task.actor.work.remote(job)] = _Task(task.actor, job)
        outcome: Outcome | None = value
        return outcome

    def _replace(self, task: _Task, error: Exception) -> None:
        """An actor or its node died: hand its job on, and ask the cluster for another actor."""
        cause = str(error).strip().splitlines()[0]
        if task.job is None:
            self._failed_loads += 1
            if self._failed_loads >= _LOAD_ATTEMPTS:
                raise EngineError(f"ray actors die while loading the model: {cause}")
        else:
            lost = self._lost[task.job.number] = self._lost.get(task.job.number, 0) + 1
            if lost >= _ATTEMPTS:
                raise EngineError(f"{lost} ray actors died on {name_rows(task.job.samples)}: {cause}")
            log.warning("ray: an actor died on %s, trying elsewhere (%s)", name_rows(task.job.samples), cause)
            self._waiting.appendleft(task.job)
        self._hire()

    def _describe_stall(self) -> str:
        loading = sum(task.job is None for task in self._tasks.values())
        return (
            f"no shard finished for {self._settings.stall_seconds:g} s: {loading} of {len(self._tasks)} ray actors "
            f"have not loaded; the cluster has {_say(ray.cluster_resources())}, of which "
            f"{_say(ray.available_resources())} are free. Lower run.ray.cpus_per_actor or gpus_per_actor, "
            "or raise run.ray.stall_seconds; finished shards are kept"
        )


def plan_actors(resources: dict[str, float], settings: RaySettings) -> tuple[int, float]:
    """How many actors, of how many CPUs each. One CPU stays free, or the cluster could not schedule anything else."""
    total = resources.get("CPU", 1.0)
    if settings.actors is not None:
        return settings.actors, settings.cpus_per_actor
    count = math.floor((total - 1) / settings.cpus_per_actor)
    if settings.gpus_per_actor:
        count = min(count, math.floor(resources.get("GPU", 0.0) / settings.gpus_per_actor))
        if count < 1:
            raise EngineError(
                f"no room for an actor of {settings.gpus_per_actor:g} GPUs in a cluster of {_say(resources)}"
            )
    return (count, settings.cpus_per_actor) if count >= 1 else (1, min(settings.cpus_per_actor, total / 2))


def _say(resources: dict[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
