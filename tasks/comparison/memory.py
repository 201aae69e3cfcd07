"""How much memory a piece of work took, as the operating system saw it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

EVERY = 0.005


@dataclass
class Peak:
    """bytes: the most this process held above what it held at the start; read it after the work."""

    bytes: int = 0


@contextmanager
def watch_memory() -> Iterator[Peak]:
    """Sample the resident set of this process every 5 ms while the body runs.

    Memory that was freed but not yet given back by the allocator is used again unseen, so the figure is a lower bound;
    what tracemalloc leaves out (BLAS, Arrow, mapped files) is in it.
    """
    gc.collect()
    process, done, peak = psutil.Process(), threading.Event(), Peak()
    start = process.memory_info().rss

    def look() -> None:
        peak.bytes = max(peak.bytes, process.memory_info().rss - start)

    def sample() -> None:
        while not done.wait(EVERY):
            look()

    thread = threading.Thread(target=sample, name="memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        look()
        done.set()
        thread.join()
