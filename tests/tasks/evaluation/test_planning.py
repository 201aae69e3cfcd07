"""Which trainings there are, and under which settings their subsets are chosen."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ParamsError
from tasks.evaluation.planning import Run, count_steps, needed_signals, plan_runs, settings_for
from tasks.params import EvaluateSettings, TuneSettings, parse

BASE = {"dataset": {"path": "d"}, "model": {"path": "m"}}
APART = {"method": "scalselect", "options": {"rank": 3}, "select": {"near_duplicates": 0.9}}


def settings(**evaluate):
    return parse({**BASE, "evaluate": evaluate, "methods": {"scalselect": {"energy": 0.8, "rank": 7}}})


def test_full_and_untrained_come_first_and_seeds_are_outermost():
    runs = plan_runs(EvaluateSettings(methods=("prism",), budgets=(0.1, 5), seeds=2, full_seeds=2))
    assert runs[:3] == [Run("untrained", 0.0, 0), Run("full", 1.0, 0), Run("full", 1.0, 1)]
    rest = [(run.seed, run.budget, run.method) for run in runs[3:]]
    assert rest == [(seed, budget, name) for seed in (0, 1) for budget in (0.1, 5) for name in ("prism", "random")]


def test_random_is_always_trained_and_never_twice():
    runs = plan_runs(EvaluateSettings(methods=("random", "prism"), seeds=1))
    assert [run.method for run in runs[2:]] == ["random", "prism"]


def test_matching_doubles_the_subsets_but_not_the_full_data():
    runs = plan_runs(EvaluateSettings(methods=(), matching=("epochs", "steps"), seeds=1))
    assert [run.label for run in runs] == ["untrained-0.0-s0", "full-1.0-s0", "random-0.16-s0", "random-0.16-s0-steps"]


def test_a_variant_changes_options_and_constraints_of_its_method_only():
    chosen = settings_for(settings(variants={"apart": APART}), Run("apart", 0.25, 3))
    assert chosen.score.method == "scalselect"
    assert chosen.methods["scalselect"] == {"energy": 0.8, "rank": 3}
    assert (chosen.select.near_duplicates, chosen.select.budget, chosen.select.seed) == (0.9, 0.25, 3)
    plain = settings_for(settings(variants={"apart": APART}), Run("scalselect", 0.25, 3))
    assert plain.methods["scalselect"] == {"energy": 0.8, "rank": 7}
    assert plain.select.near_duplicates is None


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        ({"methods": ["prisn"]}, "no method or variant `prisn`"),
        ({"variants": {"full": {"method": "prism"}}}, "variants.full: the name is taken"),
        ({"variants": {"mine": {"method": "prisn"}}}, "variants.mine.method: no method `prisn`"),
    ],
)
def test_unknown_and_taken_names_are_refused(evaluate, message):
    with pytest.raises(ParamsError, match=message):
        plan_runs(settings(**evaluate).evaluate)


def test_a_misspelt_constraint_of_a_variant_is_refused_by_name():
    chosen = settings(variants={"mine": {"method": "random", "select": {"near_duplicate": 0.9}}})
    with pytest.raises(ParamsError, match=r"select\.near_duplicate`; did you mean `near_duplicates`"):
        settings_for(chosen, Run("mine", 0.1, 0))


def test_signals_are_those_of_every_method_and_of_near_duplicates():
    assert needed_signals(settings(methods=["random"])) == ()
    assert needed_signals(settings(methods=["prism", "scalselect"])) == ("pooled", "attended")
    near = {"mine": {"method": "random", "select": {"near_duplicates": 0.9}}}
    assert needed_signals(settings(methods=["mine"], variants=near)) == ("attended",)


@given(st.integers(1, 500), st.integers(1, 9), st.integers(1, 4), st.floats(0.1, 5))
def test_steps_are_counted_as_the_trainer_counts_them(rows, batch, accumulate, epochs):
    tune = TuneSettings(batch_size=batch, accumulate=accumulate, epochs=epochs)
    batches = len(range(0, rows, batch))
    updates = batches // accumulate + (batches % accumulate > 0)
    assert count_steps(rows, tune) == max(1, math.ceil(epochs * updates))
