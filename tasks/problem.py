"""What is wrong with one row: a value, not an exception, because the run goes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row is rejected: a named reason (snake_case) and the detail for a person.

    The reasons are listed in docs/formats.md, docs/validation.md and docs/extraction.md.
    """

    reason: str
    detail: str
