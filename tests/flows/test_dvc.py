import json
import subprocess
import sys
import time

import pytest
from toys import ran

from flows import dvc
from flows.workspace import override
from tasks.errors import BudgetError, BusyError, EngineError, InputError

STAGES = ["validate", "extract", "score", "select", "export"]


def test_ran_then_unchanged_then_restored(toy):
    said: list[str] = []
    first = dvc.reproduce("validate", toy, said.append)
    assert (first.how, first.cached) == ("ran", False)
    assert "validate: working" in said
    assert dvc.reproduce("validate", toy, said.append).how == "unchanged"
    data = toy / "data/raw/demo/data.json"
    data.write_text("other rows")
    assert dvc.reproduce("validate", toy, said.append).how == "ran"
    data.write_text("three rows")
    assert dvc.reproduce("validate", toy, said.append).how == "restored"
    assert (toy / "data/samples/samples.parquet").read_text() == "three rows"
    assert ran(toy) == ["validate", "validate"]


def test_a_missing_input_is_the_users(toy):
    (toy / "data/raw/demo/data.json").unlink()
    with pytest.raises(InputError, match=r"data/raw/demo/data\.json: no such file"):
        dvc.reproduce("validate", toy, lambda line: None)


def test_an_error_of_the_stage_comes_back_as_itself():
    lines = [
        "select: working",
        "BudgetError: 13 asked",
        "only 12 there",
        "ERROR: failed to reproduce 'select': …, exited with 2",
    ]
    error = dvc._failure(["repro"], lines)
    assert type(error) is BudgetError
    assert str(error) == "13 asked\nonly 12 there"
    assert error.exit_code == 2


def test_an_engine_error_is_told_from_a_crash():
    assert type(dvc._failure(["repro"], ["EngineError: workers died"])) is EngineError
    crash = [
        "Traceback (most recent call last):",
        "KeyError: 'x'",
        "ERROR: failed to reproduce 'a': failed to run: b, exited with 1",
    ]
    error = dvc._failure(["repro", "a"], crash)
    assert type(error) is dvc.StageError
    assert error.exit_code == 1
    assert "exited with 1" in str(error)
    assert "KeyError: 'x'" in str(error)


@pytest.mark.parametrize(
    "line",
    [
        "ERROR: '/w/data' is busy, it is being blocked by:",
        "ERROR: Unable to acquire lock. Most likely another DVC process is running or was terminated abruptly.",
    ],
)
def test_a_held_lock_is_busy(line):
    assert type(dvc._failure(["repro"], [line])) is BusyError


def _busy(toy, seconds):
    (toy / "pause").write_text(str(seconds))
    other = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "validate"], cwd=toy, stdout=subprocess.PIPE, text=True
    )
    for line in other.stdout:
        if "working" in line:
            return other
    raise AssertionError("the other dvc never started")


@pytest.mark.slow
def test_a_stage_that_another_dvc_runs_is_waited_for(toy):
    other = _busy(toy, 3)
    try:
        said: list[str] = []
        outcome = dvc.reproduce("validate", toy, said.append)
        assert outcome.how == "unchanged"
        assert any(line.startswith("waiting for another dvc process") for line in said)
        assert ran(toy) == ["validate"]
    finally:
        other.wait(30)


def test_patience_ends(toy):
    other = _busy(toy, 30)
    try:
        with pytest.raises(BusyError, match=str(other.pid)):
            dvc.reproduce("validate", toy, lambda line: None, patience=0.5)
    finally:
        other.terminate()
        other.wait(30)


def test_an_interrupted_caller_leaves_no_stage_running(toy):
    (toy / "pause").write_text("60")

    def interrupt(line):
        if "working" in line:
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        dvc.reproduce("validate", toy, interrupt)
    assert time.monotonic() - start < 30
    (toy / "pause").unlink()
    assert dvc.reproduce("validate", toy, lambda line: None, patience=0).how == "ran"


def test_status_names_what_is_stale(toy):
    assert set(dvc.status(toy)) == {"validate", "extract", "score", "select", "export"}
    dvc.reproduce("validate", toy, lambda line: None)
    assert "validate" not in dvc.status(toy)


def test_before_the_first_run_no_stage_is_unchanged(toy):
    assert dvc.unchanged(toy, STAGES) == ()


def test_after_a_run_all_are(done):
    assert dvc.unchanged(done, STAGES) == tuple(STAGES)


def remove(workspace):
    (workspace / "data/scores/scores.parquet").unlink()


def edit(workspace):
    path = workspace / "data/features/attended/part-00000.parquet"
    path.chmod(0o644)
    path.unlink()
    path.write_text("edited")


def turn(workspace):
    override(workspace, {"select.budget": 7})


def change_code(workspace):
    path = workspace / "code.lock.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "score": "other"}))


def change_command(workspace):
    path = workspace / "dvc.yaml"
    path.write_text(path.read_text().replace("stage.py export", "stage.py  export"))


def forget(workspace):
    (workspace / "dvc.lock").unlink()


def change_data(workspace):
    (workspace / "data/raw/demo/images/b.png").write_text("new")


@pytest.mark.parametrize(
    ("change", "count"),
    [(remove, 2), (edit, 1), (turn, 3), (change_code, 2), (change_command, 4), (forget, 0), (change_data, 0)],
)
def test_whatever_changes_a_stage_is_seen(done, change, count):
    """And the stages called unchanged are those that DVC itself leaves alone."""
    change(done)
    assert dvc.unchanged(done, STAGES) == tuple(STAGES[:count])
    ran(done)
    left = [line.split("'")[1] for line in dvc.call(done, "repro") if line.endswith("didn't change, skipping")]
    assert left[:count] == STAGES[:count]
    assert set(ran(done)) <= set(STAGES[count:])
    assert dvc.unchanged(done, STAGES) == tuple(STAGES)


def test_lock_is_empty_before_the_first_run(toy):
    assert dvc.lock(toy) == {}
    dvc.reproduce("validate", toy, lambda line: None)
    assert list(dvc.lock(toy)) == ["validate"]


def test_remote_may_be_missing(toy):
    assert dvc.default_remote(toy) == "local"
    (toy / ".dvc/config").write_text("[core]\n    analytics = false\n")
    assert dvc.default_remote(toy) is None


def test_what_a_killed_run_left_behind_is_no_part_of_the_answer(toy):
    """DVC warns about locks of dead processes on the stream that its answer comes by."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    holder = {"pid": dead.pid, "cmd": "dvc repro"}
    lock = toy / ".dvc/tmp/rwlock"
    lock.parent.mkdir(exist_ok=True)

    def leave():
        lock.write_text(json.dumps({"read": {}, "write": {str(toy / "data/samples/samples.parquet"): holder}}))

    leave()
    assert "validate" in dvc.status(toy)
    leave()
    assert dvc.default_remote(toy) == "local"
    leave()
    assert dvc.remotes(toy) == ["local"]
