"""How far along a long step is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

log = logging.getLogger(__name__)

_EVERY_SECONDS = 10.0


class Progress:
    """Counts rows done of `total`, and speaks about it."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self._began = self._spoke = self._first = time.monotonic()
        self._first_done = 0

    @property
    def rate(self) -> float:
        """Rows per second since the first ones came, or since the start; loading is not held against the rest."""
        count, since = (self.done - self._first_done, self._first) if self._steady else (self.done, self._began)
        return count / max(time.monotonic() - since, 1e-9)

    @property
    def _steady(self) -> bool:
        return self.done > self._first_done > 0

    def advance(self, rows: int) -> None:
        """Count `rows` more as done; speaks at most every ten seconds, and at the end."""
        self._count(rows)
        now = time.monotonic()
        if now - self._spoke >= _EVERY_SECONDS or self.done >= self.total:
            self._spoke = now
            self.speak()

    def _count(self, rows: int) -> None:
        if not self.done:
            self._first, self._first_done = time.monotonic(), rows
        self.done += rows

    def speak(self) -> None:
        """Say where we are."""
        left = timedelta(seconds=round((self.total - self.done) / self.rate)) if self.rate else "unknown"
        log.info("%s: %d/%d rows, %.1f rows/s, %s left", self.what, self.done, self.total, self.rate, left)


class _BarProgress(Progress):
    def __init__(self, what: str, total: int, bar: Bar) -> None:
        super().__init__(what, total)
        self._bar = bar
        self._task = bar.add_task(what, total=total, rate="")

    def advance(self, rows: int) -> None:
        self._count(rows)
        self._bar.update(self._task, completed=self.done, rate=f"{self.rate:.1f} rows/s")


@contextmanager
def track(what: str, total: int) -> Iterator[Progress]:
    """Progress over `total` rows of `what`: a bar when stderr is a terminal, log lines otherwise."""
    if not sys.stderr.isatty():
        yield Progress(what, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=False) as bar:
        yield _BarProgress(what, total, bar)
