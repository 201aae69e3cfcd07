"""One table of all methods drives one battery: what every selection method must do, whatever it measures."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tasks.errors import FeatureError
from tasks.linalg.matrix import ArrayMatrix
from tasks.methods import METHODS
from tasks.methods.contract import Columns, Tables, best_first

VARIANTS: dict[str, list[dict[str, object]]] = {
    "scalselect": [
        {},
        {"rank": 3},
        {"ridge": 0.5},
        {"preset": "official-cli"},
        {"sampling": "leverage"},
        {"sampling": "residual"},
    ],
    "prism": [{"version": "v1"}, {"version": "v4"}],
    "coincide": [
        {"clusters": 5},
        {"clusters": 5, "preset": "official"},
        {"clusters": 1000, "rounding": "ceil"},
        {"iterations": 0},
        {"labels": "groups"},
    ],
    "semdedup": [{"clusters": 5}, {"clusters": 1000}, {}, {"labels": "groups"}],
    "d2": [
        {},
        {"graph": "directed"},
        {"graph": "directed", "rule": "official_vit"},
        {"strata": 4, "gamma_reverse": 0.1},
        {"neighbours": 100, "difficulty": "answers.nll"},
    ],
    "self_sup": [{"clusters": 5}, {"clusters": 5, "keep": "far"}, {"labels": "groups"}],
    "self_filter": [{}, {"difficulty": "answers.margin", "beside": None}, {"negative": "official", "neighbours": 3}],
    "el2n": [{"window": window} for window in ("top", "middle", "bottom")],
    "perplexity": [{"window": "top"}, {"window": "middle", "mean": "turn"}],
    "margin": [{"window": "bottom"}, {"mean": "turn"}],
    "deita": [{}, {"threshold": 0.2}],
    "ost": [{}, {"normalise": "none"}, {"normalise": "cosine", "optimiser": "adam"}, {"step": "exact"}],
    "icons": [{}, {"share": 0.5}],
    "presel": [{}, {"clusters": 0.3, "neighbours": 2, "reference": 0.2, "temperature": 0.5}],
    "combined": [
        {"rule": "intersection", "members": {"d2": {}, "prism": {}}},
        {"rule": "union", "members": {"semdedup": {"clusters": 5}, "self_filter": {}, "random": {}}},
        {"rule": "chain", "shares": [0.5], "members": {"semdedup": {"clusters": 5}, "scalselect": {}}},
        {},
    ],
}
"""Options to try besides the defaults; a method that is not here is tried with its defaults."""

CASES = [(name, options) for name in METHODS for options in VARIANTS.get(name, [{}])]
MATRICES = ("attended", "pooled", "pooled.visual", "pooled.language", "clip.image", "clip.text", "gradients")
COLUMNS = (
    "answers.nll",
    "answers.nll_per_turn",
    "answers.nll_without_image",
    "answers.el2n",
    "answers.el2n_per_turn",
    "answers.margin",
    "answers.margin_per_turn",
    "judge.score",
    "deita.complexity",
    "deita.quality",
    "gradients.drop",
)
UNREAD_IS_NOT_AN_ERROR = {"llm_judge"}
"""Methods that define what a NaN means: a rating that could not be read."""


def features(shape: str, n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(n, d)) * np.linspace(3, 0.3, d) + rng.normal(size=d)).astype(np.float32)
    if shape == "duplicates":
        rows[n // 2 :] = rows[: n - n // 2]
    elif shape == "constant columns":
        rows[:, ::3] = 7
    elif shape == "all equal":
        rows[:] = rows[0]
    elif shape == "zero":
        rows[:] = 0
    return rows


def make_tables(shape: str = "plain", n: int = 29, d: int = 8) -> Tables:
    rng = np.random.default_rng(99)
    digests = np.array([rng.bytes(8).hex() for _ in range(n)])
    matrices = {name: ArrayMatrix(features(shape, n, d, seed)) for seed, name in enumerate(MATRICES)}
    columns = {name: np.abs(features(shape, n, 1, seed)[:, 0].astype(float)) for seed, name in enumerate(COLUMNS, 50)}
    columns["groups"] = rng.integers(0, 5, n).astype(float)
    anchors = {"gradients.anchor": ArrayMatrix(features("plain", 5, d, 77))}
    return Tables(digests, rng.choice(["gqa", "ocr", "vg"], size=n), matrices | anchors, columns)


def permuted(tables: Tables, order: np.ndarray) -> Tables:
    matrices = {
        name: ArrayMatrix(matrix.take(order)) if matrix.shape[0] == len(tables) else matrix
        for name, matrix in tables.matrices.items()
    }
    columns = {name: column[order] for name, column in tables.columns.items()}
    return Tables(tables.digests[order], tables.sources[order], matrices, columns)


def measured(name: str, options: dict[str, object], tables: Tables) -> tuple[Columns, object]:
    parsed = METHODS[name].parse(options)
    return METHODS[name].score(tables, parsed), parsed


def picked(name: str, options: dict[str, object], tables: Tables, budget: int, seed: int = 0) -> np.ndarray:
    columns, parsed = measured(name, options, tables)
    return METHODS[name].select(columns, tables, budget, np.random.default_rng(seed), parsed)


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    return request.param


SHAPES = ["plain", "duplicates", "constant columns", "all equal", "zero"]


@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_finite_and_one_a_row(case: tuple[str, dict[str, object]], shape: str) -> None:
    tables = make_tables(shape)
    columns, _ = measured(*case, tables)
    assert columns["score"].dtype == np.float64
    assert np.isfinite(columns["score"]).all()
    assert {len(column) for column in columns.values()} == {len(tables)}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_budget_is_met_exactly(case: tuple[str, dict[str, object]], shape: str) -> None:
    tables = make_tables(shape)
    columns, options = measured(*case, tables)
    for budget in range(len(tables) + 1):
        rows = METHODS[case[0]].select(columns, tables, budget, np.random.default_rng(3), options)
        assert len(rows) == budget == len(np.unique(rows))
        assert rows.dtype == np.int64
        assert not len(rows) or (rows.min() >= 0 and rows.max() < len(tables))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_order_of_rows_does_not_matter(case: tuple[str, dict[str, object]], shape: str) -> None:
    tables = make_tables(shape)
    order = np.random.default_rng(5).permutation(len(tables))
    moved = permuted(tables, order)
    np.testing.assert_allclose(
        measured(*case, moved)[0]["score"], measured(*case, tables)[0]["score"][order], rtol=1e-6, atol=1e-9
    )
    for budget in (1, 7, 20, len(tables)):
        here = tables.digests[picked(*case, tables, budget)]
        there = moved.digests[picked(*case, moved, budget)]
        np.testing.assert_array_equal(there, here)


def test_the_same_seed_gives_the_same_rows(case: tuple[str, dict[str, object]]) -> None:
    tables = make_tables()
    for seed in (0, 1):
        np.testing.assert_array_equal(picked(*case, tables, 9, seed), picked(*case, tables, 9, seed))


def test_the_number_of_threads_does_not_matter(case: tuple[str, dict[str, object]]) -> None:
    tables = make_tables(n=900, d=48)
    with threadpool_limits(1):
        one = picked(*case, tables, 100)
    with threadpool_limits(2):
        two = picked(*case, tables, 100)
    np.testing.assert_array_equal(one, two)


def test_one_row(case: tuple[str, dict[str, object]]) -> None:
    tables = make_tables(n=1)
    assert picked(*case, tables, 0).tolist() == []
    assert picked(*case, tables, 1).tolist() == [0]


def test_no_row(case: tuple[str, dict[str, object]]) -> None:
    assert picked(*case, make_tables(n=0), 0).tolist() == []


def test_a_number_that_is_none_is_refused_by_name(case: tuple[str, dict[str, object]]) -> None:
    name, options = case
    for value in (np.nan, np.inf):
        for signal in METHODS[name].signals(METHODS[name].parse(options)):
            if name in UNREAD_IS_NOT_AN_ERROR:
                continue
            with pytest.raises(FeatureError, match=rf"`{signal}[.`].*row 4\b"):
                picked(name, options, spoilt(make_tables(), signal, value), 3)


def spoilt(tables: Tables, signal: str, value: float) -> Tables:
    """The tables with `value` in row 4 of everything the signal gives."""
    matrices, columns = dict(tables.matrices), {name: column.copy() for name, column in tables.columns.items()}
    for name, matrix in tables.matrices.items():
        if name.split(".")[0] == signal and matrix.shape[0] == len(tables):
            rows = matrix.take(np.arange(len(tables))).copy()
            rows[4, 2] = value
            matrices[name] = ArrayMatrix(rows)
    for name, column in columns.items():
        if name.split(".")[0] == signal:
            column[4] = value
    return Tables(tables.digests, tables.sources, matrices, columns)


def test_a_missing_signal_is_named(case: tuple[str, dict[str, object]]) -> None:
    name, options = case
    tables = make_tables()
    bare = Tables(tables.digests, tables.sources)
    signals = METHODS[name].signals(METHODS[name].parse(options))
    if signals:
        with pytest.raises(FeatureError, match=f"`({'|'.join(signals)})"):
            measured(name, options, bare)


def test_ties_go_to_the_smaller_digest() -> None:
    digests = np.array(["c", "a", "b", "a"])
    assert best_first(np.array([1.0, 1.0, 2.0, 1.0]), digests).tolist() == [2, 1, 3, 0]


def test_random_rows_stay_when_others_come_and_go() -> None:
    tables = make_tables(n=60)
    kept = np.flatnonzero(np.arange(60) % 3 > 0)
    fewer = permuted(tables, kept)
    everything = tables.digests[picked("random", {}, tables, 60)]
    still = [digest for digest in everything if digest in set(fewer.digests)]
    assert fewer.digests[picked("random", {}, fewer, len(kept))].tolist() == still


def test_seeds_differ() -> None:
    tables = make_tables()
    for name in ("random", "stratified"):
        assert set(picked(name, {}, tables, 9, seed=0)) != set(picked(name, {}, tables, 9, seed=1))
