"""A model cut down to what the signals read: first decoder layers, vision tower up to the layer used, no head.

The cut is made in the configuration and the class, before anything is allocated, so that transformers itself builds
and loads the smaller model and tensors that are not needed are never read.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForImageTextToText
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from tasks.errors import ModelError
from tasks.vlm.families import family_of

# Vision towers whose hidden_states are the plain outputs of their layers (no norm on the last), so that fewer layers
# give the same tensors bit for bit.
CUTTABLE_TOWERS = ("clip_vision_model", "siglip_vision_model")


@dataclass(frozen=True)
class Need:
    """What a forward must reach: the first `depth` decoder layers, or all of them and the vocabulary head."""

    depth: int
    head: bool = False


def prune(config: Any, need: Need) -> Any:
    """A copy of `config` with only what `need` asks for. Raises ModelError for a family that cannot be read."""
    cut = copy.deepcopy(config)
    family = family_of(cut)
    text = cut.get_text_config()
    if not isinstance(getattr(text, "num_hidden_layers", None), int):
        raise ModelError(f"model family `{cut.model_type}` is not supported: its configuration has no decoder layers")
    if need.depth > text.num_hidden_layers:
        raise ModelError(f"layer {need.depth - 1} was asked for, the decoder has {text.num_hidden_layers}")
    if need.head:
        _check_head(text)
    else:
        text.num_hidden_layers = need.depth
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[: need.depth]
        family.trim(cut, need.depth)
    _cut_tower(cut)
    return cut


def pruned_class(config: Any, need: Need, trust_remote_code: bool = False) -> type[Any]:
    """The model class for a pruned configuration: without head (the base model), and without final norm."""
    if need.head or not trust_remote_code:
        # Asked for even where only the base is built: AutoModel also knows models that see no images.
        whole = class_of(AutoModelForImageTextToText, config, trust_remote_code)
        if need.head:
            return whole
    base = class_of(AutoModel, config, trust_remote_code)

    class Pruned(base):  # type: ignore[misc,valid-type]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            decoder(self).norm = nn.Identity()

    # transformers looks up weight renamings by class and module name, and must not take this for remote code.
    for name in ("__name__", "__qualname__", "__module__"):
        setattr(Pruned, name, getattr(base, name))
    return Pruned


def decoder(model: Any) -> Any:
    """The text decoder inside a model: the module that owns `layers`. Raises ModelError when there is none."""
    found = model.get_decoder()
    while not isinstance(getattr(found, "layers", None), nn.ModuleList):
        inner = found.get_decoder() if hasattr(found, "get_decoder") else found
        if inner is found:
            raise ModelError(f"model family `{model.config.model_type}` is not supported: no list of decoder layers")
        found = inner
    return found


def needed_tensors(cls: type[Any], config: Any, stored: list[str]) -> list[str]:
    """Of the tensor names in a checkpoint, those that the pruned model takes. Allocates nothing."""
    with torch.device("meta"):
        model = cls(config)
    conversions = get_model_conversion_mapping(model)
    renamings = [one for one in conversions if isinstance(one, WeightRenaming)]
    converters = [one for one in conversions if isinstance(one, WeightConverter)]
    state = model.state_dict()
    prefix = model.base_model_prefix
    taken = []
    for name in stored:
        renamed, _ = rename_source_key(name, renamings, converters, prefix, state)
        plain, _ = rename_source_key(name, [], [], prefix, state)
        if renamed in state or plain in state:
            taken.append(name)
    return taken


def _check_head(text: Any) -> None:
    """Logits are formed straight from the output embedding: a model that scales or caps them is refused."""
    for name in ("logit_scale", "logits_scaling", "final_logit_softcapping"):
        if getattr(text, name, None) not in (None, 1, 1.0):
            raise ModelError(f"model family `{text.model_type}` changes its logits by `{name}`: they cannot be scored")


def _cut_tower(config: Any) -> None:
    """Keep vision layers up to the deepest one named by `vision_feature_layer`, counting it from the front."""
    vision: Any = getattr(config, "vision_config", None)
    chosen = getattr(config, "vision_feature_layer", None)
    if chosen is None or getattr(vision, "model_type", None) not in CUTTABLE_TOWERS:
        return
    states = vision.num_hidden_layers + 1
    layers = [layer % states for layer in ([chosen] if isinstance(chosen, int) else chosen)]
    if max(layers) < vision.num_hidden_layers:
        config.vision_feature_layer = layers[0] if isinstance(chosen, int) else layers
        vision.num_hidden_layers = max(*layers, 1)


def class_of(auto: Any, config: Any, trust_remote_code: bool) -> type[Any]:
    """The class that an Auto class would make for `config`. Raises ModelError when there is none."""
    remote = getattr(config, "auto_map", None) or {}
    if trust_remote_code and auto.__name__ in remote:
        with torch.device("meta"):
            remote_class: type[Any] = type(auto.from_config(config, trust_remote_code=True))
            return remote_class
    try:
        found: Any = auto._model_mapping[type(config)]
    except KeyError:
        raise ModelError(
            f"model family `{config.model_type}` is not supported: transformers' {auto.__name__} does not know it"
        ) from None
    known: type[Any] = found[0] if isinstance(found, (list, tuple)) else found
    return known
