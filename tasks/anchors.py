"""Anchor sets: trusted rows outside the pool, whose gradients say which way is good (OST), or good for a task (ICONS).

`extract.gradients.anchors` names them. They are measured as the pool is, and lie as features/gradients/<name>/ beside
the pool's gradients; methods see them as `gradients.<name>`. A row of the pool that repeats an anchor would vouch for
itself, so it is rejected.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.anchor_rows import read
from tasks.assembly import SignalShape, assemble
from tasks.digests import unpack
from tasks.errors import DatasetError
from tasks.layout import Layout
from tasks.params import AnchorsSettings, Settings
from tasks.pending import Census, take_census
from tasks.sample import digest_json
from tasks.shards import Refusal
from tasks.store import Shelf
from tasks.tables import write_samples

log = logging.getLogger(__name__)

ANCHORED = "gradients"
"""The signal that has anchor sets."""


@dataclass(frozen=True)
class AnchorSet:
    """The drawn rows of one anchor set. samples: their file, which lasts as long as `opened`."""

    name: str
    samples: Path
    census: Census

    @property
    def digests(self) -> list[str]:
        """Of its rows, in order."""
        return unpack(self.census.digests)


@contextmanager
def opened(settings: Settings, layout: Layout) -> Iterator[list[AnchorSet]]:
    """The anchor sets that the gradients need, in order of name. Raises DatasetError naming a row to mend."""
    named: Mapping[str, AnchorsSettings] = settings.extract.gradients.anchors
    wanted = sorted(named) if ANCHORED in settings.extract.signals else []
    layout.store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".anchors.", dir=layout.store) as folder:
        found = []
        for name in wanted:
            path = Path(folder) / f"{name}.parquet"
            write_samples(path, read(name, named[name], settings.validation.maximum_pixels))
            found.append(AnchorSet(name, path, take_census(path)))
        yield found


def refuse_anchors(anchors: Sequence[AnchorSet]) -> dict[str, Refusal]:
    """By digest, why a row of the pool that repeats an anchor is rejected."""
    named = {digest: one.name for one in anchors for digest in one.digests}
    return {
        digest: Refusal(digest, "is_anchor", f"repeats a row of extract.gradients.anchors.{name}", lasting=True)
        for digest, name in named.items()
    }


def assemble_anchors(layout: Layout, anchors: AnchorSet, shelf: Shelf, shape: SignalShape) -> dict[str, Any]:
    """Write one set beside the gradients of the pool; returns what extraction.json says of it.

    Raises DatasetError when none of its rows could be measured.
    """
    good = shelf.find(anchors.census.digests).extracted
    for refusal in shelf.refusals(anchors.census.digests).values():
        log.warning("anchors %s: a row is left out: %s: %s", anchors.name, refusal.reason, refusal.detail)
    if not good.any():
        raise DatasetError(f"extract.gradients.anchors.{anchors.name}: not one of its rows could be measured")
    folder = layout.features / ANCHORED / anchors.name
    assemble(layout.store, folder, shelf, shape, anchors.census, np.flatnonzero(good))
    return {"rows": int(good.sum()), "rejected": int((~good).sum()), "digest": digest_json(anchors.digests)}
