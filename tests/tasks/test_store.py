import hashlib
import logging

import numpy as np
import pytest

from tasks.digests import pack
from tasks.shards import CorruptShardError, Refusal, open_shard
from tasks.store import Shelf, collect

PRINT = "a" * 64


def digest(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def rows(numbers, width=4):
    values = np.array([np.arange(width) + 10 * number for number in numbers], dtype=np.float32).reshape(-1, width)
    return {"feature": values, "n": np.array(list(numbers), dtype=np.int32)}


def fill(shelf, numbers, refusals=()):
    path = shelf.write([digest(number) for number in numbers], rows(numbers), refusals)
    shelf.refresh()
    return path


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path, PRINT)


def wanted(*numbers):
    return pack([digest(number) for number in numbers])


def test_gather_gives_rows_of_many_shards_in_the_order_asked_for(shelf):
    for start in range(0, 40, 7):
        fill(shelf, range(start, min(start + 7, 40)))
    order = [*np.random.default_rng(0).permutation(40).tolist(), 3, 3]
    got = shelf.gather(wanted(*order))
    np.testing.assert_array_equal(got["feature"], rows(order)["feature"])
    np.testing.assert_array_equal(got["n"], order)
    assert got["feature"].dtype == np.float32
    assert got["n"].dtype == np.int32


def test_an_empty_shelf_knows_nothing(shelf):
    found = shelf.find(wanted(1, 2))
    assert not (found.extracted | found.refused | found.failed).any()
    assert shelf.gather(wanted()) == {}
    with pytest.raises(KeyError, match=digest(1)):
        shelf.gather(wanted(1))


def test_writing_a_shard_again_changes_no_byte(shelf):
    path = fill(shelf, [1, 2])
    before = path.read_bytes()
    assert fill(shelf, [1, 2]) == path
    assert path.read_bytes() == before
    assert len(list(shelf.folder.glob("*.arrow"))) == 2  # the shard and the index


def test_name_depends_on_rows_order_and_fingerprint(shelf, tmp_path):
    names = {fill(shelf, [1, 2]).name, fill(shelf, [2, 1]).name, fill(shelf, [1]).name}
    names.add(fill(Shelf(tmp_path, "b" * 64), [1, 2]).name)
    assert len(names) == 4


def test_another_process_sees_the_rows(shelf, tmp_path):
    fill(shelf, range(5))
    again = Shelf(tmp_path, PRINT)  # through the cached index
    np.testing.assert_array_equal(again.gather(wanted(4, 0))["n"], [4, 0])


def test_refused_and_failed_rows_are_told_apart_and_features_win(shelf):
    lasting = Refusal(digest(8), "over_length", "5000 tokens", lasting=True)
    failed = Refusal(digest(9), "out_of_memory", "batch of 1", lasting=False)
    fill(shelf, [1], [lasting, failed])
    found = shelf.find(wanted(1, 8, 9, 7))
    assert found.extracted.tolist() == [True, False, False, False]
    assert found.refused.tolist() == [False, True, False, False]
    assert found.failed.tolist() == [False, False, True, False]
    assert shelf.refusals(wanted(1, 8, 9, 7)) == {digest(8): lasting, digest(9): failed}
    fill(shelf, [9])
    assert shelf.find(wanted(9)).extracted.all()
    assert shelf.refusals(wanted(8, 9)) == {digest(8): lasting}


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_shard_is_named_and_its_rows_are_missing(shelf, tmp_path, caplog, keep):
    fill(shelf, [1, 2])
    path = fill(shelf, [3, 4])
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
    with caplog.at_level(logging.WARNING):
        shelf = Shelf(tmp_path, PRINT)
    assert path.name in caplog.text
    assert shelf.find(wanted(1, 2, 3, 4)).extracted.tolist() == [True, True, False, False]
    fill(shelf, [3, 4])
    np.testing.assert_array_equal(shelf.gather(wanted(3))["n"], [3])


def test_a_flipped_bit_is_found_when_the_row_is_read(shelf, tmp_path):
    path = fill(shelf, range(50))
    data = bytearray(path.read_bytes())
    at = data.find(rows([20])["feature"].tobytes())
    data[at] ^= 1
    path.write_bytes(data)
    shelf = Shelf(tmp_path, PRINT)
    with pytest.raises(CorruptShardError, match=path.name) as caught:
        shelf.gather(wanted(1))
    shelf.discard(caught.value.path)
    assert not shelf.find(wanted(1)).extracted.any()


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_a_lost_or_damaged_index_costs_a_scan_only(shelf, tmp_path, damage):
    fill(shelf, range(10))
    index = shelf.folder / "index.arrow"
    index.unlink() if damage is None else index.write_bytes(damage)
    np.testing.assert_array_equal(Shelf(tmp_path, PRINT).gather(wanted(3, 2))["n"], [3, 2])


def test_an_index_that_points_at_other_rows_is_found_out(shelf, tmp_path):
    fill(shelf, range(10))
    index = shelf.folder / "index.arrow"
    data = bytearray(index.read_bytes())
    at = data.find(bytes.fromhex(digest(3)))
    data[at + 31] ^= 1  # the prefix still matches, the digest is one that no shard holds
    index.write_bytes(data)
    foreign = pack([digest(3)]).copy()
    foreign[0, 31] ^= 1
    shelf = Shelf(tmp_path, PRINT)
    with pytest.raises(CorruptShardError, match=r"index\.arrow"):
        shelf.gather(foreign)
    shelf.discard(index)
    assert shelf.find(wanted(3)).extracted.all()


def test_a_shard_of_refusals_only(shelf):
    refusal = Refusal(digest(1), "no_image", "", lasting=True)
    path = shelf.write([], {}, [refusal], keys=[digest(1)])
    shelf.refresh()
    assert shelf.find(wanted(1)).refused.all()
    assert open_shard(path).refusals == (refusal,)


def test_collect_leaves_what_holds_no_shards(shelf, tmp_path):
    """Finished trainings of `scalselect evaluate`, a judge's replies, what is known of models."""
    kept = [tmp_path / name for name in ("runs/a/training.json", "judge/a.parquet", "models/a.json", "weights.json")]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    collect(tmp_path, {PRINT})
    assert all(path.exists() for path in kept)


def test_collect_drops_other_fingerprints_and_half_written_files(shelf, tmp_path):
    fill(shelf, [1])
    fill(Shelf(tmp_path, "b" * 64), [1])
    (shelf.folder / ".x.arrow.123.part").write_bytes(b"12345")
    before = size(tmp_path)
    freed = collect(tmp_path, {PRINT})
    assert not (tmp_path / ("b" * 64)).exists()
    assert not list(tmp_path.rglob("*.part"))
    assert freed == before - size(tmp_path) > 5
    assert collect(tmp_path, {PRINT}) == 0


def test_collect_keeps_only_the_rows_of_living_samples(shelf, tmp_path):
    fill(shelf, [1, 2, 3], [Refusal(digest(7), "over_length", "", lasting=True)])
    untouched = fill(shelf, [4, 5])
    gone = fill(shelf, [6])
    collect(tmp_path, {PRINT}, {digest(number) for number in (2, 4, 5, 7)})
    shelf.refresh()
    assert untouched.exists()
    assert not gone.exists()
    found = shelf.find(wanted(1, 2, 3, 4, 5, 6, 7))
    assert found.extracted.tolist() == [False, True, False, True, True, False, False]
    assert found.refused.tolist() == [False] * 6 + [True]
    np.testing.assert_array_equal(shelf.gather(wanted(5, 2))["n"], [5, 2])


def test_collect_of_no_store_frees_nothing(tmp_path):
    assert collect(tmp_path / "none", set()) == 0


def size(root):
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
