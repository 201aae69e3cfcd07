"""The frame of what became of each row."""

import polars as pl

from tasks.checks import CHECKS
from tasks.formats.record import Row
from tasks.sample import ImageRef, Turn
from tasks.tally import BATCH, Tally, count_reasons, count_sources

TURNS = (Turn("user", "<image>ab"), Turn("assistant", "c"))
IMAGE = (ImageRef("a.png", "a.png"),)


def tally_of(reasons, source=lambda number: "s"):
    tally = Tally()
    for number, reason in enumerate(reasons):
        tally.add(Row(number, "", None, source(number), TURNS, IMAGE), reason, duplicate=reason == "duplicate")
    return tally.frame()


def test_flags_follow_from_the_reason():
    frame = tally_of([None, "empty_text", "duplicate", "malformed_json", "text_only_dropped"])
    assert frame["accepted"].to_list() == [1, 0, 0, 0, 0]
    assert frame["defective"].to_list() == [0, 1, 0, 1, 0]
    assert frame["duplicate"].to_list() == [0, 0, 1, 0, 0]
    flags = frame.select(pl.selectors.ends_with("_ok"))
    assert flags.columns == [f"{check}_ok" for check in CHECKS]
    failing = [[name for name, value in line.items() if not value] for line in flags.iter_rows(named=True)]
    assert failing == [[], ["text_ok"], ["unique_ok"], ["readable_ok"], ["policy_ok"]]


def test_scalars_and_text_only():
    tally = Tally()
    tally.add(Row(0, "", None, "s", TURNS, IMAGE), None, duplicate=False)
    tally.add(Row(1, "", None, "s", TURNS, ()), None, duplicate=False)
    tally.add(Row(2, "", None, "s", (), ()), "malformed_json", duplicate=False)
    frame = tally.frame()
    assert frame["text_only"].to_list() == [0, 1, 0]
    assert frame.row(0)[2:5] == (2, 1, 10)


def test_counts_beyond_one_batch():
    rows = BATCH + 3
    frame = tally_of(
        (("empty_text", None, "image_missing", "empty_text")[n % 4] for n in range(rows)), lambda n: f"{n % 2}"
    )
    assert frame["row"].to_list() == list(range(rows))
    assert list(count_reasons(frame)) == ["empty_text", "image_missing"]
    assert sum(count_reasons(frame).values()) + int(frame["accepted"].sum()) == rows
    sources = count_sources(frame)
    assert {name: one["accepted"] for name, one in sources.items()} == {"0": 0, "1": int(frame["accepted"].sum())}
    assert all(one["accepted"] + one["rejected"] == one["rows"] for one in sources.values())


def test_equally_frequent_reasons_come_by_name():
    assert list(count_reasons(tally_of(["no_turns", "empty_text"]))) == ["empty_text", "no_turns"]


def test_no_rows():
    frame = Tally().frame()
    assert frame.is_empty()
    assert count_reasons(frame) == {} == count_sources(frame)
