"""Where extraction runs: the same jobs in, the same outcomes out, whichever engine does them."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.engines.work import Job, Make, Outcome
from tasks.params import RunSettings


def run_jobs(make: Make, jobs: Iterator[Job], run: RunSettings) -> Iterator[Outcome]:
    """Outcomes of the jobs as they finish, in no promised order. Raises EngineError when workers die or stand still."""
    if run.engine == "ray":
        from tasks.engines import ray as engine
    else:
        from tasks.engines import local as engine  # type: ignore[no-redef]
    return engine.run_jobs(make, jobs, run)
