"""The one place that calls the dvc command: one stage reproduced, the state of the workspace, commit and push.

DVC guards the workspace with two locks. `--wait-for-lock` waits for the first; the second, which says who reads and
writes each path, never waits, so a stage that another dvc process is running is tried again here.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal

import yaml

from tasks import errors
from tasks.errors import BusyError, InputError, ScalSelectError

Lines = Callable[[str], None]

PATIENCE = 3600.0
"""Seconds to wait for another dvc process before giving up with BusyError."""

_BUSY = ("is being blocked by", "Unable to acquire lock")
_MISSING = re.compile(r"missing data 'source': (.+)|No such file or directory: '(.+)'")
_EXIT = re.compile(r", exited with (\d+)$")
# That no row was rejected is no reason for a warning.
_NO_REJECTS = re.compile(r"WARNING: '.*rejects\.jsonl' is empty\.")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What DVC did about a stage: ran its command, found it unchanged, or restored its files from the run cache."""

    stage: str
    how: Literal["ran", "unchanged", "restored"]
    seconds: float

    @property
    def cached(self) -> bool:
        """True when the stage's command did not run."""
        return self.how != "ran"


class StageError(ScalSelectError):
    """A stage command broke in a way we did not foresee; the message is the end of its output."""


def reproduce(stage: str, workspace: Path, tell: Lines, patience: float = PATIENCE) -> Outcome:
    """Reproduce exactly one stage, handing each line of output to `tell` as it comes.

    Raises the ScalSelectError that the stage raised; BusyError when another dvc process outlasts `patience` seconds;
    InputError when an input file is missing; StageError otherwise.
    """
    start, pause = time.monotonic(), 1.0
    while True:
        try:
            lines = call(workspace, "--wait-for-lock", "repro", "--single-item", stage, tell=tell)
            return Outcome(stage, _how(lines), time.monotonic() - start)
        except BusyError as error:
            if time.monotonic() - start + pause > patience:
                raise
            tell(f"waiting for another dvc process: {error}")
            time.sleep(pause)
            pause = min(pause * 2, 30.0)


def status(workspace: Path) -> dict[str, list[object]]:
    """Stages (and .dvc files) that are not up to date, each with what changed; empty when all is."""
    found: dict[str, list[object]] = json.loads("".join(_answer(workspace, "--wait-for-lock", "status", "--json")))
    return found


def unchanged(workspace: Path, stages: Sequence[str]) -> tuple[str, ...]:
    """The first of `stages`, in the order they run, up to one that is not up to date; those after it may yet change.

    One dvc process for all of them, where reproducing each takes one each.
    """
    stale = status(workspace)
    return tuple(takewhile(lambda name: name not in stale, stages))


def lock(workspace: Path) -> dict[str, object]:
    """The stages of dvc.lock as DVC wrote them: cmd, deps, params and outs with their md5. {} before the first run."""
    path = workspace / "dvc.lock"
    if not path.exists():
        return {}
    tree: dict[str, object] = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
    return tree


def default_remote(workspace: Path) -> str | None:
    """Name of the default remote, or None when the workspace has none."""
    try:
        return next(_answer(workspace, "config", "core.remote"), None)
    except StageError:
        return None


def remotes(workspace: Path) -> list[str]:
    """Names of all configured remotes."""
    # `dvc remote list` is a table that breaks long lines; this is not.
    settings = _answer(workspace, "config", "--list")
    return [found.group(1) for line in settings if (found := re.match(r"remote\.(.+)\.url=", line))]


def commit(workspace: Path, tell: Lines) -> None:
    """Put outputs that are not yet in the cache there, as after `dvc repro --no-commit`."""
    call(workspace, "--wait-for-lock", "commit", tell=tell)


def push(workspace: Path, tell: Lines) -> None:
    """Copy this workspace's outputs and its run cache to the default remote."""
    call(workspace, "--wait-for-lock", "push", "--run-cache", tell=tell)


def init(workspace: Path, nested: bool = False) -> None:
    """Make `workspace`, a git repository or with `nested` a folder inside one, a DVC project."""
    call(workspace, "init", "--quiet", *(["--subdir"] if nested else []))


def call(workspace: Path, *arguments: str, tell: Lines | None = None) -> list[str]:
    """Run one dvc command in `workspace`; returns its lines, standard output and error as one stream."""
    lines: list[str] = []
    with _started(workspace, arguments) as process:
        for line in _lines(process):
            lines.append(line)
            if tell is not None and line and not _NO_REJECTS.fullmatch(line):
                tell(line)
    if process.returncode != 0:
        raise _failure(arguments, lines)
    return lines


def _answer(workspace: Path, *arguments: str) -> Iterator[str]:
    """What a dvc command answers, without warnings, such as that a killed process had left a lock behind."""
    return (line for line in call(workspace, *arguments) if line and not line.startswith("WARNING: "))


@contextmanager
def _started(workspace: Path, arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=workspace,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
        process.wait()
    finally:
        # A cancelled flow must not leave a stage writing behind its back: the whole group goes, DVC and its command.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def _environment() -> dict[str, str]:
    # Stage commands say `python`; this interpreter's folder comes first, so that an unactivated venv works too.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield _ANSI.sub("", line.rstrip())


def _how(lines: Sequence[str]) -> Literal["ran", "unchanged", "restored"]:
    if any(line.endswith("didn't change, skipping") for line in lines):
        return "unchanged"
    if any("is cached - skipping run" in line for line in lines):
        return "restored"
    return "ran"


def _failure(arguments: Sequence[str], lines: Sequence[str]) -> ScalSelectError:
    """The error that a failed dvc command's output speaks of."""
    text = "\n".join(lines)
    if any(mark in text for mark in _BUSY):
        return BusyError("\n".join(line for line in lines if line.startswith(("ERROR", "  (PID"))))
    raised = _raised(lines)
    if raised is not None:
        return raised
    if missing := _MISSING.search(text):
        path = missing.group(1) or missing.group(2)
        return InputError(f"{path}: no such file; it is an input of dvc.yaml, named in params.yaml (hub ids are none)")
    exited = next((match.group(1) for line in lines if (match := _EXIT.search(line))), None)
    tail = "\n".join([line for line in lines if line][-20:])
    code = f" (its command exited with {exited})" if exited else ""
    return StageError(f"dvc {' '.join(arguments)} failed{code}:\n{tail}")


def _raised(lines: Sequence[str]) -> ScalSelectError | None:
    """The error that tasks.__main__ printed as `ClassName: message`, up to DVC's own last word."""
    for start, line in enumerate(lines):
        name, sign, first = line.partition(": ")
        kind = getattr(errors, name, None)
        if sign and isinstance(kind, type) and issubclass(kind, ScalSelectError):
            rest = [one for one in lines[start + 1 :] if not one.startswith("ERROR: failed to reproduce")]
            return kind("\n".join([first, *rest]).rstrip())
    return None
