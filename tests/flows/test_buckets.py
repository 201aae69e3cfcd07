"""The product on a real S3 server: one command without a workspace, and a workspace that DVC watches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from buckets import keys, put, upload

from flows import dvc
from flows.record import record
from flows.scaffold import scaffold
from tasks.demo import build

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "demo"
    build(folder, rows=60)
    return folder


@pytest.fixture
def data(demo, s3):
    """URL of the demo's data.json and images."""
    upload(demo / "images", f"{s3}/vqa/images")
    put(f"{s3}/vqa/data.json", (demo / "data.json").read_bytes())
    return f"{s3}/vqa"


def scalselect(*arguments, cwd: Path):
    command = [sys.executable, "-c", "from flows.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    return subprocess.run(command, cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=300)


def test_select_gives_the_subset_of_a_disk_and_a_second_machine_extracts_nothing(demo, data, s3, tmp_path):
    common = ("--model", demo / "model", "--budget", "10", "--set", "validate.gates.maximum_reject_share=1.0")
    images = ("--image-root", f"{data}/images", "--set", f"run.store={s3}/store")
    local = scalselect(
        "select", demo / "data.json", "--image-root", demo / "images", *common, "--out", "local", cwd=tmp_path
    )
    assert local.returncode == 0, local.stderr
    for out, extracts in (("first", True), ("second", False)):
        done = scalselect("select", f"{data}/data.json", *images, *common, "--out", out, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("extract attended:" in done.stderr) == extracts
        for name in ("subset.json", "ids.csv", "selection.parquet", "validation.json"):
            assert (tmp_path / out / name).read_bytes() == (tmp_path / "local" / name).read_bytes(), name
    assert len(keys(f"{s3}/store")) == 1
    checked = scalselect("verify", "second", "--recompute", "2", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout
    assert "0 failed, 0 out of reach" in checked.stdout
    row = json.loads((tmp_path / "second/subset.json").read_text())[0]
    assert f"{data}/images/{row['image']}" in scalselect("trace", "second", "--id", row["id"], cwd=tmp_path).stdout
    put(f"{data}/images/{row['image']}", b"another")
    assert "mismatch" in scalselect("verify", "second", cwd=tmp_path).stdout


def test_the_users_mistakes_are_one_line(demo, data, s3, tmp_path):
    for path, said in ((f"{data}/gone.json", "the bucket is there"), (f"{s3}x/data.json", "there is no bucket")):
        done = scalselect("select", path, "--model", demo / "model", "--out", "out", cwd=tmp_path)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_workspace_watches_the_bucket(demo, data, tmp_path):
    workspace = tmp_path / "workspace"
    scaffold(workspace, f"{data}/data.json", str(demo / "model"), f"{data}/images")
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("maximum_reject_share: 0.2", "maximum_reject_share: 1.0"))
    dvc.call(workspace, "repro")
    assert dvc.status(workspace) == {}
    record(workspace, lambda line: None)
    completed = json.loads((workspace / "data/manifests/manifest.json").read_text())
    locked = completed["record"]["dvc"]["validate"]["deps"]
    assert locked[f"{data}/data.json"].startswith("etag ")
    assert completed["inputs"]["dataset"]["files"][0]["path"] == f"{data}/data.json"
    assert scalselect("verify", "data/subsets", cwd=workspace).returncode == 0
    pictures = keys(f"{data}/images")
    put(f"{data}/images/{pictures[0]}", (demo / "images" / pictures[1]).read_bytes())
    assert list(dvc.status(workspace)) == ["validate"]
