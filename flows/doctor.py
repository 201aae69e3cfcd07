"""`scalselect doctor`: is this machine, installation and workspace fit to run? Each problem with its fix."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import yaml
from packaging.requirements import Requirement

from flows import dvc
from flows.workspace import CODE_LOCK, HOLDER, code_digests, refresh_code
from tasks.errors import ScalSelectError
from tasks.params import load
from tasks.places import is_url, within_reach

LOW_DISK = 10 * 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: `ok`, `note` (worth knowing) or `problem`, and for the last what mends it."""

    level: Literal["ok", "note", "problem"]
    what: str
    fix: str = ""


def examine(workspace: Path | None, fix: bool = False) -> Iterator[Finding]:
    """Findings about the installation and, when there is one, the workspace. `fix` mends what needs no decision."""
    yield from check_versions()
    yield check_device()
    yield check_server()
    if workspace is None:
        yield Finding("note", "not in a workspace", "scalselect init DIR makes one")
        return
    checks: tuple[Callable[[Path], Iterator[Finding]], ...] = (
        check_params, check_disk, check_locks, check_remote,
    )  # fmt: skip
    for check in checks:
        yield from check(workspace)
    yield from check_code(workspace, fix)


def check_versions(package: str = "scalselect") -> Iterator[Finding]:
    """Installed versions against those the package declares: the pair prefect and fastapi breaks without them."""
    wrong = 0
    for text in importlib.metadata.requires(package) or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        have = _version(wanted.name)
        if have is None or not wanted.specifier.contains(have, prereleases=True):
            wrong += 1
            yield Finding(
                "problem", f"{wanted.name} {have or 'missing'}", f"pip install '{wanted.name}{wanted.specifier}'"
            )
    if not wrong:
        yield Finding("ok", f"packages as declared by {package} {_version(package)}")


def check_device() -> Finding:
    """The accelerator that extraction would use."""
    import torch

    if not torch.cuda.is_available():
        return Finding("note", "no GPU: extraction runs on the CPU, at a few samples a second for a 7B model")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding("ok", f"{len(names)} GPU: {', '.join(sorted(set(names)))}")


def check_server() -> Finding:
    """The Prefect server that deployments need; `scalselect run` does without."""
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        return Finding("note", "no Prefect server set; `scalselect run` starts a temporary one", "prefect server start")
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=3):
            return Finding("ok", f"Prefect server at {url}")
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        return Finding(
            "problem",
            f"Prefect server at {url}: {error}",
            "prefect server start, or prefect config unset PREFECT_API_URL",
        )


def check_params(workspace: Path) -> Iterator[Finding]:
    """params.yaml is valid, and what dvc.yaml takes for files are files."""
    try:
        settings = load(workspace / "params.yaml")
    except ScalSelectError as error:
        yield Finding("problem", str(error), "correct params.yaml")
        return
    yield Finding("ok", "params.yaml")
    stages = yaml.safe_load((workspace / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    named = {dep for stage in stages.values() for dep in stage.get("deps", ())}
    inputs = {
        "dataset.path": settings.dataset.path,
        "dataset.image_root": settings.dataset.image_root,
        "model.path": settings.model.path,
    }
    for key, value in inputs.items():
        if f"${{{key}}}" in named and (value is None or not _is_there(workspace, value)):
            fix = f"set {key} in params.yaml, or, where it is a hub id or null, take ${{{key}}} out of dvc.yaml's deps"
            yield Finding("problem", f"{key} is {value}, and no such file is there for DVC to watch", fix)


def _is_there(workspace: Path, name: str) -> bool:
    return within_reach(name) if is_url(name) else (workspace / name).exists()


def check_disk(workspace: Path) -> Iterator[Finding]:
    """Room to work, and a cache that can be linked instead of copied."""
    free = shutil.disk_usage(workspace).free
    level: Literal["ok", "problem"] = "ok" if free > LOW_DISK else "problem"
    yield Finding(level, f"{free / 2**30:.0f} GiB free", "" if level == "ok" else "scalselect gc; dvc gc --workspace")
    cache = workspace / ".dvc" / "cache"
    if cache.exists() and cache.stat().st_dev != workspace.stat().st_dev:
        yield Finding("note", "the DVC cache is on another file system: outputs are copied", "dvc cache dir PATH")


def check_locks(workspace: Path) -> Iterator[Finding]:
    """Who holds the workspace, and whether DVC's own lock file can be read."""
    folder = workspace / ".dvc" / "tmp"
    holder = _holder(folder / HOLDER)
    yield Finding("note", f"held by process {holder}") if holder else Finding("ok", "nobody holds the workspace")
    try:
        text = (folder / "rwlock").read_text(encoding="utf-8")
        json.loads(text or "{}")
    except FileNotFoundError:
        return
    except ValueError:
        yield Finding("problem", f"{folder / 'rwlock'}: not valid JSON, left by a crash", f"rm {folder / 'rwlock'}")


def check_remote(workspace: Path) -> Iterator[Finding]:
    """The default remote exists and answers."""
    if not (workspace / ".dvc").exists():
        yield Finding("problem", "not a DVC project", "git init && dvc init")
        return
    remote = dvc.default_remote(workspace)
    if remote is None:
        yield Finding("note", "no DVC remote: nothing is pushed", "dvc remote add --default NAME URL")
        return
    try:
        if remote not in dvc.remotes(workspace):
            yield Finding("problem", f"DVC remote {remote} is not configured", f"dvc remote add {remote} URL")
            return
        dvc.call(workspace, "--wait-for-lock", "status", "--cloud", "--json")
        yield Finding("ok", f"DVC remote {remote}")
    except ScalSelectError as error:
        yield Finding("problem", f"DVC remote {remote}: {error}", "dvc remote list; dvc remote modify")


def check_code(workspace: Path, fix: bool) -> Iterator[Finding]:
    """code.lock.json of a scaffolded workspace says what is installed."""
    path = workspace / CODE_LOCK
    if not path.exists():
        return
    if fix and refresh_code(workspace):
        yield Finding("ok", f"{CODE_LOCK} brought up to date; stages whose code changed will run")
    elif json.loads(path.read_text(encoding="utf-8")) != code_digests():
        yield Finding("problem", f"{CODE_LOCK} is of another version than the installed one", "scalselect doctor --fix")
    else:
        yield Finding("ok", CODE_LOCK)


def _holder(lock: Path) -> int | None:
    """The process that holds the workspace; a dead one's file says nothing."""
    try:
        pid = int(lock.with_suffix(".pid").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return pid if pid != os.getpid() and psutil.pid_exists(pid) else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
