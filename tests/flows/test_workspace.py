import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ruamel.yaml import YAML

from flows import workspace
from tasks.errors import BusyError, InputError, ParamsError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    return tmp_path


def test_find_looks_upwards(folder):
    (folder / "deep" / "er").mkdir(parents=True)
    assert workspace.find(folder / "deep" / "er") == folder


def test_find_says_what_to_do_outside(tmp_path):
    with pytest.raises(InputError, match="scalselect init"):
        workspace.find(tmp_path)


def test_override_changes_one_line_and_keeps_the_comments(folder):
    before = (folder / "params.yaml").read_text().splitlines()
    settings = workspace.override(folder, {"select.budget": 50000})
    after = (folder / "params.yaml").read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert settings.select.budget == 50000
    assert changed == [
        (
            "  budget: 0.16 # integer: a count | fraction: a share of the scored rows",
            "  budget: 50000 # integer: a count | fraction: a share of the scored rows",
        )
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("select.quotas", {"a": 3, "b": 0.5}),
        ("extract.image_size", {"shortest_edge": 224}),
        ("extract.image_size.height", 224),
        ("select.keep", ["0001", "yes"]),
        ("dataset.image_root", None),
        ("extract.pooled.layers", [3, 8]),
        ("export.name", "null"),
        ("methods.coincide.temperature", 0.2),
        ("extract.attention_threshold", 1e-5),
        ("dataset.columns", {"messages": "on", "images": "1e3"}),
    ],
)
def test_override_means_the_same_to_every_yaml_reader(folder, key, value):
    path = folder / "params.yaml"
    expected = workspace.apply_overrides(yaml.safe_load(path.read_text()), {key: value})
    workspace.override(folder, {key: value})
    assert yaml.safe_load(path.read_text()) == expected
    # DVC reads YAML 1.2.
    assert YAML(typ="safe").load(path) == expected


def test_overriding_back_gives_the_same_bytes(folder):
    workspace.override(folder, {"select.budget": 0.2, "select.seed": 1})
    first = (folder / "params.yaml").read_bytes()
    workspace.override(folder, {"select.budget": 7})
    workspace.override(folder, {"select.budget": 0.2})
    assert (folder / "params.yaml").read_bytes() == first


@pytest.mark.parametrize(
    "overrides",
    [{"select.budgte": 5}, {"selct.budget": 5}, {"select.seed": "many"}, {"select.budget": 5, "run.bogus": 1}],
)
def test_a_refused_override_leaves_the_file_alone(folder, overrides):
    before = (folder / "params.yaml").read_bytes()
    with pytest.raises(ParamsError):
        workspace.override(folder, overrides)
    assert (folder / "params.yaml").read_bytes() == before


def test_no_override_writes_nothing(folder):
    before = (folder / "params.yaml").stat()
    workspace.override(folder, {})
    assert (folder / "params.yaml").stat() == before


def test_a_method_gets_the_block_that_dvc_tracks(folder):
    (folder / "params.yaml").write_text("dataset: {path: a}\nmodel: {path: b}\n")
    workspace.override(folder, {"score.method": "random"})
    assert yaml.safe_load((folder / "params.yaml").read_text())["methods"] == {"random": {}}


HOLD = """
import sys, time
from pathlib import Path
from flows.workspace import holding
with holding(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_told_for_whom_it_waits_and_a_killed_holder_lets_go(folder):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        said: list[str] = []
        with (
            pytest.raises(BusyError, match=f"process {holder.pid}"),
            workspace.holding(folder, said.append, patience=0.1),
        ):
            pytest.fail("held twice")
        assert said == [f"{folder} is held by process {holder.pid}; waiting for it to finish"]
        holder.kill()
        holder.wait()
        with workspace.holding(folder, said.append, patience=5):
            assert (folder / ".dvc/tmp/scalselect.pid").read_text() == f"{os.getpid()}\n"
    finally:
        holder.kill()


def test_code_digest_follows_the_sources_of_its_stage_only(tmp_path, monkeypatch):
    (tmp_path / "tasks" / "vlm" / "__pycache__").mkdir(parents=True)
    (tmp_path / "tasks" / "vlm" / "a.py").write_text("1")
    (tmp_path / "tasks" / "scoring.py").write_text("2")
    (tmp_path / "dvc.yaml").write_text(
        "stages: {extract: {deps: [data/x, tasks/vlm]}, score: {deps: [tasks/scoring.py, data/y]}}"
    )
    monkeypatch.setattr(workspace, "PACKAGE", tmp_path)
    first = workspace.code_digests()
    (tmp_path / "tasks" / "vlm" / "__pycache__" / "a.pyc").write_text("compiled")
    assert workspace.code_digests() == first
    (tmp_path / "tasks" / "vlm" / "a.py").write_text("changed")
    second = workspace.code_digests()
    assert second["extract"] != first["extract"]
    assert second["score"] == first["score"]


def test_refresh_code_writes_only_where_there_is_a_lock_and_a_change(folder):
    assert workspace.refresh_code(folder) is False
    assert not (folder / workspace.CODE_LOCK).exists()
    (folder / workspace.CODE_LOCK).write_text("{}")
    assert workspace.refresh_code(folder) is True
    assert json.loads((folder / workspace.CODE_LOCK).read_text()) == workspace.code_digests()
    assert workspace.refresh_code(folder) is False
