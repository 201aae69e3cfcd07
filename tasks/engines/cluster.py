"""The Ray cluster itself: joining or starting one, and how many actors it has room for."""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import RayError

from tasks.errors import EngineError
from tasks.params import RaySettings

_REACH_SECONDS = 10.0


@contextmanager
def connected(settings: RaySettings) -> Iterator[None]:
    """Join the cluster of `run.ray.address`, or start one here; leave it at the end. Raises EngineError."""
    if ray.is_initialized():
        yield
        return
    _check_address(settings.address)
    try:
        ray.init(address=settings.address, include_dashboard=False, logging_level=logging.WARNING)
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"run.ray.address {settings.address}: cannot join the Ray cluster: {error}. "
            "A cluster that asks for a token needs RAY_AUTH_MODE=token here too"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Ray itself waits more than five minutes for a cluster that is not there."""
    if (address or "").startswith("ray://"):
        raise EngineError(f"run.ray.address {address}: Ray Client is not supported; run on a node of the cluster")
    host, colon, port = (address or "").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise EngineError(f"run.ray.address {address}: cannot join the Ray cluster: {error}") from None


def plan_actors(resources: dict[str, float], settings: RaySettings) -> tuple[int, float]:
    """How many actors, of how many CPUs each. One CPU stays free, or the cluster could not schedule anything else."""
    total = resources.get("CPU", 1.0)
    if settings.actors is not None:
        return settings.actors, settings.cpus_per_actor
    count = math.floor((total - 1) / settings.cpus_per_actor)
    if settings.gpus_per_actor:
        count = min(count, math.floor(resources.get("GPU", 0.0) / settings.gpus_per_actor))
        if count < 1:
            room = describe_resources(resources)
            raise EngineError(f"no room for an actor of {settings.gpus_per_actor:g} GPUs in a cluster of {room}")
    return (count, settings.cpus_per_actor) if count >= 1 else (1, min(settings.cpus_per_actor, total / 2))


def describe_resources(resources: dict[str, float]) -> str:
    """What there is to schedule on, for messages."""
    return f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
