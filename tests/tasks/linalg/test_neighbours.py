"""Exact neighbours against the definition: every pair, in float64."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from tasks.linalg.matrix import ArrayMatrix
from tasks.linalg.neighbours import cosines, nearest, nearest_to


def naive(x, k, metric="euclidean", ranks=None):
    x = np.asarray(x, dtype=np.float32).astype(np.float64)
    n = len(x)
    ranks = np.arange(n) if ranks is None else ranks
    rows, distances = [], []
    for i in range(n):
        if metric == "euclidean":
            squares = np.square(x[i] - x).sum(axis=1)
        else:
            squares = 1 - cosines(np.repeat(x[i : i + 1], n, axis=0), x)
        squares[i] = np.inf
        order = np.lexsort((ranks, squares))[: min(k, n - 1)]
        rows.append(order)
        distances.append(np.sqrt(squares[order]) if metric == "euclidean" else squares[order])
    return np.array(rows).reshape(n, -1), np.array(distances).reshape(n, -1)


def points(kind, n=150, d=12):
    rng = np.random.default_rng(7)
    x = rng.normal(size=(n, d))
    if kind == "duplicates":
        x[40:90] = x[3]
    if kind == "large_mean":
        x += 1e4
    if kind == "outlier":
        x[5] *= 1e8
    if kind == "constant":
        x[:] = 2.5
    if kind == "grid":
        x = rng.integers(0, 2, size=(n, d)).astype(float)
    return x.astype(np.float32)


KINDS = ["normal", "duplicates", "large_mean", "outlier", "constant", "grid"]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block_rows", [7, 64, 1000])
def test_equals_the_definition(kind, metric, block_rows):
    x = points(kind)
    rows, distances = naive(x, 5, metric)
    found = nearest(ArrayMatrix(x, block_rows), 5, metric)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.distances, distances)


@pytest.mark.parametrize(("n", "k"), [(1, 3), (2, 3), (3, 0), (4, 3), (4, 99)])
def test_few_rows(n, k):
    x = points("normal", n)
    rows, distances = naive(x, k)
    found = nearest(ArrayMatrix(x), k)
    assert found.rows.shape == found.distances.shape == (n, min(k, n - 1))
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.distances, distances)


def test_no_rows():
    assert nearest(ArrayMatrix(np.zeros((0, 4), dtype=np.float32)), 3).rows.shape == (0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_with_ranks_the_order_of_rows_does_not_matter(kind):
    x = points(kind)
    ranks = np.random.default_rng(1).permutation(len(x))
    first = nearest(ArrayMatrix(x, 16), 6, ranks=ranks)
    shuffle = np.random.default_rng(2).permutation(len(x))
    second = nearest(ArrayMatrix(x[shuffle], 16), 6, ranks=ranks[shuffle])
    np.testing.assert_array_equal(shuffle[second.rows], first.rows[shuffle])
    np.testing.assert_array_equal(second.distances, first.distances[shuffle])


def test_one_thread_and_two_agree():
    x = points("large_mean", 900, 40)
    with threadpool_limits(1):
        one = nearest(ArrayMatrix(x), 5)
    with threadpool_limits(2):
        two = nearest(ArrayMatrix(x), 5)
    np.testing.assert_array_equal(one.rows, two.rows)
    np.testing.assert_array_equal(one.distances, two.distances)


def test_agrees_with_scikit_learn_where_nothing_is_close():
    x = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    theirs = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(x.astype(np.float64)).kneighbors()
    found = nearest(ArrayMatrix(x), 5)
    np.testing.assert_array_equal(found.rows, theirs[1])
    np.testing.assert_allclose(found.distances, theirs[0], rtol=1e-9)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 3, 200])
def test_nearest_to_rows_from_elsewhere(metric, k):
    rng = np.random.default_rng(3)
    x = rng.normal(5, 1, size=(60, 7)).astype(np.float32)
    asked = np.concatenate([x[[4, 4, 59]], rng.normal(5, 1, size=(9, 7)).astype(np.float32), np.zeros((1, 7), "f4")])
    found = nearest_to(ArrayMatrix(asked, 5), ArrayMatrix(x, 16), k, metric)
    wide, own = asked.astype(np.float64), x.astype(np.float64)
    if metric == "euclidean":
        every = np.linalg.norm(wide[:, None] - own, axis=2)
    else:
        every = np.array([1 - cosines(np.repeat(row[None], len(own), axis=0), own) for row in wide])
    order = np.argsort(every, axis=1, kind="stable")[:, : min(k, 60)]
    np.testing.assert_array_equal(found.rows, order)
    np.testing.assert_allclose(found.distances, np.take_along_axis(every, order, axis=1), rtol=1e-12, atol=1e-15)
    assert found.rows[:3, 0].tolist() == [4, 4, 59]


def test_nearest_to_nothing():
    rows, none = ArrayMatrix(np.ones((4, 2), np.float32)), ArrayMatrix(np.ones((0, 2), np.float32))
    assert nearest_to(rows, none, 3).rows.shape == (4, 0)
    assert nearest_to(none, rows, 3).rows.shape == (0, 3)
