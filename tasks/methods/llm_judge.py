"""LLM as a judge: keep the rows that a strong model rates best.

The ratings come from `tasks.judge` (an OpenAI-compatible endpoint, asked once per distinct content); the method only
ranks them. Source: the baseline of OST (its prompt and scale are unpublished); the rubric is the common open one
(accuracy, grammar, informativeness, coherence, 1 to 5). Rows whose reply could not be read rank last, and are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.methods.contract import Columns, Tables, signal_of
from tasks.methods.ratings import ranked_ratings


@dataclass(frozen=True)
class Options:
    """column: the ratings, in [0, 1], NaN where the reply could not be read."""

    column: str = "judge.score"


def signals(options: Options) -> tuple[str, ...]:
    """The signal that holds the ratings."""
    return (signal_of(options.column),)


def score(tables: Tables, options: Options) -> Columns:
    """`score`, the rating (-1 where there is none), and `unread`, 1.0 where there is none."""
    return ranked_ratings(tables, options.column)
