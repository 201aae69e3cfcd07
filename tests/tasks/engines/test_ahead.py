"""Items come in order, a few ahead, with their errors, and no thread outlives its reader."""

import threading
import time
from contextlib import closing

import pytest

from tasks.engines.ahead import ahead


def test_items_come_in_order():
    assert list(ahead(range(100), 3)) == list(range(100))
    assert list(ahead([], 3)) == []


def test_no_more_are_made_than_allowed():
    made = []
    numbers = ahead((made.append(number) or number for number in range(50)), 2)
    assert next(numbers) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 4  # one read, two waiting, one that waits for room
    assert list(numbers) == list(range(1, 50))


def test_an_error_is_raised_where_its_item_would_have_come():
    def broken():
        yield 1
        raise ValueError("no second")

    numbers = ahead(broken(), 2)
    assert next(numbers) == 1
    with pytest.raises(ValueError, match="no second"):
        next(numbers)


def test_a_reader_who_leaves_takes_the_thread_along():
    before = threading.active_count()
    with closing(ahead(iter(range(10**9)), 2)) as numbers:
        assert next(numbers) == 0
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
