"""Rows kept apart: may this row join those already kept, none of which it may resemble too closely?

DEITA's representation filter and the near-duplicate limit of select are both this walk. Candidates come in chunks; one
float32 product bounds their cosines to the rows kept so far, and float64 decides wherever the bound leaves a doubt, so
the answer never depends on the chunks or the threads. Time is candidates x kept x d, memory kept x d.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tasks.linalg.matrix import Block, Matrix
from tasks.linalg.neighbours import cosines

CHUNK = 512


class Separation:
    """The rows kept so far. `prepare` a chunk of candidates, then for each in turn ask `refuses` and perhaps `keep`."""

    def __init__(self, matrix: Matrix, threshold: float) -> None:
        self._matrix = matrix
        self._threshold = threshold
        self._margin = 4 * (matrix.shape[1] + 16) * 2.0**-24
        self._kept = np.empty((CHUNK, matrix.shape[1]), dtype=np.float32)
        self._rows: list[int] = []
        self._place: dict[int, int] = {}
        self._chunk: Block = np.empty((0, matrix.shape[1]), dtype=np.float32)
        self._near = np.empty((0, 0), dtype=bool)
        self._before = 0

    def prepare(self, rows: NDArray[np.int64]) -> None:
        """Compare the next candidates with all rows kept so far, in one product."""
        self._place = {int(row): place for place, row in enumerate(rows)}
        self._chunk = _unit(self._matrix.take(rows))
        self._before = len(self._rows)
        self._near = self._chunk @ self._kept[: self._before].T > self._threshold - self._margin

    def refuses(self, row: int) -> bool:
        """True where the cosine of a prepared row to a kept one is above the threshold."""
        place = self._place[row]
        recent = self._kept[self._before : len(self._rows)] @ self._chunk[place] > self._threshold - self._margin
        doubtful = np.concatenate([np.nonzero(self._near[place])[0], self._before + np.nonzero(recent)[0]])
        if not len(doubtful):
            return False
        others = self._matrix.take(np.array(self._rows, dtype=np.int64)[doubtful]).astype(np.float64)
        own = np.repeat(self._matrix.take(np.array([row])).astype(np.float64), len(others), axis=0)
        return bool((cosines(own, others) > self._threshold).any())

    def keep(self, row: int) -> None:
        """Add a prepared row to those kept."""
        if len(self._rows) == len(self._kept):
            self._kept = np.concatenate([self._kept, np.empty_like(self._kept)])
        self._kept[len(self._rows)] = self._chunk[self._place[row]]
        self._rows.append(row)


def chunks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The rows in order, as many at a time as `prepare` is worth calling for."""
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


def separated(matrix: Matrix, order: NDArray[np.int64], threshold: float, count: int) -> NDArray[np.int64]:
    """Walk `order`, keeping each row whose cosine to every kept row is not above `threshold`; stop at `count`."""
    kept: list[int] = []
    space = Separation(matrix, threshold)
    for rows in chunks(order):
        if len(kept) == count:
            break
        space.prepare(rows)
        for row in rows.tolist():
            if len(kept) < count and not space.refuses(row):
                space.keep(row)
                kept.append(row)
    return np.array(kept, dtype=np.int64)


def _unit(block: Block) -> Block:
    norms = np.linalg.norm(block.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(block / np.where(norms > 0, norms, 1.0), dtype=np.float32)
