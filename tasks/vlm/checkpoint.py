"""The files of a checkpoint: found locally or fetched from the hub, only those needed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from tasks.errors import ModelError
from tasks.params import ModelSettings

# Everything of a repository that is small: configuration, tokenizer, processor, templates and the weight indexes.
SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.bpe"]
SAFE = ("model.safetensors.index.json", "model.safetensors")
PICKLED = ("pytorch_model.bin.index.json", "pytorch_model.bin")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder on disk (weights may still be on the hub), and where it came from.

    commit: the hub commit the files belong to; "" for a plain local folder.
    weights: tensor name -> file name of the shard that holds it.
    """

    folder: Path
    source: str
    commit: str
    weights: Mapping[str, str]

    def shard(self, name: str) -> Path:
        """A shard's path, downloaded when it is not there yet. Raises ModelError when it cannot be had."""
        path = self.folder / name
        if path.exists():
            return path
        if not self.commit:
            raise ModelError(f"{self.folder}: shard {name} is missing, and tensors of it are needed")
        return Path(_from_hub(hf_hub_download, self.source, filename=name, revision=self.commit))


def open_checkpoint(settings: ModelSettings, weights: bool = True) -> Checkpoint:
    """Find the checkpoint named by `settings`: a local folder, or a hub id (cached, else fetched; small files only).

    With `weights` false the weights are not even looked for.

    Raises ModelError when it is not found, or holds only pickled weights and `model.allow_pickle` is off.
    """
    folder = Path(settings.path).expanduser()
    if folder.is_dir():
        return Checkpoint(folder, settings.path, "", _weight_map(folder, settings) if weights else {})
    if folder.is_absolute() or len(folder.parts) > 2:
        raise ModelError(f"model `{settings.path}`: no such folder, and not a hub id such as `owner/name`")
    patterns = [*SMALL_FILES, "*.py"] if settings.trust_remote_code else SMALL_FILES
    folder = Path(_from_hub(snapshot_download, settings.path, revision=settings.revision, allow_patterns=patterns))
    found = _weight_map(folder, settings, hub=settings.path) if weights else {}
    return Checkpoint(folder, settings.path, folder.name, found)


def tensor_dtypes(checkpoint: Checkpoint, names: Iterable[str]) -> set[str]:
    """The stored dtypes ("F32", "BF16", ...) of the named tensors; empty for pickled checkpoints."""
    wanted = set(names)
    shards = {checkpoint.weights[name] for name in wanted}
    headers = [read_header(checkpoint.shard(shard))[0] for shard in shards if shard.endswith(".safetensors")]
    return {entry["dtype"] for header in headers for name, entry in header.items() if name in wanted}


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The safetensors header without its metadata, and where the tensor bytes begin.

    Raises ModelError for a file that breaks off or is something else: half a download, a Git LFS pointer.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length) if length < size else b"")
        header.pop("__metadata__", None)
        whole = max((entry["data_offsets"][1] for entry in header.values()), default=0) + 8 + length == size
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ModelError(f"{path}: not a whole safetensors file ({size:,} bytes); fetch it again")
    return header, 8 + length


def small_files(folder: Path) -> Iterator[Path]:
    """Configuration, tokenizer, processor and template files of a checkpoint, in order of name; no weights."""
    for path in sorted({found for pattern in SMALL_FILES for found in folder.glob(pattern)}):
        if not path.name.endswith(".index.json"):
            yield path


def _weight_map(folder: Path, settings: ModelSettings, hub: str = "") -> dict[str, str]:
    for name in (*SAFE, *(PICKLED if settings.allow_pickle else ())):
        path = folder / name
        if path.exists() or (hub and _fetched(hub, name, folder.name)):
            return _names_in(path)
    pickled = any((folder / name).exists() for name in PICKLED) or any(folder.glob("*.bin"))
    if pickled and not settings.allow_pickle:
        raise ModelError(
            f"{settings.path}: only pickled weights (.bin), which can run code when loaded; "
            "convert them to safetensors, or set model.allow_pickle: true if you trust the file"
        )
    raise ModelError(f"{settings.path}: no weights found (looked for {', '.join(SAFE)})")


def _names_in(path: Path) -> dict[str, str]:
    if path.name.endswith(".index.json"):
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))["weight_map"])
        except (ValueError, KeyError, TypeError):
            raise ModelError(f"{path}: not an index of weights (JSON with `weight_map`); fetch it again") from None
    if path.suffix == ".safetensors":
        return dict.fromkeys(read_header(path)[0], path.name)
    import torch

    return dict.fromkeys(torch.load(path, mmap=True, weights_only=True, map_location="meta"), path.name)


def _fetched(repository: str, name: str, revision: str) -> bool:
    """Whether a file is, or now came to be, in the local cache."""
    try:
        hf_hub_download(repository, filename=name, revision=revision)
    except EntryNotFoundError:
        return False
    except HfHubHTTPError as error:
        raise ModelError(f"model `{repository}`: the hub refused {name}: {error}") from None
    return True


def _from_hub(download: Any, repository: str, **options: Any) -> str:
    try:
        return str(download(repository, **options))
    except (HFValidationError, LocalEntryNotFoundError) as error:
        raise ModelError(f"model `{repository}`: neither a folder nor in the local hub cache ({error})") from None
    except HfHubHTTPError as error:
        raise ModelError(f"model `{repository}`: the hub refused: {error}") from None
