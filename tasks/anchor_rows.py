"""Rows of an anchor set: read from a dataset of any format, drawn by content, refused by name where they are bad."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tasks.checks import check_row
from tasks.errors import DatasetError
from tasks.formats import open_dataset
from tasks.formats.record import Row
from tasks.images import fetch, inspect
from tasks.linalg.apportion import largest_remainder
from tasks.linalg.sampling import draws
from tasks.params import AnchorsSettings, DatasetSettings, ExtractSettings, ValidateSettings
from tasks.problem import Problem
from tasks.sample import ImageRef, Sample, digest_bytes, digest_sample

log = logging.getLogger(__name__)


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


def read_step_anchors(extract: ExtractSettings) -> list[Sample]:
    """The rows of `anchor`, whose loss judges simulated training steps. Raises DatasetError naming a row to mend."""
    return read("anchor", extract.gradients.anchors["anchor"], ValidateSettings().maximum_pixels)


def draw(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """Up to `count` samples in row order, each source in proportion (largest remainder), drawn by content."""
    _, member, sizes = np.unique([one.source for one in samples], return_inverse=True, return_counts=True)
    quotas = largest_remainder(sizes.astype(np.int64), min(count, len(samples)))
    digests = np.array([one.digest for one in samples], dtype=np.str_)
    order = np.lexsort((digests, -draws(digests, np.random.default_rng(seed))))
    taken = [place for source, quota in enumerate(quotas) for place in order[member[order] == source][:quota]]
    return [samples[place] for place in sorted(taken)]


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
