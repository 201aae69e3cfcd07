"""The embedded proof: its pool is what it says, and in miniature it runs from nothing to the page."""

import dataclasses

import numpy as np
import pytest

from flows.evaluate_direct import evaluate
from tasks.demo.model import Shape
from tasks.demo.skills import (
    SKILLS,
    View,
    caption,
    draw_captions,
    draw_pool,
    draw_questions,
    pixels,
    render,
    write_questions,
)
from tasks.evaluation import proof


def test_equal_seeds_draw_equal_pools_and_pictures():
    one, other = draw_pool(200, 4), draw_pool(200, 4)
    assert one == other
    assert draw_pool(200, 5) != one
    for question in one[:20]:
        assert render(question.view).tobytes() == render(question.view).tobytes()


def test_the_pool_is_long_tailed_and_wasteful_and_the_questions_are_neither():
    pool, asked = draw_pool(4000, 3), draw_questions(12, 9)
    groups = {name: sum(one.group == name for one in pool) for name in {one.group for one in pool}}
    assert len(groups) == 29
    assert max(groups.values()) > 20 * min(groups.values())
    assert 0.2 < np.mean([one.duplicate_of is not None for one in pool]) < 0.3
    assert 0.05 < np.mean([one.noise for one in pool]) < 0.12
    assert 0.02 < np.mean([one.text_only for one in pool]) < 0.1
    assert len(asked) == 12 * 28
    assert not any(one.noise or one.text_only or one.duplicate_of is not None for one in asked)


def test_a_repeat_asks_what_its_original_asks_under_another_picture():
    pool = draw_pool(500, 3)
    for place, one in enumerate(pool):
        if one.duplicate_of is not None:
            original = pool[one.duplicate_of]
            assert one.duplicate_of < place
            assert original.duplicate_of is None
            assert (one.text, one.answer, one.group) == (original.text, original.answer, original.group)


def test_held_out_digits_are_scans_the_pool_never_shows():
    pool = {one.view.digit for one in [*draw_pool(2000, 3), *draw_captions(500, 5)]}
    held_out = {one.view.digit for one in draw_questions(20, 9)}
    assert pool.isdisjoint(held_out)


def test_no_held_out_picture_was_shown_before():
    shown = {pixels(one) for one in draw_questions(2, 9)}
    again = draw_questions(2, 9, shown)
    assert {one.group for one in again} == {one.group for one in draw_questions(2, 9)}
    assert shown.isdisjoint(map(pixels, again))


def test_a_caption_says_every_fact_in_some_order():
    view = View("colour", "plain", "red", "cross", 1, 2, "CAT", 0, 0, 1)
    found = {caption(view, np.random.default_rng(seed)) for seed in range(60)}
    assert len(found) > 10
    assert {tuple(sorted(one.split(", "))) for one in found} == {("bottom left", "cross", "one", "red")}


def test_rows_say_less_than_the_truth_beside_them(tmp_path):
    write_questions(draw_pool(60, 3), tmp_path)
    text = (tmp_path / "data.json").read_text()
    assert "duplicate" not in text
    assert "noise" not in text
    assert len((tmp_path / "truth.jsonl").read_text().splitlines()) == 60
    assert {path.name for path in (tmp_path / "images").iterdir()} <= {"shapes", "signs", "scans", "photos"}


def test_every_skill_is_a_task_of_the_proof(tmp_path):
    for scale in proof.SCALES.values():
        settings = proof.settings_of(tmp_path, scale)
        assert tuple(settings.evaluate.tasks) == SKILLS
        assert settings.evaluate.tune.batch_size == scale.tune["batch_size"]


@pytest.mark.slow
def test_the_proof_in_miniature(tmp_path, monkeypatch):
    tiny = dataclasses.replace(
        proof.SCALES["small"],
        shape=Shape(16, 1, 2, 48, 16),
        rows=60,
        captions=40,
        steps=8,
        per_group=1,
        tune={"epochs": 40.0, "batch_size": 8, "learning_rate": 1e-2},
    )
    small = {"seeds": 1, "full_seeds": 1, "methods": ["scalselect", "prism"]}
    monkeypatch.setattr(proof, "EVALUATE", {**proof.EVALUATE, **small})
    proof.build(tmp_path / "raw", tiny)
    marks = {path: path.stat().st_mtime_ns for path in (tmp_path / "raw/model").iterdir()}
    proof.build(tmp_path / "raw", tiny)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "raw/model").iterdir()} == marks
    folder = evaluate(proof.settings_of(tmp_path / "raw", tiny), tmp_path)
    assert "What was kept" in (folder / "evaluation.html").read_text()
    assert (folder / "table.md").read_text().count("\n") == 2 + 2 + 3 * 2
