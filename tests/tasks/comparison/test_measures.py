"""Each measure against its definition, spelt out pair by pair; exact small cases; empty, one row, the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from tasks.comparison.measures import (
    ENERGY,
    captured,
    clusters_hit,
    jaccard,
    near_duplicates,
    overlap,
    radius,
    survey,
    total_variation,
)
from tasks.linalg.matrix import ArrayMatrix


def digests(n):
    return np.array([f"{row:064x}" for row in range(n)])


def space_of(x, **options):
    given = {"clusters": None, "sample": 10**6, **options}
    return survey(ArrayMatrix(np.asarray(x), 37), digests(len(x)), **given)


def rows(*numbers):
    return np.array(numbers, dtype=np.int64)


def cloud(n=120, d=9, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * np.geomspace(4, 0.2, d) + 7
    x[5] = x[80]
    return x.astype(np.float32)


def naive_captured(x, picks):
    x = x.astype(np.float64)
    away = x - x.mean(axis=0)
    values = np.linalg.svd(away, compute_uv=False) ** 2
    rank = int(np.searchsorted(np.cumsum(values) / values.sum(), ENERGY)) + 1
    _, own, directions = np.linalg.svd(away[picks], full_matrices=False)
    basis = directions[: min(rank, int((own > 1e-9).sum()))]
    return np.square(away @ basis.T).sum() / np.square(away).sum()


def naive_radius(x, picks):
    x = x.astype(np.float64)
    near = [min(np.linalg.norm(row - x[pick]) for pick in picks) for row in x]
    unit = np.sqrt(np.mean(np.square(x - x.mean(axis=0)).sum(axis=1)))
    return max(near) / unit, np.mean(near) / unit


def naive_duplicates(x, picks, threshold):
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    close = [any(unit[one] @ unit[other] > threshold for other in picks if other != one) for one in picks]
    return np.mean(close)


SUBSETS = [rows(3), rows(80, 5), rows(*range(0, 120, 7)), rows(*range(119, -1, -1)), rows(*range(40))]


@pytest.mark.parametrize("picks", SUBSETS, ids=len)
@pytest.mark.parametrize("d", [9, 200])
def test_measures_are_their_definitions(picks, d):
    x = cloud(d=d)
    space = space_of(x)
    assert captured(space, picks) == pytest.approx(naive_captured(x, picks), rel=1e-9)
    assert radius(space, picks) == pytest.approx(naive_radius(x, picks), rel=1e-9, abs=1e-12)
    assert clusters_hit(space, picks) == len({space.labels[row] for row in picks}) / len(set(space.labels.tolist()))
    for threshold in (0.9, 0.99, 0.9999):
        wanted = naive_duplicates(x, picks, threshold) if len(picks) > 1 else 0.0
        assert near_duplicates(space, picks, threshold) == wanted


def test_on_a_cross_every_number_is_known():
    """Four rows on two axes: nine parts of the energy lie along the first, one along the second."""
    x = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    space = space_of(x)
    assert (space.rank, space.held) == (1, pytest.approx(0.9))
    assert space.spread == pytest.approx(np.sqrt(5))
    assert captured(space, rows(0)) == pytest.approx(0.9)
    assert captured(space, rows(3)) == pytest.approx(0.1)
    assert captured(space, rows(0, 3)) == pytest.approx(0.9)
    largest, mean = radius(space, rows(0))
    assert largest == pytest.approx(6 / np.sqrt(5))
    assert mean == pytest.approx((6 + 2 * np.sqrt(10)) / 4 / np.sqrt(5))
    assert near_duplicates(space, rows(0, 1), 0.9) == 0.0
    assert radius(space, rows(0, 1, 2, 3)) == (0.0, 0.0)


def test_nothing_selected():
    space = space_of(cloud())
    none = rows()
    assert captured(space, none) == clusters_hit(space, none) == near_duplicates(space, none, 0.9) == 0.0
    assert np.isnan(radius(space, none)).all()


def test_everything_selected():
    space = space_of(cloud())
    every = np.arange(120)
    assert captured(space, every) == pytest.approx(space.held)
    assert space.held >= ENERGY
    assert radius(space, every) == (0.0, 0.0)
    assert clusters_hit(space, every) == 1.0


def test_no_subset_captures_more_than_the_whole_can_hold():
    space = space_of(cloud())
    rng = np.random.default_rng(1)
    for size in (1, 2, 5, 30, 119):
        assert captured(space, rng.choice(120, size, replace=False)) <= space.held + 1e-12


@pytest.mark.parametrize("n", [1, 6])
def test_equal_rows(n):
    space = space_of(np.full((n, 4), 0.1))
    assert (space.rank, space.held, space.clusters) == (0, 1.0, 1)
    assert captured(space, rows(0)) == 1.0
    assert radius(space, rows(0)) == (0.0, 0.0)
    assert near_duplicates(space, np.arange(n), 0.9) == float(n > 1)


def test_zero_rows_are_like_nothing():
    space = space_of(np.array([[0.0, 0], [0, 0], [1, 0], [1, 0.001]]))
    assert near_duplicates(space, rows(0, 1), 0.5) == 0.0
    assert near_duplicates(space, rows(0, 1, 2, 3), 0.5) == 0.5


def test_a_sample_measures_at_rows_drawn_by_content():
    x = cloud()
    few, every = space_of(x, sample=20), space_of(x)
    assert few.queries.shape == (20, 9)
    picks = rows(*range(40))
    assert radius(few, picks)[0] <= radius(every, picks)[0]
    assert 0 <= near_duplicates(few, picks, 0.99) <= 1
    shuffle = np.random.default_rng(2).permutation(len(x))
    moved = survey(ArrayMatrix(x[shuffle]), digests(len(x))[shuffle], None, 20)
    place = np.argsort(shuffle)
    assert radius(moved, place[picks]) == pytest.approx(radius(few, picks), rel=1e-12)
    assert near_duplicates(moved, place[picks], 0.99) == near_duplicates(few, picks, 0.99)


def test_the_order_of_the_picks_does_not_matter():
    space = space_of(cloud())
    picks = rows(*range(0, 120, 7))
    for measure in (captured, radius, clusters_hit):
        assert measure(space, picks) == measure(space, picks[::-1].copy())


def test_one_thread_and_two_agree_in_what_is_written():
    x = cloud(700, 64)
    picks = np.arange(0, 700, 3)

    def figures():
        space = space_of(x)
        return [f"{one:.6g}" for one in (captured(space, picks), *radius(space, picks), clusters_hit(space, picks))]

    with threadpool_limits(1):
        one = figures()
    with threadpool_limits(2):
        assert figures() == one


def test_jaccard_by_hand():
    assert jaccard(rows(1, 2, 3), rows(3, 4)) == 0.25
    assert jaccard(rows(1), rows(1)) == jaccard(rows(), rows()) == 1.0
    assert jaccard(rows(1), rows()) == 0.0


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_jaccard_is_that_of_sets(one, other):
    wanted = len(one & other) / len(one | other) if one | other else 1.0
    assert jaccard(rows(*one), rows(*other)) == jaccard(rows(*other), rows(*one)) == wanted


def test_overlap_is_a_mean_over_pairs_of_different_seeds():
    lone, drawn, other = [rows(0, 1)], [rows(0, 1), rows(1, 2)], [rows(2, 3), rows(0, 1)]
    found = overlap([lone, drawn, other])
    np.testing.assert_allclose(found[0], [1, (1 + 1 / 3) / 2, (0 + 1) / 2])
    np.testing.assert_allclose(found[1, 1], 1 / 3)
    # Seed 0 against seed 1, and 1 against 0: {0,1} with {0,1}, {1,2} with {2,3}.
    np.testing.assert_allclose(found[1, 2], (1 + 1 / 3) / 2)
    np.testing.assert_array_equal(found, found.T)


def test_total_variation_by_hand():
    assert total_variation(np.array([0.5, 0.5, 0]), np.array([0, 0.5, 0.5])) == 0.5
    assert total_variation(np.array([1.0, 0]), np.array([0, 1.0])) == 1.0
