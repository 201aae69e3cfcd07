"""Moments on many machines: every piece that is not kept yet is measured by a Ray task, where the features lie.

The leaves of the tree are pieces of rows (tasks.linalg.pieces); a task returns the sums of one, and the driver keeps
them and adds them up in the order of the rows. So the result is that of one machine, whatever finishes first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from tasks.engines.cluster import connected
from tasks.features import FeatureTable
from tasks.linalg.moments import Sums
from tasks.linalg.pieces import Keep, Piece, measure_piece, missing_pieces
from tasks.params import RaySettings

log = logging.getLogger(__name__)

_AHEAD = 2
"""Tasks in flight for every CPU of the cluster: more would only hold results back."""


def fill(
    folder: Path, column: str, shape: tuple[int, int], digests: NDArray[np.str_], keep: Keep, settings: RaySettings
) -> None:
    """Measure what `keep` lacks of features/<signal>/ on the cluster, and keep it.

    `folder` must be the same path on every node. The open last piece stays for the driver. Raises FeatureError.
    """
    pieces = missing_pieces(shape, digests, keep)
    if not pieces:
        return
    with connected(settings):
        log.info("ray: moments of %d pieces of %s", len(pieces), folder)
        for piece, sums in _measured(folder.absolute(), column, shape, pieces, settings):
            keep.put(piece.key, sums)


def _measured(
    folder: Path, column: str, shape: tuple[int, int], pieces: Sequence[Piece], settings: RaySettings
) -> Iterator[tuple[Piece, Sums]]:
    """Sums of each piece, as they finish."""
    task = ray.remote(_measure).options(num_cpus=settings.cpus_per_actor, max_retries=3)
    limit = max(1, int(_AHEAD * ray.cluster_resources().get("CPU", 1)))
    waiting = list(reversed(pieces))
    running: dict[Any, Piece] = {}
    while waiting or running:
        while waiting and len(running) < limit:
            piece = waiting.pop()
            running[task.remote(folder, column, shape, piece)] = piece
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        yield running.pop(done), ray.get(done)


def _measure(folder: Path, column: str, shape: tuple[int, int], piece: Piece) -> Sums:
    """On a node of the cluster: open the features, read the rows of one piece, multiply."""
    return measure_piece(FeatureTable(folder).matrix(column).read_spans, shape, piece)
