"""`scalselect select`: the five stages in this process, into one folder, with no repository, no DVC and no Prefect."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.__main__ import STAGES, verb
from tasks.errors import ParamsError
from tasks.layout import Layout
from tasks.params import Settings, parse


def select(settings: Settings, out: Path) -> Layout:
    """Run the five stages; returns where their files lie. A second run goes on where the first stopped."""
    layout = Layout.flat(out)
    for stage in STAGES:
        verb(stage)(settings, layout)
    return layout


def settings_of(named: Mapping[str, Any], assigned: Mapping[str, Any]) -> Settings:
    """Settings from the command line: named options (None means not given), then --set, which wins.

    extract.signals follows the method unless --set says otherwise. Raises ParamsError.
    """
    given = {key: value for key, value in named.items() if value is not None}
    overrides = {**given, **assigned}
    settings = parse({}, overrides, where="command line")
    if "extract.signals" in overrides:
        return settings
    return parse({}, {**overrides, "extract.signals": list(signals_of(settings))}, where="command line")


def signals_of(settings: Settings) -> tuple[str, ...]:
    """The signals that the method needs under its options."""
    from tasks.methods import METHODS

    name = settings.score.method
    if name not in METHODS:
        raise ParamsError(f"score.method {name!r}: unknown; known methods: {', '.join(METHODS)}")
    method = METHODS[name]
    return method.signals(method.parse(settings.methods.get(name, {})))


def parse_budget(text: str) -> int | float:
    """A count when written as an integer, a share of the scored rows when written with a point."""
    try:
        budget = float(text) if "." in text else int(text)
    except ValueError:
        raise ParamsError(f"--budget {text!r}: expected a count such as 5000 or a share such as 0.16") from None
    if budget < 0 or (isinstance(budget, float) and not 0 < budget <= 1):
        raise ParamsError(f"--budget {text}: a count is 0 or more, a share lies above 0 and at most at 1.0")
    return budget
