"""One machine: in this process for one device, else one spawned process per device, stealing work by shard."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from tasks.engines.work import Job, Make, Outcome, guard, name_rows
from tasks.errors import EngineError
from tasks.params import RunSettings

_HELD = 2
"""Jobs a process holds: the one it does and the one it may begin to prepare."""
_ATTEMPTS = 2


def list_devices(run: RunSettings) -> list[str]:
    """Devices to use: every visible GPU, else the CPU; or `run.device`, names separated by commas."""
    if run.device != "auto":
        return [name.strip() for name in run.device.split(",")]
    if not _may_have_gpu():
        return ["cpu"]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


def _may_have_gpu() -> bool:
    """Whether torch has to be asked: its import takes seconds, and on Linux without a driver it can find none."""
    if sys.platform != "linux" or Path("/dev/kfd").exists():  # AMD's
        return True
    try:
        ctypes.CDLL("libcuda.so.1")  # what CUDA itself opens first
    except OSError:
        return False
    return True


def run_jobs(make: Make, jobs: Iterator[Job], run: RunSettings) -> Iterator[Outcome]:
    """Outcomes as they finish. Raises EngineError naming the rows when a process dies on the same job twice."""
    devices = list_devices(run)
    if len(devices) == 1:
        return _run_here(make, jobs, devices[0])
    return _Team(make, jobs, devices).run()


def _run_here(make: Make, jobs: Iterator[Job], device: str) -> Iterator[Outcome]:
    job = next(jobs, None)
    if job is None:
        return
    work = make(device)
    try:
        while job is not None:
            upcoming = next(jobs, None)
            yield work(job, upcoming)
            job = upcoming
    finally:
        work.close()


@dataclass
class _Member:
    """A spawned process, this end of its pipe, and the jobs it holds, oldest first."""

    device: str
    process: BaseProcess
    pipe: Connection
    held: deque[Job] = field(default_factory=deque)


class _Team:
    def __init__(self, make: Make, jobs: Iterator[Job], devices: list[str]) -> None:
        self._fresh = jobs
        self._returned: deque[Job] = deque()
        self._lost: dict[int, int] = {}
        self._members = [_start(make, device, len(devices)) for device in devices]

    def run(self) -> Iterator[Outcome]:
        try:
            for member in self._members:
                self._supply(member)
            while any(member.held for member in self._members):
                for pipe in wait([member.pipe for member in self._members]):
                    member = next(one for one in self._members if one.pipe is pipe)
                    outcome = self._receive(member)
                    if outcome is not None:
                        yield outcome
        finally:
            self._dismiss()

    def _receive(self, member: _Member) -> Outcome | None:
        try:
            word, value = member.pipe.recv()
        except (EOFError, ConnectionError):
            self._bury(member)
            return None
        if word == "failed":
            raise value
        member.held.popleft()
        self._supply(member)
        outcome: Outcome = value
        return outcome

    def _supply(self, member: _Member) -> None:
        while len(member.held) < _HELD:
            job = self._returned.popleft() if self._returned else next(self._fresh, None)
            if job is None:
                return
            member.held.append(job)
            with suppress(ConnectionError):  # a dead process is found by `wait`, with its jobs still in `held`
                member.pipe.send(job)

    def _bury(self, member: _Member) -> None:
        """A process died: its first job is suspect and gets one more try, all its jobs go to the others."""
        self._members.remove(member)
        member.process.join()
        code = member.process.exitcode
        if member.held:
            suspect = member.held[0]
            self._lost[suspect.number] = self._lost.get(suspect.number, 0) + 1
            if self._lost[suspect.number] >= _ATTEMPTS:
                raise EngineError(
                    f"two processes died on {name_rows(suspect.samples)} (last: {member.device}, exit code {code}); "
                    "finished shards are kept. Out of memory? Try a smaller run.token_budget or run.workers"
                )
        self._returned.extend(member.held)
        if not self._members:
            raise EngineError(f"every worker died (last: {member.device}, exit code {code}); finished shards are kept")
        for other in self._members:
            self._supply(other)

    def _dismiss(self) -> None:
        for member in self._members:
            member.pipe.close()
        for member in self._members:
            member.process.join(timeout=5)
            if member.process.is_alive():
                member.process.terminate()
                member.process.join()


def _start(make: Make, device: str, devices: int) -> _Member:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(make, device, theirs, devices), name=f"extract-{device}")
    process.start()
    theirs.close()
    return _Member(device, process, ours)


def _serve(make: Make, device: str, pipe: Connection, devices: int) -> None:
    """A process's life: load, then do jobs until the pipe closes."""
    if device == "cpu":  # read when torch is imported, which `make` does
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    threading.Thread(target=_read_jobs, args=(pipe, inbox), daemon=True).start()
    word, work = guard(lambda: make(device))
    with suppress(ConnectionError):
        if word == "failed":
            pipe.send((word, work))
            return
        job = inbox.get()
        while job is not None:
            upcoming = None if inbox.empty() else inbox.get()
            pipe.send(guard(partial(work, job, upcoming)))
            job = upcoming if upcoming is not None else inbox.get()
    work.close()


def _read_jobs(pipe: Connection, inbox: queue.SimpleQueue[Job | None]) -> None:
    """Empty the pipe at once: a parent blocked on a full pipe would keep the other processes waiting."""
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):
        inbox.put(None)
