"""What is wrong with one row: a value, not an exception, because the run goes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row is rejected: a named reason (snake_case, listed in docs/formats.md, validation.md and extraction.md) and the detail for a person."""

    reason: str
    detail: str
