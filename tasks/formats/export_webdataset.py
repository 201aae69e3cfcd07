"""WebDataset export: tar shards with one JSON member and the image members of each row."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tasks import images
from tasks.atomic import replacing
from tasks.formats.export import PathPolicy, turn_objects
from tasks.sample import Sample

SHARD_ROWS = 10_000


def write_webdataset(
    rows: Iterable[tuple[Sample, Any]], out: Path, paths: PathPolicy, name: str = "subset"
) -> list[Path]:
    """Write out/<name>-000000.tar, ...: <row>.json of {id, source, messages, images: suffixes}, and <row>.jpg.

    Several images of a row are <row>.0.jpg, <row>.1.png, ... Keys are row numbers of the dataset. Owners and times are
    zero. The path policy has no say: images go along.
    """
    written: list[Path] = []
    samples = (sample for sample, _ in rows)
    while (first := next(samples, None)) is not None or not written:
        path = out / f"{name}-{len(written):06d}.tar"
        with replacing(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for sample in islice(chain([first] if first else [], samples), SHARD_ROWS):
                _add_sample(tar, sample)
        written.append(path)
    return written


def _add_sample(tar: tarfile.TarFile, sample: Sample) -> None:
    key = f"{sample.row:09d}"
    pictures: dict[str, bytes] = {}
    for index, ref in enumerate(sample.images):
        data = images.read_bytes(ref)
        suffix = images.suffix(data, ref.name)
        pictures[suffix if len(sample.images) == 1 else f"{index}.{suffix}"] = data
    told = {"id": sample.id, "source": sample.source, "messages": turn_objects(sample), "images": list(pictures)}
    _add(tar, f"{key}.json", json.dumps(told, ensure_ascii=False).encode())
    for suffix, data in pictures.items():
        _add(tar, f"{key}.{suffix}", data)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # mtime, uid and gid are 0: same samples, same bytes
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
    tar.members.clear()  # type: ignore[attr-defined]
