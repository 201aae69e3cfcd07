"""OST, ICONS and PreSel: anchors, preconditioning, votes and quotas."""

import numpy as np
import pytest

from tasks.errors import FeatureError
from tasks.linalg.matrix import ArrayMatrix
from tasks.methods import METHODS, icons, ost, presel
from tasks.methods.anchors import draw
from tasks.methods.contract import Tables


def tables_of(n=60, extra=None):
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(n, 6)).astype(np.float32)
    matrices = {"gradients": gradients, "clip.image": rng.normal(size=(n, 6)).astype(np.float32), **(extra or {})}
    columns = {"answers.nll": rng.random(n) + 0.1, "answers.nll_without_image": rng.random(n) + 0.5}
    sources = np.array(["a", "a", "b"])[np.arange(n) % 3]
    digests = np.array([f"{value:04d}" for value in rng.permutation(n)])
    return Tables(digests, sources, {name: ArrayMatrix(value) for name, value in matrices.items()}, columns)


def test_anchors_are_stratified_and_follow_the_content():
    tables = tables_of()
    rows = draw(tables, 9, 0)
    assert sorted(tables.sources[rows].tolist()) == ["a"] * 6 + ["b"] * 3
    shuffle = np.random.default_rng(3).permutation(60)
    other = Tables(tables.digests[shuffle], tables.sources[shuffle])
    assert set(other.digests[draw(other, 9, 0)]) == set(tables.digests[rows])
    assert len(draw(tables, 99, 0)) == 60


def test_drawn_anchors_are_held_out_until_nothing_else_is_left():
    tables, options = tables_of(), ost.Options(anchors=5)
    columns, notes = ost.explain(tables, options)
    held = np.nonzero(columns["anchor"])[0]
    picks = METHODS["ost"].select(columns, tables, 60, np.random.default_rng(0), options)
    assert set(picks[-5:]) == set(held.tolist())
    assert notes.facts["held_out"] == 5
    assert notes.facts["toxic_rows"] == (columns["utility"] < 0).sum()


def test_given_anchors_are_used_and_nothing_is_held_out():
    anchors = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    tables = tables_of(extra={"gradients.anchor": anchors})
    columns = ost.score(tables, ost.Options(normalise="none"))
    gradients = tables.matrix("gradients").take(np.arange(60)).astype(float)
    np.testing.assert_allclose(columns["score"], gradients @ anchors.astype(float).mean(axis=0), atol=1e-9)
    products = gradients @ anchors.astype(float).T
    np.testing.assert_allclose(columns["error"], products.std(axis=1, ddof=1) / 2, atol=1e-9)
    assert not columns["anchor"].any()


def test_the_exact_step_ranks_by_the_measured_drop_and_tells_how_far_first_order_agrees():
    anchors = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    tables = tables_of(extra={"gradients.anchor": anchors})
    with pytest.raises(FeatureError, match=r"gradients\.drop.*extract\.gradients\.step"):
        ost.score(tables, ost.Options(step="exact"))
    cheap = ost.score(tables, ost.Options())["utility"]
    tables.columns["gradients.drop"] = 3 * cheap + 1e-3
    columns, notes = ost.explain(tables, ost.Options(step="exact"))
    np.testing.assert_array_equal(columns["score"], 3 * cheap + 1e-3)
    assert columns["toxic"].sum() == notes.facts["toxic_rows"] == (3 * cheap + 1e-3 < 0).sum() > 0
    assert notes.facts["rank_agreement_with_first_order"] == pytest.approx(1.0)
    tables.columns["gradients.drop"] = -cheap
    assert ost.explain(tables, ost.Options(step="exact"))[1].facts["rank_agreement_with_first_order"] < -0.99


def test_adam_divides_by_the_root_mean_square():
    anchors = np.ones((2, 6), np.float32)
    tables = tables_of(extra={"gradients.anchor": anchors})
    columns = ost.score(tables, ost.Options(normalise="none", optimiser="adam"))
    gradients = tables.matrix("gradients").take(np.arange(60)).astype(float)
    scaled = gradients / (np.sqrt(np.square(gradients).mean(axis=0)) + 1e-8)
    np.testing.assert_allclose(columns["score"], scaled.sum(axis=1), atol=1e-9)


def test_icons_counts_votes_and_breaks_ties_by_standing():
    tasks = {
        f"gradients.{name}": np.random.default_rng(seed).normal(size=(3, 6)).astype(np.float32)
        for seed, name in enumerate("xyz")
    }
    tables = tables_of(extra=tasks)
    columns = icons.score(tables, icons.Options(share=0.1))
    gradients = icons.unit(tables.matrix("gradients").take(np.arange(60)))
    votes = np.zeros(60)
    for task in tasks.values():
        influence = (gradients @ icons.unit(task).T).mean(axis=1)
        votes[np.argsort(-influence)[:6]] += 1
    np.testing.assert_array_equal(columns["votes"], votes)
    assert ((columns["score"] >= votes) & (columns["score"] < votes + 1)).all()
    assert len(np.unique(columns["score"])) > len(np.unique(votes))


def test_presel_takes_the_reference_first_and_meets_task_quotas():
    tables, options = tables_of(90), presel.Options(reference=0.1, clusters=0.1)
    columns = presel.score(tables, options)
    picks = presel.select(columns, tables, 45, np.random.default_rng(0), options)
    assert len(set(picks.tolist())) == 45
    assert columns["reference"][picks[:9]].all()
    weight = {source: columns["weight"][tables.sources == source][0] for source in ("a", "b")}
    assert sum(weight.values()) == pytest.approx(1)
    ratio = tables.column("answers.nll") / tables.column("answers.nll_without_image")
    reference = columns["reference"] > 0
    means = {source: ratio[reference & (tables.sources == source)].mean() for source in ("a", "b")}
    assert weight["a"] / weight["b"] == pytest.approx(np.exp(-(means["a"] - means["b"]) * np.sqrt(2)))


def test_presel_quotas_never_exceed_a_task():
    assert presel.task_quotas(np.array([0.9, 0.1]), np.array([3, 50]), 20).tolist() == [3, 17]
