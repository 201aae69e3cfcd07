"""Perplexity of the answer given image and instruction; keep the middle of the order.

exp(mean negative log-likelihood of the response tokens). Source: Marion et al., When Less is More (arXiv 2309.04564);
for visual instructions DICS, appendix B.3. Ordered by the logarithm, so nothing overflows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """`score` by window, the raw `nll` in nats per token, and `perplexity`."""
    nll = finite_column(tables, answer_column("answers.nll", options.mean))
    return {
        "score": window_score(nll, tables.digests, options.window),
        "nll": nll,
        "perplexity": perplexity(nll),
    }


def perplexity(nll: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(nll), held at the largest finite number from about 709.8 nats on."""
    return np.asarray(np.exp(np.minimum(nll, np.log(np.finfo(np.float64).max))))
