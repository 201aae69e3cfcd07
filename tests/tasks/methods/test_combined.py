"""Merged orders by hand."""

import numpy as np
import pytest

from tasks.errors import ParamsError
from tasks.linalg.matrix import ArrayMatrix
from tasks.methods import METHODS
from tasks.methods.combined import merge
from tasks.methods.contract import Tables, best_first

DIGESTS = np.array(list("abcdef"))
FIRST, SECOND = np.array([0, 1, 2, 3, 4, 5]), np.array([5, 2, 0, 1, 3, 4])


@pytest.mark.parametrize(
    ("rule", "shares", "wanted"),
    [
        ("rank_average", (), [0, 2, 1, 5, 3, 4]),  # mean ranks 1, 2, 1.5, 3.5, 4.5, 2.5
        ("intersection", (), [0, 2, 1, 3, 4, 5]),  # worst ranks 2, 3, 2, 4, 5, 5
        ("union", (), [0, 5, 1, 2, 3, 4]),  # best ranks 0, 1, 1, 3, 4, 0
        ("chain", (0.5,), [2, 0, 1, 3, 4, 5]),  # the first keeps 0, 1, 2; the second orders them 2, 0, 1
        ("chain", (1.0,), [5, 2, 0, 1, 3, 4]),
    ],
)
def test_rules(rule, shares, wanted):
    score = merge([FIRST, SECOND], rule, shares, DIGESTS)
    if rule == "rank_average":
        wanted = sorted(range(6), key=lambda row: (FIRST.tolist().index(row) + SECOND.tolist().index(row), row))
    assert best_first(score, DIGESTS).tolist() == wanted


def tables():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5)).astype(np.float32)
    digests = np.array([f"{row:03d}" for row in range(40)])
    columns = {"answers.nll": rng.random(40), "answers.el2n": rng.random(40)}
    return Tables(digests, np.full(40, "s"), {"attended": ArrayMatrix(x), "pooled": ArrayMatrix(x)}, columns)


@pytest.mark.parametrize("rule", ["rank_average", "intersection", "union", "chain"])
def test_every_budget_is_met_with_members_that_pick_for_themselves(rule):
    method = METHODS["combined"]
    members = {"semdedup": {"clusters": 3}, "el2n": {"window": "top"}}
    options = method.parse({"members": members, "rule": rule, "shares": [0.5] if rule == "chain" else []})
    assert method.signals(options) == ("pooled", "answers")
    columns = method.score(tables(), options)
    for budget in range(41):
        picks = method.select(columns, tables(), budget, np.random.default_rng(0), options)
        assert len(set(picks.tolist())) == len(picks) == budget


def test_one_member_is_that_member():
    method, alone = METHODS["combined"], METHODS["semdedup"]
    options = method.parse({"members": {"semdedup": {"clusters": 3}}})
    picks = method.select(method.score(tables(), options), tables(), 11, np.random.default_rng(0), options)
    own = alone.parse({"clusters": 3})
    wanted = alone.select(alone.score(tables(), own), tables(), 11, np.random.default_rng(0), own)
    assert picks.tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"members": {}}, "name at least one method"),
        ({"members": {"magic": {}}}, "no method `magic`"),
        ({"members": {"el2n": {"windw": "top"}}}, "methods.el2n: unknown key `windw`"),
        ({"members": {"el2n": {}, "margin": {}}, "rule": "chain"}, "chain of 2 members needs 1 shares"),
        ({"members": {"el2n": {}, "margin": {}}, "rule": "chain", "shares": [2.0]}, "every share lies above 0"),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(ParamsError, match=message):
        METHODS["combined"].signals(METHODS["combined"].parse(values))
