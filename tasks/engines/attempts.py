"""What was begun on the cluster and never ended: Ray restarts dead actors for ever, so somebody has to count."""

from __future__ import annotations

from typing import Literal

Kind = Literal["load", "job"]


class Attempts:
    """Counts beginnings, beside the driver, in an actor that needs no CPU and outlives the others."""

    def __init__(self) -> None:
        self._begun: dict[tuple[Kind, str], int] = {}

    def begin(self, kind: Kind, name: str) -> int:
        """Which attempt this is, from 1: each one before it died."""
        self._begun[kind, name] = self._begun.get((kind, name), 0) + 1
        return self._begun[kind, name]

    def end(self, kind: Kind, name: str) -> None:
        """It lived to see the end."""
        self._begun[kind, name] = 0

    def ended(self, kind: Kind) -> int:
        """How many things of a kind have ended, and were not begun again since."""
        return sum(one == kind and begun == 0 for (one, _), begun in self._begun.items())
