"""What a call costs, measured in a process of its own: seconds and peak resident memory."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 1 << 20


@dataclass(frozen=True)
class Cost:
    """seconds: wall time of the call. peak: bytes resident at most, the interpreter and its libraries included."""

    value: Any
    seconds: float
    peak: int

    def __str__(self) -> str:
        return f"{self.seconds:9.2f} s {self.peak / MIB:8.0f} MiB"


def measured(function: Callable[..., Any], *arguments: Any) -> Cost:
    """Run `function` in a fresh process; both must be importable and picklable."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, function, arguments).result()


def _run(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Cost:
    began = time.perf_counter()
    value = function(*arguments)
    seconds = time.perf_counter() - began
    return Cost(value, seconds, _peak())


def _peak() -> int:
    # Not ru_maxrss: that one also remembers the process this one was forked from.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status: this measurement needs Linux")
