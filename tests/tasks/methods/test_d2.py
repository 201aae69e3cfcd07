"""D2's heap against the scan it replaces, and the graph's edges."""

import numpy as np
import pytest

from tasks.errors import FeatureError, ParamsError
from tasks.linalg.matrix import ArrayMatrix
from tasks.methods import METHODS, d2
from tasks.methods.contract import Tables


def tables_of(x, difficulty):
    digests = np.array([f"{value:04d}" for value in np.random.default_rng(9).permutation(len(x))])
    return Tables(digests, np.full(len(x), "s"), {"pooled": ArrayMatrix(x)}, {"answers.margin": difficulty})


def naive(columns, tables, budget, options):
    """Argmax by scanning, on a dense matrix of edges."""
    n = len(tables)
    weight = np.zeros((n, n))
    for row in range(n):
        for other, distance in zip(columns["neighbours"][row], columns["distances"][row], strict=True):
            if other >= 0:
                edge = np.exp(-options.gamma_reverse * (distance if options.graph == "union" else distance**2))
                weight[row, other] = edge
                if options.graph == "union":
                    weight[other, row] = edge
    current, picks = columns["score"].copy(), []
    while len(picks) < budget:
        row = min(set(range(n)) - set(picks), key=lambda one: (-current[one], tables.digests[one]))
        picks.append(row)
        others = np.nonzero(weight[row])[0]
        others = np.array([one for one in others if one not in picks], dtype=int)
        current[others] -= weight[row, others] * current[row]
    return picks


@pytest.mark.parametrize("graph", ["union", "directed"])
@pytest.mark.parametrize("seed", range(6))
def test_the_heap_picks_what_a_scan_picks(graph, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(45, 3)).astype(np.float32)
    x[30:] = x[rng.integers(0, 20, 15)]
    difficulty = np.round(rng.normal(size=45), 1)
    tables, options = tables_of(x, difficulty), d2.Options(graph=graph, neighbours=4, gamma_reverse=1.0)
    columns = d2.score(tables, options)
    picks = d2.select(columns, tables, 45, rng, options)
    assert picks.tolist() == naive(columns, tables, 45, options)
    assert d2.select(columns, tables, 17, rng, options).tolist() == picks[:17].tolist()


@pytest.mark.parametrize("rule", ["exact", "official_vit"])
@pytest.mark.parametrize("strata", [0, 4])
@pytest.mark.parametrize("n", [1, 2, 23])
def test_every_budget_with_strata_and_the_walk(rule, strata, n):
    rng = np.random.default_rng(1)
    tables = tables_of(rng.normal(size=(n, 3)).astype(np.float32), rng.normal(size=n))
    options = d2.Options(graph="directed", rule=rule, strata=strata)
    columns = d2.score(tables, options)
    for budget in range(n + 1):
        picks = d2.select(columns, tables, budget, rng, options)
        assert len(set(picks.tolist())) == len(picks) == budget


def test_equal_difficulties_are_one_stratum():
    assert d2.stratum_of(np.zeros(5), 3).tolist() == [0] * 5
    assert d2.stratum_of(np.array([-2.0, -1.0, -1.5]), 2).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("budget", "sizes", "shares"),
    [(9, [1, 5, 9], [1, 4, 4]), (15, [1, 5, 9], [1, 5, 9]), (0, [2, 2], [0, 0]), (1, [3, 3], [0, 1])],
)
def test_even_budgets(budget, sizes, shares):
    assert d2.even_budgets(budget, np.array(sizes)).tolist() == shares


def test_the_walk_needs_the_directed_graph():
    with pytest.raises(ParamsError, match=r"needs methods\.d2\.graph: directed"):
        METHODS["d2"].parse({"rule": "official_vit"})


def test_a_difficulty_that_is_none_is_named():
    with pytest.raises(FeatureError, match=r"column `answers.margin`: 1 of 3 rows are not finite, first row 1"):
        d2.score(tables_of(np.zeros((3, 2), np.float32), np.array([0, np.nan, 1])), d2.Options())
