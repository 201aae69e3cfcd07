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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tasks.assembly import SignalShape, assemble
from tasks.checks import check_row
from tasks.digests import unpack
from tasks.errors import DatasetError
from tasks.formats import open_dataset
from tasks.formats.record import Row
from tasks.images import fetch, inspect
from tasks.layout import Layout
from tasks.linalg.apportion import largest_remainder
from tasks.linalg.sampling import draws
from tasks.params import AnchorsSettings, DatasetSettings, Settings
from tasks.pending import Census, take_census
from tasks.problem import Problem
from tasks.sample import ImageRef, Sample, digest_bytes, digest_json, digest_sample
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


def read(name: str, anchors: AnchorsSettings, maximum_pixels: int) -> list[Sample]:
    """The rows of one anchor set, in row order: all, or `rows` of them, each source in proportion, drawn by content.

    Rows without an image are left out, as in the pool, and counted in the log. Raises DatasetError naming a row with
    a problem: what is trusted has to be right.
    """
    dataset = open_dataset(DatasetSettings(path=anchors.path, format=anchors.format, image_root=anchors.image_root))
    samples = [_see(name, row, maximum_pixels) for row in dataset]
    shown = [sample for sample in samples if not sample.text_only]
    if not shown:
        raise DatasetError(f"extract.gradients.anchors.{name}: {anchors.path} holds no row with an image")
    if len(shown) < len(samples):
        log.info("anchors %s: %d rows without image left out", name, len(samples) - len(shown))
    if anchors.rows is None:
        return shown
    return draw(shown, anchors.rows, anchors.seed)


def draw(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """Up to `count` samples in row order, each source in proportion (largest remainder), drawn by content."""
    _, member, sizes = np.unique([one.source for one in samples], return_inverse=True, return_counts=True)
    quotas = largest_remainder(sizes.astype(np.int64), min(count, len(samples)))
    digests = np.array([one.digest for one in samples], dtype=np.str_)
    order = np.lexsort((digests, -draws(digests, np.random.default_rng(seed))))
    taken = [place for source, quota in enumerate(quotas) for place in order[member[order] == source][:quota]]
    return [samples[place] for place in sorted(taken)]


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


def _see(name: str, row: Row, maximum_pixels: int) -> Sample:
    images = check_row(row) or _look(row, maximum_pixels)
    if isinstance(images, Problem):
        where = f"extract.gradients.anchors.{name}: row {row.row} (id {row.id})"
        raise DatasetError(f"{where}: {images.reason}: {images.detail}")
    digest = digest_sample(row.turns, [image.sha256 for image in images])
    return Sample(row.row, row.id, row.source, row.turns, tuple(images), digest)


def _look(row: Row, maximum_pixels: int) -> list[ImageRef] | Problem:
    """The row's images, hashed and measured; or the problem of the first bad one."""
    images = []
    for ref in row.images:
        data = fetch(ref)
        if isinstance(data, Problem):
            return data
        info = inspect(data, maximum_pixels)
        if isinstance(info, Problem):
            return info
        images.append(replace(ref, sha256=digest_bytes(data), width=info.width, height=info.height))
    return images
