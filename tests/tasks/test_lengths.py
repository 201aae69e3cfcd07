"""Counts of tokens: counted once for a content and an identity, refusals too, and counted again when in doubt."""

import pytest
from jinja2 import TemplateError

from tasks import lengths
from tasks.sample import Sample, Turn, digest_sample


def sample(text, row=0):
    turns = (Turn("user", text), Turn("assistant", "Yes."))
    return Sample(row, None, "", turns, (), digest_sample(turns, []))


class Counter:
    """Counts words; refuses shouting, as a chat template may. `asked`: every text counted; `made`: how often."""

    def __init__(self):
        self.asked, self.made = [], 0

    def make(self):
        self.made += 1
        return self.count

    def count(self, one):
        text = one.turns[0].content
        self.asked.append(text)
        if text.isupper():
            raise TemplateError(f"no shouting: {text}")
        return len(text.split())


@pytest.fixture
def counter():
    return Counter()


def look(tmp_path, counter, *texts, identity="a"):
    """A count of each text, or the message of its refusal."""
    found = []
    with lengths.opened(tmp_path / "store/lengths.sqlite", identity, counter.make) as count:
        for row, text in enumerate(texts):
            try:
                found.append(count(sample(text, row)))
            except TemplateError as error:
                found.append(str(error))
    return found


def test_each_content_is_counted_once_and_not_again_in_the_next_run(tmp_path, counter):
    texts = ["one", "one two", "ONE", "one two three"]
    expected = [1, 2, "no shouting: ONE", 3]
    assert look(tmp_path, counter, *texts) == expected
    assert look(tmp_path, counter, *texts) == expected
    assert counter.asked == texts
    assert look(tmp_path, counter, *texts, "four") == [*expected, 1]
    assert counter.asked == [*texts, "four"]


def test_what_counts_is_made_only_for_a_sample_that_is_not_known(tmp_path, counter):
    assert look(tmp_path, counter, "one") == look(tmp_path, counter, "one") == look(tmp_path, counter, "one") == [1]
    assert counter.made == 1


def test_another_identity_counts_again(tmp_path, counter):
    for identity in ("a", "b", "b", "a"):
        assert look(tmp_path, counter, "one two", identity=identity) == [2]
    assert counter.asked == ["one two"] * 3


def test_counts_are_written_down_on_the_way(tmp_path, counter, monkeypatch):
    monkeypatch.setattr(lengths, "HELD", 2)
    with (
        pytest.raises(KeyboardInterrupt),
        lengths.opened(tmp_path / "store/lengths.sqlite", "a", counter.make) as count,
    ):
        for text in ("one", "two", "three"):
            count(sample(text))
        raise KeyboardInterrupt
    look(tmp_path, counter, "one", "two", "three")
    assert counter.asked == ["one", "two", "three", "three"]


def test_a_damaged_file_is_started_anew(tmp_path, counter):
    look(tmp_path, counter, "one")
    (tmp_path / "store/lengths.sqlite").write_bytes(b"damaged" * 1000)
    assert look(tmp_path, counter, "one") == [1]
    assert counter.asked == ["one"] * 2
