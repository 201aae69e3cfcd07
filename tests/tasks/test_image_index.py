"""The image index: found once, remembered while the file stays the same, never trusted once it changed."""

import os
import sqlite3

import numpy as np
import pytest
from PIL import Image

from tasks import image_index
from tasks.sample import ImageRef, digest_bytes

LIMIT = 10_000


def picture(path, size=(8, 6), value=0):
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)
    return ImageRef(str(path), path.name)


def look(tmp_path, *refs, limit=LIMIT, workers=2):
    with image_index.opened(tmp_path / "store/images.sqlite", limit, workers) as index:
        for ref in refs:
            index.begin(ref)
        return [index.finish(ref) for ref in refs]


@pytest.fixture
def reads(monkeypatch):
    """Paths whose bytes were read, by the real reader."""
    seen, fetch = [], image_index.fetch
    monkeypatch.setattr(image_index, "fetch", lambda ref: seen.append(ref.path) or fetch(ref))
    return seen


def test_finds_digest_and_size(tmp_path):
    ref = picture(tmp_path / "a.png")
    (found,) = look(tmp_path, ref)
    assert (found.sha256, found.width, found.height) == (digest_bytes((tmp_path / "a.png").read_bytes()), 8, 6)
    assert found.problem is None


def test_each_file_is_read_once_a_run_and_not_again_in_the_next(tmp_path, reads):
    refs = [picture(tmp_path / f"{n}.png", value=n) for n in range(3)]
    first = look(tmp_path, *refs, *refs)
    assert sorted(reads) == sorted(ref.path for ref in refs)
    assert look(tmp_path, *refs, *refs) == first
    assert len(reads) == 3


def test_a_changed_file_is_read_again(tmp_path, reads):
    ref = picture(tmp_path / "a.png", value=1)
    (before,) = look(tmp_path, ref)
    stamp = (tmp_path / "a.png").stat()
    picture(tmp_path / "a.png", value=2)
    os.utime(ref.path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    (after,) = look(tmp_path, ref)
    assert len(reads) == 2
    assert after.sha256 == digest_bytes((tmp_path / "a.png").read_bytes()) != before.sha256


def test_another_pixel_limit_asks_again(tmp_path):
    ref = picture(tmp_path / "a.png", size=(8, 6))
    assert look(tmp_path, ref, limit=48)[0].problem is None
    assert look(tmp_path, ref, limit=47)[0].problem.reason == "image_too_large"
    assert look(tmp_path, ref, limit=48)[0].problem is None


def test_problems_are_remembered_but_a_missing_file_is_looked_for_again(tmp_path, reads):
    (tmp_path / "bad.png").write_bytes(b"not an image")
    bad, gone = ImageRef(str(tmp_path / "bad.png"), "bad.png"), ImageRef(str(tmp_path / "gone.png"), "gone.png")
    first = look(tmp_path, bad, gone)
    assert [found.problem.reason for found in first] == ["image_unreadable", "image_missing"]
    assert look(tmp_path, bad, gone) == first
    assert reads.count(bad.path) == 1
    assert reads.count(gone.path) == 2
    picture(tmp_path / "gone.png")
    assert look(tmp_path, gone)[0].problem is None


def test_results_do_not_depend_on_the_number_of_threads(tmp_path):
    refs = [picture(tmp_path / f"{n}.png", size=(n + 1, 3), value=n) for n in range(40)]
    assert look(tmp_path / "one", *refs, workers=1) == look(tmp_path / "many", *refs, workers=8)


def test_findings_let_go_are_found_again_without_reading(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(image_index, "HELD", 2)
    refs = [picture(tmp_path / f"{n}.png", value=n) for n in range(5)]
    with image_index.opened(tmp_path / "images.sqlite", LIMIT) as index:
        first = [index.finish(ref) for ref in refs]
        index.flush()
        assert [index.finish(ref) for ref in refs] == first
    assert len(reads) == 5


def test_a_damaged_index_is_started_anew(tmp_path):
    ref = picture(tmp_path / "a.png")
    expected = look(tmp_path, ref)
    (tmp_path / "store/images.sqlite").write_bytes(b"damaged" * 1000)
    assert look(tmp_path, ref) == expected
    with sqlite3.connect(tmp_path / "store/images.sqlite") as database:
        assert database.execute("SELECT count(*) FROM findings").fetchone() == (1,)


def test_whole_files_are_digested_once(tmp_path):
    path = tmp_path / "data.json"
    path.write_bytes(b"[]")
    with image_index.opened(tmp_path / "images.sqlite", LIMIT) as index:
        assert index.digest_file(path) == digest_bytes(b"[]")
    stamp = path.stat()
    path.write_bytes(b"{}")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with image_index.opened(tmp_path / "images.sqlite", LIMIT) as index:
        assert index.digest_file(path) == digest_bytes(b"[]"), "same size and time: the remembered digest"
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
        assert index.digest_file(path) == digest_bytes(b"{}")
