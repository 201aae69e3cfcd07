"""Composition against a walk written straight from the rules, and against its promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.composition import Candidates, Constraints, budget_count, compose, source_counts
from tasks.errors import BudgetError
from tasks.linalg.matrix import ArrayMatrix


def pool_of(n, seed=0, features=None):
    rng = np.random.default_rng(seed)
    return Candidates(
        digests=np.array([f"d{value:02d}" for value in rng.integers(0, max(1, 2 * n // 3), n)], dtype=str),
        sources=np.array([["a", "b", "c"][value] for value in rng.integers(0, 3, n)], dtype=str),
        images=[[f"i{value}" for value in rng.integers(0, n, rng.integers(1, 3))] for _ in range(n)],
        features=features,
    )


def naive(order, pool, budget, deduplicate, per_image, quotas, floors, threshold=None):
    kept = []
    unit = None if threshold is None else pool.features.take(np.arange(len(order))).astype(float)

    def allowed(row):
        twins = deduplicate and any(pool.digests[row] == pool.digests[other] for other in kept)
        crowded = per_image and any(
            sum(image in pool.images[other] for other in kept) >= per_image for image in pool.images[row]
        )
        source = pool.sources[row]
        full = source in quotas and sum(pool.sources[other] == source for other in kept) >= quotas[source]
        like = threshold is not None and any(
            unit[row] @ unit[other] / np.linalg.norm(unit[row]) / np.linalg.norm(unit[other]) > threshold
            for other in kept
        )
        return not (twins or crowded or full or like)

    for source, least in sorted({**floors, **quotas}.items()):
        for row in order:
            count = sum(pool.sources[other] == source for other in kept)
            if pool.sources[row] == source and count < least and row not in kept and allowed(row):
                kept.append(row)
        if sum(pool.sources[other] == source for other in kept) < least:
            return None
    for row in order:
        if len(kept) < budget and row not in kept and allowed(row):
            kept.append(row)
    if len(kept) != budget:
        return None
    return sorted(kept, key=list(order).index)


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(1, 25),
    seed=st.integers(0, 10_000),
    deduplicate=st.booleans(),
    per_image=st.sampled_from([None, 1, 2]),
    quota=st.one_of(st.none(), st.integers(0, 4)),
    floor=st.integers(0, 3),
    share=st.floats(0, 1),
)
def test_equals_the_rules_or_says_why_not(n, seed, deduplicate, per_image, quota, floor, share):
    pool = pool_of(n, seed)
    order = np.random.default_rng(seed).permutation(n)
    budget = budget_count(share, n)
    quotas = {} if quota is None else {"a": quota}
    floors = {"b": floor} if floor else {}
    want = naive(order, pool, budget, deduplicate, per_image, quotas, floors)
    if want is not None and sum(quotas.values()) + sum(floors.values()) > budget:
        want = None
    constraints = Constraints(deduplicate=deduplicate, per_image=per_image, quotas=quotas, floors=floors)
    if want is None:
        with pytest.raises(BudgetError):
            compose(order, pool, budget, constraints)
        return
    assert compose(order, pool, budget, constraints).picks.tolist() == want


@pytest.mark.parametrize("n", [1, 7, 40])
def test_without_limits_every_budget_is_a_prefix_of_the_order(n):
    pool, order = pool_of(n), np.random.default_rng(3).permutation(n)
    for budget in range(n + 1):
        assert compose(order, pool, budget, Constraints()).picks.tolist() == order[:budget].tolist()


@pytest.mark.parametrize("n", [30, 700])
def test_near_duplicates_equal_the_pairwise_rule(n):
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(n // 3, 8))
    x = (centres[rng.integers(0, len(centres), n)] + 0.05 * rng.normal(size=(n, 8))).astype(np.float32)
    pool, order = pool_of(n, features=ArrayMatrix(x, 64)), rng.permutation(n)
    want = naive(order, pool, n // 5, False, None, {}, {}, threshold=0.98)
    assert want is not None
    assert compose(order, pool, n // 5, Constraints(near_duplicates=0.98)).picks.tolist() == want


def test_equal_features_are_never_above_a_threshold_of_one():
    x = np.random.default_rng(0).normal(size=(1, 33)).repeat(20, axis=0).astype(np.float32)
    pool = pool_of(20, features=ArrayMatrix(x))
    assert len(compose(np.arange(20), pool, 20, Constraints(near_duplicates=1.0)).picks) == 20
    with pytest.raises(
        BudgetError, match=r"1 of 20 can be taken, `near_duplicate` refused 19: the largest budget is 1"
    ):
        compose(np.arange(20), pool, 2, Constraints(near_duplicates=0.999))


def simple(n=6):
    return Candidates(
        np.array([f"d{i}" for i in range(n)]), np.array(list("aabbcc")[:n]), [["x"], ["x"], ["y"], ["y"], ["z"], ["x"]]
    )


def test_pins_go_in_and_dropped_rows_stay_out():
    constraints = Constraints(keep=np.array([5, 3]), drop=np.array([0]))
    found = compose(np.arange(6), simple(), 3, constraints)
    assert found.picks.tolist() == [1, 3, 5]
    assert found.refused == {0: "dropped"}


def test_refusals_name_the_limit():
    found = compose(np.arange(6), simple(), 3, Constraints(per_image=1))
    assert found.picks.tolist() == [0, 2, 4]
    assert found.refused == {1: "per_image", 3: "per_image"}


def test_pinned_twins_count_once_when_deduplicating():
    pool = Candidates(np.array(["d", "d", "e"]), np.array(["a", "a", "a"]), [["x"], ["x"], ["y"]])
    found = compose(np.arange(3), pool, 2, Constraints(deduplicate=True, keep=np.array([0, 1])))
    assert found.picks.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("constraints", "budget", "message"),
    [
        (Constraints(drop=np.array([0, 1])), 5, "select.drop leaves 4 rows"),
        (Constraints(keep=np.array([0, 1, 2])), 2, "select.keep pins 3 rows"),
        (Constraints(keep=np.array([0]), drop=np.array([0])), 2, "name the same row, digest d0"),
        (Constraints(keep=np.array([0, 1]), per_image=1), 3, "select.keep: row with digest d1 is refused by the limit"),
        (Constraints(keep=np.array([0, 1]), quotas={"a": 1}), 3, "digest d1 is refused by the limit `quota`"),
        (Constraints(quotas={"a": 3}), 4, "select.quotas.a: 3 rows asked for, the source has 2"),
        (Constraints(floors={"a": 2, "b": 2}), 3, "ask for 4 rows, the budget is 3"),
        (Constraints(quotas={"a": 1}, floors={"a": 2}), 4, "select.floors.a is 2, above its quota of 1"),
        (Constraints(quotas={"a": 1}), 6, "leave room for 5 rows, the budget is 6: the largest budget is 5"),
        (Constraints(per_image=1), 4, "3 of 6 can be taken, `per_image` refused 3: the largest budget is 3"),
        (Constraints(floors={"b": 2}, per_image=1), 3, "source `b` reaches 1 of 2 rows, `per_image` refused 1"),
        (Constraints(near_duplicates=0.9), 3, "near_duplicates needs features"),
    ],
)
def test_impossible_budgets_say_why(constraints, budget, message):
    with pytest.raises(BudgetError, match=message):
        compose(np.arange(6), simple(), budget, constraints)


@pytest.mark.parametrize(
    ("budget", "rows", "count"),
    [(0, 0, 0), (0.0, 5, 0), (1.0, 5, 5), (1, 5, 1), (0.07, 100, 7), (0.29, 100, 29), (0.1, 9, 0), (0.16, 625, 100)],
)
def test_budget_counts(budget, rows, count):
    assert budget_count(budget, rows) == count


@pytest.mark.parametrize(("budget", "message"), [(-1, "-1 rows"), (6, "largest budget is 5"), (1.5, "whole number")])
def test_budgets_that_cannot_be(budget, message):
    with pytest.raises(BudgetError, match=message):
        budget_count(budget, 5)


def test_shares_of_sources_are_rounded_together():
    sources = np.array(["a", "b", "c"])
    assert source_counts({"a": 0.5, "b": 0.5}, 5, sources, "quotas") == {"a": 3, "b": 2}
    assert source_counts({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 10, sources, "quotas") == {"a": 4, "b": 3, "c": 3}
    assert source_counts({"a": 0.25, "b": 3}, 10, sources, "floors") == {"a": 2, "b": 3}
    with pytest.raises(BudgetError, match="no scored row has source `q`; sources: a, b, c"):
        source_counts({"q": 1}, 5, sources, "quotas")
