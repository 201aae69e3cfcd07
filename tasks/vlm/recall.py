"""What was found out about a model, remembered: on an unchanged one neither torch nor transformers is imported.

    models/<identity>.json    a description (tasks.vlm.description)

An identity covers all that a description or a count of tokens is computed from. Files count by size and modification
time. Losing the folder costs only time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path

from tasks.atomic import write_text
from tasks.params import ModelSettings
from tasks.sample import digest_bytes, digest_json
from tasks.vlm.checkpoint import open_checkpoint
from tasks.vlm.description import Description

PACKAGES = ("jinja2", "numpy", "pillow", "safetensors", "sentencepiece", "tiktoken", "tokenizers", "torch",
            "torchvision", "transformers")  # fmt: skip


def identify(model: ModelSettings, *settings: object) -> str | None:
    """Identity of a checkpoint as it lies there, the settings it is read under, and the code that reads it.

    None when the checkpoint brings code of its own, which may depend on anything. Raises ModelError when there is no
    such model.
    """
    folder = open_checkpoint(model, weights=False).folder
    if model.trust_remote_code:
        return None
    files = [
        (path.relative_to(folder).as_posix(), (status := path.stat()).st_size, status.st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return digest_json([str(folder.absolute()), files, model.model_dump(mode="json"), settings, _code(), _packages()])


def described(folder: Path, identity: str | None, describe: Callable[[], Description]) -> Description:
    """The description kept under `identity`, else the one that `describe` makes, kept for the next run."""
    if identity is None:
        return describe()
    path = folder / f"{identity}.json"
    try:
        return Description.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        found = describe()
        write_text(path, found.to_json())
        return found


@cache
def _code() -> str:
    """Digest of this room's sources and of those that give settings and digests their meaning."""
    room = Path(__file__).parent
    sources = [*sorted(room.rglob("*.py")), room.parent / "params.py", room.parent / "sample.py"]
    return digest_json({path.relative_to(room.parent).as_posix(): digest_bytes(path.read_bytes()) for path in sources})


@cache
def _packages() -> dict[str, str]:
    """Versions of the packages that take part; "" for one that is not installed, which also decides."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
