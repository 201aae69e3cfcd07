"""EL2N: how far the model's answer is from certain and right, token by token.

e_t = || softmax(z_t) - onehot(y_t) ||_2, averaged over the response tokens. Source: Paul et al., Deep Learning on a
Data Diet (arXiv 2107.07075); for visual instructions, the COINCIDE repository. Which window the COINCIDE table used is
in no script, so `middle` is an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.methods.contract import Columns, Tables
from tasks.methods.windows import Mean, Window, answer_column, finite_column, window_score


@dataclass(frozen=True)
class Options:
    """window: which part of the ascending order to keep. mean: over tokens, or over the means of turns."""

    window: Window = "middle"
    mean: Mean = "token"


def signals(options: Options) -> tuple[str, ...]:
    """Statistics of the response tokens."""
    return ("answers",)


def score(tables: Tables, options: Options) -> Columns:
    """`score` by window, and the raw `el2n` (0 certain and right, up to sqrt 2 certain and wrong)."""
    values = finite_column(tables, answer_column("answers.el2n", options.mean))
    return {"score": window_score(values, tables.digests, options.window), "el2n": values}
