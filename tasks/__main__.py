"""`python -m tasks <stage>`: what dvc.yaml calls. Reads params.yaml of the current folder, works on its data/ tree."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from tasks.errors import ScalSelectError
from tasks.layout import Layout
from tasks.params import Settings, load
from tasks.storage import telling_storage_faults

STAGES = {
    "validate": "tasks.validation",
    "extract": "tasks.extraction",
    "score": "tasks.scoring",
    "select": "tasks.selection",
    "export": "tasks.export",
}
"""Stage name, which is also its verb, to the module that holds it; in the order they run."""


def main(arguments: Sequence[str]) -> int:
    """Run one stage; returns the exit code: 0 done, 2 the user's input, 1 ours. Unexpected errors raise."""
    if len(arguments) != 1 or arguments[0] not in STAGES:
        print(f"usage: python -m tasks {{{','.join(STAGES)}}}", file=sys.stderr)
        return 2
    log_progress()
    try:
        with telling_storage_faults():
            verb(arguments[0])(load(), Layout.workspace())
    except ScalSelectError as error:
        # The class name lets the caller tell a fault worth retrying from one that is not.
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def log_progress() -> None:
    """Show our own messages on standard error, plain; those of other libraries stay as they configure them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours = logging.getLogger("tasks")
    ours.setLevel(logging.INFO)
    ours.handlers = [handler]
    ours.propagate = False


def verb(stage: str) -> Callable[[Settings, Layout], None]:
    """The function that runs a stage, with only that stage's imports."""
    function: Callable[[Settings, Layout], None] = getattr(import_module(STAGES[stage]), stage)
    return function


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
