import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.linalg import leverage as under_test
from tasks.linalg import moments
from tasks.linalg.matrix import ArrayMatrix
from tasks.linalg.moments import Sums, combine, measure, sum_rows
from tasks.linalg.residual import greedy_residual
from tasks.linalg.rounding import settle
from tasks.linalg.spectrum import Spectrum, from_moments, from_rows


def naive_leverage(data: np.ndarray, rank: int, ridge: float = 0.0) -> np.ndarray:
    left, values, _ = np.linalg.svd(data - data.mean(axis=0), full_matrices=False)
    return (left[:, :rank] ** 2 * (values[:rank] ** 2 / (values[:rank] ** 2 + ridge))).sum(axis=1)


def correlated(n: int, d: int, seed: int = 0, mean: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) * np.geomspace(5, 0.05, d)) @ rng.normal(size=(d, d)) + mean


@pytest.mark.parametrize("route", ["moments", "rows"])
@pytest.mark.parametrize("ridge", [0.0, 10.0])
def test_leverage_equals_the_svd(route: str, ridge: float) -> None:
    data = correlated(60, 10)
    matrix = ArrayMatrix(data, 17)
    spectrum = from_rows(matrix) if route == "rows" else from_moments(measure(matrix))
    for rank in (0, 1, 4, 10):
        np.testing.assert_allclose(
            under_test.leverage(matrix, spectrum, rank, ridge), naive_leverage(data, rank, ridge), atol=1e-10
        )


def test_ridge_is_the_hat_matrix() -> None:
    data = correlated(40, 6)
    centred = data - data.mean(axis=0)
    hat = centred @ np.linalg.inv(centred.T @ centred + 3 * np.eye(6)) @ centred.T
    matrix = ArrayMatrix(data)
    scores = under_test.leverage(matrix, from_moments(measure(matrix)), 6, 3.0)
    np.testing.assert_allclose(scores, np.diag(hat), atol=1e-12)


def test_float32_products_stay_close_under_a_large_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "EXACT_PRODUCTS", 0)
    data = correlated(3000, 24)
    data[:, :2] += 1e3 * np.abs(data).max()
    single = data.astype(np.float32)
    matrix = ArrayMatrix(single, 700)
    found = measure(matrix)
    assert found.precision > 1e-8
    spectrum = from_moments(found)
    rank = spectrum.rank_for(0.9)
    expected = naive_leverage(single.astype(np.float64), rank)
    np.testing.assert_allclose(under_test.leverage(matrix, spectrum, rank), expected, rtol=1e-4, atol=1e-8)
    without_shift = single.T @ single - len(single) * np.outer(single.mean(axis=0), single.mean(axis=0))
    exact = (single - single.mean(axis=0, dtype=np.float64)).T @ (single - single.mean(axis=0, dtype=np.float64))
    assert np.abs(found.scatter - exact).max() < 1e-3 * np.abs(without_shift - exact).max()


def test_rank_is_the_smallest_that_reaches_the_energy() -> None:
    spectrum = Spectrum(np.zeros(3), np.array([9.0, 0.6, 0.4]), np.eye(3))
    ranks = [spectrum.rank_for(energy) for energy in (0.5, 0.9, 0.900001, 0.96, 0.97, 1.0)]
    assert ranks == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1 / 3])
@pytest.mark.parametrize("n", [1, 3, 50])
def test_equal_rows_have_no_rank(value: float, n: int) -> None:
    for dtype in (np.float32, np.float64):
        matrix = ArrayMatrix(np.full((n, 5), value, dtype=dtype))
        for spectrum in (from_moments(measure(matrix)), from_rows(matrix)):
            assert spectrum.numerical_rank == spectrum.rank_for(0.9) == 0
            np.testing.assert_array_equal(under_test.leverage(matrix, spectrum, 0), np.zeros(n))


def test_equal_rows_have_no_rank_in_float32_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "EXACT_PRODUCTS", 0)
    row = np.random.default_rng(0).normal(100, 50, size=8).astype(np.float32)
    assert from_moments(measure(ArrayMatrix(np.tile(row, (3000, 1))))).numerical_rank == 0


def test_numerical_rank_sees_through_rounding() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(80, 4)) @ rng.normal(size=(4, 30)) + 50
    for spectrum in (from_moments(measure(ArrayMatrix(data))), from_rows(ArrayMatrix(data))):
        assert spectrum.numerical_rank == 4


def test_the_cut_into_blocks_changes_nothing() -> None:
    data = correlated(100, 7).astype(np.float32)
    whole, cut = (measure(ArrayMatrix(data, rows)) for rows in (100, 9))
    np.testing.assert_array_equal(whole.scatter, cut.scatter)
    np.testing.assert_array_equal(whole.mean, cut.mean)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_moments_add_up(sizes: list[int], seed: int) -> None:
    data = np.random.default_rng(seed).normal(5, 3, size=(sum(sizes), 3))
    parts = np.split(data, np.cumsum(sizes)[:-1])
    together = combine(sum_rows(part.copy(), part[:1].sum(axis=0)) for part in parts)
    whole = measure(ArrayMatrix(data))
    assert together.count == whole.count
    np.testing.assert_allclose(together.scatter, whole.scatter, atol=1e-9)
    if len(data):
        np.testing.assert_allclose(together.mean, whole.mean, atol=1e-12)
        np.testing.assert_allclose(whole.scatter, (data - data.mean(0)).T @ (data - data.mean(0)), atol=1e-9)


def test_nothing_cannot_be_combined() -> None:
    with pytest.raises(ValueError, match="no moments"):
        combine([])


def test_combining_keeps_the_worse_precision() -> None:
    one, other = (Sums(1, np.zeros(1), np.zeros(1), np.zeros((1, 1)), precision) for precision in (1e-16, 1e-7))
    assert combine([one, other]).precision == 1e-7


def naive_residual(z: np.ndarray, budget: int) -> list[int]:
    mean = (z**2).sum() / len(z)
    picks: list[int] = []
    for _ in range(budget):
        inverse = np.linalg.inv(np.eye(z.shape[1]) + z[picks].T @ z[picks] / mean)
        residual = np.einsum("ij,jk,ik->i", z, inverse, z)
        residual[picks] = -1
        picks.append(int(residual.argmax()))
    return picks


@pytest.mark.parametrize("k", [1, 3, 12])
def test_greedy_residual_equals_its_definition(k: int) -> None:
    z = np.random.default_rng(k).normal(size=(150, k)).astype(np.float32)
    got = greedy_residual(z, 150, np.arange(150))
    np.testing.assert_array_equal(got, naive_residual(z.astype(np.float64), 150))
    np.testing.assert_array_equal(greedy_residual(z, 31, np.arange(150)), got[:31])


def test_greedy_residual_spreads_over_copies() -> None:
    z = np.repeat(np.eye(4, dtype=np.float32) * [[4], [3], [2], [1]], 5, axis=0)
    picks = greedy_residual(z, 4, np.arange(20))
    assert len(set(picks // 5)) > 1
    assert picks[0] == 0
    assert sorted(greedy_residual(z, 20, np.arange(20)).tolist()) == list(range(20))


def test_without_coordinates_the_ties_decide() -> None:
    assert greedy_residual(np.zeros((3, 0), np.float32), 2, np.array([2, 0, 1])).tolist() == [1, 2]
    assert greedy_residual(np.zeros((3, 4), np.float32), 3, np.array([2, 0, 1])).tolist() == [1, 2, 0]


def test_settle_joins_what_rounding_parted() -> None:
    values = np.array([1 / 3, np.nextafter(1 / 3, 1), -1e-300, 0.0, 1 / 3 + 1e-10])
    settled = settle(values)
    assert settled[0] == settled[1] != settled[4]
    np.testing.assert_allclose(settled, values, rtol=1e-12)
    np.testing.assert_array_equal(settle(settled), settled)
