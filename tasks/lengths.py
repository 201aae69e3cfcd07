"""How many tokens each sample has, counted once and remembered between runs.

Counting takes a tokenizer, and with it torch and transformers: they are imported when the first sample comes that is
not known. Counts hold for one identity of model and settings (tasks.vlm.recall); those of another are dropped.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from jinja2 import TemplateError

from tasks.database import connect
from tasks.sample import Sample

SCHEMA = """
    CREATE TABLE IF NOT EXISTS identity (name TEXT PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS lengths (digest BLOB PRIMARY KEY, tokens INTEGER, refusal TEXT) WITHOUT ROWID;
"""

# New counts held in memory between two writes.
HELD = 4096

Count = Callable[[Sample], int]


class Lengths:
    """Counts by content. `make` gives what counts a sample that is not known."""

    def __init__(self, database: sqlite3.Connection, make: Callable[[], Count]) -> None:
        self._database = database
        self._make = make
        self._fresh: list[tuple[bytes, int | None, str | None]] = []

    def __call__(self, sample: Sample) -> int:
        """The sample's tokens. Raises jinja2.TemplateError for a conversation that the template refuses."""
        digest = bytes.fromhex(sample.digest)
        known = self._database.execute("SELECT tokens, refusal FROM lengths WHERE digest = ?", (digest,)).fetchone()
        if known is None:
            known = self._look(sample)
            self._fresh.append((digest, *known))
            if len(self._fresh) >= HELD:
                self.flush()
        tokens, refusal = known
        if tokens is None:
            raise TemplateError(refusal)
        return int(tokens)

    def flush(self) -> None:
        """Write new counts down."""
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO lengths VALUES (?,?,?)", self._fresh)
        self._fresh.clear()

    @cached_property
    def _count(self) -> Count:
        return self._make()

    def _look(self, sample: Sample) -> tuple[int | None, str | None]:
        try:
            return self._count(sample), None
        except TemplateError as error:
            return None, str(error)


@contextmanager
def opened(path: Path, identity: str, make: Callable[[], Count]) -> Iterator[Lengths]:
    """The counts kept at `path` under `identity`."""
    database = connect(path, SCHEMA)
    try:
        if database.execute("SELECT name FROM identity").fetchall() != [(identity,)]:
            with database:
                for change in ("DELETE FROM lengths", "DELETE FROM identity"):
                    database.execute(change)
                database.execute("INSERT INTO identity VALUES (?)", (identity,))
        lengths = Lengths(database, make)
        yield lengths
        lengths.flush()
    finally:
        database.close()
