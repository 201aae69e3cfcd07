"""`verify --recompute` with a real small model: an honest run passes, a forged one is caught even when resealed."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from tasks import lineage, params
from tasks.accounting import Intake, account, write_selection
from tasks.export import export
from tasks.extraction import extract
from tasks.formats import open_dataset
from tasks.images import read_bytes
from tasks.layout import Layout
from tasks.manifest import describe_file, seal
from tasks.models import Vlm
from tasks.recompute import choose, distance
from tasks.sample import Sample, digest_bytes, digest_sample
from tasks.scoring import score
from tasks.tables import read_samples, write_samples

BUDGET = 5


@pytest.fixture(scope="module")
def honest(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the golden LLaVA case, extracted and scored for real."""
    case = golden / "extraction/llava"
    folder = tmp_path_factory.mktemp("recompute")
    layout = Layout.flat(folder)
    settings = params.parse(
        {
            "dataset": {"path": str(case / "data.json")},
            "model": {"path": str(case / "model"), "dtype": "float32"},
            "run": {"device": "cpu", "workers": 0},
        }
    )
    samples = []
    for row in open_dataset(settings.dataset):
        images = tuple(replace(image, sha256=digest_bytes(read_bytes(image))) for image in row.images)
        digest = digest_sample(row.turns, [image.sha256 for image in images])
        samples.append(Sample(row.row, row.id, row.source, row.turns, images, digest))
    write_samples(layout.samples, samples)
    layout.rejects.write_text("")
    extract(settings, layout)
    score(settings, layout)
    scores = pl.read_parquet(layout.scores).sort("rank")["row"].to_numpy()
    lines = [
        {
            "row": one.row,
            "id": one.id,
            "digest": one.digest,
            "source": one.source,
            "text_only": False,
            "n_turns": 2,
            "characters": 9,
        }
        for one in samples
    ]
    selected = account(
        Intake(len(samples), pa.Table.from_pylist(lines), ()), np.sort(scores), scores[:BUDGET], {}, False
    )
    write_selection(layout.selection, selected)
    export(settings, layout)
    return folder


@pytest.fixture
def run(honest: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(honest, tmp_path / "run"))


def test_an_honest_run_is_reproduced(honest: Path) -> None:
    verification = lineage.verify(honest, recompute=3)
    assert verification.ok, str(verification)
    names = [one.name for one in verification.findings]
    assert sum(name.startswith("attended of row") for name in names) == 3
    assert "48 scores computed again" in names


def test_rows_whose_images_are_not_here_are_out_of_reach_not_wrong(run: Path) -> None:
    samples = list(read_samples(run / "samples.parquet"))
    gone = [replace(one, images=tuple(replace(image, path="gone.png") for image in one.images)) for one in samples]
    write_samples(run / "samples.parquet", gone)
    found = [one for one in lineage.verify(run, 3).unreachable if one.name.startswith("attended of row")]
    assert [one.detail for one in found] == ["its images are not here"] * 3


def reseal(run: Path) -> None:
    """What a forger who knows the format would do: record the new bytes, and seal the manifest again."""
    content = json.loads((run / "manifest.json").read_text())
    content["outputs"] = {name: describe_file(run / name) for name in content["outputs"]}
    (run / "manifest.json").write_text(json.dumps(seal(content)))


def forge_feature(run: Path) -> None:
    path = run / "features/attended/part-00000.parquet"
    table = pq.read_table(path)
    values = np.array(table["feature"].to_pylist(), dtype=np.float32) * np.float32(1.001)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    pq.write_table(table.set_column(3, table.schema.field("feature"), flat).replace_schema_metadata(None), path)


def forge_score(run: Path) -> None:
    path = run / "scores.parquet"
    scores = pl.read_parquet(path)
    scores.with_columns(
        score=pl.when(pl.col("row") == 7).then(pl.col("score") + 0.01).otherwise("score")
    ).write_parquet(path)


@pytest.mark.parametrize(("forge", "named"), [(forge_feature, "attended of row"), (forge_score, "score of row 7")])
def test_a_forged_and_resealed_run_is_caught(run: Path, forge: Callable[[Path], None], named: str) -> None:
    forge(run)
    reseal(run)
    assert lineage.verify(run).ok
    found = [one.name for one in lineage.verify(run, recompute=2).mismatches]
    assert any(name.startswith(named) for name in found), found


def test_another_model_is_caught_by_its_fingerprint(run: Path, golden: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(golden / "extraction/llava/model", tmp_path / "model"))
    template = model / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    content = json.loads((run / "manifest.json").read_text())
    content["settings"]["model"]["path"] = str(model)
    (run / "manifest.json").write_text(json.dumps(seal(content)))
    found = [one.name for one in lineage.verify(run, recompute=1).mismatches]
    assert found[0] == "fingerprint of attended"


def test_weights_changed_behind_an_unchanged_stamp_are_caught(run: Path, golden: Path, tmp_path: Path) -> None:
    """Extraction believes sizes and times; verification reads every byte."""
    model = Path(shutil.copytree(golden / "extraction/llava/model", tmp_path / "model"))
    content = json.loads((run / "manifest.json").read_text())
    content["settings"]["model"]["path"] = str(model)
    (run / "manifest.json").write_text(json.dumps(seal(content)))
    settings = params.parse(content["settings"])
    extraction = Vlm(tmp_path / "store")
    before = extraction.describe(settings, ("attended",))
    weights = model / "model.safetensors"
    stamp, tensors = weights.stat(), load_file(weights)
    name = next(one for one in tensors if "layers.0.mlp.up_proj" in one and "vision" not in one)
    save_file({**tensors, name: tensors[name] + 1}, weights, metadata={"format": "pt"})
    assert weights.stat().st_size == stamp.st_size
    os.utime(weights, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert extraction.describe(settings, ("attended",)) == before
    assert "fingerprint of attended" in [one.name for one in lineage.verify(run, recompute=1).mismatches]


def test_rows_to_recompute_are_few_distinct_and_always_the_same() -> None:
    rows = {row: f"{row:064d}" for row in range(100)}
    chosen = choose(rows, "seed", 8)
    assert chosen == choose(dict(reversed(rows.items())), "seed", 8)
    assert len(set(chosen)) == 8
    assert chosen != choose(rows, "other", 8)
    assert choose(rows, "seed", 1000) == list(range(100))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.0], [3.0, 9.0], 1.0),
        ([0.0], [0.0], 0.0),
        ([0.0], [1e-9], float("inf")),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([np.nan], [1.0], float("inf")),
    ],
)
def test_distance(old: list[float], new: list[float], expected: float) -> None:
    assert distance(np.array(old), np.array(new)) == expected
