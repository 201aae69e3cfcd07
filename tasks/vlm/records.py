"""What the manifest says of a model: where it came from, the digests of its files and tensors, what reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers

from tasks.params import ModelSettings
from tasks.sample import digest_json
from tasks.vlm.checkpoint import small_files
from tasks.vlm.digests import Digests
from tasks.vlm.loading import Plan
from tasks.vlm.processing import describe_backend

# Small files that say nothing about how a sample is read into tokens and pixels.
NOT_PROCESSOR = ("config.json", "generation_config.json")


def record_model(planned: Plan, model: ModelSettings, processor: Any, digests: Digests) -> dict[str, Any]:
    """Where the model came from, the digests of its files and of the tensors used, and what reads it."""
    checkpoint = planned.checkpoint
    paths = [*small_files(checkpoint.folder), *map(checkpoint.shard, _shards(planned))]
    return {
        "model": checkpoint.source,
        "revision": model.revision,
        "commit": checkpoint.commit,
        "family": planned.family,
        "files": {path.name: digests.file(path) for path in paths},
        "tensors": digests.tensors(checkpoint, planned.tensors),
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
