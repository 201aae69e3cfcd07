import numpy as np
import pytest

from tasks.errors import FeatureError
from tasks.linalg.finite import FiniteMatrix
from tasks.linalg.grouping import gathered, members
from tasks.linalg.matrix import ArrayMatrix, ColumnSlice, RowSlice, load, rebatched
from tasks.linalg.rescaled import Rescaled, centred, column_mean, column_spread, unit_rows


@pytest.mark.parametrize("rows", [1, 3, 7, 50])
@pytest.mark.parametrize("cut", [1, 4, 100])
def test_rebatched_gives_the_same_rows_however_they_are_cut(rows: int, cut: int) -> None:
    data = np.arange(44, dtype=np.float32).reshape(22, 2)
    blocks = [(start, block.copy()) for start, block in rebatched(ArrayMatrix(data, cut), rows)]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), data)
    assert [start for start, _ in blocks] == list(range(0, 22, rows))
    assert all(len(block) == rows for _, block in blocks[:-1])


def test_precision_of_the_source_is_kept() -> None:
    for given, expected in ((np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)):
        matrix = ArrayMatrix(np.ones((3, 2), dtype=given))
        assert load(matrix).dtype == matrix.take(np.array([0])).dtype == expected


def test_a_vector_is_not_a_matrix() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        ArrayMatrix(np.zeros(3))


def test_column_slice() -> None:
    data = np.arange(24, dtype=np.float32).reshape(4, 6)
    half = ColumnSlice(ArrayMatrix(data), np.array([1, 4]))
    assert half.shape == (4, 2)
    np.testing.assert_array_equal(load(half), data[:, [1, 4]])
    np.testing.assert_array_equal(half.take(np.array([3, 0])), data[[3, 0]][:, [1, 4]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_is_named(value: float) -> None:
    data = np.zeros((9, 3), dtype=np.float32)
    data[5, 2] = value
    matrix = FiniteMatrix(ArrayMatrix(data, 2), "pooled", np.array([f"d{row}" for row in range(9)]))
    with pytest.raises(FeatureError, match=r"`pooled`: row 5 \(digest d5\), column 2 is -?(nan|inf)"):
        load(matrix)
    with pytest.raises(FeatureError, match=r"row 5 \(digest d5\), column 2"):
        matrix.take(np.array([8, 5]))
    np.testing.assert_array_equal(matrix.take(np.array([8, 4])), np.zeros((2, 3)))


def test_large_but_finite_numbers_pass() -> None:
    data = np.full((4, 3), 3e38, dtype=np.float32)
    np.testing.assert_array_equal(load(FiniteMatrix(ArrayMatrix(data), "pooled")), data)


@pytest.mark.parametrize("cells", [1, 12, 10_000])
def test_gathered_equals_indexing(cells: int) -> None:
    rng = np.random.default_rng(0)
    data, labels = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 6, 40)
    order = rng.permutation(40)
    groups = members(labels, order, 7)
    assert [set(rows) for rows in groups] == [set(np.flatnonzero(labels == label)) for label in range(7)]
    seen = {number: rows.copy() for number, rows in gathered(ArrayMatrix(data, 7), groups, cells)}
    assert list(seen) == list(range(7))
    for number, rows in seen.items():
        np.testing.assert_array_equal(rows, data[groups[number]])


def test_members_stand_in_the_order_given() -> None:
    groups = members(np.array([1, 0, 1, 0]), np.array([3, 2, 1, 0]), 2)
    assert [rows.tolist() for rows in groups] == [[3, 1], [2, 0]]


def test_rescaled_equals_the_formula() -> None:
    data = np.random.default_rng(1).normal(3, 2, size=(20, 4))
    mean, spread = column_mean(ArrayMatrix(data)), column_spread(ArrayMatrix(data), data.mean(axis=0))
    np.testing.assert_allclose(mean, data.mean(axis=0))
    np.testing.assert_allclose(spread, data.std(axis=0))
    expected = (data - mean) / spread
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(load(Rescaled(ArrayMatrix(data, 6), mean, spread, unit=True)), expected)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e8 + 0.1])
def test_equal_rows_have_no_direction_left(value: float) -> None:
    matrix = ArrayMatrix(np.full((33, 3), value))
    mean = column_mean(matrix)
    assert not load(Rescaled(matrix, mean, column_spread(matrix, mean), unit=True)).any()


def test_zero_rows_stay_zero() -> None:
    np.testing.assert_array_equal(unit_rows(np.array([[0.0, 0.0], [3.0, 4.0]])), [[0, 0], [0.6, 0.8]])
    np.testing.assert_array_equal(centred(np.ones((1, 2)), np.array([1.0, 0.5])), [[0, 0.5]])


def test_row_slice_is_the_rows_in_the_order_given() -> None:
    data = np.arange(40, dtype=np.float32).reshape(10, 4)
    some = RowSlice(ArrayMatrix(data, 3), np.array([7, 0, 7, 2]))
    assert some.shape == (4, 4)
    np.testing.assert_array_equal(load(some), data[[7, 0, 7, 2]])
    np.testing.assert_array_equal(some.take(np.array([3, 0])), data[[2, 7]])
    assert load(RowSlice(ArrayMatrix(data), np.array([], dtype=np.int64))).shape == (0, 4)
