"""From settings to a model in memory: plan what to read (nothing loaded), then read exactly that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open
from transformers.utils import logging as transformers_logging

from tasks.errors import ModelError
from tasks.params import ModelSettings
from tasks.vlm.capture import NAME, register
from tasks.vlm.checkpoint import Checkpoint, open_checkpoint, tensor_dtypes
from tasks.vlm.configuration import read_config
from tasks.vlm.pruning import Need, needed_tensors, prune, pruned_class

STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Plan:
    """Which class, configuration, tensors and precision a model will be loaded with."""

    checkpoint: Checkpoint
    family: str
    config: Any
    model_class: type[Any]
    tensors: tuple[str, ...]
    dtype: torch.dtype


def plan(settings: ModelSettings, need: Need) -> Plan:
    """Decide what to load, reading only configuration and file headers. Raises ModelError."""
    checkpoint = open_checkpoint(settings)
    whole = read_config(checkpoint.folder, settings)
    config = prune(whole, need)
    cls = pruned_class(config, need, settings.trust_remote_code)
    tensors = tuple(needed_tensors(cls, config, sorted(checkpoint.weights)))
    if not tensors:
        raise ModelError(f"{settings.path}: its weights do not belong to a `{config.model_type}` model")
    return Plan(checkpoint, whole.model_type, config, cls, tensors, choose_dtype(settings, whole, checkpoint, tensors))


def load(planned: Plan, device: str) -> Any:
    """The planned model on `device`, in eval mode, its text attention going through tasks.vlm.capture.

    Tensors whose stored dtype is the one asked for stay memory-mapped on the CPU. Raises ModelError when the
    checkpoint lacks a tensor.
    """
    register()
    with ExitStack() as files, _quiet():
        model, report = planned.model_class.from_pretrained(
            None,
            config=planned.config,
            state_dict=_stored(planned, files),
            dtype=planned.dtype,
            attn_implementation={_text_key(planned.config): NAME},
            output_loading_info=True,
        )
    if report["missing_keys"] or report["mismatched_keys"]:
        absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise ModelError(
            f"{planned.checkpoint.source}: tensor `{absent[0]}` is missing or misshapen ({len(absent)} so)"
        )
    model.requires_grad_(False)
    return model.eval().to(device)


def _stored(planned: Plan, files: ExitStack) -> dict[str, Any]:
    """Lazy slices of the tensors to load, by name."""
    slices: dict[str, Any] = {}
    weights = planned.checkpoint.weights
    for shard in sorted({weights[name] for name in planned.tensors}):
        path = planned.checkpoint.shard(shard)
        held = [name for name in planned.tensors if weights[name] == shard]
        if shard.endswith(".safetensors"):
            file = files.enter_context(safe_open(path, framework="pt"))
            slices |= {name: file.get_slice(name) for name in held}
        else:
            tensors = torch.load(path, mmap=True, weights_only=True, map_location="cpu")
            slices |= {name: tensors[name] for name in held}
    return slices


def choose_dtype(settings: ModelSettings, config: Any, checkpoint: Checkpoint, tensors: tuple[str, ...]) -> torch.dtype:
    """The precision asked for; `auto`: that of the configuration, else of the stored tensors, else float32."""
    named: Any = settings.dtype
    if named == "auto":
        named = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    if named is not None:
        dtype: torch.dtype = getattr(torch, named) if isinstance(named, str) else named
        return dtype
    known = [STORED[one] for one in sorted(tensor_dtypes(checkpoint, tensors)) if one in STORED]
    return known[0] if known else torch.float32


def _text_key(config: Any) -> str:
    """Which sub-configuration is the decoder's; "" when the model's configuration is itself the text configuration."""
    text = config.get_text_config()
    return next((name for name in config.sub_configs if getattr(config, name, None) is text), "")


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar of transformers while loading a handful of tensors."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
