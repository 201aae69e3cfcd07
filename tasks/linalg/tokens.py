"""What a distribution over the vocabulary says about the token that did come, in float64.

z are the logits that predict a token, y the token: NLL = -log p_y; EL2N = || p - onehot(y) || (arXiv 2107.07075, used
for visual instruction data in arXiv 2406.10995); margin = p_y - the largest other p; entropy in nats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = dict[str, NDArray[np.float64]]


def score_tokens(logits: NDArray[np.floating[Any]], tokens: NDArray[np.integer[Any]]) -> Scores:
    """nll, el2n, margin and entropy, each (t,), from logits (t, v), v >= 2, and tokens (t,).

    EL2N is summed over the other tokens and 1 - p_y apart, so that it keeps its digits when p_y is near one.
    """
    z = np.asarray(logits, dtype=np.float64)
    rows = np.arange(len(z))
    logp = z - z.max(axis=1, keepdims=True)
    logp -= np.log(np.exp(logp).sum(axis=1, keepdims=True))
    p = np.exp(logp)
    own = p[rows, tokens]
    others = p.copy()
    others[rows, tokens] = 0.0
    return {
        "nll": -logp[rows, tokens],
        "el2n": np.sqrt((others**2).sum(axis=1) + others.sum(axis=1) ** 2),
        "margin": own - others.max(axis=1),
        "entropy": -(p * np.where(p > 0, logp, 0.0)).sum(axis=1),
    }


def mean_by_group(values: NDArray[np.float64], groups: NDArray[np.integer[Any]], count: int) -> NDArray[np.float64]:
    """(count,) mean of the values of each group 0 .. count - 1; NaN for a group without values."""
    sums = np.bincount(groups, weights=values, minlength=count)
    sizes = np.bincount(groups, minlength=count)
    means: NDArray[np.float64] = np.divide(sums, sizes, out=np.full(count, np.nan), where=sizes > 0)
    return means
