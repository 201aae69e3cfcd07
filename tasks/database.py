"""A SQLite file that is only a cache: a damaged one is thrown away."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def connect(path: Path, schema: str) -> sqlite3.Connection:
    """Open the database at `path`, made with `schema` where it is not there or damaged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in (1, 2):
        database = sqlite3.connect(path, timeout=60)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(schema)
        except sqlite3.OperationalError:
            database.close()
            raise
        except sqlite3.DatabaseError:
            database.close()
            if attempt == 2:
                raise
            path.unlink(missing_ok=True)
        else:
            return database
    raise AssertionError("unreachable")
