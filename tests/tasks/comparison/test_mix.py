"""Kinds of rows: every row is of one kind, named as it should be, and shifts are distances of shares."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.comparison.mix import MANY_TURNS, sort_rows

SOURCES = np.array(["b", "a", "b", "", "b", "a"])
CHARACTERS = np.array([10, 10, 10, 20, 30, 40])
TURNS = np.array([2, 2, 4, 12, 11, 2])


def test_traits_by_hand():
    source, length, turns = sort_rows(SOURCES, CHARACTERS, TURNS)
    assert source.kinds == ("b", "a", "")
    np.testing.assert_allclose(source.shares(), [3 / 6, 2 / 6, 1 / 6])
    assert length.kinds == ("0 to 10 characters", "11 to 20 characters", "21 to 30 characters", "31 to 40 characters")
    np.testing.assert_allclose(length.shares(), [3 / 6, 1 / 6, 1 / 6, 1 / 6])
    assert turns.kinds == ("2 turns", "4 turns", "10 turns or more")
    np.testing.assert_allclose(turns.shares(np.array([3, 4, 0])), [1 / 3, 0, 2 / 3])


def test_shifts_by_hand():
    source, _, turns = sort_rows(SOURCES, CHARACTERS, TURNS)
    assert source.shift(np.arange(6)) == 0.0
    assert source.shift(np.array([3])) == pytest.approx(5 / 6)
    assert turns.shift(np.array([3, 4])) == pytest.approx(4 / 6)
    assert np.isnan(source.shift(np.array([], dtype=np.int64)))


@given(st.lists(st.integers(1, 500), min_size=1, max_size=80))
def test_every_row_lies_in_the_kind_that_names_its_length(characters):
    _, length, turns = sort_rows(np.full(len(characters), "s"), np.array(characters), np.array(characters))
    for value, code in zip(characters, length.codes.tolist(), strict=True):
        low, high = (int(word) for word in length.kinds[code].split() if word.isdigit())
        assert low <= value <= high
    assert length.shares().sum() == pytest.approx(1)
    assert np.bincount(length.codes, minlength=len(length.kinds)).min() > 0
    counted = Counter(min(value, MANY_TURNS) for value in characters)
    assert turns.shares().tolist() == pytest.approx([counted[one] / len(characters) for one in sorted(counted)])


def test_no_rows():
    none = np.array([], dtype=np.int64)
    for trait in sort_rows(np.array([], dtype=np.str_), none, none):
        assert (trait.kinds, len(trait.shares())) == ((), 0)
