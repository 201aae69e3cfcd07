"""Scores measured elsewhere make the same table, or are refused by name."""

import json
import os

import pytest

from tasks.errors import InputError
from tasks.evaluation.results import read_lmms_eval, read_results
from tasks.evaluation.table import tabulate


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


LINES = [
    {"method": "full", "budget": 1.0, "tasks": {"gqa": 0.6, "vqa": [1, 1, 0, 1]}, "seconds": {"tune": 100}},
    {"method": "random", "budget": 0.1, "tasks": {"vqa": [1, 0, 0, 1], "gqa": 0.3}},
    {"method": "ours", "budget": 0.1, "tasks": {"gqa": 0.6, "vqa": [1, 1, 0, 1]}, "seconds": {"select": 5, "tune": 10}},
]


def test_means_and_questions_make_the_table(tmp_path):
    full, ours, random = tabulate(read_results(write(tmp_path / "results.json", LINES)))
    assert (full.method, ours.method, random.method) == ("full", "ours", "random")
    assert ours.relative == pytest.approx(100.0)
    assert random.relative == pytest.approx(100 * (0.5 + 2 / 3) / 2)
    assert ours.cost == pytest.approx(0.15)
    assert random.cost is None
    assert ours.against_random is None  # gqa is known as a mean only


def test_results_of_lmms_eval_are_read_from_a_file_or_the_newest_of_a_folder(tmp_path):
    results = {"gqa": {"alias": "gqa", "exact_match,none": 0.61, "exact_match_stderr,none": 0.01, "n": 10}}
    old = write(tmp_path / "run/model/20250101_results.json", {"results": {"gqa": {"exact_match,none": 0.1}}})
    os.utime(old, (1, 1))
    write(tmp_path / "run/model/20260101_results.json", {"results": {**results, "group": {"alias": "g"}}})
    assert read_lmms_eval(tmp_path / "run") == {"gqa": 0.61}
    lines = [{"method": "full", "budget": 1.0, "lmms_eval": "run", "tasks": {"own": 0.5}}]
    (full,) = read_results(write(tmp_path / "results.json", lines))
    assert full.scores() == {"gqa": 0.61, "own": 0.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "a list of results"),
        ('{"method": "full"}', "a list of results"),
        ('[{"method": "full"}]', "entry 0: `budget`"),
        ('[{"method": "full", "budget": 1.0}]', r"entry 0 \(full\): neither `tasks` nor"),
        ('[{"method": "full", "budget": 1.0, "task": {}}]', "entry 0: `task`"),
        ('[{"method": "full", "budget": 1.0, "lmms_eval": "nowhere"}]', "nowhere: not a results file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_results(path)


def test_a_missing_file_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"results\.json: cannot be read"):
        read_results(tmp_path / "results.json")
    with pytest.raises(InputError, match=r"holds no results\.json"):
        read_lmms_eval(tmp_path)
