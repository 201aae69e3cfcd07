"""Comparisons of rows on disk: who is compared, that subsets are those of the select stage, what is written."""

import csv
import json
import logging
import re
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from extracted_rows import ROWS, SCORED, SOURCES, settings, write_rows

from tasks.comparison import PAGE, compare, read_comparison
from tasks.comparison.comparison import COSTS, RECORD
from tasks.comparison.measures import jaccard
from tasks.comparison.memory import watch_memory
from tasks.comparison.tables import FILES
from tasks.comparison.trials import attempt, choose_methods, draws_lots
from tasks.errors import BudgetError, FeatureError, InputError, ParamsError
from tasks.methods import METHODS
from tasks.methods.contract import Tables
from tasks.scoring import score
from tasks.selection import select

FEW = {"compare__methods": ["scalselect", "margin"], "compare__budgets": [0.1, 20], "compare__curve": [0.5]}


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def written(layout, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    compare(settings(**FEW), layout, out)
    return out


@pytest.mark.parametrize(
    ("named", "compared"),
    [
        (["margin"], ["margin", "random", "stratified"]),
        (["random", "margin", "random"], ["margin", "random", "stratified"]),
        ([], ["random", "stratified"]),
        (None, ["scalselect", "el2n", "perplexity", "margin", "random", "stratified"]),
    ],
)
def test_controls_are_always_there_and_last(layout, named, compared):
    assert choose_methods(settings(compare__methods=named), layout) == compared


def test_what_is_left_out_is_said(layout, caplog):
    with caplog.at_level(logging.INFO):
        choose_methods(settings(), layout)
    assert "coincide left out, it needs pooled" in caplog.text
    assert "presel left out, it needs clip" in caplog.text


def test_missing_signals_are_named_all_at_once_with_the_fix(layout):
    with pytest.raises(FeatureError) as caught:
        choose_methods(settings(compare__methods=["coincide", "clip_score", "llm_judge", "margin"]), layout)
    text = str(caught.value)
    assert "coincide needs pooled" in text
    assert "clip_score needs clip" in text
    assert "--set extract.signals=[attended, pooled, clip, judge]" in text
    assert "extract.clip.model.path" in text
    assert "`judge` also needs an endpoint" in text
    assert "margin" not in text


def test_an_unknown_method_is_refused_by_name(layout):
    with pytest.raises(ParamsError, match=r"compare\.methods: no method `scalselct`; known: scalselect"):
        choose_methods(settings(compare__methods=["scalselct"]), layout)


def test_subsets_are_those_of_the_select_stage(tmp_path):
    """Under constraints too, and for the seed that the controls start from."""
    layout = write_rows(tmp_path)
    given = {"select__quotas": {"middle": 4}, "select__seed": 7}
    for name in ("scalselect", "margin", "random", "stratified"):
        trial = attempt(settings(**given), layout, name, [0.25, 9], seeds=2)
        assert sorted(trial.picks) == [9, 14]
        for count, subsets in trial.picks.items():
            asked = settings(**given, score__method=name, select__budget=count)
            score(asked, layout)
            select(asked, layout)
            lines = [line for line in pq.read_table(layout.selection).to_pylist() if line["status"] == "selected"]
            wanted = [line["row"] for line in sorted(lines, key=lambda line: line["position"])]
            assert np.array(SCORED)[subsets[0]].tolist() == wanted
            assert len(subsets) == (2 if name in ("random", "stratified") else 1)
    assert jaccard(*trial.picks[14]) < 1


@pytest.mark.parametrize(
    ("name", "options", "draws"),
    [
        ("random", {}, True),
        ("stratified", {}, True),
        ("scalselect", {}, False),
        ("scalselect", {"sampling": "leverage"}, True),
        ("margin", {}, False),
    ],
)
def test_whether_lots_are_drawn(name, options, draws):
    method, tables = METHODS[name], Tables(np.array(["a", "b", "c"]), np.array(["s"] * 3))
    assert draws_lots(method, {"score": np.ones(3)}, tables, [0, 2], method.parse(options)) is draws


def test_the_record_holds_every_method_budget_and_measure(written):
    record, costs = read_comparison(written)
    methods = ["scalselect", "margin", "random", "stratified"]
    assert (record["rows"], record["columns"], record["features"]) == (len(SCORED), 6, "attended")
    assert record["methods"] == list(costs) == methods
    assert record["seeds"] == {"scalselect": 1, "margin": 1, "random": 3, "stratified": 3}
    assert [(at["budget"], at["rows"]) for at in record["budgets"]] == [(0.1, 5), (20, 20)]
    for at in record["budgets"]:
        assert set(at["measures"]) == set(methods)
        for method, measures in at["measures"].items():
            for value in measures.values():
                assert value["mean"] >= 0
                assert (value["sd"] is None) == (method in ("scalselect", "margin"))
        assert np.shape(at["overlap"]) == (4, 4)
        assert at["overlap"][0][0] == 1.0 > at["overlap"][2][2]
        for mix in at["mix"].values():
            for shares in mix["methods"].values():
                assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert record["budgets"][1]["mix"]["source"]["kinds"] == ["", SOURCES[1], SOURCES[0]]
    assert [point["rows"] for point in record["curve"]["margin"]] == [5, 20, 29]
    assert all(cost["score_seconds"] >= 0 and cost["peak_bytes"] >= 0 for cost in costs.values())


def test_tables_say_what_the_record_says(written):
    record, _ = read_comparison(written)
    lines = {name: list(csv.DictReader((written / name).open())) for name in FILES}
    assert len(lines["measures.csv"]) == 2 * 4
    for line in lines["measures.csv"]:
        at = next(one for one in record["budgets"] if str(one["budget"]) == line["budget"])
        assert float(line["captured"]) == at["measures"][line["method"]]["captured"]["mean"]
        assert line["subset"] == f"{line['method']} {line['budget']}"
    assert len(lines["overlap.csv"]) == 2 * 4 * 4
    assert [float(line["random"]) for line in lines["curve.csv"]] == [
        point["captured"] for point in record["curve"]["random"]
    ]
    selected = sum(float(line["selected"]) for line in lines["mix.csv"] if line["trait"] == "source")
    assert selected == pytest.approx(2 * 4, abs=1e-3)


def test_same_rows_same_bytes_but_for_what_was_measured(layout, written, tmp_path):
    compare(settings(**FEW), layout, tmp_path)
    for name in (RECORD, *FILES):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {RECORD, COSTS, PAGE, *FILES}


def test_none_and_all(layout, tmp_path):
    compare(
        settings(compare__methods=["margin"], compare__budgets=[0, 1, len(SCORED)], compare__curve=[]), layout, tmp_path
    )
    record, _ = read_comparison(tmp_path)
    none, one, every = (at["measures"]["margin"] for at in record["budgets"])
    assert (none["captured"]["mean"], none["radius"]["mean"], none["source_shift"]["mean"]) == (0.0, None, None)
    assert one["near_duplicates"]["mean"] == 0.0
    assert (every["radius"]["mean"], every["clusters"]["mean"], every["turns_shift"]["mean"]) == (0.0, 1.0, 0.0)
    assert all(
        share == 1.0
        for shares in (record["budgets"][0]["overlap"], record["budgets"][2]["overlap"])
        for share in np.ravel(shares)
    )
    assert "NaN" not in (tmp_path / RECORD).read_text()


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        ({"compare__budgets": [ROWS + 1]}, BudgetError, "the largest budget is 58"),
        ({"compare__features": "pooled"}, FeatureError, "add `pooled` to extract.signals"),
        ({"compare__features": "attended.other"}, FeatureError, "no features `attended.other`"),
    ],
)
def test_what_cannot_be_compared_is_refused(layout, tmp_path, overrides, error, said):
    with pytest.raises(error, match=re.escape(said)):
        compare(settings(compare__methods=["margin"], **overrides), layout, tmp_path)
    assert not any(tmp_path.iterdir())


def test_an_empty_folder_holds_no_comparison(tmp_path):
    with pytest.raises(InputError, match="scalselect compare"):
        read_comparison(tmp_path)


def test_the_page_stands_alone_and_shows_everything(written):
    html = (written / PAGE).read_text()
    assert "<script" not in html
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//|@import|url\(", html)
    assert "<b>big</b>" not in html
    assert "&lt;b&gt;big&lt;/b&gt;" in html
    assert html.count("<polyline") == 4
    assert html.count('stroke-dasharray="5 4"') == 4  # two controls: line and legend
    record = json.loads((written / RECORD).read_text())
    found = record["budgets"][0]["measures"]["random"]["captured"]
    assert f"{found['mean']:.3f} ± {found['sd']:.3f}" in html


def test_memory_is_what_was_held_above_the_start():
    with watch_memory() as peak:
        held = np.ones(16 << 20)
        time.sleep(0.05)
        del held
    assert 100 << 20 < peak.bytes < 400 << 20
