import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_models import Models, make_samples, settings, workspace

from tasks.errors import DatasetError, EngineError
from tasks.extraction import extract_with, plan_with, prune
from tasks.feature_files import MappedGroup, open_file
from tasks.features import FeatureTable
from tasks.layout import Layout
from tasks.sample import Sample
from tasks.tables import features_schema, write_samples

TEXTS = [f"question {row} " + "x" * (row * 7 % 13) for row in range(60)]


def rejects(layout):
    return [json.loads(line) for line in (layout.features / "rejects.jsonl").read_text().splitlines()]


def features(layout, signal="attended", column="feature"):
    return np.concatenate(list(FeatureTable(layout.features / signal).matrix(column).blocks()))


def outputs(layout):
    return {
        str(path.relative_to(layout.features)): path.read_bytes()
        for path in sorted(layout.features.rglob("*"))
        if path.is_file()
    }


def computed(log: Path):
    return [line for path in log.iterdir() for line in path.read_text().splitlines() if path.name.isdigit()]


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


def test_rows_columns_and_counts(tmp_path):
    layout = workspace(tmp_path, ["a", "b TEXTONLY", "c LONG", "d"])
    extract_with(Models(), settings(), layout)
    table = pq.read_table(layout.features / "attended")
    assert table["row"].to_pylist() == [0, 3]
    assert table["id"].to_pylist() == [None, None]
    assert table.schema.remove_metadata().equals(features_schema(8, [("n_visual", "int32"), ("loss", "float64")]))
    read = FeatureTable(layout.features / "attended")
    assert len(read) == 2
    assert read.matrices == ["feature"]
    assert read.statistics == ["n_visual", "loss"]
    assert read.rows.tolist() == [0, 3]
    assert read.digests.tolist() == table["digest"].to_pylist()
    assert read.column("n_visual").tolist() == [1, 1]
    record = json.loads((layout.features / "extraction.json").read_text())
    assert {key: record[key] for key in ("samples", "with_images", "rows", "rejected")} == {
        "samples": 4, "with_images": 3, "rows": 2, "rejected": 1,
    }  # fmt: skip
    assert record["signals"]["attended"]["columns"] == {"feature": 8}
    assert record["signals"]["attended"]["record"] == {"model": "fake"}
    assert rejects(layout) == [{"row": 2, "id": "id2", "reason": "over_length", "detail": "too long"}]


def test_the_mapped_reading_equals_pyarrows(tmp_path):
    layout = workspace(tmp_path, TEXTS)
    extract_with(Models(names=(("clip", "attended"),)), settings(), layout)
    for name, column in (("attended", "feature"), ("clip", "image"), ("clip", "text")):
        part = layout.features / name / "part-00000.parquet"
        assert all(isinstance(piece, MappedGroup) for piece in open_file(part, column))
        naive = np.array(pq.read_table(part)[column].to_pylist(), dtype=np.float32)
        np.testing.assert_array_equal(features(layout, name, column), naive)
        rows = np.array([59, 3, 3])
        np.testing.assert_array_equal(FeatureTable(part.parent).matrix(column).take(rows), naive[rows])


def test_equal_samples_are_extracted_once_and_each_has_its_row(tmp_path, log):
    layout = workspace(tmp_path, TEXTS)
    samples = make_samples(tmp_path / "images", TEXTS)
    twins = [Sample(60 + row, "twin", "t", one.turns, one.images, one.digest) for row, one in enumerate(samples[:5])]
    write_samples(layout.samples, samples + twins)
    extract_with(Models(log=str(log)), settings(), layout)
    assert sorted(computed(log)) == sorted(TEXTS)
    np.testing.assert_array_equal(features(layout)[60:], features(layout)[:5])


def test_each_fault_rejects_its_own_row_and_only_it(tmp_path):
    texts = [*TEXTS[:20], "LONG", "CRASH", "POISON", "NAN", *TEXTS[20:30]]
    layout = workspace(tmp_path, texts)
    (tmp_path / "images/0.jpg").write_bytes(b"not the validated picture")
    (tmp_path / "images/1.jpg").unlink()
    extract_with(Models(), settings(), layout)
    assert {reject["row"]: reject["reason"] for reject in rejects(layout)} == {
        0: "image_changed", 1: "image_changed", 2: "image_unreadable", 3: "image_unreadable",
        20: "over_length", 21: "extraction_failed", 22: "extraction_failed", 23: "not_finite",
    }  # fmt: skip
    assert next(one for one in rejects(layout) if one["row"] == 22)["detail"] == "RuntimeError: poisoned row"
    assert len(features(layout)) == len(texts) - 8


def test_a_row_that_failed_is_tried_again_and_one_refused_for_good_is_not(tmp_path, log):
    layout = workspace(tmp_path, [*TEXTS, "LONG"])
    picture = tmp_path / "images/3.jpg"
    data = picture.read_bytes()
    picture.unlink()
    extract_with(Models(log=str(log)), settings(), layout)
    assert [reject["row"] for reject in rejects(layout)] == [6, 7, 60]
    first = len(computed(log))
    picture.write_bytes(data)
    extract_with(Models(log=str(log)), settings(), layout)
    assert [reject["row"] for reject in rejects(layout)] == [60]
    assert sorted(computed(log)[first:]) == sorted(TEXTS[6:8])


def test_running_again_computes_nothing_and_gives_the_same_bytes(tmp_path, log):
    layout = workspace(tmp_path, TEXTS)
    extract_with(Models(log=str(log)), settings(), layout)
    before, rows = outputs(layout), len(computed(log))
    extract_with(Models(log=str(log)), settings(), layout)
    assert outputs(layout) == before
    assert len(computed(log)) == rows == len(TEXTS)


def test_two_workspaces_give_the_same_bytes(tmp_path):
    first, second = workspace(tmp_path / "a", TEXTS), workspace(tmp_path / "b", TEXTS)
    extract_with(Models(), settings(), first)
    extract_with(Models(), settings(run__workers=1), second)
    assert outputs(first) == outputs(second)


@pytest.mark.parametrize("change", [
    {"run__token_budget": 1}, {"run__token_budget": 10_000}, {"run__shard_rows": 1}, {"run__shard_rows": 1000},
    {"run__workers": 3},
])  # fmt: skip
def test_batches_and_shards_never_change_a_feature(tmp_path, change):
    first, second = workspace(tmp_path / "a", TEXTS), workspace(tmp_path / "b", TEXTS)
    extract_with(Models(), settings(), first)
    extract_with(Models(), settings(**change), second)
    np.testing.assert_allclose(features(first), features(second), rtol=1e-5)


def test_order_never_changes_a_feature(tmp_path):
    layout, other = workspace(tmp_path / "a", TEXTS), Layout.workspace(tmp_path / "b/data")
    samples = make_samples(tmp_path / "a/images", TEXTS)
    order = np.random.default_rng(1).permutation(len(TEXTS))
    moved = [
        Sample(row, samples[at].id, "s", samples[at].turns, samples[at].images, samples[at].digest)
        for row, at in enumerate(order)
    ]
    write_samples(other.samples, moved)
    extract_with(Models(), settings(), layout)
    extract_with(Models(), settings(), other)
    np.testing.assert_allclose(features(layout)[order], features(other), rtol=1e-5)


def test_processes_give_what_one_process_gives(tmp_path, log):
    first, second = workspace(tmp_path / "a", TEXTS), workspace(tmp_path / "b", TEXTS)
    extract_with(Models(), settings(), first)
    extract_with(Models(log=str(log), pause=0.05), settings(run__device="cpu,cpu"), second)
    assert outputs(first) == outputs(second)
    assert len(list(log.iterdir())) == 2  # both worked
    assert sorted(computed(log)) == sorted(TEXTS)


def test_only_new_rows_are_extracted_and_removed_rows_are_forgotten(tmp_path, log):
    layout = workspace(tmp_path, TEXTS)
    models = Models(log=str(log))
    extract_with(models, settings(), layout)
    write_samples(layout.samples, make_samples(tmp_path / "images", [*TEXTS, "brand new"]))
    extract_with(models, settings(), layout)
    assert computed(log)[len(TEXTS) :] == ["brand new"]
    assert len(features(layout)) == 61
    write_samples(layout.samples, make_samples(tmp_path / "images", TEXTS)[10:])
    extract_with(models, settings(), layout)
    assert len(computed(log)) == 61
    assert FeatureTable(layout.features / "attended").rows.tolist() == list(range(10, 60))


def test_a_new_signal_is_extracted_alone(tmp_path, log):
    layout = workspace(tmp_path, TEXTS)
    extract_with(Models(), settings(), layout)
    before = features(layout)
    extract_with(Models(names=(("attended", "answers"),), log=str(log)), settings(), layout)
    np.testing.assert_array_equal(features(layout), before)
    assert FeatureTable(layout.features / "answers").matrices == []
    assert FeatureTable(layout.features / "answers").column("loss").shape == (60,)
    assert plan_with(Models(names=(("attended", "answers"),)), settings(), layout).missing == {
        "attended": 0, "answers": 0,
    }  # fmt: skip


def test_a_row_rejected_by_one_signal_is_in_none(tmp_path):
    layout = workspace(tmp_path, [*TEXTS, "NAN"])
    extract_with(Models(names=(("attended",), ("answers",))), settings(), layout)
    assert FeatureTable(layout.features / "answers").rows.tolist() == list(range(60))
    assert [reject["reason"] for reject in rejects(layout)] == ["not_finite"]


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_shard_is_named_and_extracted_again(tmp_path, log, caplog, damage):
    layout = workspace(tmp_path, TEXTS)
    models = Models(log=str(log))
    extract_with(models, settings(), layout)
    before = outputs(layout)
    shard = sorted(path for path in layout.store.rglob("*.arrow") if path.name != "index.arrow")[2]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 255
    shard.write_bytes(data[:500] if damage == "cut" else data)
    for part in layout.store.glob("assembled/**/*.parquet"):
        part.unlink()
    with caplog.at_level(logging.WARNING):
        extract_with(models, settings(), layout)
    assert shard.name in caplog.text
    assert outputs(layout) == before
    assert len(computed(log)) in (len(TEXTS) + 8, len(TEXTS) + 4)  # that shard's rows, once


def test_out_of_memory_halves_batches_down_to_one_row(tmp_path):
    first, second = workspace(tmp_path / "a", TEXTS), workspace(tmp_path / "b", TEXTS)
    extract_with(Models(), settings(), first)
    extract_with(Models(limit=1), settings(), second)
    np.testing.assert_allclose(features(first), features(second), rtol=1e-5)


def test_nothing_works_is_an_error_not_sixty_rejects(tmp_path):
    layout = workspace(tmp_path, ["POISON " + text for text in TEXTS])
    with pytest.raises(EngineError, match=r"every row of the first shard failed .rows 0 to 7.*poisoned row"):
        extract_with(Models(), settings(), layout)
    layout = workspace(tmp_path / "few", ["LONG"])
    with pytest.raises(EngineError, match="not one of 1 rows could be extracted: over_length: too long"):
        extract_with(Models(), settings(), layout)


def test_without_pictures_the_tables_are_empty(tmp_path):
    layout = workspace(tmp_path, ["TEXTONLY a"])
    extract_with(Models(), settings(), layout)
    assert FeatureTable(layout.features / "attended").matrix().shape == (0, 8)
    assert rejects(layout) == []


def test_extract_before_validate(tmp_path):
    with pytest.raises(DatasetError, match="run the validate stage first"):
        extract_with(Models(), settings(), Layout.workspace(tmp_path))


def test_parts_are_linked_rewritten_when_tampered_with_and_never_written_in_place(tmp_path):
    layout = workspace(tmp_path, TEXTS)
    extract_with(Models(), settings(), layout)
    part = layout.features / "attended/part-00000.parquet"
    inode, good = part.stat().st_ino, part.read_bytes()
    part.chmod(0o444)  # as DVC leaves files that it links from its cache
    extract_with(Models(), settings(), layout)
    assert part.stat().st_ino == inode
    part.chmod(0o644)
    part.write_bytes(b"written in place, through the link")
    extract_with(Models(), settings(), layout)
    assert part.read_bytes() == good


def test_where_links_are_impossible_parts_are_copied(tmp_path, monkeypatch):
    layout = workspace(tmp_path, TEXTS)
    extract_with(Models(), settings(), layout)
    before = outputs(layout)

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    extract_with(Models(), settings(), layout)
    assert outputs(layout) == before
    assert (layout.features / "attended/part-00000.parquet").stat().st_nlink == 1


def test_plan_counts_and_estimates(tmp_path):
    layout = workspace(tmp_path, [*TEXTS, TEXTS[-1], "TEXTONLY"], per_image=100)
    models = Models(pause=0.01)
    before = plan_with(models, settings(run__token_budget=1), layout)
    assert (before.rows, before.cached, before.missing) == (60, {"attended": 0}, {"attended": 60})
    assert 0.5 < before.seconds < 6  # 60 rows of 10 ms
    extract_with(models, settings(), layout)
    after = plan_with(models, settings(), layout)
    assert (after.cached, after.missing, after.seconds) == ({"attended": 60}, {"attended": 0}, 0)


def test_prune_keeps_what_the_present_features_need(tmp_path, log):
    layout = workspace(tmp_path, TEXTS)
    assert prune(layout) == 0
    extract_with(Models(fingerprint="old"), settings(), layout)
    extract_with(Models(log=str(log)), settings(), layout)
    write_samples(layout.samples, make_samples(tmp_path / "images", TEXTS)[:30])
    extract_with(Models(log=str(log)), settings(), layout)
    before = outputs(layout)
    assert prune(layout) > 0
    extract_with(Models(log=str(log)), settings(), layout)
    assert len(computed(log)) == 60
    assert outputs(layout) == before


def test_progress_lines_say_rows_and_rate(tmp_path, caplog):
    layout = workspace(tmp_path, TEXTS)
    with caplog.at_level(logging.INFO):
        extract_with(Models(), settings(), layout)
    assert "extract attended: 60/60 rows" in caplog.text
    assert "features of 60 rows, 0 rejected" in caplog.text


RUN = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from fake_models import Models, settings
from tasks.extraction import extract_with
from tasks.layout import Layout
if __name__ == "__main__":
    extract_with(Models(log={log!r}, pause=0.02), settings(run__device={device!r}), Layout.workspace(Path({data!r})))
"""


@pytest.mark.parametrize("device", ["cpu", pytest.param("cpu,cpu", marks=pytest.mark.slow)])
def test_killed_again_and_again_it_resumes_and_ends_in_the_same_bytes(tmp_path, log, device):
    whole, layout = workspace(tmp_path / "whole", TEXTS), workspace(tmp_path / "killed", TEXTS)
    extract_with(Models(), settings(), whole)
    script = tmp_path / "run.py"
    script.write_text(RUN.format(path=sys.path, log=str(log), device=device, data=str(layout.store.parent)))
    for rows in (5, 20, 33):
        process = subprocess.Popen([sys.executable, script])
        while len(computed(log)) < rows and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([sys.executable, script], check=True)
    assert outputs(layout) == outputs(whole)
    workers = device.count("cpu")
    assert len(computed(log)) <= len(TEXTS) + 3 * 8 * workers * 2  # at most the shards in flight, a worker holds two
    assert len(set(computed(log))) == len(TEXTS)
