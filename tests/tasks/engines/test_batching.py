from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from tasks.engines.batching import plan_batches

ROWS = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 4)), max_size=40)


@given(rows=ROWS, budget=st.integers(1, 200))
def test_every_row_once_and_padding_within_the_budget(rows, budget):
    lengths, images = [length for length, _ in rows], [image for _, image in rows]
    batches = plan_batches(lengths, images, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[row] for row in batch) * len(batch) <= budget


@given(rows=ROWS, budget=st.integers(1, 200))
def test_neighbours_that_share_an_image_stay_neighbours(rows, budget):
    lengths, images = [length for length, _ in rows], [image for _, image in rows]
    order = [row for batch in plan_batches(lengths, images, budget) for row in batch]
    for _, run in groupby(range(len(rows)), key=lambda row: images[row]):
        places = [order.index(row) for row in run]
        assert places == list(range(places[0], places[0] + len(places)))


@given(rows=ROWS, budget=st.integers(1, 200))
def test_rows_that_share_an_image_are_parted_only_by_the_budget(rows, budget):
    lengths, images = [length for length, _ in rows], [image for _, image in rows]
    batches = plan_batches(lengths, images, budget)
    for _, run in groupby(range(len(rows)), key=lambda row: images[row]):
        rows_of_run = set(run)
        holding = [batch for batch in batches if rows_of_run & set(batch)]
        if max(lengths[row] for row in rows_of_run) * len(rows_of_run) <= budget:
            assert len(holding) == 1


def test_longest_first_and_like_with_like():
    assert plan_batches([1, 9, 2, 8], "abcd", 18) == [[1, 3], [2, 0]]


def test_a_row_longer_than_the_budget_goes_alone():
    assert plan_batches([100, 1, 1], "abc", 10) == [[0], [1, 2]]


def test_nothing():
    assert plan_batches([], [], 10) == []
