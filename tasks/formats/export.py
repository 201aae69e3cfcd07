"""What the writers of JSON exports share: where images are named, which fields go along, streaming."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tasks import images
from tasks.atomic import replacing
from tasks.errors import ParamsError
from tasks.params import ExportSettings
from tasks.places import is_url, place
from tasks.sample import ImageRef, Sample, digest_bytes

# Fields that the target format writes itself.
_SPOKEN_FOR = frozenset(["conversations", "conversation", "messages", "texts", "image", "images", "system"])


@dataclass(frozen=True, slots=True)
class PathPolicy:
    """How exports spell image paths: relative to the output file, absolute, or relative to a media folder.

    An image in object storage is named by its URL, but relative to a media folder that is a URL above it.
    """

    kind: Literal["relative", "absolute", "media_dir"] = "relative"
    media_dir: Path | None = None

    @classmethod
    def of(cls, settings: ExportSettings) -> PathPolicy:
        """The policy of params.yaml. Raises ParamsError when media_dir is asked for and not named."""
        if settings.paths == "media_dir" and not settings.media_dir:
            raise ParamsError("export.paths is media_dir: set export.media_dir to the folder that trainers are given")
        return cls(settings.paths, place(settings.media_dir) if settings.media_dir else None)

    def spell(self, path: Path, out: Path) -> str:
        """`path` as the export in folder `out` names it."""
        if is_url(path):
            above = f"{self.media_dir}/" if self.kind == "media_dir" else ""
            return str(path).removeprefix(above)
        if self.kind == "absolute" or is_url(self.media_dir or out):
            return os.path.abspath(path)  # noqa: PTH100
        return os.path.relpath(path, out if self.kind == "relative" or self.media_dir is None else self.media_dir)


class Writer(Protocol):
    """Writes samples, each with its row's original, as files in the folder `out`; returns the files, data first."""

    def __call__(
        self, rows: Iterable[tuple[Sample, Any]], out: Path, paths: PathPolicy, name: str = "subset"
    ) -> list[Path]:
        """`name` is the files' stem."""


class ImageFiles:
    """Names images as files. Those that lie inside shards are unpacked to out/images/<sha256>.<suffix>, once each."""

    def __init__(self, out: Path, paths: PathPolicy) -> None:
        self._out, self._paths = out, paths
        self._unpacked: dict[str, Path] = {}

    @property
    def written(self) -> list[Path]:
        """Files unpacked so far, in order of first use."""
        return list(self._unpacked.values())

    def spell(self, ref: ImageRef) -> str:
        """The image's path under the path policy. Raises OSError when a shard can no longer be read."""
        return self._paths.spell(self._unpack(ref) if ref.member else place(ref.path), self._out)

    def _unpack(self, ref: ImageRef) -> Path:
        if ref.sha256 in self._unpacked:
            return self._unpacked[ref.sha256]
        data = images.read_bytes(ref)
        digest = ref.sha256 or digest_bytes(data)
        path = self._out / "images" / f"{digest}.{images.suffix(data, ref.name)}"
        if digest not in self._unpacked:
            with replacing(path) as temporary:
                temporary.write_bytes(data)
        return self._unpacked.setdefault(digest, path)


def scalar_fields(original: Any) -> dict[str, Any]:
    """Text, numbers and flags beside the conversation in a JSON original, types kept; nothing for other originals."""
    value = json.loads(original) if isinstance(original, str) else {}
    return {key: one for key, one in value.items() if key not in _SPOKEN_FOR and not isinstance(one, dict | list)}


def turn_objects(sample: Sample) -> list[dict[str, str]]:
    """The turns as {role, content}."""
    return [{"role": turn.role, "content": turn.content} for turn in sample.turns]


def uniform_object(sample: Sample, files: ImageFiles) -> dict[str, Any]:
    """messages, images, id, source; the same types in every row, which readers that infer a table schema need."""
    return {
        "messages": turn_objects(sample),
        "images": [files.spell(ref) for ref in sample.images],
        "id": sample.id or "",
        "source": sample.source,
    }


def write_array(path: Path, objects: Iterable[Any]) -> None:
    """A JSON array, one object a line."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        separator = "[\n"
        for one in objects:
            file.write(separator + _dump(one))
            separator = ",\n"
        file.write("[]\n" if separator == "[\n" else "\n]\n")


def write_lines(path: Path, objects: Iterable[Any]) -> None:
    """JSON lines; other characters that some readers take for line ends are escaped."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(_dump(one).translate(_LINE_ENDS) + "\n" for one in objects)


_LINE_ENDS = {ord(one): f"\\u{ord(one):04x}" for one in "\x85\u2028\u2029"}
_dump: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False).encode
