import numpy as np
import pytest

from tasks.errors import ParamsError
from tasks.linalg.matrix import ArrayMatrix
from tasks.methods import METHODS
from tasks.methods.contract import Tables
from tasks.methods.prism import measure_redundancy
from tasks.methods.scalselect import Options, explain, score, select


def tables(features: np.ndarray, name: str = "attended") -> Tables:
    digests = np.array([f"{row:06d}" for row in range(len(features))])
    return Tables(digests, np.full(len(features), "all"), {name: ArrayMatrix(features)})


def rows(n: int = 200, d: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) * np.geomspace(4, 0.2, d) + 7


def centred_svd(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    left, values, _ = np.linalg.svd(data - data.mean(axis=0), full_matrices=False)
    return left, values


def test_rank_overrides_energy() -> None:
    left, _ = centred_svd(rows())
    for rank in (1, 5, 12, 99):
        found = score(tables(rows()), Options(rank=rank, energy=0.1))["score"]
        np.testing.assert_allclose(found, (left[:, :rank] ** 2).sum(axis=1), atol=1e-11)


def test_ridge_counts_every_direction_unless_rank_says_otherwise() -> None:
    left, values = centred_svd(rows())
    weights = values**2 / (values**2 + 30)
    full = score(tables(rows()), Options(ridge=30.0, energy=0.1))["score"]
    np.testing.assert_allclose(full, (left**2 * weights).sum(axis=1), atol=1e-11)
    cut = score(tables(rows()), Options(ridge=30.0, rank=4))["score"]
    np.testing.assert_allclose(cut, (left[:, :4] ** 2 * weights[:4]).sum(axis=1), atol=1e-11)


def test_presets_and_what_overrides_them() -> None:
    given = tables(rows())
    paper = score(given, Options())["score"]
    np.testing.assert_array_equal(score(given, Options(preset="official"))["score"], paper)
    bare = Options(preset="official-cli", standardise=False, row_normalise=False)
    np.testing.assert_allclose(score(given, bare)["score"], paper, atol=1e-11)
    spelled = Options(standardise=True, row_normalise=True)
    command_line = score(given, Options(preset="official-cli"))["score"]
    np.testing.assert_array_equal(score(given, spelled)["score"], command_line)
    scaled = rows() - rows().mean(axis=0)
    left, values = centred_svd(scaled / scaled.std(axis=0))
    k = int(np.searchsorted(np.cumsum(values**2) / (values**2).sum(), 0.9)) + 1
    np.testing.assert_allclose(
        score(given, Options(standardise=True))["score"], (left[:, :k] ** 2).sum(axis=1), atol=1e-11
    )


def test_notes_hold_the_spectrum() -> None:
    columns, notes = explain(tables(rows()), Options())
    values = centred_svd(rows())[1]
    np.testing.assert_allclose(notes.spectrum, values, rtol=1e-10)
    k = notes.facts["k"]
    assert notes.facts["energy"] == pytest.approx((values[:k] ** 2).sum() / (values**2).sum())
    assert notes.facts["energy"] >= 0.9 > (values[: k - 1] ** 2).sum() / (values**2).sum()
    assert columns["score"].sum() == pytest.approx(k)


def test_leverage_sampling_follows_the_scores() -> None:
    given = tables(rows())
    columns = score(given, Options(sampling="leverage"))
    drawn = np.zeros(200)
    for seed in range(300):
        drawn[select(columns, given, 20, np.random.default_rng(seed), Options(sampling="leverage"))] += 1
    assert np.corrcoef(drawn, columns["score"])[0, 1] > 0.8


def test_residual_spans_more_than_the_highest_scores() -> None:
    data = np.repeat(rows(60, 6), 4, axis=0)
    given, left = tables(data), centred_svd(data)[0][:, :6]
    distinct, volume = {}, {}
    for sampling in ("top", "residual"):
        options = Options(sampling=sampling, rank=6)
        picks = select(score(given, options), given, 24, np.random.default_rng(0), options)
        distinct[sampling] = len(set(picks // 4))
        volume[sampling] = np.linalg.slogdet(np.eye(6) * 6 / 240 + left[picks].T @ left[picks])[1]
    assert distinct["residual"] > distinct["top"] == 6
    assert volume["residual"] > volume["top"] + 0.5


@pytest.mark.parametrize("version", ["v1", "v4"])
def test_prism_equals_the_pairwise_mean(version: str) -> None:
    data = rows(70, 9)
    moved = data - data.mean(axis=0) if version == "v4" else data - data.mean(axis=1, keepdims=True)
    unit = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    pairs = unit @ unit.T
    np.fill_diagonal(pairs, 0)
    found = measure_redundancy(ArrayMatrix(data, 13), version)
    np.testing.assert_allclose(found, pairs.sum(axis=1) / 69, atol=1e-12)


def test_prism_row_at_the_mean_has_no_redundancy() -> None:
    data = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 3.0], [0.0, -3.0]])
    assert measure_redundancy(ArrayMatrix(data), "v4")[2] == 0
    assert measure_redundancy(ArrayMatrix(np.full((3, 4), 0.1)), "v1").tolist() == [0, 0, 0]


def test_values_out_of_range_are_refused() -> None:
    for name, key, value in (
        ("scalselect", "energy", 0),
        ("scalselect", "rank", 0),
        ("scalselect", "sampling", "best"),
        ("prism", "version", "v2"),
        ("coincide", "temperature", 0),
        ("semdedup", "eps", 2),
    ):
        with pytest.raises(ParamsError, match=rf"methods\.{name}\.{key}"):
            METHODS[name].parse({key: value})
