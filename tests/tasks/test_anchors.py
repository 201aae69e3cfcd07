"""Anchor sets: read, drawn, measured beside the pool, offered to methods, and never in the pool."""

import json
import logging

import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_models import Models, make_samples, settings, workspace
from PIL import Image

from tasks.anchor_rows import draw, read
from tasks.errors import DatasetError
from tasks.extraction import extract_with
from tasks.features import FeatureTable
from tasks.methods import METHODS
from tasks.params import AnchorsSettings
from tasks.pool import read_pool
from tasks.tables import write_samples

GRADIENTS = Models(names=(("attended", "gradients"),))


def anchors(folder, texts, **fields):
    """A dataset of one row a text, each with a picture of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, text in enumerate(texts):
        Image.new("RGB", (4, 3), (number, 0, 99)).save(folder / f"{number}.png")
        said = [{"from": "human", "value": f"<image>\n{text}"}, {"from": "gpt", "value": "yes"}]
        rows.append({"id": f"a{number}", "image": f"{number}.png", "conversations": said, "source": f"s{number % 2}"})
    (folder / "data.json").write_text(json.dumps(rows))
    return {"path": str(folder / "data.json"), **fields}


def chosen(named):
    return settings(**{"extract.signals": ["attended", "gradients"], "extract.gradients.anchors": named})


def test_anchors_lie_beside_the_pool_and_methods_see_them(tmp_path):
    layout = workspace(tmp_path, [f"question {row}" for row in range(20)])
    named = {
        "anchor": anchors(tmp_path / "a", ["one", "two", "three"]),
        "maths": anchors(tmp_path / "m", ["four", "five"]),
    }
    extract_with(GRADIENTS, chosen(named), layout)
    tables = read_pool(layout, ("gradients",)).tables
    assert {name: tables.matrices[name].shape[0] for name in ("gradients", "gradients.anchor", "gradients.maths")} == {
        "gradients": 20, "gradients.anchor": 3, "gradients.maths": 2,
    }  # fmt: skip
    assert pq.read_table(layout.features / "gradients/maths")["id"].to_pylist() == ["a0", "a1"]
    for name, held_out in (("ost", 0.0), ("icons", 0.0)):
        method = METHODS[name]
        assert method.score(tables, method.parse({}))["anchor"].sum() == held_out
    record = json.loads((layout.features / "extraction.json").read_text())["signals"]
    assert {name: one["rows"] for name, one in record["gradients"]["anchors"].items()} == {"anchor": 3, "maths": 2}
    assert "anchors" not in record["attended"]


def test_anchors_are_measured_as_the_pool_is(tmp_path):
    named = {"anchor": anchors(tmp_path / "a", ["one", "two"])}
    layout = workspace(tmp_path, ["x", "y"])
    extract_with(GRADIENTS, chosen(named), layout)
    beside = FeatureTable(layout.features / "gradients/anchor")
    samples = read("anchor", AnchorsSettings(**named["anchor"]), 1 << 20)
    other = workspace(tmp_path / "other", [])
    write_samples(other.samples, samples)
    extract_with(GRADIENTS, settings(), other)
    pool = FeatureTable(other.features / "gradients")
    assert pool.digests.tolist() == beside.digests.tolist()
    np.testing.assert_array_equal(pool.matrix().take(np.arange(2)), beside.matrix().take(np.arange(2)))


def test_a_row_of_the_pool_that_repeats_an_anchor_is_rejected(tmp_path):
    named = {"maths": anchors(tmp_path / "a", ["one", "two"])}
    layout = workspace(tmp_path, [])
    repeated = read("maths", AnchorsSettings(**named["maths"]), 1 << 20)
    fresh = make_samples(tmp_path / "images", ["x", "y", "z"])
    write_samples(layout.samples, [repeated[1], *fresh[2:]])
    extract_with(GRADIENTS, chosen(named), layout)
    assert FeatureTable(layout.features / "attended").rows.tolist() == [2]
    (reject,) = map(json.loads, (layout.features / "rejects.jsonl").read_text().splitlines())
    assert (reject["row"], reject["reason"]) == (1, "is_anchor")
    assert "extract.gradients.anchors.maths" in reject["detail"]


def test_nothing_is_read_unless_gradients_are_asked_for(tmp_path):
    layout = workspace(tmp_path, ["x"])
    extract_with(Models(), settings(**{"extract.gradients.anchors": {"anchor": {"path": "nowhere.json"}}}), layout)
    assert [path.name for path in layout.features.iterdir() if path.is_dir()] == ["attended"]
    assert not list(layout.store.glob(".anchors*"))


def test_sources_are_drawn_in_proportion_the_same_rows_every_time(tmp_path):
    samples = read("anchor", AnchorsSettings(**anchors(tmp_path, [f"t{n}" for n in range(30)])), 1 << 20)
    first = draw(samples, 10, 0)
    assert [one.source for one in first].count("s0") == 5
    assert [one.row for one in first] == sorted(one.row for one in first)
    assert {one.digest for one in draw(samples[::-1], 10, 0)} == {one.digest for one in first}
    assert {one.digest for one in draw(samples, 10, 1)} != {one.digest for one in first}
    assert draw(samples, 99, 0) == samples
    drawn = read("anchor", AnchorsSettings(**anchors(tmp_path, [f"t{n}" for n in range(30)], rows=10)), 1 << 20)
    assert drawn == first


def test_a_bad_anchor_row_is_named(tmp_path):
    named = anchors(tmp_path / "a", ["one", "two"])
    (tmp_path / "a/1.png").write_bytes(b"\x89PNG and no more")
    with pytest.raises(DatasetError, match=r"anchors\.anchor: row 1 \(id a1\): image_unreadable"):
        read("anchor", AnchorsSettings(**named), 1 << 20)
    (tmp_path / "a/1.png").unlink()
    with pytest.raises(DatasetError, match="image_missing"):
        read("anchor", AnchorsSettings(**named), 1 << 20)


def test_anchors_that_cannot_be_measured_are_left_out_and_named(tmp_path, caplog):
    layout = workspace(tmp_path, ["x", "y"])
    with caplog.at_level(logging.WARNING):
        extract_with(GRADIENTS, chosen({"anchor": anchors(tmp_path / "a", ["one", "LONG two"])}), layout)
    assert "anchors anchor: a row is left out: over_length" in caplog.text
    assert len(FeatureTable(layout.features / "gradients/anchor")) == 1
    with pytest.raises(DatasetError, match="not one of its rows"):
        extract_with(GRADIENTS, chosen({"anchor": anchors(tmp_path / "b", ["LONG one"])}), layout)
