import hashlib

import numpy as np
import pytest

from tasks.linalg import moments, pieces
from tasks.linalg.matrix import ArrayMatrix
from tasks.linalg.moments import Sums, measure
from tasks.linalg.pieces import Nothing, cut_pieces, measure_pieces
from tasks.linalg.products import HOST, add_triangle, mirror, pack_triangle, unpack_triangle

D = 5


def digests(start, stop):
    return np.array([hashlib.sha256(str(row).encode()).hexdigest() for row in range(start, stop)], dtype="U64")


def rows_of(names):
    """Features that are a function of the digest, with a large mean in one column."""
    seeds = np.array([[int(name[at : at + 4], 16) for at in range(0, 4 * D, 4)] for name in names], dtype=np.float32)
    return seeds.reshape(len(names), D) / 65536 + np.array([300, 0, 0, 0, 1], dtype=np.float32)


class Reader:
    """The rows, and how many of them were read."""

    def __init__(self, rows):
        self.rows, self.read = rows, 0

    def __call__(self, spans):
        for start, stop in spans:
            self.read += stop - start
            yield self.rows[start:stop].copy()


class Memory:
    """A Keep in memory."""

    def __init__(self):
        self.held: dict[str, Sums] = {}

    def has(self, key):
        return key in self.held

    def get(self, key):
        return self.held.get(key)

    def put(self, key, sums):
        self.held[key] = sums

    def retain(self, keys):
        self.held = {key: self.held[key] for key in keys}


def measured(names, keep):
    reader = Reader(rows_of(names))
    return measure_pieces(reader, (len(names), D), names, keep), reader.read


def same(one, other):
    assert one.count == other.count
    assert one.precision == other.precision
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.scatter, other.scatter)


@pytest.fixture(params=["float64", "float32"])
def small(request, monkeypatch):
    """Leaves of 16 to 64 rows and products in one precision; digests decide as they would in millions."""
    monkeypatch.setattr(pieces, "LEAF_ROWS", (16, 64))
    monkeypatch.setattr(pieces, "PIECE_LEAVES", 4)
    monkeypatch.setattr(moments, "EXACT_PRODUCTS", 0 if request.param == "float32" else 1 << 60)


def test_every_row_is_in_one_leaf_and_leaves_are_of_the_sizes_promised():
    names = digests(0, 60_000)
    cut = cut_pieces(names)
    spans = [leaf.span for piece in cut for leaf in piece.leaves]
    assert [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])]
    assert spans[-1][1] == len(names)
    sizes = [stop - start for start, stop in spans]
    assert min(sizes[:-1]) >= 2048
    assert max(sizes) <= 8192
    assert 2500 < np.mean(sizes) < 6000
    assert [piece.closed for piece in cut[:-1]] == [True] * (len(cut) - 1)
    assert len({key for piece in cut for key in piece.keys}) == sum(len(piece.keys) for piece in cut)


def test_rows_of_equal_content_do_not_make_a_leaf_each():
    ends = np.array(["0" * 64] * 10_000)
    assert [leaf.span for piece in cut_pieces(ends) for leaf in piece.leaves] == [
        (0, 2048), (2048, 4096), (4096, 6144), (6144, 8192), (8192, 10_000),
    ]  # fmt: skip


@pytest.mark.usefixtures("small")
def test_moments_are_those_of_all_rows_together():
    names = digests(0, 1000)
    found, read = measured(names, Nothing())
    assert read == 1000
    rows = rows_of(names).astype(np.float64)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.scatter, measure(ArrayMatrix(rows)).scatter, rtol=2e-5, atol=2e-3)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("later", "most"),
    [
        pytest.param(np.arange(1000), 0, id="nothing new"),
        pytest.param(np.arange(1020), 84, id="2 % appended"),
        pytest.param(np.r_[0:500, 1000:1010, 500:1000], 4 * 64 * 3, id="some inserted"),
        pytest.param(np.delete(np.arange(1000), [300]), 4 * 64 * 3, id="one removed"),
        pytest.param(np.arange(100), 4 * 64, id="most removed"),
    ],
)
def test_a_refresh_reads_what_is_new_and_gives_the_bits_of_a_fresh_run(later, most):
    every = digests(0, 1100)
    keep = Memory()
    measured(every[:1000], keep)
    refreshed, read = measured(every[later], keep)
    fresh, all_rows = measured(every[later], Nothing())
    same(refreshed, fresh)
    assert read <= most < all_rows or len(later) == 100
    assert sorted(keep.held) == sorted(key for one in cut_pieces(every[later], _scope()) for key in one.keys)


def _scope():
    return f"{D} {moments.product_dtype((1000, D), np.dtype(np.float32))}"


@pytest.mark.usefixtures("small")
def test_a_series_of_small_refreshes_reads_little_and_changes_nothing():
    every = digests(0, 1500)
    keep = Memory()
    measured(every[:1000], keep)
    total = 0
    for n in range(1010, 1501, 10):
        found, read = measured(every[:n], keep)
        total += read
    same(found, measured(every, Nothing())[0])
    assert total < 10 * 500


@pytest.mark.usefixtures("small")
def test_what_was_kept_and_is_spoilt_is_measured_again():
    class Spoilt(Memory):
        def get(self, key):
            return None

    keep = Spoilt()
    first, _ = measured(digests(0, 700), keep)
    again, read = measured(digests(0, 700), keep)
    same(first, again)
    assert read == 700


@pytest.mark.usefixtures("small")
def test_sums_that_another_process_keeps_meanwhile_do_not_shift_the_rows():
    class Late(Memory):
        def has(self, key):
            return False

    keep = Late()
    first, _ = measured(digests(0, 700), keep)
    same(first, measured(digests(0, 700), keep)[0])


def test_no_rows():
    with pytest.raises(ValueError, match="no moments"):
        measure_pieces(Reader(np.empty((0, D))), (0, D), np.empty(0, "U64"), Nothing())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [0, 1, 7, 300])
def test_triangles(dtype, d):
    rows = np.random.default_rng(0).normal(size=(9, d)).astype(dtype)
    gram = HOST.gram(rows) if d else np.zeros((0, 0), dtype)
    assert gram.dtype == dtype
    packed = pack_triangle(gram)
    total = np.zeros((d, d))
    add_triangle(total, unpack_triangle(packed, d))
    mirror(total)
    np.testing.assert_allclose(total, rows.T @ rows, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no triangle"):
        unpack_triangle(packed, d + 1)
    assert HOST.gram(rows[:0]).shape == (d, d)
