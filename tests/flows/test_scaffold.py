import json
from pathlib import Path

import pytest
import yaml
from toys import git

from flows import dvc, scaffold
from flows.workspace import code_digests
from tasks.__main__ import STAGES
from tasks.errors import InputError
from tasks.params import load

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def inputs(tmp_path):
    (tmp_path / "raw" / "model").mkdir(parents=True)
    (tmp_path / "raw" / "train.json").write_text("[]")
    (tmp_path / "raw" / "shard-000.tar").write_text("")
    return tmp_path / "raw"


def deps(folder, stage):
    return yaml.safe_load((folder / "dvc.yaml").read_text())["stages"][stage].get("deps", [])


def test_a_new_workspace_is_whole(tmp_path, inputs):
    folder = tmp_path / "new"
    scaffold.scaffold(folder, str(inputs / "train.json"), str(inputs / "model"))
    settings = load(folder / "params.yaml")
    assert settings.dataset.path == str(inputs / "train.json")
    assert settings.dataset.image_root == str(inputs)
    assert settings.model.path == str(inputs / "model")
    assert json.loads((folder / "code.lock.json").read_text()) == code_digests()
    assert dvc.status(folder).keys() == STAGES.keys()
    assert dvc.default_remote(folder) == "local"
    # What git shows is what one would commit: no data, no cache, no locks.
    shown = git(folder, "status", "--porcelain", "--untracked-files=all")
    assert {line[3:] for line in shown.splitlines()} == {
        ".dvc/.gitignore", ".dvc/config", ".dvcignore", ".gitignore", "code.lock.json", "dvc.yaml", "params.yaml",
        "prefect.yaml",
    }  # fmt: skip


def test_the_repository_is_configured_like_a_new_workspace():
    assert (ROOT / ".dvc/config").read_text() == scaffold.DVC_CONFIG
    assert (ROOT / ".dvc/.gitignore").read_text() == scaffold.DVC_GITIGNORE
    assert set(scaffold.DVCIGNORE.splitlines()) <= set((ROOT / ".dvcignore").read_text().splitlines())


def test_no_code_is_left_in_the_dag_and_every_stage_watches_its_digest(toy):
    for name, stage in yaml.safe_load((toy / "dvc.yaml").read_text())["stages"].items():
        assert not any(dep.split("/")[0] == "tasks" for dep in stage.get("deps", []))
        assert {"code.lock.json": [name]} in stage["params"]


def test_a_stage_runs_again_when_its_code_changed_and_no_other(done):
    digests = json.loads((done / "code.lock.json").read_text())
    (done / "code.lock.json").write_text(json.dumps({**digests, "score": "changed"}))
    assert [name for name, changes in dvc.status(done).items() if "changed deps" in json.dumps(changes)] == ["score"]


def test_paths_inside_the_workspace_are_relative(tmp_path, inputs):
    scaffold.scaffold(tmp_path, str(inputs / "train.json"), str(inputs / "model"))
    settings = load(tmp_path / "params.yaml")
    assert (settings.dataset.path, settings.dataset.image_root) == ("raw/train.json", "raw")
    assert settings.model.path == "raw/model"


def test_images_are_watched_unless_the_workspace_lies_among_them(tmp_path, inputs):
    (tmp_path / "raw" / "images").mkdir()
    data, model = str(inputs / "train.json"), str(inputs / "model")
    (note,) = scaffold.scaffold(inputs / "inner", data, model)
    assert "does not watch the images" in note
    assert deps(inputs / "inner", "validate") == ["${dataset.path}", "${model.path}"]
    assert scaffold.scaffold(inputs / "second", data, model, str(inputs / "images")) == ()
    assert load(inputs / "second" / "params.yaml").dataset.image_root == str(inputs / "images")
    assert "${dataset.image_root}" in deps(inputs / "second", "validate")
    # DVC reads either: with the folder of the workspace as an input it would refuse the whole DAG.
    assert dvc.status(inputs / "inner").keys() == dvc.status(inputs / "second").keys() == STAGES.keys()


def test_hub_ids_are_no_files(tmp_path):
    scaffold.scaffold(tmp_path / "new", "team/pool", "team/vlm-7b")
    assert load(tmp_path / "new" / "params.yaml").dataset.image_root is None
    assert deps(tmp_path / "new", "validate") == []
    assert deps(tmp_path / "new", "extract") == ["data/samples/samples.parquet"]
    assert "validate" in dvc.status(tmp_path / "new")


def test_a_glob_is_watched_by_its_folder(tmp_path, inputs):
    scaffold.scaffold(tmp_path, str(inputs / "shard-*.tar"), "team/vlm")
    assert load(tmp_path / "params.yaml").dataset.path == "raw/shard-*.tar"
    assert deps(tmp_path, "validate") == ["raw"]


@pytest.mark.parametrize("option", ["dataset", "model"])
def test_a_path_that_is_not_there_is_refused(tmp_path, option):
    with pytest.raises(InputError, match=f"--{option} no/such/thing"):
        scaffold.scaffold(tmp_path / "new", **{option: "no/such/thing"})
    assert not (tmp_path / "new").exists()


def test_a_workspace_is_never_written_over(toy):
    before = (toy / "params.yaml").read_bytes()
    with pytest.raises(InputError, match=r"dvc\.yaml exists"):
        scaffold.scaffold(toy)
    assert (toy / "params.yaml").read_bytes() == before


def test_a_workspace_inside_another_repository(tmp_path):
    git(tmp_path, "init", "--quiet")
    scaffold.scaffold(tmp_path / "inner")
    assert not (tmp_path / "inner" / ".git").exists()
    assert dvc.status(tmp_path / "inner").keys() == STAGES.keys()


def test_prepare_brings_a_tarball_of_the_repository_to_life(tmp_path):
    for name in ("dvc.yaml", "params.yaml", ".dvc/config", ".dvcignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    scaffold.prepare(tmp_path)
    assert dvc.status(tmp_path).keys() == STAGES.keys()
    assert (tmp_path / ".dvc/config").read_bytes() == (ROOT / ".dvc/config").read_bytes()
