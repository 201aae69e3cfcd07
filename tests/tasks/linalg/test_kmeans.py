import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tasks.linalg.kmeans import assign, initial_rows, label_sums, nearest, spherical_kmeans
from tasks.linalg.matrix import ArrayMatrix
from tasks.linalg.rescaled import unit_rows


def naive_kmeans(data: np.ndarray, initial: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    unit = data / np.linalg.norm(data, axis=1, keepdims=True)
    centroids = unit[initial]
    for _ in range(iterations):
        labels = (unit @ centroids.T).argmax(axis=1)
        centroids = np.array([unit[labels == k].sum(axis=0) for k in range(len(centroids))])
        centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    return (unit @ centroids.T).argmax(axis=1), centroids


def blobs(n: int, d: int, k: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(k, d))[rng.integers(0, k, n)] + 0.3 * rng.normal(size=(n, d))).astype(np.float32)


@pytest.mark.parametrize("iterations", [0, 1, 5])
def test_equals_lloyds_algorithm(iterations: int) -> None:
    data = blobs(300, 8, 6)
    initial = np.arange(0, 60, 10)
    found = spherical_kmeans(ArrayMatrix(data, 77), initial, iterations)
    labels, centroids = naive_kmeans(data.astype(np.float64), initial, iterations)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.centroids, centroids, atol=1e-6)


def test_stops_when_nothing_moves() -> None:
    data = blobs(200, 5, 3)
    found = spherical_kmeans(ArrayMatrix(data), np.array([0, 1, 2]), 1000)
    assert found.iterations < 100
    again = spherical_kmeans(ArrayMatrix(data), np.array([0, 1, 2]), found.iterations + 7)
    np.testing.assert_array_equal(found.labels, again.labels)


def test_the_same_bits_on_any_number_of_threads_and_blocks() -> None:
    data = blobs(4000, 64, 40)
    initial = np.arange(40)
    results = []
    for threads, rows in ((1, 4000), (2, 4000), (2, 333)):
        with threadpool_limits(threads):
            results.append(spherical_kmeans(ArrayMatrix(data, rows), initial, 8))
    for other in results[1:]:
        np.testing.assert_array_equal(other.labels, results[0].labels)
        np.testing.assert_array_equal(other.centroids, results[0].centroids)


def test_near_ties_are_settled_in_float64() -> None:
    rng = np.random.default_rng(0)
    base = unit_rows(rng.normal(size=(1, 400)))
    centroids = unit_rows(base + 1e-6 * rng.normal(size=(30, 400))).astype(np.float32)
    rows = unit_rows(base + 1e-3 * rng.normal(size=(500, 400))).astype(np.float32)
    exact = (rows.astype(np.float64) @ centroids.astype(np.float64).T).argmax(axis=1)
    single = (rows @ centroids.T).argmax(axis=1)
    assert (single != exact).any()
    np.testing.assert_array_equal(nearest(rows, centroids), exact)


def test_equal_rows_make_one_cluster() -> None:
    found = spherical_kmeans(ArrayMatrix(np.ones((10, 3), np.float32)), np.arange(10), 5)
    assert found.labels.tolist() == [0] * 10
    assert found.centroids.shape == (1, 3)


def test_no_cluster_is_empty() -> None:
    data = np.repeat(blobs(6, 4, 6), [1, 1, 1, 1, 20, 20], axis=0)
    found = spherical_kmeans(ArrayMatrix(data), np.arange(len(data)), 10)
    assert np.bincount(found.labels).min() > 0
    assert len(found.centroids) == found.labels.max() + 1 == 6


def test_zero_rows_and_no_rows() -> None:
    assert spherical_kmeans(ArrayMatrix(np.zeros((4, 3), np.float32)), np.array([0, 1]), 3).labels.tolist() == [0] * 4
    assert spherical_kmeans(ArrayMatrix(np.zeros((0, 3), np.float32)), np.zeros(0, np.int64), 3).labels.tolist() == []


def test_sums() -> None:
    data, labels = blobs(50, 3, 2), np.random.default_rng(1).integers(0, 4, 50)
    expected = np.array([data[labels == k].astype(np.float64).sum(axis=0) for k in range(5)])
    np.testing.assert_allclose(label_sums(ArrayMatrix(data, 8), labels, 5), expected)
    unit = ArrayMatrix(unit_rows(data))
    found, sums = assign(unit, unit.take(np.array([0, 1])))
    np.testing.assert_allclose(sums, label_sums(unit, found, 2))


def test_initial_rows_follow_content() -> None:
    digests = np.array([f"{row:04d}" for row in range(200)])
    order = np.random.default_rng(0).permutation(200)
    here, there = initial_rows(digests, 9, 5), initial_rows(digests[order], 9, 5)
    np.testing.assert_array_equal(digests[here], digests[order][there])
    assert len(set(here)) == 9
    assert len(initial_rows(digests, 1000, 5)) == 200
    assert len(initial_rows(digests, None, 5)) == 3
    assert set(initial_rows(digests, 9, 6)) != set(here)
