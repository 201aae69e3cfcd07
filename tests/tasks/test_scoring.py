import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import params
from tasks.arrays import score_array
from tasks.errors import FeatureError, ParamsError
from tasks.layout import Layout
from tasks.methods import METHODS
from tasks.pool import read_pool
from tasks.sample import ImageRef, Sample, Turn, digest_sample
from tasks.scoring import score
from tasks.store import collect
from tasks.tables import features_schema, write_samples

ROWS, WIDTH = 41, 8
EXTRACTED = [row for row in range(ROWS) if row not in (3, 17)]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Samples, and features of all but two of them, in two parts."""
    layout = Layout.flat(tmp_path / "run")
    samples = []
    for row in range(ROWS):
        turns = (Turn("user", f"<image> {row}?"), Turn("assistant", "yes"))
        image = ImageRef(f"{row}.png", f"{row}.png", sha256=f"{row:064x}", width=1, height=1)
        digest = digest_sample(turns, [image.sha256])
        samples.append(Sample(row, None if row == 5 else f"id-{row % 7}", "ab"[row % 2], turns, (image,), digest))
    write_samples(layout.samples, samples)
    features = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
    for name in ("attended", "pooled"):
        for number, rows in enumerate((EXTRACTED[:20], EXTRACTED[20:])):
            write_part(layout.features / name / f"part-{number:05d}.parquet", [samples[row] for row in rows], features)
    return layout


def write_part(path: Path, samples: list[Sample], features: np.ndarray) -> None:
    rows = [sample.row for sample in samples]
    columns = {
        "row": rows,
        "id": [sample.id for sample in samples],
        "digest": [sample.digest for sample in samples],
        "feature": features[rows].tolist(),
        "kept": np.arange(len(rows)),
    }
    schema = features_schema(WIDTH, [("kept", pa.int32())])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema=schema), path)


def settings(**overrides: object) -> params.Settings:
    tree = {"dataset": {"path": "d.json"}, "model": {"path": "m"}}
    return params.parse(tree, {key.replace("__", "."): value for key, value in overrides.items()})


def read_bytes(layout: Layout) -> dict[str, bytes]:
    paths = (layout.scores, layout.spectrum, layout.score_curve, layout.score_metrics)
    return {path.name: path.read_bytes() for path in paths}


def test_scores_table(layout: Layout) -> None:
    score(settings(), layout)
    table = pq.read_table(layout.scores)
    assert table.column_names == ["row", "id", "digest", "score", "rank"]
    assert table["row"].to_pylist() == EXTRACTED
    assert table["id"].to_pylist()[EXTRACTED.index(5)] is None
    scores, ranks = table["score"].to_numpy(), table["rank"].to_numpy()
    assert sorted(ranks.tolist()) == list(range(len(EXTRACTED)))
    assert (np.diff(scores[np.argsort(ranks)]) <= 0).all()
    matrix = read_pool(layout, ("attended",)).tables.matrix("attended")
    features = matrix.take(np.arange(len(EXTRACTED))).astype(np.float64)
    left, values, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    k = int(np.searchsorted(np.cumsum(values**2) / (values**2).sum(), 0.9)) + 1
    np.testing.assert_allclose(scores, (left[:, :k] ** 2).sum(axis=1), atol=1e-10)
    metrics = json.loads(layout.score_metrics.read_text())
    assert metrics == metrics | {"method": "scalselect", "rows": len(EXTRACTED), "d": WIDTH, "k": k}
    lines = layout.spectrum.read_text().splitlines()
    assert lines[0] == "component,singular_value,energy,cumulative"
    np.testing.assert_allclose([float(line.split(",")[1]) for line in lines[1:]], values, rtol=1e-10)
    assert float(lines[-1].split(",")[3]) == pytest.approx(1)


def test_score_curve_is_thinned_and_keeps_both_ends(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.scoring.CURVE_POINTS", 5)
    score(settings(), layout)
    lines = layout.score_curve.read_text().splitlines()
    scores = np.sort(pq.read_table(layout.scores)["score"].to_numpy())
    assert lines[0] == "rank,score"
    assert len(lines) == 6
    assert lines[1] == f"0,{scores[-1]:.12g}"
    assert lines[-1].startswith(f"{len(EXTRACTED) - 1},")


def test_the_same_run_leaves_the_same_bytes(layout: Layout) -> None:
    for method in ("scalselect", "coincide", "semdedup", "prism", "random"):
        chosen = settings(score__method=method, methods={"prism": {"features": "pooled"}})
        score(chosen, layout)
        first = read_bytes(layout)
        score(chosen, layout)
        assert read_bytes(layout) == first, method


def test_a_method_without_spectrum_leaves_its_header(layout: Layout) -> None:
    score(settings(score__method="coincide"), layout)
    assert layout.spectrum.read_text() == "component,singular_value,energy,cumulative\n"
    names = pq.read_table(layout.scores).column_names
    assert names[:5] == ["row", "id", "digest", "score", "rank"]
    assert {"cluster", "place", "share"} <= set(names)


def test_matrices_of_a_method_survive_the_file(layout: Layout) -> None:
    score(settings(methods={"scalselect": {"sampling": "residual", "rank": 3}}), layout)
    table = pq.read_table(layout.scores)
    coordinates = np.array(table["coordinates"].to_pylist())
    np.testing.assert_allclose((coordinates**2).sum(axis=1), table["score"].to_numpy(), rtol=1e-5)


def test_pooled_halves_are_named(layout: Layout) -> None:
    pooled = params.PooledSettings(layers=(3, 7), parts=("visual", "language"))
    tables = read_pool(layout, ("pooled",), pooled).tables
    rows = np.arange(len(EXTRACTED))
    whole = tables.matrix("pooled").take(rows)
    np.testing.assert_array_equal(tables.matrix("pooled.visual").take(rows), whole[:, [0, 1, 4, 5]])
    np.testing.assert_array_equal(tables.matrix("pooled.language").take(rows), whole[:, [2, 3, 6, 7]])
    score(settings(score__method="prism", extract={"pooled": {"layers": [3, 7]}}), layout)


def test_pool_knows_images_sources_and_statistics(layout: Layout) -> None:
    pool = read_pool(layout, ("attended",))
    assert len(pool) == len(EXTRACTED)
    assert pool.images == [[f"{row:064x}"] for row in EXTRACTED]
    assert pool.tables.sources.tolist() == ["ab"[row % 2] for row in EXTRACTED]
    np.testing.assert_array_equal(pool.tables.column("attended.kept"), [*range(20), *range(len(EXTRACTED) - 20)])
    assert read_pool(layout).rows.tolist() == EXTRACTED


def test_faults_are_named(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"no method `leverage`; known: scalselect"):
        score(settings(score__method="leverage"), layout)
    with pytest.raises(ParamsError, match=r"methods.scalselect: unknown key `energie`"):
        score(settings(methods={"scalselect": {"energie": 1}}), layout)
    with pytest.raises(ParamsError, match=r"methods.scalselect.energy"):
        score(settings(methods={"scalselect": {"energy": 1.5}}), layout)
    with pytest.raises(ParamsError, match="one_per_group needs"):
        score(settings(score__method="semdedup", methods={"semdedup": {"rule": "one_per_group"}}), layout)
    with pytest.raises(FeatureError, match="answers"):
        score(settings(score__method="el2n"), layout) if "el2n" in METHODS else read_pool(layout, ("answers",))
    with pytest.raises(FeatureError, match="no features"):
        read_pool(Layout.flat(tmp_path / "nothing"))


def test_features_of_other_samples_are_refused(layout: Layout) -> None:
    path = layout.samples
    table = pq.read_table(path)
    changed = pa.array(["0" * 64, *table["digest"].to_pylist()[1:]])
    pq.write_table(table.set_column(table.column_names.index("digest"), "digest", changed), path)
    with pytest.raises(FeatureError, match="extracted from other samples"):
        read_pool(layout)
    pq.write_table(table.slice(0, 10), path)
    with pytest.raises(FeatureError, match="lacks rows"):
        read_pool(layout)


def test_score_array_keeps_the_names_extract_gave(layout: Layout, tmp_path: Path) -> None:
    score(settings(), layout)
    score_array(layout.features / "attended", "scalselect", {}, tmp_path / "s.parquet")
    assert pq.read_table(tmp_path / "s.parquet") == pq.read_table(layout.scores)


def test_kept_moments_are_used_and_change_no_byte(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    record = {"signals": {"attended": {"fingerprint": "f" * 64}}}
    (layout.features / "extraction.json").write_text(json.dumps(record))
    score(settings(), layout)
    kept = sorted((layout.store / ("f" * 64) / "moments" / "feature").glob("*.npz"))
    assert len(kept) == 1
    first = read_bytes(layout)
    stamp = kept[0].stat().st_mtime_ns
    score(settings(), layout)
    assert read_bytes(layout) == first
    assert kept[0].stat().st_mtime_ns == stamp
    kept[0].write_bytes(kept[0].read_bytes()[:-40])
    score(settings(), layout)
    assert read_bytes(layout) == first
    assert "measured again" in caplog.text
    assert collect(layout.store, []) > 0
    score(settings(), layout)
    assert read_bytes(layout) == first
