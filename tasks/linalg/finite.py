"""Not-a-number and infinity are refused by name, wherever features are read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tasks.errors import FeatureError
from tasks.linalg.matrix import Block, Matrix


class FiniteMatrix:
    """The same Matrix, checked as it is read. Raises FeatureError naming the signal, row, digest and column."""

    def __init__(self, matrix: Matrix, name: str, digests: NDArray[np.str_] | None = None) -> None:
        self._matrix = matrix
        self._name = name
        self._digests = digests

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return self._matrix.shape

    def blocks(self) -> Iterator[Block]:
        """Yield blocks in row order, each finite."""
        start = 0
        for block in self._matrix.blocks():
            self._check(block, range(start, start + len(block)))
            start += len(block)
            yield block

    def take(self, rows: NDArray[np.int64]) -> Block:
        """The given rows, in the order asked for, each finite."""
        block = self._matrix.take(rows)
        self._check(block, rows)
        return block

    def _check(self, block: Block, rows: range | NDArray[np.int64]) -> None:
        # A sum is several times cheaper than a test of every cell, and no NaN or infinity leaves it finite.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(block.sum()):
                return
        bad = np.argwhere(~np.isfinite(block))
        if not len(bad):
            return
        row, column = int(rows[bad[0, 0]]), int(bad[0, 1])
        who = f" (digest {self._digests[row]})" if self._digests is not None else ""
        raise FeatureError(
            f"features `{self._name}`: row {row}{who}, column {column} is {block[tuple(bad[0])]}; "
            "every value must be finite: extract the row again or remove it"
        )
