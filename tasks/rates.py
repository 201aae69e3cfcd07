"""How fast extraction went before: a small file in the store, for estimates only."""

from __future__ import annotations

import json
from pathlib import Path

from tasks.atomic import write_json

_FILE = "rates.json"


def read_rate(store: Path, key: str) -> float | None:
    """Rows per second of the last run of `key`, or None."""
    rates = _read(store / _FILE)
    return rates.get(key)


def read_rates(store: Path) -> dict[str, float]:
    """Rows per second of the last run of every key."""
    return _read(store / _FILE)


def record_rate(store: Path, key: str, rate: float) -> None:
    """Remember how many rows per second `key` did."""
    write_json(store / _FILE, {**_read(store / _FILE), key: round(rate, 3)})


def _read(path: Path) -> dict[str, float]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
