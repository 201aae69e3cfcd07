"""`python -m tasks.evaluation`: what evaluation/dvc.yaml calls, in a workspace."""

from __future__ import annotations

import sys
from pathlib import Path

from tasks.__main__ import log_progress
from tasks.errors import ScalSelectError
from tasks.layout import Layout
from tasks.params import load

OUT = Path("data/evaluation")


def main() -> int:
    """Evaluate as params.yaml says; returns the exit code: 0 done, 2 the user's input, 1 ours."""
    log_progress()
    try:
        from tasks.evaluation.evaluation import evaluate

        evaluate(load(), Layout.workspace(), OUT)
    except ScalSelectError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
