"""Gradients of each sample's own loss with respect to a few chosen parameters, projected to a size worth storing.

A sample is taken alone, forward and backward, in whatever batch it came: other samples cannot touch its gradient, and
no layer needs to be of a kind whose per-sample gradients are known. Only what lies after the chosen parameters is
differentiated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.errors import ModelError
from tasks.params import GradientsSettings
from tasks.vlm.batch import Batch
from tasks.vlm.projection import Projection, philox
from tasks.vlm.pruning import decoder
from tasks.vlm.trial import Trial

# Gradient entries of several samples that wait for the projection: it draws its matrix once for all of them.
WAITING_ELEMENTS = 1 << 28

# What the module between vision tower and decoder is called, family by family.
PROJECTOR = re.compile(r"(projector|connector|merger|merger_list|aligner|abstractor)$")


@dataclass(frozen=True)
class Measured:
    """Of n samples: feature (n, d) float32, nll (n,) the loss, norm (n,) the length of the gradient as it was.

    drop: (n,) what a training step on the sample takes off the anchors' loss, where steps are taken; else empty.
    """

    feature: np.ndarray[Any, np.dtype[np.float32]]
    nll: np.ndarray[Any, np.dtype[np.float64]]
    norm: np.ndarray[Any, np.dtype[np.float64]]
    drop: np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Adapter:
    """A low-rank path beside a linear layer: x -> x down^T up^T. `up` is zero, so the model stays what it is.

    With up at zero the gradient of `down` is zero too; that of `up` is the layer's own gradient times down^T.
    """

    layer: nn.Linear
    down: Tensor
    up: Tensor

    def add(self, module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A forward hook."""
        low = nn.functional.linear(inputs[0], self.down)
        return output + nn.functional.linear(low, self.up)


class Gradients:
    """What is differentiated in one loaded model, and how it is projected."""

    def __init__(self, model: Any, settings: GradientsSettings) -> None:
        """Raises ModelError for a model without the parameters asked for."""
        self._model = model
        self._adapters = make_adapters(model, settings) if settings.parameters == "lora" else []
        self.parameters = [one.up for one in self._adapters] or choose(model, settings)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        size = sum(parameter.numel() for parameter in self.parameters)
        self._projection = Projection(size, settings.dimension, settings.projection, settings.seed)
        self._trial: Trial | None = None

    def take_steps(self, anchors: Sequence[Batch], size: float, rule: str) -> None:
        """From now on also measure what a step on each sample does to the loss of `anchors`, batches of one row."""
        self._trial = Trial(self._model, self.parameters, anchors, response_loss, self._adapted, size, rule)

    def measure(self, samples: Iterable[Batch]) -> Measured:
        """The gradients of batches of one sample each, on the model's device."""
        features, waiting, losses, norms, drops = [], [], [], [], []
        most = max(1, WAITING_ELEMENTS // self._projection.size)
        for sample in samples:
            loss, gradient = self.differentiate(sample)
            losses.append(loss)
            norms.append(float(torch.linalg.vector_norm(gradient, dtype=torch.float64)))
            if self._trial is not None:
                drops.append(self._trial.drop(gradient))
            waiting.append(gradient)
            if len(waiting) == most:
                features.append(self._projection(torch.stack(waiting)))
                waiting = []
        if waiting:
            features.append(self._projection(torch.stack(waiting)))
        feature = torch.cat(features).float().cpu().numpy()
        return Measured(feature, np.array(losses), np.array(norms), np.array(drops))

    def differentiate(self, sample: Batch) -> tuple[float, Tensor]:
        """The loss of one sample, and its gradient as one float32 vector: parameter by parameter, row by row."""
        with self._adapted(), torch.enable_grad():
            loss = response_loss(self._model, sample)
            found = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        parts = zip(self.parameters, found, strict=True)
        flat = [torch.zeros_like(one) if grad is None else grad for one, grad in parts]
        return float(loss.detach()), torch.cat([one.reshape(-1).float() for one in flat])

    @contextmanager
    def _adapted(self) -> Iterator[None]:
        """The model with its adapters in place."""
        with ExitStack() as stack:
            for adapter in self._adapters:
                stack.callback(adapter.layer.register_forward_hook(adapter.add).remove)
            yield


def response_loss(model: Any, sample: Batch) -> Tensor:
    """Mean over answer tokens of their negative log-likelihood, in float32 or better: the loss of a training step.

    Logits are formed at the positions that predict them only.
    """
    hidden = model.base_model(**sample.inputs, use_cache=False).last_hidden_state
    rows, positions = sample.answer.to(hidden.device).nonzero(as_tuple=True)
    logits = model.get_output_embeddings()(hidden[rows, positions - 1])
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return nn.functional.cross_entropy(logits, sample.inputs["input_ids"][rows, positions])


def choose(model: Any, settings: GradientsSettings) -> list[nn.Parameter]:
    """The parameters of the last decoder layer, or of what leads from the vision tower to the decoder."""
    if settings.parameters == "last_layer":
        return list(decoder(model).layers[-1].parameters())
    found = [parameter for module in projectors(model) for parameter in module.parameters()]
    if not found:
        raise ModelError(
            f"model family `{model.config.model_type}`: no projector was found between its vision tower and decoder; "
            "set extract.gradients.parameters to last_layer or lora"
        )
    return found


def projectors(model: Any) -> list[nn.Module]:
    """Modules called a projector, outermost ones only, in the model's order."""
    named = {name: module for name, module in model.named_modules() if PROJECTOR.search(name)}
    return [module for name, module in named.items() if not any(name.startswith(f"{other}.") for other in named)]


def make_adapters(model: Any, settings: GradientsSettings) -> list[Adapter]:
    """One beside each linear layer of the last `layers` decoder layers (all by default); `down` is N(0, 1 / rank).

    Raises ModelError when there is no linear layer.
    """
    layers = list(decoder(model).layers)[-(settings.layers or 0) :]
    linear = [module for layer in layers for module in layer.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ModelError(f"model family `{model.config.model_type}`: no linear layer to put adapters beside")
    return [_make_adapter(layer, settings, number) for number, layer in enumerate(linear)]


def _make_adapter(layer: nn.Linear, settings: GradientsSettings, number: int) -> Adapter:
    drawn = np.random.Generator(philox(settings.seed, 1 + number)).standard_normal((settings.rank, layer.in_features))
    weight = layer.weight
    down = torch.from_numpy(drawn / settings.rank**0.5).to(weight)
    return Adapter(layer, down, torch.zeros(layer.out_features, settings.rank).to(weight))
