"""Top, middle and bottom of a difficulty column: the selection rule of EL2N, perplexity and margin.

The middle window of M rows starts at floor(N/2) - floor(M/2) of the ascending order (methods of the COINCIDE tables).
These windows nest: as M grows by one, one row joins at one end. So there is a score whose best M rows are exactly the
window, for every M, and selection, ranks and fill-up all read the same column.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.errors import FeatureError
from tasks.methods.contract import Tables, best_first, digest_order

Window = Literal["top", "middle", "bottom"]
Mean = Literal["token", "turn"]
Floats = NDArray[np.float64]


def window_score(values: Floats, digests: NDArray[np.str_], window: Window) -> Floats:
    """A score, higher is better, whose best M rows are the window of M rows.

    top: the values. bottom: their negatives. middle: 1 for the row at floor(N/2) of the ascending order (ties by
    digest), falling by 1/N a step, first to the lower neighbour, then to the upper one, and so on.
    """
    if window == "top":
        return values.copy()
    if window == "bottom":
        return -values
    n = len(values)
    offset = np.empty(n, dtype=np.int64)
    offset[best_first(-values, digests)] = np.arange(n) - n // 2
    return np.asarray(1.0 - (2 * np.abs(offset) - (offset < 0)) / max(1, n))


def finite_column(tables: Tables, name: str) -> Floats:
    """The named column, every value finite. Raises FeatureError naming the first row that is not, and how many."""
    values = np.asarray(tables.column(name), dtype=np.float64)
    bad = np.nonzero(~np.isfinite(values))[0]
    if len(bad):
        first = int(bad[0])
        raise FeatureError(
            f"column `{name}`: {len(bad)} of {len(values)} rows are not finite, first row {first} "
            f"(digest {tables.digests[first]}) is {values[first]}: reject the rows (no answer tokens?) or mend the file"
        )
    return values


def digest_ranks(digests: NDArray[np.str_]) -> NDArray[np.int64]:
    """(n,) place of each row in the order of the digests: what breaks a tie whatever the order of the rows."""
    ranks = np.empty(len(digests), dtype=np.int64)
    ranks[digest_order(digests)] = np.arange(len(digests))
    return ranks


def answer_column(name: str, mean: Mean) -> str:
    """The column of an answer statistic: mean over tokens (`answers.nll`) or over turns (`answers.nll_per_turn`)."""
    return name if mean == "token" else f"{name}_per_turn"
