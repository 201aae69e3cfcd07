"""The relative-performance table, on numbers small enough to do by hand."""

import numpy as np
import pytest

from tasks.errors import InputError
from tasks.evaluation.table import Outcome, cost_ratio, paired_bootstrap, relative, tabulate, tell_score


def outcome(method: str, budget: float, seed: int, vqa: list[float], text: list[float], **more: object) -> Outcome:
    return Outcome(method, budget, seed, {"vqa": np.array(vqa), "text": np.array(text)}, **more)  # type: ignore[arg-type]


FULL = outcome("full", 1.0, 0, [1, 1, 0, 0], [1, 1, 1, 1], seconds={"tune": 100.0})


def test_relative_is_a_mean_of_shares_not_a_share_of_means() -> None:
    assert relative({"vqa": 0.25, "text": 1.0}, {"vqa": 0.5, "text": 1.0}) == pytest.approx(75.0)


def test_a_task_without_a_ceiling_does_not_count_and_one_must_count() -> None:
    assert relative({"vqa": 0.25, "text": 0.5}, {"vqa": 0.5, "text": 0.0}) == pytest.approx(50.0)
    with pytest.raises(InputError, match="0 on every task"):
        relative({"vqa": 0.5}, {"vqa": 0.0})


def test_lines_are_full_first_then_best_first_with_spread() -> None:
    lines = tabulate(
        [
            outcome("random", 0.2, 0, [1, 0, 0, 0], [1, 1, 1, 1], seconds={"tune": 20.0}),
            outcome("random", 0.2, 1, [1, 1, 0, 0], [1, 1, 1, 1], seconds={"tune": 20.0}),
            FULL,
            outcome("ours", 0.2, 0, [1, 1, 0, 0], [1, 1, 1, 1], seconds={"tune": 20.0, "select": 5.0}),
        ]
    )
    assert [line.method for line in lines] == ["full", "ours", "random"]
    assert [line.relative for line in lines] == pytest.approx([100.0, 100.0, 87.5])
    assert lines[2].spread == pytest.approx(np.std([75.0, 100.0], ddof=1))
    assert lines[0].against_random is None
    assert lines[2].against_random is None
    assert lines[1].cost == pytest.approx(0.25)
    low, high = lines[1].against_random or (1, 0)
    assert low <= 12.5 <= high


def test_paired_bootstrap_of_a_method_with_itself_is_exactly_zero() -> None:
    assert paired_bootstrap([FULL], [FULL], [FULL], resamples=50, seed=1) == (0.0, 0.0)


def test_a_uniform_gain_has_an_interval_above_zero() -> None:
    rng = np.random.default_rng(0)
    easy = rng.random(400)
    better = outcome("ours", 0.1, 0, list(easy * 0.8 + 0.2), [1.0])
    worse = outcome("random", 0.1, 0, list(easy * 0.8), [1.0])
    full = outcome("full", 1.0, 0, [1.0] * 400, [1.0])
    low, high = paired_bootstrap([better], [worse], [full], resamples=500, seed=0)
    assert low == pytest.approx(10.0)
    assert high == pytest.approx(10.0)


def test_intervals_resample_seeds_as_well_as_questions() -> None:
    full = outcome("full", 1.0, 0, [1.0] * 50, [1.0] * 50)
    seeds = [outcome("ours", 0.1, seed, [score] * 50, [score] * 50) for seed, score in enumerate((0.4, 0.6, 0.8))]
    line = next(line for line in tabulate([full, *seeds]) if line.method == "ours")
    assert line.interval is not None
    # Every question agrees, so all that varies is which of the three seeds are drawn: 40 to 80 at the ends.
    assert line.interval == pytest.approx((40.0, 80.0), abs=7)
    assert line.relative == pytest.approx(60.0)


def test_questions_are_paired_between_methods() -> None:
    rng = np.random.default_rng(1)
    hard = (rng.random(300) < 0.5).astype(float)
    full = outcome("full", 1.0, 0, [1.0] * 300, [1.0] * 300)
    ours, random = (outcome(name, 0.1, 0, list(hard), list(hard)) for name in ("ours", "random"))
    line = next(line for line in tabulate([full, ours, random]) if line.method == "ours")
    assert line.against_random == (0.0, 0.0)
    assert line.interval is not None
    assert line.interval[1] - line.interval[0] > 5


def test_imported_means_have_no_interval() -> None:
    lines = tabulate([outcome(name, 1.0, 0, [0.5], [0.5]) for name in ("full", "random", "ours")])
    assert [line.interval for line in lines] == [None] * 3
    assert [line.against_random for line in lines] == [None] * 3


def test_perplexity_is_of_the_mean_over_seeds_and_questions() -> None:
    nll = [
        {"vqa": np.array([0.0, 1.0]), "text": np.array([2.0, 2.0])},
        {"vqa": np.array([1.0, 2.0]), "text": np.ones(2)},
    ]
    lines = tabulate([outcome("full", 1.0, seed, [1, 0], [1, 1], nll=one) for seed, one in enumerate(nll)])
    assert lines[0].perplexity == pytest.approx({"vqa": np.e, "text": np.exp(1.5)})


def test_cost_needs_every_time() -> None:
    assert cost_ratio([FULL], [outcome("ours", 0.1, 0, [1, 0, 0, 0], [1, 1, 1, 1])], 100, 90) is None


def test_questions_must_agree_and_full_must_be_there() -> None:
    with pytest.raises(InputError, match="questions"):
        tabulate([FULL, outcome("ours", 0.1, 0, [1.0], [1.0])])
    with pytest.raises(InputError, match="full-data"):
        tabulate([outcome("ours", 0.1, 0, [1.0], [1.0])])
    with pytest.raises(InputError, match="no finished"):
        tabulate([])


def test_shares_are_told_in_percent_and_points_as_they_are():
    assert [tell_score(score) for score in (0.0, 0.6123, 1.0, 1462.75)] == ["0.0", "61.2", "100.0", "1,462.8"]
