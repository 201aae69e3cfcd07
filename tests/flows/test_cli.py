"""The command as a user runs it: exit codes, messages, what lands on which stream."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows import cli, doctor, workspace

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def scalselect(tmp_path, monkeypatch, capsys):
    """The console script's function, in this process and in a folder of its own."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["scalselect", *arguments])
        # main() redirects our log for good; in this process that must not outlive the test.
        monkeypatch.setattr(cli, "log_progress", lambda: None)
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        said = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=said.out, stderr=said.err)

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("select", "no.json", "--model", "m", "--out", "o", "--budget", "many"), "--budget 'many'"),
        (("select", "no.json", "--model", "m", "--out", "o", "--set", "selct.budget=1"), "did you mean `select`"),
        (("select", "no.json", "--model", "m", "--out", "o", "--method", "magic"), "no method `magic`"),
        (("select", "no.json", "--model", "m", "--out", "o"), "no.json"),
        (("select", "no.json"), "Missing option"),
        (("bogus",), "No such command"),
        (("init", ".", "--dataset", "no/such/file.json"), "no such file"),
        (("run",), "scalselect init"),
        (("trace", "nowhere"), "nowhere"),
        (("verify", "nowhere"), "nowhere"),
        (("score", "no.npy", "--out", "s.parquet"), "no.npy"),
    ],
)
def test_the_users_mistakes_are_one_message_and_exit_code_2(scalselect, arguments, said):
    done = scalselect(*arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_as_a_process_there_is_no_traceback_either(tmp_path):
    command = [sys.executable, "-c", "from flows.cli import main; main()", "plan"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("InputError: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "usage: python -m tasks {validate,extract,score,select,export}\n"),
        (["validate"], "ParamsError: params.yaml: no such file; run `scalselect init` to make a workspace\n"),
    ],
)
def test_a_stage_command_says_the_same(tmp_path, arguments, said):
    command = [sys.executable, "-m", "tasks", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_score_of_an_array(tmp_path, scalselect):
    features = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    np.save(tmp_path / "features.npy", features)
    done = scalselect("score", "features.npy", "--out", "s.parquet", "--set", "scalselect.energy=0.5")
    assert (done.returncode, done.stdout) == (0, "s.parquet\n"), done.stderr
    table = pq.read_table(tmp_path / "s.parquet")
    assert sorted(table["rank"].to_pylist()) == list(range(50))
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    k = int(np.searchsorted(np.cumsum(values**2) / np.sum(values**2), 0.5)) + 1
    expected = (left[:, :k] ** 2).sum(axis=1)
    np.testing.assert_allclose(table.sort_by("row")["score"].to_numpy(), expected, rtol=1e-4)


def test_methods_and_settings_print_their_lists(scalselect):
    from tasks.methods import METHODS

    listed = scalselect("methods").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(METHODS)
    assert "| `select.budget` | `0.16` |" in scalselect("settings").stdout


def problems(findings):
    found = list(findings)
    assert all(one.fix for one in found if one.level == "problem")
    return " ".join(one.what for one in found if one.level == "problem")


def test_doctor_finds_what_is_wrong(toy):
    assert problems(doctor.check_params(toy)) == problems(doctor.check_locks(toy)) == ""
    (toy / "data/raw/demo/data.json").unlink()
    (toy / ".dvc/tmp").mkdir(exist_ok=True)
    (toy / ".dvc/tmp/rwlock").write_text("{broken")
    (toy / ".dvc/config").write_text("[core]\n    remote = gone\n")
    assert "dataset.path is data/raw/demo/data.json" in problems(doctor.check_params(toy))
    assert "rwlock" in problems(doctor.check_locks(toy))
    assert "DVC remote gone" in problems(doctor.check_remote(toy))


def test_doctor_compares_versions_with_those_declared(monkeypatch):
    assert problems(doctor.check_versions()) == ""
    monkeypatch.setattr(
        "importlib.metadata.requires", lambda package: ["typer>=900", "no-such-thing", "x; extra == 'y'"]
    )
    said = list(doctor.check_versions())
    assert [one.fix for one in said] == ["pip install 'typer>=900'", "pip install 'no-such-thing'"]


def test_doctor_fix_brings_the_code_digests_up_to_date(toy, monkeypatch):
    monkeypatch.setattr(workspace, "code_digests", lambda: {"score": "new"})
    monkeypatch.setattr(doctor, "code_digests", lambda: {"score": "new"})
    assert "code.lock.json" in problems(doctor.check_code(toy, fix=False))
    assert problems(doctor.check_code(toy, fix=True)) == ""
    assert (toy / "code.lock.json").read_text() == '{\n  "score": "new"\n}\n'


@pytest.mark.parametrize(
    ("arguments", "default"),
    [
        (("select",), "the dataset's folder"),
        (("init",), "the embedded demo"),
        (("trace",), "the subset as a whole"),
        (("compare",), "all whose signals are there"),
    ],
)
def test_help_says_what_is_taken_by_default(scalselect, arguments, default):
    assert f"[default: ({default})]" in " ".join(scalselect(*arguments, "--help").stdout.replace("│", " ").split())


def test_version(scalselect):
    assert scalselect("--version").stdout == f"{importlib.metadata.version('scalselect')}\n"
