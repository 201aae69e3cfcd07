"""Features brought by the user: any file, further inputs by name, scores and picks."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.arrays import read_arrays, score_array
from tasks.errors import BudgetError, FeatureError, ParamsError
from tasks.methods import METHODS, scalselect


@pytest.mark.parametrize("kind", ["npy", "parquet", "folder"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_score_array(tmp_path: Path, kind: str, dtype: type) -> None:
    features: np.ndarray = np.random.default_rng(1).normal(size=(30, 5)).astype(dtype)
    path = tmp_path / ("features" if kind == "folder" else f"features.{kind}")
    if kind == "npy":
        np.save(path, features)
    elif kind == "parquet":
        pq.write_table(pa.table({"feature": pa.FixedSizeListArray.from_arrays(features.reshape(-1), 5)}), path)
    else:
        path.mkdir()
        np.save(path / "a.npy", features[:11])
        np.save(path / "b.npy", features[11:])
    out = tmp_path / "scores.parquet"
    score_array(path, "scalselect", {"methods.scalselect.rank": 2}, out)
    table = pq.read_table(out)
    centred = features.astype(np.float64) - features.astype(np.float64).mean(axis=0)
    left = np.linalg.svd(centred, full_matrices=False)[0][:, :2]
    np.testing.assert_allclose(table["score"].to_numpy(), (left**2).sum(axis=1), atol=1e-10)
    assert table["row"].to_pylist() == list(range(30))
    assert table["digest"].null_count == table["id"].null_count == 30


def test_score_array_keeps_float64(tmp_path: Path, golden: Path) -> None:
    with np.load(golden / "methods/leverage.npz") as arrays:
        features, expected = arrays["large_mean_X"], arrays["large_mean_leverage"]
    np.save(tmp_path / "x.npy", features)
    score_array(tmp_path / "x.npy", "scalselect", {}, tmp_path / "s.parquet")
    found = pq.read_table(tmp_path / "s.parquet")["score"].to_numpy()
    np.testing.assert_allclose(found, expected, atol=1e-9, rtol=0)


def test_score_array_with_further_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    np.save(tmp_path / "x.npy", rng.normal(size=(20, 6)).astype(np.float32))
    np.save(tmp_path / "language.npy", rng.normal(size=(20, 3)).astype(np.float32))
    out = tmp_path / "s.parquet"
    options = {"preset": "official", "coincide.clusters": 4}
    score_array(tmp_path / "x.npy", "coincide", options, out, {"pooled.language": tmp_path / "language.npy"})
    assert len(set(pq.read_table(out)["cluster"].to_pylist())) <= 4
    with pytest.raises(FeatureError, match=r"no features `pooled.language`"):
        score_array(tmp_path / "x.npy", "coincide", options, out)
    np.save(tmp_path / "short.npy", np.zeros(19))
    with pytest.raises(FeatureError, match=r"short.npy: 19 numbers for 20 rows"):
        score_array(tmp_path / "x.npy", "prism", {}, out, {"answers.nll": tmp_path / "short.npy"})
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(FeatureError, match=r"torn.parquet: not a whole Parquet file"):
        score_array(tmp_path / "x.npy", "prism", {}, out, {"answers.nll": tmp_path / "torn.parquet"})
    with pytest.raises(ParamsError, match=r"--set select.budget"):
        score_array(tmp_path / "x.npy", "prism", {"select.budget": 3}, out)


def test_columns_come_from_files(tmp_path: Path) -> None:
    values = np.random.default_rng(3).random(20)
    np.save(tmp_path / "x.npy", np.zeros((20, 2), dtype=np.float32))
    pq.write_table(pa.table({"row": range(20), "el2n": values}), tmp_path / "e.parquet")
    score_array(
        tmp_path / "x.npy", "el2n", {"window": "top"}, tmp_path / "s.parquet", {"answers.el2n": tmp_path / "e.parquet"}
    )
    np.testing.assert_array_equal(pq.read_table(tmp_path / "s.parquet")["score"].to_numpy(), values)


def test_clusters_come_from_a_file_and_sources_from_the_features(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(30, 4)).astype(np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 4)
    sources = ["ocr"] * 20 + ["gqa"] * 10
    pq.write_table(pa.table({"id": range(30), "source": sources, "v": vectors}), tmp_path / "x.parquet")
    np.save(tmp_path / "labels.npy", np.arange(30) // 10 * 7)
    for method in ("coincide", "semdedup", "self_sup"):
        score_array(tmp_path / "x.parquet", method, {}, tmp_path / "s.parquet", {"clusters": tmp_path / "labels.npy"})
        written = pq.read_table(tmp_path / "s.parquet")
        assert written["cluster"].to_pylist() == [row // 10 for row in range(30)]
        assert written["id"].to_pylist() == [str(row) for row in range(30)]
    score_array(tmp_path / "x.parquet", "stratified", {}, tmp_path / "s.parquet", budget=0.3, seed=1)
    picked = pq.read_table(tmp_path / "s.parquet")["picked"].to_numpy()
    assert sorted(picked[picked >= 0]) == list(range(9))
    assert [(picked[:20] >= 0).sum(), (picked[20:] >= 0).sum()] == [6, 3]


def test_picks_of_an_array_are_the_methods_own(tmp_path: Path) -> None:
    features = np.random.default_rng(5).normal(size=(40, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", features)
    score_array(tmp_path / "x.npy", "scalselect", {"sampling": "leverage"}, tmp_path / "s.parquet", budget=10, seed=3)
    picked = pq.read_table(tmp_path / "s.parquet")["picked"].to_numpy()
    method, options = METHODS["scalselect"], scalselect.Options(sampling="leverage")
    tables = read_arrays(tmp_path / "x.npy", "attended", {}).tables
    columns = method.score(tables, options)
    wanted = method.select(columns, tables, 10, np.random.default_rng(3), options)
    assert np.argsort(picked, kind="stable")[-10:].tolist() == wanted.tolist()
    assert (picked >= 0).sum() == 10
    with pytest.raises(BudgetError, match="41 rows asked for"):
        score_array(tmp_path / "x.npy", "scalselect", {}, tmp_path / "s.parquet", budget=41)


def test_a_matrix_of_another_length_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((20, 3), dtype=np.float32))
    np.save(tmp_path / "short.npy", np.ones((7, 3), dtype=np.float32))
    with pytest.raises(FeatureError, match=r"features `clip.text`: 7 rows, the pool has 20"):
        score_array(tmp_path / "x.npy", "clip_score", {}, tmp_path / "s.parquet", {"clip.text": tmp_path / "short.npy"})
    score_array(tmp_path / "x.npy", "ost", {}, tmp_path / "s.parquet", {"gradients.anchor": tmp_path / "short.npy"})


def test_features_of_combined_are_those_of_its_first_member_that_reads_one(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(6).normal(size=(20, 3)).astype(np.float32))
    members = {"random": {}, "scalselect": {}, "prism": {"features": "attended"}}
    score_array(tmp_path / "x.npy", "combined", {"members": members}, tmp_path / "s.parquet")
    assert "prism.redundancy" in pq.read_table(tmp_path / "s.parquet").column_names


def test_nan_is_named(tmp_path: Path) -> None:
    features = np.zeros((9, 3))
    features[6, 1] = np.nan
    np.save(tmp_path / "x.npy", features)
    with pytest.raises(FeatureError, match=r"row 6"):
        score_array(tmp_path / "x.npy", "scalselect", {}, tmp_path / "s.parquet")
