"""`scalselect select`: the five stages in this process, into one folder, with no repository, no DVC and no Prefect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from tasks.__main__ import STAGES, verb
from tasks.errors import BusyError, InputError, ParamsError
from tasks.layout import Layout
from tasks.params import Settings, parse

if TYPE_CHECKING:
    from tasks.methods.contract import Method


def select(settings: Settings, out: Path) -> Layout:
    """Run the five stages; returns where their files lie. A second run goes on where the first stopped."""
    layout = Layout.flat(out)
    with _claimed(out, layout.store / "select.lock"):
        for stage in STAGES:
            verb(stage)(settings, layout)
    return layout


@contextmanager
def _claimed(out: Path, lock: Path) -> Iterator[None]:
    """Hold `out` against a second run. Raises InputError when it cannot be a folder, BusyError when it is held."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made a folder to write in: {error.strerror}") from None
    try:
        with filelock.FileLock(lock, timeout=0):
            yield
    except filelock.Timeout:
        raise BusyError(f"--out {out}: another run is writing there; wait for it, or name another folder") from None


def settings_of(named: Mapping[str, Any], assigned: Mapping[str, Any]) -> Settings:
    """Settings from the command line: named options (None means not given), then --set, which wins.

    extract.signals follows the method unless --set says otherwise. Raises ParamsError.
    """
    given = {key: value for key, value in named.items() if value is not None}
    overrides = {**given, **assigned}
    settings = parse({}, overrides, where="command line")
    if "extract.signals" in overrides:
        return settings
    signals = list(signals_of(settings, settings.score.method))
    return parse({}, {**overrides, "extract.signals": signals}, where="command line")


def signals_of(settings: Settings, name: str) -> tuple[str, ...]:
    """The signals that the method of that name needs under its options. Raises ParamsError."""
    from tasks.scoring import find_method

    method = find_method(name)
    return method.signals(method.parse(settings.methods.get(name, {})))


def describe_signals(method: Method) -> str:
    """The signals that a method needs by default, for people."""
    try:
        return " + ".join(method.signals(method.options())) or "none"
    except ParamsError:
        return "its members'"


def parse_files(assigned: Sequence[str]) -> dict[str, Path]:
    """Read NAME=PATH pairs. Raises ParamsError."""
    pairs = [one.partition("=") for one in assigned]
    for name, sign, path in pairs:
        if not (name and sign and path):
            raise ParamsError(f"--file {name}{sign}{path}: expected NAME=PATH, for example answers.nll=losses.npy")
    return {name: Path(path) for name, _, path in pairs}


def parse_budget(text: str) -> int | float:
    """A count when written as an integer, a share of the scored rows when written with a point."""
    try:
        budget = float(text) if "." in text else int(text)
    except ValueError:
        raise ParamsError(f"--budget {text!r}: expected a count such as 5000 or a share such as 0.16") from None
    if budget < 0 or (isinstance(budget, float) and not 0 < budget <= 1):
        raise ParamsError(f"--budget {text}: a count is 0 or more, a share lies above 0 and at most at 1.0")
    return budget
