"""Many machines: a Ray Data actor pool, each actor with its share of a node; the driver alone writes.

A row of the dataset is a whole job, and a block is one row: however Ray Data cuts or joins blocks, a job stays one
shard, known by its rows' digests. Ray restarts actors whose process or node died, and repeats their jobs elsewhere.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, Dataset
from ray.data.exceptions import ExecutionTimeoutError, SystemException
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tasks.engines.attempts import Attempts
from tasks.engines.cluster import connected, describe_resources, plan_actors
from tasks.engines.work import Job, Make, Outcome, guard, name_rows
from tasks.errors import EngineError
from tasks.params import RaySettings, RunSettings

log = logging.getLogger(__name__)

_ATTEMPTS = 3
_ANSWER_SECONDS = 10.0
_WINDOW_BYTES = 1 << 30
"""Jobs given to Ray Data at once: it holds all of them, and the actors load anew for the next window."""


def run_jobs(make: Make, jobs: Iterator[Job], run: RunSettings) -> Iterator[Outcome]:
    """Outcomes as they finish. Raises EngineError when a job kills its actors or all stand still."""
    first = next(jobs, None)
    if first is None:
        return
    with connected(run.ray):
        _quieten()
        for window in _windows(chain([first], jobs)):
            yield from _run_window(make, window, run.ray)


def _windows(jobs: Iterator[Job]) -> Iterator[list[bytes]]:
    """The jobs, pickled, as many at once as memory allows."""
    window: list[bytes] = []
    size = 0
    for job in jobs:
        window.append(pickle.dumps(job, protocol=5))
        size += len(window[-1])
        if size >= _WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


def _run_window(make: Make, window: list[bytes], settings: RaySettings) -> Iterator[Outcome]:
    size, cpus = plan_actors(ray.cluster_resources(), settings)
    size = min(size, len(window))
    log.info("ray: %d actors of %g CPUs and %g GPUs", size, cpus, settings.gpus_per_actor)
    attempts = _start_attempts()
    # from_items makes its blocks here; from_arrow would send tasks about, which wait for ever on a busy cluster.
    dataset = ray.data.from_items(window, override_num_blocks=len(window)).map_batches(
        _Worker,
        fn_constructor_args=(make, "cuda" if settings.gpus_per_actor else "cpu", attempts),
        batch_size=1,
        batch_format="pyarrow",
        # One job at a time: a second one in an actor's queue would be blamed for the death of the first.
        compute=ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
        num_cpus=cpus,
        num_gpus=settings.gpus_per_actor,
    )
    dataset.context.enable_progress_bars = False
    dataset.context.execution_no_progress_timeout_s = settings.stall_seconds
    window.clear()  # it lies in the object store now
    try:
        yield from _outcomes(dataset, settings.stall_seconds)
    except (ExecutionTimeoutError, GetTimeoutError):
        raise EngineError(_describe_stall(size, attempts, settings)) from None
    except (RayError, SystemException) as error:
        cause = str(error).strip().splitlines()[-1]
        raise EngineError(f"ray: {cause}; has every node of the cluster the same ScalSelect?") from error


def _outcomes(dataset: Dataset, patience: float) -> Iterator[Outcome]:
    """Results as they come. Ray Data watches its actors, but not a result that is fetched again after its node left."""
    bundles = dataset.iter_internal_ref_bundles()
    try:
        for bundle in bundles:
            for block in ray.get(bundle.block_refs, timeout=patience):
                word, value = pickle.loads(block["result"][0].as_buffer())
                if word == "failed":
                    raise value
                yield value
    finally:
        del bundles  # ends the execution, before the connection does


class _Worker:
    """Runs on a node of the cluster: loads once, then does jobs. Errors of ours travel as results."""

    def __init__(self, make: Make, device: str, attempts: Any) -> None:
        self._attempts = attempts
        name = ray.get_runtime_context().get_actor_id()
        if ray.get(attempts.begin.remote("load", name)) > _ATTEMPTS:
            # Without this Ray would start it again and again.
            self._loaded: tuple[str, Any] = "failed", EngineError(_describe_deaths("loading the model"))
            return
        self._loaded = guard(lambda: make(device))
        ray.get(attempts.end.remote("load", name))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One job in, ("done", Outcome) or ("failed", error) out."""
        word, work = self._loaded
        result = self._loaded if word == "failed" else self._do(work, pickle.loads(batch["item"][0].as_buffer()))
        # Large: the offsets of an ordinary binary column end at 2 GiB.
        return pa.table({"result": pa.array([pickle.dumps(result, protocol=5)], pa.large_binary())})

    def _do(self, work: Any, job: Job) -> tuple[str, Any]:
        attempt = ray.get(self._attempts.begin.remote("job", str(job.number)))
        if attempt > _ATTEMPTS:
            return "failed", EngineError(_describe_deaths(name_rows(job.samples)))
        if attempt > 1:
            log.warning("ray: an actor died on %s, trying again", name_rows(job.samples))
        result = guard(lambda: work(job))
        ray.get(self._attempts.end.remote("job", str(job.number)))
        return result


def _start_attempts() -> Any:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Attempts).options(num_cpus=0, scheduling_strategy=here).remote()


def _quieten() -> None:
    """Ray Data tells its own story on the terminal; it stays in Ray's log files."""
    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":
            handler.setLevel(logging.ERROR)


def _describe_deaths(where: str) -> str:
    return (
        f"{_ATTEMPTS} ray actors died on {where}; finished shards are kept. "
        "Out of memory? Try a smaller run.token_budget or more run.ray.cpus_per_actor"
    )


def _describe_stall(size: int, attempts: Any, settings: RaySettings) -> str:
    try:
        waiting = size - ray.get(attempts.ended.remote("load"), timeout=_ANSWER_SECONDS)
        resources, free = ray.cluster_resources(), ray.available_resources()
    except RayError as error:
        return f"no shard finished for {settings.stall_seconds:g} s, and the cluster does not answer: {error}"
    return (
        f"no shard finished for {settings.stall_seconds:g} s: {waiting} of {size} ray actors have not loaded; "
        f"the cluster has {describe_resources(resources)}, of which {describe_resources(free)} are free. "
        "Lower run.ray.cpus_per_actor or gpus_per_actor, or raise run.ray.stall_seconds; finished shards are kept"
    )
