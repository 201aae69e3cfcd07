"""What a refresh leaves behind once every stage is done: the completed manifest, a push, a commit, a tag.

Runs outside every stage command, because DVC writes dvc.lock only after a command has ended.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import dvc, git
from flows.workspace import CODE_LOCK
from tasks.__main__ import STAGES
from tasks.atomic import write_text
from tasks.errors import InputError
from tasks.layout import Layout
from tasks.manifest import complete, locked
from tasks.params import RecordSettings, load
from tasks.sample import digest_bytes

MANIFEST = "data/manifests/manifest.json"

RECORDED = ("dvc.lock", "params.yaml", CODE_LOCK, MANIFEST)
"""What record.git_commit commits, those of them that exist."""


@dataclass(frozen=True, slots=True)
class Record:
    """What was recorded: the manifest and its sha256, the remote pushed to, the commit and the tag made."""

    manifest: Path
    digest: str
    pushed: str | None = None
    commit: str | None = None
    tag: str | None = None


def record(workspace: Path, tell: dvc.Lines, unchanged: bool = False) -> Record:
    """Write the manifest completed with dvc.lock's digests and the git commit, then publish it as params.yaml says.

    `unchanged`: DVC has just said that every stage is up to date, and need not be asked again.
    Same outputs, same bytes. Raises InputError when a stage is not up to date: a record of a half-done refresh would
    name files that are not those on disk.
    """
    settings = load(workspace / "params.yaml").record
    if not unchanged and _uncommitted(workspace):
        dvc.commit(workspace, tell)
    path = workspace / MANIFEST
    text = _complete(workspace)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    digest = digest_bytes(text.encode())
    tell(f"recorded {MANIFEST} (sha256 {digest[:12]})")
    pushed = _push(workspace, tell) if settings.push else None
    commit, tag = _commit(workspace, settings, digest)
    return Record(path, digest, pushed, commit, tag)


def md5s(stages: Mapping[str, Any]) -> dict[str, dict[str, dict[str, str]]]:
    """{stage: {"deps": {path: md5}, "outs": {path: md5}}} of dvc.lock's stages, ours only; of an object "etag ..."."""
    return {
        name: {side: {one["path"]: locked(one) for one in stages[name].get(side, [])} for side in ("deps", "outs")}
        for name in STAGES
        if name in stages
    }


def _complete(workspace: Path) -> str:
    exported = workspace / Layout.workspace().manifest
    commit = git.commit_without(workspace, RECORDED)
    content = complete(
        json.loads(exported.read_text(encoding="utf-8")),
        git={"commit": commit} if commit else {},
        dvc=md5s(dvc.lock(workspace)),
    )
    return json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _uncommitted(workspace: Path) -> bool:
    """Whether the cache lacks outputs, as after `dvc repro --no-commit`. Raises InputError for stale stages."""
    changed = {name: changes for name, changes in dvc.status(workspace).items() if name in STAGES}
    stale = [name for name, changes in changed.items() if not all(map(_only_uncached, changes))]
    if stale:
        raise InputError(f"{workspace}: {', '.join(stale)} not up to date; run `dvc repro` (or `scalselect run`) first")
    return bool(changed)


def _only_uncached(change: Any) -> bool:
    return isinstance(change, dict) and all(
        side == "changed outs" and set(paths.values()) == {"not in cache"} for side, paths in change.items()
    )


def _push(workspace: Path, tell: dvc.Lines) -> str | None:
    remote = dvc.default_remote(workspace)
    if remote is not None:
        dvc.push(workspace, tell)
    return remote


def _commit(workspace: Path, settings: RecordSettings, digest: str) -> tuple[str | None, str | None]:
    commit = tag = None
    if settings.git_commit:
        paths = [one for one in RECORDED if (workspace / one).exists()]
        commit = git.commit(workspace, paths, f"Refresh of the subset, manifest {digest[:12]}")
    if settings.git_tag:
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        name = settings.git_tag.format(date=today, digest=digest[:12])
        tag = name if git.tag(workspace, name, f"Subset with manifest {digest}") else None
    return commit, tag
