"""The report: what it says, that it stands alone, that records may be missing, that bytes repeat."""

import re
import shutil
from dataclasses import fields
from html import unescape

import pytest
from run_records import ASIDE, REJECTED, ROWS, SCORED, SELECTED, make_settings, write_records

from tasks import report
from tasks.report.page import SHOWN, share
from tasks.report.records import read_records


@pytest.fixture
def run(tmp_path):
    return write_records(tmp_path), make_settings(tmp_path)


def plain(html):
    html = re.sub(r"<(style|svg|script).*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def sheet(html, name):
    (section,) = re.findall(rf'<section class="long" id="{name}">.*?</section>', html, re.DOTALL)
    return [int(row) for row in re.findall(r"<br>row (\d+)", section)], section


def test_the_accounting_is_complete(run):
    text = plain(report.render(*run))
    assert f"Selected {SELECTED} 50 %" in text
    assert f"Not selected {SCORED - SELECTED} 33.3 %" in text
    assert f"Set aside {ASIDE} 6.67 % text_only {ASIDE} 6.67 %" in text
    assert f"Rejected {REJECTED} 10 %" in text
    assert f"Rows in {ROWS} 100 %" in text
    assert f"image_missing {REJECTED - 1} span_not_found 1" in text


def test_sheets_show_both_ends_of_the_selection_and_the_rest(run):
    html = report.render(*run)
    assert sheet(html, "highest")[0] == list(range(10, 10 + SHOWN))
    assert sheet(html, "lowest")[0] == list(range(40 - SHOWN, 40))
    others = sheet(html, "others")[0]
    assert (others[0], others[-1], len(others)) == (40, ROWS - 1, SHOWN)
    assert sheet(html, "highest")[1].count("data:image/jpeg;base64,") == SHOWN


def test_a_small_selection_is_shown_once(run):
    layout, settings = run
    import polars as pl

    lines = pl.read_parquet(layout.selection)
    few = pl.when((lines["status"] == "selected") & (lines["row"] > 14)).then(pl.lit("not_selected"))
    lines.with_columns(status=few.otherwise(pl.col("status"))).write_parquet(layout.selection)
    html = report.render(layout, settings)
    assert sheet(html, "highest")[0] == [10, 11, 12, 13, 14]
    assert 'id="lowest"' not in html


def test_charts_carry_their_marks(run):
    html = report.render(*run)
    assert html.count("<svg ") == 2
    assert ">k = 7<" in html
    assert f">{SELECTED} rows selected<" in html


def test_sources_keep_their_names(run):
    text = plain(report.render(*run))
    assert "007 30 of 30" in text
    assert 'a,"b" 0 of 20' in text


def test_nothing_is_fetched_and_nothing_of_the_data_runs(run):
    html = report.render(*run)
    assert "<script" not in html
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//|@import|url\(", html)
    assert "What is </p><script>alert(10)</script>?" in plain(html)


def test_the_docs_link_is_relative_and_leads_there(run):
    layout, settings = run
    report.write(layout, settings)
    (link,) = set(re.findall(r'href="([^"#]*validation[^"]*)"', layout.report.read_text()))
    assert (layout.report.parent / link).resolve() == (layout.docs / "index.html").resolve()


def test_comparison_and_evaluation_are_sections_as_soon_as_they_are_there(run):
    layout, settings = run
    report.write(layout, settings)
    shown = re.findall(r'<object class="page" data="([^"]*)"', layout.report.read_text())
    assert [(layout.report.parent / one).resolve() for one in shown] == [
        (layout.report.parent.parent / name / f"{name}.html").resolve() for name in ("comparison", "evaluation")
    ]
    assert "scalselect compare writes it" in plain(layout.report.read_text())


def test_same_records_same_bytes(run):
    layout, settings = run
    report.write(layout, settings)
    first = layout.report.read_bytes()
    report.write(layout, settings)
    assert layout.report.read_bytes() == first


OPTIONAL = ("scores", "spectrum", "score_curve", "score_metrics", "selection", "source_mix", "validation", "docs")


@pytest.mark.parametrize("missing", OPTIONAL)
def test_any_record_may_be_missing(run, missing):
    layout, settings = run
    path = getattr(layout, missing)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    text = plain(report.render(layout, settings))
    assert "Where every row went" in text
    assert "Provenance" in text


def test_of_validation_alone_there_is_a_report(run):
    layout, settings = run
    for field in fields(layout):
        path = getattr(layout, field.name)
        if field.name not in ("samples", "validation") and path.is_file():
            path.unlink()
    layout.validation.write_text('{"rows": 9, "accepted": 7, "rejected": 2, "reasons": {"empty_text": 2}}')
    assert read_records(layout).counts == {"selected": 0, "not_selected": 7, "set_aside": 0, "rejected": 2}
    assert "empty_text 2" in plain(report.render(layout, settings))


@pytest.mark.parametrize("damage", ["remove", "truncate", "garble"])
def test_a_picture_that_is_gone_leaves_its_words(run, tmp_path, damage):
    layout, settings = run
    path = tmp_path / "10.png"
    data = path.read_bytes()
    path.unlink() if damage == "remove" else path.write_bytes(data[:60] if damage == "truncate" else b"noise")
    _, section = sheet(report.render(layout, settings), "highest")
    assert section.count("no image to show") == 1
    assert "Colour &amp; shade 10" in section


@pytest.mark.parametrize(("part", "whole", "text"), [(1, 3, "33.3 %"), (0, 5, "0 %"), (5, 5, "100 %"), (0, 0, "0 %")])
def test_share(part, whole, text):
    assert share(part, whole) == text
