"""Small datasets with real pictures, in every format."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks import images
from tasks.formats import open_dataset
from tasks.params import DatasetSettings
from tasks.sample import Sample, digest_bytes, digest_sample


def picture(seed, encoding="JPEG", size=(12, 8)):
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, encoding)
    return buffer.getvalue()


ROWS = [
    {"id": 7, "image": "coco/a.jpg", "conversations": [
        {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A caf\u00e9."}]},
    {"id": "seven", "image": ["coco/a.jpg", "vg/b.png"], "conversations": [
        {"from": "human", "value": "First <image>, then <image>: same?"}, {"from": "gpt", "value": "No."},
        {"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "Yes \U0001f600 \u2028."}]},
    {"conversations": [{"from": "system", "value": "Be brief."},
        {"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}], "source": "text", "extra": [1.50, 1e3]},
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A LLaVA dataset: data.json beside coco/ and vg/."""
    (tmp_path / "coco").mkdir()
    (tmp_path / "vg").mkdir()
    (tmp_path / "coco/a.jpg").write_bytes(picture(0))
    (tmp_path / "vg/b.png").write_bytes(picture(1, "PNG"))
    (tmp_path / "data.json").write_text(json.dumps(ROWS))
    return tmp_path


def read(path, **settings):
    return list(open_dataset(DatasetSettings(path=str(path), **settings)))


def contents(row):
    """What a row says and shows, however it is stored."""
    assert row.problem is None, row.problem
    return row.turns, [digest_bytes(images.read_bytes(ref)) for ref in row.images]


def as_samples(rows):
    for row in rows:
        turns, digests = contents(row)
        refs = tuple(
            images.ImageRef(ref.path, ref.name, ref.member, digest)
            for ref, digest in zip(row.images, digests, strict=True)
        )
        yield Sample(row.row, row.id, row.source, turns, refs, digest_sample(turns, digests)), row.original


def write(path: Path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path
