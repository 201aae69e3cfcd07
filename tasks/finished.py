"""A finished selection, opened again from its folder, one of its files, or its manifest; it may have been moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import LineageError
from tasks.layout import Layout
from tasks.manifest import FILE, SCHEMA, Json, read_json
from tasks.params import Settings, parse
from tasks.places import is_url, place, within_reach
from tasks.sample import digest_json


@dataclass(frozen=True)
class Finished:
    """The manifest and the folders its paths are relative to.

    base: holds every output. root: the working folder of the run, where relative inputs lie.
    """

    manifest: Path
    content: Json
    base: Path
    root: Path

    def output(self, role: str) -> Path:
        """Where the file (or folder) that Layout calls `role` lies now."""
        return self.base / str(self.content["layout"][role])

    def layout(self) -> Layout:
        """Every output where it lies now."""
        return Layout(**{role: self.base / str(path) for role, path in self.content["layout"].items()})

    def find(self, recorded: str) -> Path | None:
        """Where an input lies now, or None when it is out of reach.

        An absolute path that leads nowhere any more is looked for by its last parts: inputs may have been moved along.
        What is found is compared by digest, so another file of that name is a mismatch and never taken for it.
        """
        if is_url(recorded):
            return place(recorded) if within_reach(recorded) else None
        path = Path(recorded)
        if path.is_absolute():
            starts, names = [self.root], [path, *_shorter(path)]
        else:
            starts, names = [self.root, Path(), self.base], [path]
        return next((start / name for name in names for start in starts if (start / name).exists()), None)

    def settings(self) -> Settings:
        """The parameters of the run, with paths as they are reached from here; `run` and `record` at their defaults."""
        tree = self.content["settings"]
        moved = {"dataset.path": self._reach(tree["dataset"]["path"]), "model.path": self._reach(tree["model"]["path"])}
        if tree["dataset"]["image_root"] is not None:
            moved["dataset.image_root"] = self._reach(tree["dataset"]["image_root"])
        return parse(tree, moved, where=str(self.manifest))

    def _reach(self, recorded: str) -> str:
        if is_url(recorded):
            return recorded
        found = self.find(recorded)
        if found is None and any(sign in recorded for sign in "*?["):
            return str(self.root / recorded)  # a glob of shards
        return recorded if found is None else str(found)  # what is not found may be a hub id

    def extraction(self) -> Json:
        """What the extract stage recorded: each signal's fingerprint, columns and model."""
        found: Json = self.content.get("extraction", {})
        return found

    def record(self) -> Json | None:
        """Git and DVC facts, added after the last stage; None when there are none for this very manifest."""
        if "record" in self.content:
            return dict(self.content["record"])
        beside = self.base / "manifests" / FILE
        if not beside.exists():
            return None
        completed = read_json(beside)
        if completed.get("digest") != self.content["digest"]:
            return None
        return dict(completed["record"]) if "record" in completed else None


def open_finished(subset: Path) -> Finished:
    """Find and read the manifest of `subset`. Raises LineageError saying where it was looked for."""
    manifest = _find_manifest(subset)
    content = read_json(manifest)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise LineageError(f"{manifest}: not a ScalSelect manifest of schema {SCHEMA}")
    missing = [key for key in ("base", "root", "layout", "outputs", "inputs", "digest") if key not in content]
    if missing:
        raise LineageError(f"{manifest}: `{missing[0]}` is missing; the file was changed after it was written")
    base = (manifest.parent / content["base"]).resolve()
    return Finished(manifest, content, base, (base / content["root"]).resolve())


def record_is_whole(record: Json) -> bool:
    """Whether the record block still has the digest it was written with."""
    return record.get("digest") == digest_json({key: value for key, value in record.items() if key != "digest"})


def _shorter(path: Path) -> Iterator[Path]:
    """An absolute path without its root, then without more and more of its first folders."""
    parts = path.parts[1:]
    return (Path(*parts[start:]) for start in range(len(parts)))


def _find_manifest(subset: Path) -> Path:
    if not subset.exists():
        raise LineageError(f"{subset}: no such file or folder; name the output folder, a file in it, or {FILE}")
    if subset.name == FILE:
        return subset
    for candidate in _candidates(subset):
        if candidate.is_file() and _is_manifest(candidate):
            return candidate
    raise LineageError(f"{subset}: no {FILE} beside it or above it; name the folder that `scalselect` wrote")


def _candidates(subset: Path) -> Iterator[Path]:
    folder = (subset if subset.is_dir() else subset.parent).resolve()
    for start in (folder, *list(folder.parents)[:3]):
        for inner in (".", "subsets", "data/subsets"):
            yield start / inner / FILE


def _is_manifest(path: Path) -> bool:
    # The exports bring manifests of their own kind; ours says which schema it follows.
    content: Any = read_json(path)
    return isinstance(content, dict) and "schema" in content and "outputs" in content
