"""A workspace: a folder with dvc.yaml and params.yaml. Finding it, holding it, changing its parameters, its code."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import yaml
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from tasks.atomic import write_json, write_text
from tasks.errors import BusyError, InputError
from tasks.params import Settings, apply_overrides, parse
from tasks.sample import digest_bytes, digest_json

CODE_LOCK = "code.lock.json"
HOLDER = "scalselect.lock"

PACKAGE = Path(__file__).resolve().parent.parent
"""The folder that holds flows/ and tasks/: a checkout of the repository, or site-packages."""


def find(start: Path = Path()) -> Path:
    """The workspace that `start` lies in: the nearest folder upwards with dvc.yaml and params.yaml."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "dvc.yaml").exists() and (folder / "params.yaml").exists():
            return folder
    raise InputError(f"{start.resolve()}: not in a workspace (no dvc.yaml and params.yaml); run `scalselect init DIR`")


@contextmanager
def holding(workspace: Path, tell: Callable[[str], None], patience: float = float("inf")) -> Iterator[None]:
    """Hold the workspace against other runs; a second one waits, and says for whom.

    The lock is the kernel's, so a killed process lets go of it. Raises BusyError after `patience` seconds.
    """
    path = workspace / ".dvc" / "tmp" / HOLDER
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        tell(f"{workspace} is held by {_holder(path)}; waiting for it to finish")
        try:
            lock.acquire(timeout=-1 if patience == float("inf") else patience)
        except filelock.Timeout:
            raise BusyError(f"{workspace} is still held by {_holder(path)}; try again later") from None
    try:
        write_text(path.with_suffix(".pid"), f"{os.getpid()}\n")
        yield
    finally:
        lock.release()


def override(workspace: Path, overrides: Mapping[str, Any]) -> Settings:
    """Write dotted overrides into params.yaml, comments kept; returns the settings then in force.

    The whole is validated first: an unknown key or a wrong value raises ParamsError and leaves the file as it was.
    """
    path = workspace / "params.yaml"
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings = parse(tree, overrides, where=str(path))
    if settings.score.method not in settings.methods:
        # dvc.yaml tracks methods.<the method in use>, so the block must be there, empty or not.
        overrides = {**overrides, f"methods.{settings.score.method}": {}}
    if apply_overrides(tree, overrides) != tree:
        document = _round_trip().load(path.read_text(encoding="utf-8"))
        for dotted, value in overrides.items():
            _assign(document, dotted.split("."), _quoted(value))
        write_text(path, _dump(document))
    return settings


def refresh_code(workspace: Path) -> bool:
    """Bring code.lock.json up to date with the installed package; True when it changed.

    A scaffolded workspace holds no code that DVC could watch, so this file stands in for it: per stage, one digest over
    the sources that the repository's dvc.yaml lists as the stage's code. A checkout has no such file and needs none.
    """
    path = workspace / CODE_LOCK
    if not path.exists() or json.loads(path.read_text(encoding="utf-8")) == code_digests():
        return False
    write_json(path, code_digests())
    return True


def code_digests() -> dict[str, str]:
    """Per stage, one digest over the sources of the installed package that the stage depends on."""
    stages = yaml.safe_load(template("dvc.yaml"))["stages"]
    return {name: digest_json(_sources(code_deps(stage))) for name, stage in stages.items()}


def code_deps(stage: Mapping[str, Any]) -> list[str]:
    """Those deps of a dvc.yaml stage that are our own code."""
    return [one for one in stage["deps"] if one.split("/")[0] == "tasks"]


def template(name: str) -> str:
    """dvc.yaml, params.yaml or prefect.yaml as the product ships it."""
    # A wheel carries them inside flows/; in a checkout they are the repository's own.
    for path in (PACKAGE / "flows" / "scaffold" / name, PACKAGE / name):
        if path.exists():
            return path.read_text(encoding="utf-8")
    raise InputError(f"{name}: missing from this installation of scalselect; install it again")


def _sources(deps: list[str]) -> dict[str, str]:
    files = [file for one in deps for file in _python_files(PACKAGE / one)]
    return {file.relative_to(PACKAGE).as_posix(): digest_bytes(file.read_bytes()) for file in files}


def _python_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(one for one in path.rglob("*") if one.is_file() and "__pycache__" not in one.parts)
    return [path]


def _holder(path: Path) -> str:
    try:
        return f"process {int(path.with_suffix('.pid').read_text())}"
    except (OSError, ValueError):
        return "another process"


def _assign(node: Any, keys: list[str], value: Any) -> None:
    *parents, last = keys
    for key in parents:
        if node.get(key) is None:
            node[key] = {}
        node = node[key]
    node[last] = value


def _quoted(value: Any) -> Any:
    """The value with those strings quoted that YAML 1.1 (our reader) would take for something else, such as yes."""
    if isinstance(value, Mapping):
        return {key: _quoted(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_quoted(one) for one in value]
    return DoubleQuotedScalarString(value) if isinstance(value, str) and yaml.safe_load(value) != value else value


def _round_trip() -> YAML:
    document = YAML()
    document.preserve_quotes = True
    document.indent(mapping=2, sequence=4, offset=2)
    document.width = 4096
    document.representer.add_representer(type(None), _null)
    document.representer.add_representer(float, _float)
    return document


def _null(representer: Any, _value: None) -> Any:
    # Left to itself, ruamel writes nothing at all.
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _float(representer: Any, value: float) -> Any:
    # 1e-05 is a number in YAML 1.2 and a string in 1.1; 1.0e-05 is a number in both.
    text = repr(value)
    return representer.represent_scalar("tag:yaml.org,2002:float", text if "." in text else text.replace("e", ".0e"))


def _dump(document: Any) -> str:
    stream = io.StringIO()
    _round_trip().dump(document, stream)
    return stream.getvalue()
