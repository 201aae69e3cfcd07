"""What checking a record found: one finding for each thing checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "mismatch", "unreachable", "note"]


@dataclass(frozen=True)
class Finding:
    """What became of one check: the thing checked, how it stands, and what was expected and found."""

    name: str
    state: State
    detail: str = ""


@dataclass(frozen=True)
class Verification:
    """All findings, in the order of the checks."""

    findings: tuple[Finding, ...]

    @property
    def mismatches(self) -> list[Finding]:
        """What is not as recorded."""
        return [one for one in self.findings if one.state == "mismatch"]

    @property
    def unreachable(self) -> list[Finding]:
        """What could not be checked because it is not here."""
        return [one for one in self.findings if one.state == "unreachable"]

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts the record."""
        return not self.mismatches

    def __str__(self) -> str:
        """One line for each finding that is not plainly right, then the sum."""
        lines = [f"{one.state}: {one.name}: {one.detail}" for one in self.findings if one.state != "ok"]
        passed = sum(one.state == "ok" for one in self.findings)
        total = f"{passed} checks passed, {len(self.mismatches)} failed, {len(self.unreachable)} out of reach"
        return "\n".join([*lines, total])
