import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.linalg.apportion import carry, largest_remainder, round_in_turn, round_up
from tasks.linalg.sampling import draws, weighted_keys

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=8)


@given(SIZES, st.data())
def test_largest_remainder_is_exact_and_proportional(sizes: list[int], data: st.DataObject) -> None:
    room = np.array(sizes, dtype=np.int64)
    budget = data.draw(st.integers(0, int(room.sum())))
    quotas = largest_remainder(room, budget)
    assert quotas.sum() == budget
    assert (quotas <= room).all()
    assert (np.abs(quotas - room * budget / room.sum()) < 1).all()


def test_equal_remainders_favour_the_earlier() -> None:
    assert largest_remainder(np.array([2, 2, 2]), 4).tolist() == [2, 1, 1]
    assert largest_remainder(np.zeros(0, dtype=np.int64), 0).tolist() == []


@given(SIZES, st.data())
def test_carry_always_meets_the_budget(sizes: list[int], data: st.DataObject) -> None:
    room = np.sort(np.array(sizes, dtype=np.int64))
    budget = data.draw(st.integers(0, int(room.sum())))
    weights = data.draw(st.lists(st.floats(0, 1), min_size=len(room), max_size=len(room)))
    shares = -np.sort(-np.array(weights))
    shares = shares / shares.sum() if shares.sum() > 0 else shares
    for taken in (round_in_turn(shares, room, budget)[0], round_up(shares, room, budget)):
        quotas = carry(shares, room, taken, budget)
        assert quotas.sum() == budget
        assert (quotas >= 0).all()
        assert (quotas <= room).all()


def test_rounding_is_half_to_even() -> None:
    taken, wanted = round_in_turn(np.array([0.5, 0.5]), np.array([9, 9]), 5)
    assert taken.tolist() == wanted.tolist() == [2, 3]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="room for 3"):
        carry(np.array([1.0]), np.array([3]), np.array([3]), 4)


def test_draws_belong_to_content() -> None:
    digests = np.array(["b", "a", "b", "c"])
    one = draws(digests, np.random.default_rng(0))
    two = draws(np.array(["c", "b", "b", "zzz"]), np.random.default_rng(0))
    assert len(set(one)) == 4
    np.testing.assert_array_equal(two[:3], [one[3], one[0], one[2]])
    assert not np.array_equal(one, draws(digests, np.random.default_rng(1)))


def test_draws_are_uniform() -> None:
    values = draws(np.array([str(row) for row in range(20_000)]), np.random.default_rng(0))
    assert 0 < values.min() < values.max() < 1
    counts = np.histogram(values, bins=20, range=(0, 1))[0]
    assert abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_weighted_draws_have_the_right_first_pick() -> None:
    weights = np.array([0.0, 1.0, 2.0, 5.0])
    digests = np.array(list("abcd"))
    rng = np.random.default_rng(0)
    first = np.bincount([np.argmax(weighted_keys(weights, draws(digests, rng))) for _ in range(8000)], minlength=4)
    np.testing.assert_allclose(first / 8000, weights / weights.sum(), atol=0.02)
    assert weighted_keys(weights, np.full(4, 0.5))[0] == -np.inf
