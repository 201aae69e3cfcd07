import numpy as np
import pytest

from tasks.linalg.moments import Sums
from tasks.moment_cache import MomentCache


def sums(dtype=np.float32, d=6):
    rng = np.random.default_rng(0)
    gram = np.triu(rng.normal(size=(d, d))).astype(dtype)
    return Sums(17, rng.normal(size=d), rng.normal(size=d), gram, 1.1920929e-07)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_come_back_to_the_bit(tmp_path, dtype):
    cache, held = MomentCache(tmp_path / "moments"), sums(dtype)
    assert not cache.has("a")
    assert cache.get("a") is None
    cache.put("a", held)
    found = cache.get("a")
    assert cache.has("a")
    assert (found.count, found.precision) == (held.count, held.precision)
    for name in ("shift", "total", "gram"):
        np.testing.assert_array_equal(getattr(found, name), getattr(held, name))
    assert found.gram.dtype == dtype


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.7, 0.9])
def test_a_damaged_file_is_ignored_and_named(tmp_path, caplog, share):
    cache = MomentCache(tmp_path)
    cache.put("a", sums(d=60))
    path = tmp_path / "a.npz"
    whole = path.read_bytes()
    at = int(share * len(whole))
    path.write_bytes(whole[:at])
    assert cache.get("a") is None
    assert "a.npz" in caplog.text
    if share in (0.3, 0.5, 0.7):  # within the triangle
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert cache.get("a") is None


def test_only_the_wanted_stay(tmp_path):
    cache = MomentCache(tmp_path)
    for key in "abc":
        cache.put(key, sums())
    cache.retain(iter(["b", "z"]))
    assert [cache.has(key) for key in "abc"] == [False, True, False]


def test_a_folder_that_cannot_be_written_keeps_nothing_and_stops_nothing(tmp_path, caplog):
    (tmp_path / "moments").write_text("a file")
    cache = MomentCache(tmp_path / "moments")
    cache.put("a", sums())
    assert "cannot be kept" in caplog.text
    assert cache.get("a") is None
    cache.retain([])
