"""The Great Expectations suites: gates agree with plain arithmetic, failing rows are named, pages fetch nothing."""

import re

import pytest

from tasks.expectations import audit
from tasks.formats.record import Row
from tasks.params import Gates
from tasks.sample import ImageRef, Turn
from tasks.tally import Tally

TURNS = (Turn("user", "<image>"), Turn("assistant", "c"))
IMAGE = (ImageRef("a.png", "a.png"),)


def frame_of(reasons, text_only=(), duplicates=()):
    tally = Tally()
    for number, reason in enumerate(reasons):
        images = () if number in text_only else IMAGE
        tally.add(Row(number, "", None, "s", TURNS, images), reason, duplicate=number in duplicates)
    return tally.frame()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    reasons = [None] * 20
    reasons[3], reasons[7], reasons[11] = "image_missing", "empty_text", "duplicate"
    docs = tmp_path_factory.mktemp("docs") / "validation"
    frame = frame_of(reasons, text_only=(0, 1), duplicates=(11, 12, 13))
    return audit(frame, Gates(maximum_duplicate_share=0.1), docs), docs


def test_gates_are_counts_over_rows(mixed):
    gates, _ = mixed
    assert [(gate.name, gate.value, gate.limit, gate.passed) for gate in gates] == [
        ("minimum_rows", 17, 1, True),
        ("maximum_reject_share", 2 / 20, 0.2, True),
        ("maximum_text_only_share", 2 / 20, 1.0, True),
        ("maximum_duplicate_share", 3 / 20, 0.1, False),
    ]


def test_a_limit_that_is_just_met_passes(tmp_path):
    gates = audit(
        frame_of([None] * 4 + ["empty_text"]), Gates(minimum_rows=4, maximum_reject_share=0.2), tmp_path / "d"
    )
    assert all(gate.passed for gate in gates)


def test_pages_stand_alone_and_name_the_failing_rows(mixed):
    _, docs = mixed
    pages = {path.relative_to(docs).as_posix(): path.read_text() for path in docs.rglob("*.html")}
    assert {"index.html", "expectations/gates.html", "expectations/rows.html"} <= set(pages)
    assert {path.suffix for path in docs.rglob("*") if path.is_file()} == {".html"}
    assert not any(re.search(r"<(?:script|link|img)\b[^>]*https?:|url\(.?https?:", page) for page in pages.values())
    (rows,) = (page for name, page in pages.items() if name.startswith("validations/rows/"))
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", rows))
    assert re.search(r"images: no row is rejected for .* False 1 3 image_missing", text)
    assert re.search(r"text: no row is rejected for empty_text .* False 1 7 empty_text", text)


def test_front_page_leads_to_every_page(mixed):
    _, docs = mixed
    links = re.findall(r'href="([^"]+)"', (docs / "index.html").read_text())
    assert len(links) == 4
    assert all((docs / link).is_file() for link in links)


def test_an_older_site_is_replaced(tmp_path):
    (tmp_path / "old.html").write_text("old")
    audit(frame_of([None]), Gates(), tmp_path)
    assert not (tmp_path / "old.html").exists()


@pytest.mark.parametrize(("minimum", "passed"), [(0, True), (1, False)])
def test_an_empty_table_is_asked_only_for_its_rows(tmp_path, minimum, passed):
    first, *others = audit(frame_of([]), Gates(minimum_rows=minimum, maximum_reject_share=0), tmp_path / "d")
    assert (first.value, first.passed) == (0, passed)
    assert all(gate.passed and gate.value == 0 for gate in others)
