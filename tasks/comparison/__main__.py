"""`python -m tasks.comparison`: what comparison/dvc.yaml calls, in a workspace."""

from __future__ import annotations

import sys
from pathlib import Path

from tasks.__main__ import log_progress
from tasks.errors import ScalSelectError
from tasks.layout import Layout
from tasks.params import load

OUT = Path("data/comparison")


def main() -> int:
    """Compare as params.yaml says; returns the exit code: 0 done, 2 the user's input, 1 ours."""
    log_progress()
    try:
        from tasks.comparison import compare

        compare(load(), Layout.workspace(), OUT)
    except ScalSelectError as error:
        # The class name lets the caller tell a fault worth retrying from one that is not.
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
