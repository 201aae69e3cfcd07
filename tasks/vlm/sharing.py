"""Work that samples of a batch have in common is done once.

Samples about one image share its pass through the vision tower. In a causal decoder they also share everything up to
and including that image, as long as they begin with the same words; and where only visual tokens are read of a layer,
no other token needs to go through its MLP.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tasks.vlm.batch import Batch

# Tokens that go through an MLP at once: its inner states are several times as wide as the tokens.
CHUNK_TOKENS = 4096

# The argument by which transformers' models take what their tower made of the images.
ENCODED = "mm_encoder_outputs"


def encode(model: Any, batch: Batch) -> dict[str, Any]:
    """Inputs for the model's forward; where images repeat, the tower's output of each instead of all their pixels.

    Families that take no such output, or lay pixels out in another way than `select` knows, go the plain way.
    """
    if ENCODED not in inspect.signature(model.base_model.forward).parameters:
        return batch.inputs
    images = [image for sample in batch.images for image in sample]
    first, index = distinct(images)
    chosen = select(batch.inputs, first, len(images)) if len(first) < len(images) else None
    if chosen is None:
        return batch.inputs
    encoded = model.base_model.get_image_features(**chosen, return_dict=True)
    if len(encoded.pooler_output) != len(first):
        return batch.inputs
    encoded.pooler_output = _repeat(encoded.pooler_output, index)
    if getattr(encoded, "deepstack_features", None):
        encoded.deepstack_features = [_repeat(level, index) for level in encoded.deepstack_features]
    rest = {name: value for name, value in batch.inputs.items() if name != "pixel_values"}
    return {**rest, ENCODED: {"image": encoded}}


def _repeat(features: Any, index: list[int]) -> Any:
    """Features of distinct images, one entry each, as (n, t, d) or a list of (t, d): for every image its own."""
    return features[index] if isinstance(features, Tensor) else [features[one] for one in index]


def select(inputs: dict[str, Tensor], places: Sequence[int], images: int) -> dict[str, Tensor] | None:
    """The pixels of the images at `places`, of `images` in all; None where it is not known which pixels are whose.

    One entry of pixel_values for each image (LLaVA), or the patches of all images in a row and their grids (Qwen).
    """
    visual = {name: value for name, value in inputs.items() if name.startswith(("pixel_", "image_", "spatial_"))}
    if visual.keys() == {"pixel_values"} and len(visual["pixel_values"]) == images:
        return {"pixel_values": visual["pixel_values"][list(places)]}
    if visual.keys() == {"pixel_values", "image_grid_thw"} and len(visual["image_grid_thw"]) == images:
        grids = visual["image_grid_thw"]
        patches = torch.split(visual["pixel_values"], grids.prod(1).tolist())
        return {"pixel_values": torch.cat([patches[one] for one in places]), "image_grid_thw": grids[list(places)]}
    return None


def distinct(keys: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Where each distinct key stands first, and for every key which of those it is. An empty key equals no other."""
    seen: dict[Hashable, int] = {}
    first: list[int] = []
    index = []
    for place, key in enumerate(keys):
        known = seen.setdefault(key, len(first)) if key else len(first)
        if known == len(first):
            first.append(place)
        index.append(known)
    return first, index


@contextmanager
def visual_only(layer: Any, batch: Batch) -> Iterator[None]:
    """Within the block, the layer's MLP works on visual tokens alone, and once on those with the same past.

    An MLP takes every token by itself, so visual tokens come out as ever; at the others the layer's output is wrong.
    """
    mlp = getattr(layer, "mlp", None)
    if mlp is None:
        yield
        return
    forward = mlp.forward
    causal = getattr(getattr(layer, "self_attn", None), "is_causal", False)
    first, index = distinct(pasts(batch)) if causal else distinct(range(1, 1 + len(batch)))
    wanted = torch.zeros_like(batch.visual)
    wanted[first] = batch.visual[first]

    def forward_wanted(hidden: Tensor) -> Tensor:
        tokens = wanted.flatten().nonzero().squeeze(1).to(hidden.device)
        flat = hidden.reshape(-1, hidden.shape[-1])
        done = torch.zeros_like(flat)
        for part in torch.split(tokens, CHUNK_TOKENS):
            done[part] = forward(flat[part][None])[0]
        done = done.view_as(hidden)
        return done if len(first) == len(index) else done[torch.tensor(first)[index]]

    mlp.forward = forward_wanted
    try:
        yield
    finally:
        del mlp.forward


def pasts(batch: Batch) -> list[Hashable]:
    """For each sample what its visual tokens' states depend on: its images, and its tokens up to the last of them.

    None where an image is not known by its digest.
    """
    ids = batch.inputs["input_ids"].cpu()
    keys: list[Hashable] = []
    for row, images in enumerate(batch.images):
        seen = batch.visual[row].nonzero()
        known = len(seen) and images and all(images)
        keys.append((images, ids[row, : int(seen[-1]) + 1].numpy().tobytes()) if known else None)
    return keys
