"""PRISM: rows that correlate least with all others.

Source: arXiv 2502.12119. Versions 1 and 4 of the paper define two different measures; both are here, and neither goes
by the other's name. The pairwise mean is had in O(n d): sum_j cos(i, j) = u_i . sum_j u_j for unit rows u.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.linalg.matrix import Block, Matrix, buffer_rows, rebatched
from tasks.linalg.rescaled import centred, column_mean, unit_rows
from tasks.linalg.rounding import settle
from tasks.methods.contract import Columns, Tables, signal_of


@dataclass(frozen=True)
class Options:
    """`methods.prism`.

    version: `v4` (May 2026) centres by the mean row of the corpus, then takes cosines; `v1` (February 2025) is the
        Pearson correlation, each row centred by the mean of its own coordinates.
    features: the matrix to score: means over visual tokens of a shallow layer.
    """

    version: Literal["v1", "v4"] = "v4"
    features: str = "pooled.visual"


def signals(options: Options) -> tuple[str, ...]:
    """The one signal whose features are scored."""
    return (signal_of(options.features),)


def score(tables: Tables, options: Options) -> Columns:
    """Minus the mean correlation with the other rows ("redundancy"): the least redundant row comes first."""
    redundancy = settle(measure_redundancy(tables.matrix(options.features), options.version))
    return {"score": -redundancy, "redundancy": redundancy}


def measure_redundancy(matrix: Matrix, version: str) -> NDArray[np.float64]:
    """Mean over j != i of the correlation of rows i and j, in float64, one (n,) array.

    A row that equals its centre has no direction: it correlates with none, and its redundancy is 0.
    """
    n = matrix.shape[0]
    centre = column_mean(matrix) if version == "v4" else None
    total = np.zeros(matrix.shape[1])
    for _, unit in _unit_blocks(matrix, centre):
        total += unit.sum(axis=0)
    result = np.zeros(n)
    for start, unit in _unit_blocks(matrix, centre):
        itself = np.einsum("ij,ij->i", unit, unit)
        result[start : start + len(unit)] = (unit @ total - itself) / max(n - 1, 1)
    return result


def _unit_blocks(matrix: Matrix, centre: NDArray[np.float64] | None) -> Iterator[tuple[int, Block]]:
    n, d = matrix.shape
    rows = max(1, buffer_rows(n, d) // 4)
    for start, block in rebatched(matrix, rows):
        wide = block.astype(np.float64)
        yield start, unit_rows(centred(wide, wide.mean(axis=1, keepdims=True) if centre is None else centre))
