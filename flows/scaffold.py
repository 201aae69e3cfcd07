"""`scalselect init`: a new workspace, a folder with its own dvc.yaml, params.yaml, prefect.yaml, git and DVC."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows import dvc, git
from flows.workspace import CODE_LOCK, code_digests, override, template
from tasks.atomic import write_json, write_text
from tasks.errors import InputError
from tasks.places import is_url, reach

DVC_CONFIG = """\
[core]
    analytics = false
    autostage = true
    check_update = false
    remote = local
[cache]
    type = "hardlink,copy"
['remote "local"']
    url = remote
"""

DVC_GITIGNORE = "/config.local\n/tmp\n/cache\n/remote\n"

DVCIGNORE = """\
# Read by every dvc command: what is neither an input nor an output of a stage.
.venv/
__pycache__/
/data/store/
"""

GITIGNORE = "/data/*\n!/data/manifests/\n/dvc_plots/\n.venv/\n"

UNWATCHED = """\
DVC does not watch the images under {images}, because the workspace lies in that folder.
After changing an image in place, run `dvc repro --force validate`; or make the workspace elsewhere; or name the images'
own folder with --image-root.
"""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_GLOB = re.compile(r"[*?\[]")
_STAGE = re.compile(r"  (\w+):$")
_CODE = re.compile(r"      - tasks\b")
_NO_DEPS = re.compile(r"^    deps:\n(?=    \w)", re.MULTILINE)


def scaffold(
    folder: Path, dataset: str | None = None, model: str | None = None, image_root: str | None = None
) -> tuple[str, ...]:
    """Make `folder` a workspace for `dataset` and `model` (paths or hub ids; by default those of the demo).

    Images lie under `image_root`, by default the folder of a JSON dataset. Returns what the user should know. Raises
    InputError when there is a workspace already, or a path that does not exist.
    """
    for name in ("dvc.yaml", "params.yaml"):
        if (folder / name).exists():
            raise InputError(f"{folder / name} exists; `scalselect init` makes a new workspace and changes none")
    if image_root is not None and dataset is None:
        raise InputError("--image-root says where the images of a dataset lie: name it with --dataset")
    changes = {**_dataset_settings(folder, dataset, image_root), **_model_settings(folder, model)}
    for name in ("params.yaml", "prefect.yaml"):
        write_text(folder / name, template(name))
    override(folder, changes)
    write_text(folder / "dvc.yaml", without_code(template("dvc.yaml"), _deps(folder, dataset, model, changes)))
    write_json(folder / CODE_LOCK, code_digests())
    write_text(folder / ".gitignore", GITIGNORE)
    prepare(folder)
    images = changes.get("dataset.image_root")
    return () if images is None or watches_images(folder, images) else (UNWATCHED.format(images=images),)


def prepare(folder: Path) -> None:
    """Initialise git and DVC where they are not yet: a new workspace, or a checkout that came as a tarball."""
    git.init(folder)
    if not (folder / ".dvc").exists():
        dvc.init(folder, nested=git.top(folder) != folder.resolve())
        write_text(folder / ".dvc" / "config", DVC_CONFIG)
        write_text(folder / ".dvc" / ".gitignore", DVC_GITIGNORE)
        write_text(folder / ".dvcignore", DVCIGNORE)


def without_code(text: str, deps: dict[str, str | None]) -> str:
    """dvc.yaml for a workspace without sources: per-stage digests of code.lock.json instead of code deps.

    `deps` says what becomes of a templated dep such as "${model.path}": another path, or None to leave it out.
    """
    return _NO_DEPS.sub("", "\n".join(_rewritten(text.split("\n"), deps)))


def _rewritten(lines: list[str], deps: dict[str, str | None]) -> Iterator[str]:
    stage = ""
    for line in lines:
        if found := _STAGE.match(line):
            stage = found.group(1)
        dep = line.removeprefix("      - ")
        if _CODE.match(line) or (dep in deps and deps[dep] is None):
            continue
        yield f"      - {deps[dep]}" if dep in deps else line
        if line.startswith("    params:"):
            yield from (f"      - {CODE_LOCK}:", f"          - {stage}")


def _deps(folder: Path, dataset: str | None, model: str | None, changes: dict[str, Any]) -> dict[str, str | None]:
    """What to write for each templated dep: hub ids are no files, and a glob is watched by its folder."""
    deps: dict[str, str | None] = {}
    if dataset is not None:
        path = changes["dataset.path"]
        if _is_hub(dataset):
            deps["${dataset.path}"] = None
        elif _GLOB.search(path):
            deps["${dataset.path}"] = _parent(path)
        if not watches_images(folder, changes["dataset.image_root"]):
            deps["${dataset.image_root}"] = None
    if model is not None and _is_hub(model):
        deps["${model.path}"] = None
    return deps


def watches_images(folder: Path, image_root: str | None) -> bool:
    """Whether DVC can watch the images: they have a folder, and the workspace with its outputs does not lie in it."""
    if image_root is None or is_url(image_root):
        return image_root is not None
    return not folder.resolve().is_relative_to((folder / image_root).resolve())


def _dataset_settings(folder: Path, dataset: str | None, image_root: str | None) -> dict[str, Any]:
    if dataset is None:
        return {}
    images = None if image_root is None else _existing(folder, image_root, "image-root")
    if _is_hub(dataset):
        return {"dataset.path": dataset, "dataset.image_root": images}
    path = _existing(folder, dataset, "dataset")
    # Only JSON names images beside itself; the other formats carry them.
    if images is None and Path(path).suffix in {".json", ".jsonl"}:
        images = _parent(path)
    return {"dataset.path": path, "dataset.image_root": images}


def _model_settings(folder: Path, model: str | None) -> dict[str, Any]:
    if model is None:
        return {}
    return {"model.path": model if _is_hub(model) else _existing(folder, model, "model")}


def _parent(path: str) -> str:
    return path.rpartition("/")[0] if is_url(path) else Path(path).parent.as_posix()


def _is_hub(name: str) -> bool:
    return not Path(name).exists() and _HUB_ID.fullmatch(name) is not None


def _existing(folder: Path, name: str, what: str) -> str:
    """The path as params.yaml should say it: relative inside the workspace, absolute outside."""
    if is_url(name):
        reach(name, f"--{what}")
        return name
    path = Path(os.path.abspath(name))  # noqa: PTH100  # `..` taken out, symbolic links kept
    if not path.exists() and not (_GLOB.search(name) and any(path.parent.glob(path.name))):
        raise InputError(f"--{what} {name}: no such file or folder, and not a hub id such as `owner/name`")
    root = folder.absolute()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
