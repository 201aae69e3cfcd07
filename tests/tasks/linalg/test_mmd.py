import numpy as np
import pytest

from tasks.linalg.mmd import gaussian, gaussian_block, greedy_mmd


def naive_greedy(kernel: np.ndarray) -> tuple[list[int], list[float]]:
    picks: list[int] = []
    values: list[float] = []
    for _ in range(len(kernel)):
        trial = {}
        for row in set(range(len(kernel))) - set(picks):
            subset = [*picks, row]
            trial[row] = kernel.mean() + kernel[np.ix_(subset, subset)].mean() - 2 * kernel[:, subset].mean()
        best = min(trial, key=lambda row: trial[row])
        picks.append(best)
        values.append(trial[best])
    return picks, values


@pytest.mark.parametrize("dense_rows", [1, 1000])
def test_greedy_mmd_equals_its_definition(dense_rows: int) -> None:
    points = np.random.default_rng(2).normal(size=(30, 4)).astype(np.float32)
    kernel = gaussian(points, 0.8, dense_rows)
    expected = np.exp(-((points[:, None].astype(np.float64) - points[None]) ** 2).sum(axis=2) / (2 * 0.8**2))
    np.testing.assert_allclose(kernel.means, expected.mean(axis=1), atol=1e-13)
    np.testing.assert_allclose(np.array([kernel.column(j) for j in range(30)]), expected, atol=1e-13)
    order, values = greedy_mmd(kernel)
    picks, naive_values = naive_greedy(expected)
    assert order.tolist() == picks
    np.testing.assert_allclose(values, naive_values, atol=1e-12)
    assert values[-1] == pytest.approx(0, abs=1e-12)


def test_ties_go_to_the_earlier_row() -> None:
    assert greedy_mmd(gaussian(np.array([[0.0, 1.0], [1.0, 0.0]]), 1.0))[0].tolist() == [0, 1]
    assert greedy_mmd(gaussian(np.ones((5, 3)), 1.0))[0].tolist() == [0, 1, 2, 3, 4]


def test_one_row_and_none() -> None:
    order, values = greedy_mmd(gaussian(np.ones((1, 2)), 1.0))
    assert (order.tolist(), values.tolist()) == ([0], [0.0])
    assert len(greedy_mmd(gaussian(np.ones((0, 2)), 1.0))[0]) == 0


def test_kernel_never_exceeds_one() -> None:
    x = 1e4 + np.random.default_rng(0).normal(size=(20, 50))
    block = gaussian_block(x, x, 1.0)
    assert block.max() <= 1
    assert block.min() >= 0
