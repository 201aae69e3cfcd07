"""D2, Self-Filter, DEITA, OST and token scores against reference vectors (their README describes every array)."""

import numpy as np
import pytest

from tasks.linalg.matrix import ArrayMatrix
from tasks.linalg.neighbours import nearest
from tasks.linalg.separation import separated
from tasks.linalg.tokens import mean_by_group, score_tokens
from tasks.methods import METHODS, d2
from tasks.methods.contract import Tables, best_first
from tasks.methods.deita import evol_score
from tasks.methods.ost import exact_drop, first_order
from tasks.methods.perplexity import perplexity
from tasks.methods.self_filter import filter_diverse
from tasks.methods.windows import digest_ranks


@pytest.fixture(scope="module")
def arrays(golden):
    return lambda name: np.load(golden / "methods" / f"{name}.npz")


def tables_of(n, matrices=None, columns=None):
    digests = np.array([f"{row:06d}" for row in range(n)])
    wrapped = {name: ArrayMatrix(array) for name, array in (matrices or {}).items()}
    return Tables(
        digests, np.full(n, "all"), wrapped, {k: np.asarray(v, dtype=float) for k, v in (columns or {}).items()}
    )


def picks_of(name, tables, budget, **options):
    method = METHODS[name]
    parsed = method.parse(options)
    columns = method.score(tables, parsed)
    return columns, method.select(columns, tables, budget, np.random.default_rng(0), parsed)


def d2_tables(vectors, scores):
    return tables_of(len(scores), {"pooled": vectors["embeddings"]}, {"answers.margin": scores})


def d2_options(vectors, gamma, **rest):
    known = {"neighbours": int(vectors["n_neighbors"]), "gamma_forward": float(vectors["gamma_f"])}
    return {**known, "gamma_reverse": float(gamma), **rest}


def test_d2_neighbours(arrays):
    g = arrays("d2")
    found = nearest(ArrayMatrix(g["embeddings"]), int(g["n_neighbors"]))
    np.testing.assert_array_equal(found.rows, g["knn_rows"])
    graph = d2.graph_of(found.rows, found.distances, "union")
    adjacency = np.zeros_like(g["adjacency_sym"])
    adjacency[np.repeat(np.arange(len(adjacency)), np.diff(graph.starts)), graph.targets] = True
    np.testing.assert_array_equal(adjacency, g["adjacency_sym"])


def test_d2_full_order(arrays):
    g = arrays("d2")
    tables = d2_tables(g, g["scores"])
    names = [name for name in g.files if name.startswith("order_gr_")]
    assert names
    for name in names:
        gamma = name.removeprefix("order_gr_").replace("p", ".")
        columns, picks = picks_of("d2", tables, len(tables), **d2_options(g, gamma))
        np.testing.assert_allclose(columns["score"], g["graph_scores"], atol=1e-9)
        np.testing.assert_allclose(columns["score"], g["graph_scores_f64"], atol=1e-9)
        np.testing.assert_array_equal(picks, g[name], err_msg=name)


@pytest.mark.parametrize(("rule", "wanted"), [("exact", "vit_picks_exact"), ("official_vit", "vit_picks_walk")])
def test_d2_for_visual_instructions(arrays, rule, wanted):
    g = arrays("d2")
    options = d2_options(g, g["vit_gamma_r"], graph="directed", rule=rule)
    columns, picks = picks_of("d2", d2_tables(g, g["vit_scores"]), len(g[wanted]), **options)
    np.testing.assert_array_equal(columns["neighbours"], g["vit_neighbors"])
    np.testing.assert_allclose(np.square(columns["distances"]), g["vit_sqdist"], atol=1e-5)
    np.testing.assert_allclose(columns["score"], g["vit_graph_scores"], atol=1e-5)
    np.testing.assert_allclose(columns["score"], g["vit_graph_scores_f64"], atol=1e-9)
    np.testing.assert_array_equal(picks, g[wanted])


def test_d2_strata(arrays):
    g = arrays("d2")
    options = d2_options(g, g["strat_gamma_r"], strata=int(g["strat_n_strata"]))
    columns, picks = picks_of("d2", d2_tables(g, g["scores"]), int(g["strat_coreset_num"]), **options)
    sizes = np.bincount(columns["stratum"], minlength=options["strata"])
    np.testing.assert_array_equal(sizes, g["strat_pool_sizes"])
    np.testing.assert_array_equal(d2.even_budgets(int(g["strat_coreset_num"]), sizes), g["strat_budgets"])
    np.testing.assert_array_equal(np.sort(picks), g["strat_selected_sorted"])


@pytest.mark.parametrize("case", ["pos", "neg"])
def test_self_filter(arrays, case):
    g = arrays("selffilter")
    difficulty, features = g[f"{case}_difficulty"], ArrayMatrix(g[f"{case}_features"])
    ranks = np.arange(len(difficulty))
    count, k = int(g[f"{case}_n_select"]), int(g["k_nearest"])
    picks = filter_diverse(difficulty, features, count, ranks, k, float(g["gamma"]), clamp=False)
    np.testing.assert_array_equal(picks, g[f"{case}_picks_official"])
    positive = int((g[f"{case}_pick_difficulty"] > 0).sum())
    clamped = filter_diverse(difficulty, features, count, ranks, k, float(g["gamma"]), clamp=True)
    np.testing.assert_array_equal(clamped[:positive], picks[:positive])


def test_self_filter_through_the_method(arrays):
    g = arrays("selffilter")
    halves = np.split(g["pos_features"], 2, axis=1)
    difficulty = g["pos_difficulty"]
    tables = tables_of(len(difficulty), {"clip.image": halves[0], "clip.text": halves[1]}, {"difficulty": difficulty})
    options = {"neighbours": int(g["k_nearest"]), "gamma": float(g["gamma"]), "negative": "official"}
    _, picks = picks_of("self_filter", tables, int(g["pos_n_select"]), difficulty="difficulty", **options)
    np.testing.assert_array_equal(picks, g["pos_picks_official"])


def test_deita(arrays):
    g = arrays("deita")
    evol = evol_score(g["complexity"], g["quality"])
    np.testing.assert_allclose(evol, g["score"], atol=1e-10)
    n = len(evol)
    tables = tables_of(n, {"pooled": g["embeddings"]}, {"deita.evol": evol})
    options = {"threshold": float(g["threshold"])}
    columns, picks = picks_of("deita", tables, int(g["n_select"]), **options)
    order = best_first(columns["score"], tables.digests)
    np.testing.assert_array_equal(order, g["order"])
    np.testing.assert_array_equal(picks, g["picks_official"])
    kept = separated(ArrayMatrix(g["embeddings"]), order, float(g["threshold"]), n)
    np.testing.assert_array_equal(kept, g["picks_all_official"])
    everything = picks_of("deita", tables, n, **options)[1]
    np.testing.assert_array_equal(everything[: len(kept)], kept)
    assert sorted(everything.tolist()) == list(range(n))


@pytest.mark.parametrize(
    ("normalise", "wanted"),
    [("none", "scores_raw"), ("sample", "scores_grad_normalised"), ("cosine", "scores_cosine")],
)
def test_ost_first_order(arrays, normalise, wanted):
    g = arrays("ost")
    utility, _ = first_order(ArrayMatrix(g["grads"]), g["anchor_grads"], normalise)
    np.testing.assert_allclose(utility, g[wanted], atol=1e-10)
    n = len(g["grads"])
    tables = tables_of(n, {"gradients": g["grads"]})
    tables = Tables(
        tables.digests, tables.sources, {**tables.matrices, "gradients.anchor": ArrayMatrix(g["anchor_grads"])}
    )
    columns, picks = picks_of("ost", tables, n, normalise=normalise)
    np.testing.assert_array_equal(picks, np.argsort(-g[wanted]))
    np.testing.assert_array_equal(columns["toxic"], g[wanted] < 0)


def logistic_loss(inputs, labels):
    signs = 2.0 * labels - 1.0
    return lambda theta: float(np.logaddexp(0.0, -signs * (inputs @ theta)).mean())


@pytest.mark.parametrize("normalise", [False, True])
def test_ost_exact_step(arrays, normalise):
    g = arrays("ost")
    loss = logistic_loss(g["lr_anchor_X"], g["lr_anchor_y"])
    assert loss(g["lr_theta"]) == pytest.approx(float(g["lr_anchor_loss"]), abs=1e-12)
    wanted = g["lr_exact_drop_grad_normalised" if normalise else "lr_exact_drop"]
    for eta, drop in zip(g["lr_etas"], wanted, strict=True):
        found = exact_drop(loss, g["lr_theta"], g["lr_sample_grads"], float(eta), normalise)
        np.testing.assert_allclose(found, drop, atol=1e-10)
        tables = tables_of(len(drop), columns={"gradients.drop": found})
        columns, picks = picks_of("ost", tables, len(drop), step="exact")
        np.testing.assert_array_equal(columns["toxic"], drop < 0)
        np.testing.assert_array_equal(picks, np.argsort(-drop))
    first, _ = first_order(
        ArrayMatrix(g["lr_sample_grads"]), g["lr_anchor_grad"][None], "sample" if normalise else "none"
    )
    np.testing.assert_allclose(
        first, g["lr_first_order_grad_normalised" if normalise else "lr_first_order"], atol=1e-10
    )


def test_token_scores(arrays):
    g = arrays("token_scores")
    rows, places = np.nonzero(g["labels"][:, 1:] != g["ignore_index"])
    found = score_tokens(g["logits"][rows, places], g["labels"][rows, places + 1])
    for name, array in (("el2n", "el2n"), ("margin", "margin"), ("nll", "mean_nll"), ("entropy", "mean_entropy")):
        np.testing.assert_allclose(found[name], g[f"token_{name}"][rows, places + 1], rtol=1e-10, atol=1e-10)
        means = mean_by_group(found[name], rows, len(g["labels"]))
        np.testing.assert_allclose(means, g[array], rtol=1e-10, atol=1e-10)
    scored = g["n_tokens"] > 0
    np.testing.assert_allclose(perplexity(g["mean_nll"][scored]), g["perplexity"][scored], rtol=1e-10)


@pytest.mark.parametrize(("method", "array"), [("el2n", "el2n"), ("margin", "margin"), ("perplexity", "mean_nll")])
@pytest.mark.parametrize("window", ["top", "middle", "bottom"])
def test_windows_of_token_scores(arrays, method, array, window):
    g = arrays("token_scores")
    values = g[array][g["n_tokens"] > 0]
    column = {"el2n": "answers.el2n", "margin": "answers.margin", "perplexity": "answers.nll"}[method]
    tables, n = tables_of(len(values), columns={column: values}), len(values)
    ascending = np.argsort(values, kind="stable")
    for budget in range(n + 1):
        start = {"top": n - budget, "middle": n // 2 - budget // 2, "bottom": 0}[window]
        _, picks = picks_of(method, tables, budget, window=window)
        assert sorted(picks.tolist()) == sorted(ascending[start : start + budget].tolist())


def test_ranks_follow_the_digests():
    np.testing.assert_array_equal(digest_ranks(np.array(["b", "a", "c", "a"])), [2, 0, 3, 1])
