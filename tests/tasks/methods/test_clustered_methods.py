import numpy as np
import pytest

from tasks.errors import BudgetError, ParamsError
from tasks.linalg.kmeans import initial_rows, spherical_kmeans
from tasks.linalg.matrix import ArrayMatrix
from tasks.methods import METHODS, coincide, semdedup
from tasks.methods.contract import Tables
from tasks.methods.stratified import Options as Stratified


def blobs(n: int = 240, d: int = 10, k: int = 6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(k, d))[rng.integers(0, k, n)] + 0.25 * rng.normal(size=(n, d))
    return (data / np.linalg.norm(data, axis=1, keepdims=True)).astype(np.float32)


def tables(features: np.ndarray, sources: np.ndarray | None = None) -> Tables:
    digests = np.array([f"{row:06d}" for row in range(len(features))])
    matrices = {"pooled": ArrayMatrix(features), "pooled.language": ArrayMatrix(features[:, 5:])}
    return Tables(digests, np.full(len(features), "all") if sources is None else sources, matrices)


def picks_of(module: object, given: Tables, options: object, budget: int, seed: int = 0) -> np.ndarray:
    columns = module.score(given, options)
    return module.select(columns, given, budget, np.random.default_rng(seed), options)


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_coincide_equals_its_definition(preset: str) -> None:
    given = tables(blobs())
    options = coincide.Options(preset=preset, clusters=6)
    columns = coincide.score(given, options)
    data = blobs().astype(np.float64)
    data /= np.linalg.norm(data, axis=1, keepdims=True)
    labels = columns["cluster"]
    means = np.array([data[labels == label].sum(axis=0) for label in range(labels.max() + 1)])
    view = means[:, 5:] if preset == "official" else means
    unit = view / np.linalg.norm(view, axis=1, keepdims=True)
    cosines = unit @ unit.T
    kept = cosines <= 0.9 if preset == "official" else np.ones_like(cosines, dtype=bool)
    transfer = (cosines * kept).sum(axis=1) / kept.sum(axis=1)
    np.testing.assert_allclose(columns["transferability"], transfer[labels], atol=1e-6)
    for label in range(len(means)):
        rows = data[labels == label]
        kernel = np.exp(-((rows[:, None] - rows[None]) ** 2).sum(axis=2) / 2)
        off = kernel.mean() if preset == "official" else (kernel.sum() - len(rows)) / (len(rows) * (len(rows) - 1))
        np.testing.assert_allclose(columns["density"][labels == label], off, atol=1e-12)
    logits = columns["transferability"] / (0.1 * columns["density"])
    first = [int(np.argmax(labels == label)) for label in range(len(means))]
    expected = np.exp(logits[first] - logits[first].max())
    np.testing.assert_allclose(columns["share"][first], expected / expected.sum(), rtol=1e-9)


def test_a_growing_budget_by_score_takes_a_prefix_of_every_cluster() -> None:
    columns = coincide.score(tables(blobs()), coincide.Options(clusters=6))
    order = np.argsort(-columns["score"], kind="stable")[:100]
    for label in set(columns["cluster"].tolist()):
        places = columns["place"][order][columns["cluster"][order] == label]
        assert places.tolist() == list(range(len(places)))


def test_clusters_are_never_more_than_rows() -> None:
    data = blobs(9)
    assert coincide.explain(tables(data), coincide.Options(clusters=500))[1].facts["clusters"] == 9
    assert semdedup.explain(tables(data), semdedup.Options())[1].facts["clusters"] == 1


def test_another_seed_is_another_clustering() -> None:
    given = tables(np.random.default_rng(0).normal(size=(300, 10)).astype(np.float32))
    one, other = (coincide.score(given, coincide.Options(clusters=9, seed=seed))["cluster"] for seed in (1, 2))
    assert len(np.unique(one * 1000 + other)) > 9


def test_semdedup_equals_its_definition() -> None:
    data = blobs(150).astype(np.float64)
    given = tables(data)
    columns = semdedup.score(given, semdedup.Options(clusters=5, eps=0.1))
    found = spherical_kmeans(ArrayMatrix(data), initial_rows(given.digests, 5, 1234), 50)
    centroids = found.centroids.astype(np.float64)
    data /= np.linalg.norm(data, axis=1, keepdims=True)
    for label in range(len(centroids)):
        rows = np.flatnonzero(columns["cluster"] == label)
        order = rows[np.argsort(data[rows] @ centroids[label])]
        expected = [0.0] + [max(0.0, float((data[order[:j]] @ data[order[j]]).max())) for j in range(1, len(order))]
        np.testing.assert_allclose(columns["similarity"][order], expected, atol=1e-8)
    np.testing.assert_array_equal(columns["kept"], columns["similarity"] <= 0.9)
    np.testing.assert_array_equal(columns["score"], 1 - columns["similarity"])


def test_chunks_of_a_large_cluster_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points = blobs(90).astype(np.float64)
    whole = semdedup.earlier_similarity(points)
    monkeypatch.setattr(semdedup, "CHUNK_ROWS", 7)
    np.testing.assert_array_equal(semdedup.earlier_similarity(points), whole)


def test_of_copies_the_first_survives() -> None:
    data = np.repeat(blobs(40), 3, axis=0)
    columns = semdedup.score(tables(data), semdedup.Options(clusters=4, eps=1e-3))
    assert columns["kept"].reshape(40, 3).sum(axis=1).tolist() == [1] * 40
    assert columns["kept"].reshape(40, 3)[:, 0].all()


def test_eps_draws_from_survivors_and_says_when_they_do_not_suffice() -> None:
    given = tables(blobs())
    options = semdedup.Options(clusters=6, eps=0.12)
    kept = set(np.flatnonzero(semdedup.score(given, options)["kept"]).tolist())
    assert 10 < len(kept) < 240
    drawn = [set(picks_of(semdedup, given, options, 10, seed).tolist()) for seed in (0, 1)]
    assert drawn[0] != drawn[1]
    assert drawn[0] | drawn[1] <= kept
    with pytest.raises(BudgetError, match=f"keeps {len(kept)} rows, the budget is 240"):
        picks_of(semdedup, given, options, 240)


def test_one_per_group_keeps_more_and_needs_eps() -> None:
    given = tables(blobs())
    kept = [
        semdedup.score(given, semdedup.Options(clusters=6, eps=0.12, rule=rule))["kept"].sum()
        for rule in ("official", "one_per_group")
    ]
    assert kept[0] < kept[1]
    with pytest.raises(ParamsError, match="one_per_group needs"):
        METHODS["semdedup"].parse({"rule": "one_per_group"})


def test_stratified_shares_by_source() -> None:
    sources = np.array(["a"] * 60 + ["b"] * 30 + ["c"] * 10)
    given = tables(blobs(100), sources)
    method = METHODS["stratified"]
    columns = method.score(given, Stratified())
    picks = method.select(columns, given, 20, np.random.default_rng(0), Stratified())
    assert {source: int((sources[picks] == source).sum()) for source in "abc"} == {"a": 12, "b": 6, "c": 2}
    assert set(method.select(columns, given, 10, np.random.default_rng(0), Stratified())) <= set(picks)
