"""Margin (AUM-like): by how much the model prefers the right token to the best wrong one.

m_t = p_y - max over v != y of p_v, averaged over the response tokens; higher is easier. One checkpoint only, where AUM
(Pleiss et al., arXiv 2001.10528) averages over training. Source: the COINCIDE repository, which feeds it to D2.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.methods.contract import Columns, Tables
from tasks.methods.windows import Mean, Window, answer_column, finite_column, window_score


@dataclass(frozen=True)
class Options:
    """window: which part of the ascending order to keep (bottom is hardest). mean: over tokens, or means of turns."""

    window: Window = "middle"
    mean: Mean = "token"


def signals(options: Options) -> tuple[str, ...]:
    """Statistics of the response tokens."""
    return ("answers",)


def score(tables: Tables, options: Options) -> Columns:
    """`score` by window, and the raw `margin` in [-1, 1]."""
    values = finite_column(tables, answer_column("answers.margin", options.mean))
    return {"score": window_score(values, tables.digests, options.window), "margin": values}
