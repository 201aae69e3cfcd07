import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import datasets
import pytest
import webdataset
from PIL import Image
from small_datasets import as_samples, contents, read

from tasks import images
from tasks.formats import FORMATS, WRITERS, PathPolicy, open_dataset
from tasks.params import DatasetSettings, ExportSettings


@pytest.fixture
def samples(folder):
    return list(as_samples(read(folder / "data.json")))


@pytest.fixture
def packed(samples, folder):
    """The same rows, their images inside a shard."""
    files = WRITERS["webdataset"](samples, folder / "packed", PathPolicy())
    return list(as_samples(read(files[0])))


def said(samples):
    return [(sample.turns, [ref.sha256 for ref in sample.images]) for sample, _ in samples]


def test_writers_are_the_formats_of_the_settings():
    assert set(WRITERS) == set(ExportSettings.model_fields["formats"].annotation.__args__[0].__args__)
    assert set(FORMATS) | {"auto"} == set(DatasetSettings.model_fields["format"].annotation.__args__)


@pytest.mark.parametrize("name", sorted(WRITERS))
@pytest.mark.parametrize("kind", ["absolute", "media_dir"])
def test_every_export_says_what_the_input_said(samples, packed, folder, name, kind):
    for given, out in ((samples, folder / "out"), (packed, folder / "out2")):
        paths = PathPolicy(kind, folder)
        data, *_ = WRITERS[name](given, out / name, paths)
        assert [contents(row) for row in read(data, image_root=str(folder))] == said(given)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_an_export_with_relative_paths_is_a_dataset_again(samples, packed, folder, name):
    data, *_ = WRITERS[name](samples, folder / "out" / name, PathPolicy())
    assert [contents(row) for row in read(data, image_root=str(folder))] == said(samples)
    data, *_ = WRITERS[name](packed, folder / "out2" / name, PathPolicy())
    assert [contents(row) for row in read(data)] == said(packed)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_same_samples_same_bytes(samples, packed, folder, name):
    def digests(out, given):
        files = WRITERS[name](given, out, PathPolicy("media_dir", folder))
        assert sorted(files) == sorted(path for path in out.rglob("*") if path.is_file())
        return [(path.relative_to(out), hashlib.sha256(path.read_bytes()).digest()) for path in files]

    assert digests(folder / "one", samples) == digests(folder / "two", iter(samples))
    absent = [row for row in packed if not row[0].images]
    assert digests(folder / "three", absent) == digests(folder / "four", absent)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_no_samples_make_a_file_without_rows(folder, name):
    data, *_ = WRITERS[name]([], folder / "none", PathPolicy())
    form = {"ms_swift": "messages"}.get(name, name)
    options = {"config": "subset"} if name == "llamafactory" else {}
    assert list(open_dataset(DatasetSettings(path=str(data), format=form, **options))) == []


def test_llava_spells_rows_as_llava_does(samples, folder):
    data, *_ = WRITERS["llava"](samples, folder / "out", PathPolicy())
    first, second, third = json.loads(data.read_text())
    assert list(first) == ["id", "image", "conversations", "source"]
    assert (first["id"], first["image"], first["source"]) == (7, "../coco/a.jpg", "coco")
    assert second["image"] == ["../coco/a.jpg", "../vg/b.png"]
    assert "image" not in third
    assert third["conversations"][0] == {"from": "system", "value": "Be brief."}


def test_relative_paths_lead_from_the_output_to_the_image(samples, folder, monkeypatch):
    monkeypatch.chdir(folder)
    given = list(as_samples(read(Path("data.json"))))
    assert given[0][0].images[0].path == "coco/a.jpg"
    for name in ("llava", "messages", "llamafactory", "ms_swift"):
        data, *_ = WRITERS[name](given, Path("deep/down"), PathPolicy())
        assert "../../coco/a.jpg" in data.read_text()
        assert os.getcwd() not in data.read_text()  # noqa: PTH109


def test_images_inside_shards_are_unpacked_once(packed, folder):
    data, *unpacked = WRITERS["ms_swift"](packed, folder / "out", PathPolicy())
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    assert [len(row["images"]) for row in rows] == [1, 2, 0]
    assert rows[0]["images"][0] == rows[1]["images"][0]
    assert {str(path.relative_to(folder / "out")) for path in unpacked} == {
        name for row in rows for name in row["images"]
    }
    assert sorted(path.suffix for path in unpacked) == [".jpg", ".png"]


@pytest.mark.parametrize("name", ["messages", "llamafactory", "ms_swift"])
def test_json_exports_as_datasets_reads_them(samples, folder, name):
    data, *_ = WRITERS[name](samples, folder / "out", PathPolicy())
    if name == "messages":  # ids keep their types there, which no table can hold
        samples = [samples[0]]
        data, *_ = WRITERS[name](samples, folder / "out", PathPolicy())
    table = datasets.load_dataset("json", data_files=str(data), split="train", cache_dir=str(folder / "cache"))
    for row, (sample, _) in zip(table, samples, strict=True):
        assert [(turn["role"], turn["content"]) for turn in row["messages"]] == [
            (turn.role, turn.content) for turn in sample.turns
        ]
        assert len(row["images"]) == len(sample.images)


def test_parquet_as_datasets_reads_it(samples, folder):
    files = WRITERS["parquet"](samples, folder / "out", PathPolicy())
    table = datasets.load_dataset(
        "parquet", data_files=[str(path) for path in files], split="train", cache_dir=str(folder / "cache")
    )
    assert table.features["images"] in (datasets.List(datasets.Image()), [datasets.Image()])
    for row, (sample, _) in zip(table, samples, strict=True):
        assert row["id"] == sample.id
        assert row["messages"] == [{"role": turn.role, "content": turn.content} for turn in sample.turns]
        assert all(isinstance(image, Image.Image) for image in row["images"])
        expected = [images.decode(images.read_bytes(ref)) for ref in sample.images]
        assert [image.convert("RGB").tobytes() for image in row["images"]] == [image.tobytes() for image in expected]


def test_shards_as_webdataset_reads_them(samples, folder):
    files = WRITERS["webdataset"](samples, folder / "out", PathPolicy())
    found = list(webdataset.WebDataset([str(path) for path in files], shardshuffle=False).decode("pil"))
    assert [one["__key__"] for one in found] == ["000000000", "000000001", "000000002"]
    assert found[0]["jpg"].size == (12, 8)
    assert found[1]["json"]["images"] == ["0.jpg", "1.png"]
    assert found[1]["0.jpg"].size == found[1]["1.png"].size == (12, 8)
    assert found[2]["json"]["messages"][0] == {"role": "system", "content": "Be brief."}
    with tarfile.open(files[0]) as tar:
        assert {(info.mtime, info.uid, info.gid, info.uname) for info in tar} == {(0, 0, 0, "")}


@pytest.mark.parametrize("name", ["parquet", "webdataset"])
def test_shards_roll_over(samples, folder, name, monkeypatch):
    monkeypatch.setattr(f"tasks.formats.export_{name}.SHARD_ROWS", 2)
    files = WRITERS[name](iter(samples), folder / "out", PathPolicy())
    assert len(files) == 2
    rows = read(folder / "out")
    assert [contents(row) for row in rows] == said(samples)


def test_encoded_bytes_go_along_untouched(samples, folder):
    data, *_ = WRITERS["parquet"](samples, folder / "out", PathPolicy())
    first = images.read_bytes(read(data)[0].images[0])
    assert first == (folder / "coco/a.jpg").read_bytes()
    assert Image.open(io.BytesIO(first)).format == "JPEG"
