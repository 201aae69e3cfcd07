"""The naive way to the attended feature: the whole unmodified model, eager, every layer, every attention matrix."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import transformers as hf

from tasks.vlm.batch import Prepared
from tasks.vlm.pruning import decoder


@lru_cache(maxsize=2)
def full_model(folder: Path):
    model = hf.AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    return model.eval()


@torch.no_grad()
def attended(model, sample: Prepared, threshold: float = 0.9) -> tuple[np.ndarray, int]:
    """(feature, kept tokens) of one sample, token by token in plain Python and float64."""
    seen = []
    hook = (
        decoder(model)
        .layers[0]
        .register_forward_hook(lambda _, __, output: seen.append(output[0] if isinstance(output, tuple) else output))
    )
    output = model(**sample.inputs, output_attentions=True)
    hook.remove()
    heads = output.attentions[0][0].double().numpy()  # (H, L, L)
    hidden = seen[0][0].double().numpy()
    users = [token for token, inside in enumerate(sample.instruction.tolist()) if inside]
    images = [token for token, inside in enumerate(sample.visual.tolist()) if inside]
    weight = [np.mean([heads[:, user, image].mean() for user in users]) for image in images]
    total = sum(weight)
    share = [one / total for one in weight] if total > 0 else [1 / len(images)] * len(images)
    order = sorted(range(len(images)), key=lambda index: -share[index])
    mass, kept = 0.0, []
    for index in order:
        kept.append(images[index])
        mass += share[index]
        if mass > threshold:
            break
    return hidden[kept].mean(0), len(kept)
