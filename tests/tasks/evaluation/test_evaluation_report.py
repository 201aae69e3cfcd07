"""The table told in JSON, CSV, Markdown and on the page."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest

from tasks.errors import InputError
from tasks.evaluation.chart import performance_chart
from tasks.evaluation.report import Cell, Report, tell, to_markdown, write
from tasks.evaluation.table import Outcome, tabulate
from tasks.evaluation.truth import Kept, Truth, describe, read_truth


def outcomes(matchings=("epochs",)):
    rng = np.random.default_rng(0)
    made = [Outcome("full", 1.0, 0, {"vqa": np.ones(40), "<b>": np.ones(40)}, {"tune": 10.0, "select": 0.0})]
    made += [Outcome("untrained", 0.0, 0, {"vqa": np.zeros(40), "<b>": np.zeros(40)})]
    for matching in matchings:
        for budget in (0.1, 0.3):
            for name, skill in (("ours", 0.9), ("random", 0.4)):
                for seed in range(2):
                    right = {task: (rng.random(40) < skill).astype(float) for task in ("vqa", "<b>")}
                    seconds = {"tune": 1.0, "select": 1.0}
                    nll = {"vqa": np.full(40, 800.0)}
                    made.append(Outcome(name, budget, seed, right, seconds, matching, nll))
    return made


VOID = {"meta", "link", "br", "img", "line", "polyline", "circle"}


class Checker(HTMLParser):
    """Every element that is opened is closed; collects what is fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [
            value for key, value in attrs if key in ("src", "href") and not value.startswith(("#", "data:"))
        ]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_files_say_what_the_lines_say(tmp_path):
    lines = tabulate(outcomes())
    cells = [Cell("ours", 0.1, "epochs", "vqa", "coco, train", 40, 0.5)]
    write(Report(lines, cells, [Kept("ours", 0.1, 4, 2, 0.25, 0.5)], {"model": "m", "dataset": "d"}), tmp_path)
    table = pl.read_csv(tmp_path / "table.csv")
    assert table["method"].to_list() == [line.method for line in lines]
    assert table["relative"].to_list() == pytest.approx([line.relative for line in lines])
    assert table["against_random_low"].null_count() == len(lines) - 2
    assert pl.read_csv(tmp_path / "breakdown.csv")["source"].to_list() == ["coco, train"]
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert record["lines"][0]["method"] == "full"
    assert next(one for one in record["lines"] if one["method"] == "ours")["perplexity"] == {"vqa": None}  # infinite
    markdown = (tmp_path / "table.md").read_text().splitlines()
    assert len(markdown) == len(lines) + 2
    assert len({line.count("|") for line in markdown}) == 1


def test_the_page_is_whole_escaped_and_fetches_nothing(tmp_path):
    lines = tabulate(outcomes(("epochs", "steps")))
    write(Report(lines, [Cell("ours", 0.1, "epochs", "<b>", "", 40, 0.5)], (), {}), tmp_path)
    text = (tmp_path / "evaluation.html").read_text()
    page = Checker()
    page.feed(text)
    assert (page.open, page.fetched) == ([], [])
    assert "<b>" in page.text
    assert text.count("<svg") == 2
    assert "beyond random" in page.text
    assert "http" not in re.sub(r"<pre>.*?</pre>", "", text, flags=re.S)


def test_equal_findings_give_equal_bytes(tmp_path):
    for name in ("one", "other"):
        write(Report(tabulate(outcomes())), tmp_path / name)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "other" / file.name).read_bytes()


def test_matching_is_named_where_both_kinds_were_trained():
    several = [row[1] for row in tell(tabulate(outcomes(("epochs", "steps"))))[1:]]
    assert several[:3] == ["1", "0 (epochs)", "0.1 (epochs)"] or several[:2] == ["1", "0"]
    assert "0.1 (steps)" in several
    assert "(epochs)" not in to_markdown(tabulate(outcomes()))


def test_the_chart_has_a_bar_for_each_interval_inside_its_frame():
    lines = tabulate(outcomes())
    chart = performance_chart(lines)
    assert chart.count("<circle") == 4
    bars = re.findall(r'<line class="c\d" x1="[\d.]+" x2="[\d.]+" y1="([\d.]+)" y2="([\d.]+)"', chart)
    assert len([bar for bar in bars if bar[0] != bar[1]]) == 4
    assert all(20 <= float(y) <= 374 for bar in bars for y in bar)


def test_a_chart_of_one_budget_and_no_intervals_can_be_drawn():
    means = [Outcome(name, budget, 0, {"vqa": np.array([0.5])}) for name, budget in (("full", 1.0), ("random", 0.2))]
    assert "<circle" in performance_chart(tabulate(means))


def test_truth_counts_groups_repeats_and_noise():
    truths = {0: Truth("a", 0, False), 1: Truth("a", 0, True), 2: Truth("b", 2, False), 3: Truth("c", 2, False)}
    kept = describe("ours", 0.5, [[0, 1, 2], [1, 2, 3]], truths)
    assert kept == Kept("ours", 0.5, 3.0, 2.5, pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_truth_is_read_where_it_lies_and_its_faults_are_named(tmp_path):
    assert read_truth(tmp_path / "data.json") == {}
    path = tmp_path / "truth.jsonl"
    path.write_text('{"row": 0, "group": "a", "duplicate_of": null, "noise": false}\n{"row": 1}\n')
    with pytest.raises(InputError, match=r"truth\.jsonl: line 2"):
        read_truth(tmp_path / "data.json")
    path.write_text('{"row": 4, "group": "a", "duplicate_of": 1, "noise": true}\n')
    assert read_truth(tmp_path / "data.json") == {4: Truth("a", 1, True)}
