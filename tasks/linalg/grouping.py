"""Rows of a streamed matrix brought together by group, in as few passes as memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.linalg.matrix import Block, Matrix

GATHER_CELLS = 1 << 27
"""Cells gathered in one pass: 512 MiB of float32."""

Rows = NDArray[np.int64]


def members(labels: NDArray[np.int64], order: NDArray[np.int64], groups: int) -> list[Rows]:
    """The rows of each group 0..groups-1, in the order in which they stand in `order`."""
    by_label = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels, minlength=groups)
    return np.split(by_label, np.cumsum(sizes)[:-1]) if groups else []


def gathered(matrix: Matrix, groups: Sequence[Rows], cells: int = GATHER_CELLS) -> Iterator[tuple[int, Block]]:
    """Yield (group number, its rows as an array, in the order given), reading the matrix once per pack of groups.

    A pack holds at most `cells` cells, or one group where that alone is larger.
    """
    limit = max(1, cells // max(matrix.shape[1], 1))
    pack: list[int] = []
    held = 0
    for number, rows in enumerate(groups):
        if pack and held + len(rows) > limit:
            yield from _read(matrix, groups, pack)
            pack, held = [], 0
        pack.append(number)
        held += len(rows)
    if pack:
        yield from _read(matrix, groups, pack)


def _read(matrix: Matrix, groups: Sequence[Rows], pack: list[int]) -> Iterator[tuple[int, Block]]:
    wanted = np.concatenate([groups[number] for number in pack])
    slot = np.full(matrix.shape[0], -1, dtype=np.int64)
    slot[wanted] = np.arange(len(wanted))
    buffer: Block = np.empty((len(wanted), matrix.shape[1]), dtype=np.float32)
    start = 0
    for block in matrix.blocks():
        if start == 0:
            buffer = np.empty(buffer.shape, dtype=block.dtype)
        place = slot[start : start + len(block)]
        buffer[place[place >= 0]] = block[place >= 0]
        start += len(block)
    stops = np.cumsum([len(groups[number]) for number in pack])
    for number, stop in zip(pack, stops, strict=True):
        yield number, buffer[stop - len(groups[number]) : stop]
