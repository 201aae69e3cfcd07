"""An iterator that works a little ahead of whoever reads it, in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")

_END = object()


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """The items in order, up to `depth` of them made before they are asked for. Their errors are raised here.

    Close it when the rest is not wanted: the thread then stops at the next item.
    """
    made: queue.Queue[object] = queue.Queue(depth)
    stop = threading.Event()
    thread = threading.Thread(target=_make, args=(items, made, stop), daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        while thread.is_alive():
            _drain(made)
            thread.join(0.01)


def _make(items: Iterable[object], made: queue.Queue[object], stop: threading.Event) -> None:
    try:
        for item in items:
            made.put(item)
            if stop.is_set():
                return
    except BaseException as error:
        made.put(_Failed(error))
    else:
        made.put(_END)


def _drain(made: queue.Queue[object]) -> None:
    while not made.empty():
        made.get_nowait()
