"""What is known of a model before its weights are loaded: what features depend on, and what the manifest says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
import transformers

from tasks.params import ModelSettings
from tasks.sample import digest_json
from tasks.vlm.checkpoint import digest_file, digest_tensors, small_files
from tasks.vlm.loading import Plan
from tasks.vlm.processing import describe_backend

# Small files that say nothing about how a sample is read into tokens and pixels.
NOT_PROCESSOR = ("config.json", "generation_config.json")


@dataclass(frozen=True)
class Description:
    """What a group of signals depends on and yields, known without loading weights.

    fingerprints: signal -> digest of everything that decides its features.
    record: what the manifest says about the model.
    matrices: signal -> {column: width}; statistics: signal -> [(column, Arrow type)].
    """

    fingerprints: dict[str, str]
    record: dict[str, Any]
    matrices: dict[str, dict[str, int]]
    statistics: dict[str, list[tuple[str, pa.DataType]]]


def record_model(planned: Plan, model: ModelSettings, processor: Any) -> dict[str, Any]:
    """Where the model came from, the digests of its files and of the tensors used, and what reads it."""
    checkpoint = planned.checkpoint
    paths = [*small_files(checkpoint.folder), *map(checkpoint.shard, _shards(planned))]
    return {
        "model": checkpoint.source,
        "revision": model.revision,
        "commit": checkpoint.commit,
        "family": planned.family,
        "files": {path.name: digest_file(path) for path in paths},
        "tensors": digest_tensors(checkpoint, planned.tensors),
        "tensor_count": len(planned.tensors),
        "image_backend": describe_backend(processor),
        "dtype": str(planned.dtype).removeprefix("torch."),
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }


def digest_processor(planned: Plan, files: Mapping[str, str]) -> str:
    """Identity of the files that turn text and pixels into inputs: all small ones but the model's configuration."""
    shards = _shards(planned)
    return digest_json({name: one for name, one in files.items() if name not in NOT_PROCESSOR and name not in shards})


def _shards(planned: Plan) -> list[str]:
    return sorted({planned.checkpoint.weights[name] for name in planned.tensors})
