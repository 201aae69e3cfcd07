"""OST's simulated training step: take it on one sample, see what it does to the loss of trusted rows, take it back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.vlm.batch import Batch

log = logging.getLogger(__name__)

Loss = Callable[[Any, Batch], Tensor]


class Trial:
    """Steps of one size from the same weights.

    anchors: batches of one row each, on the model's device. loss: of one batch. adapted: what the forward needs around
    it, such as adapters. rule: what the step goes along: `sgd` the gradient, `unit` the same at length 1, `adam` the
    first step of a fresh Adam.
    """

    def __init__(
        self,
        model: Any,
        parameters: Sequence[nn.Parameter | Tensor],
        anchors: Sequence[Batch],
        loss: Loss,
        adapted: Callable[[], AbstractContextManager[Any]],
        size: float,
        rule: str,
    ) -> None:
        self._model, self._parameters, self._anchors = model, parameters, anchors
        self._loss_of, self._adapted = loss, adapted
        self._size, self._rule = size, rule
        if parameters[0].dtype != torch.float32:
            log.warning(
                "extract.gradients.step: weights of %s cannot hold small steps; "
                "name extract.gradients.model with dtype float32",
                parameters[0].dtype,
            )
        self._kept = [one.detach().clone() for one in parameters]
        self._before = self._loss()

    @torch.no_grad()
    def drop(self, gradient: Tensor) -> float:
        """By how much the step along a sample's flat gradient lowers the mean anchor loss; negative: raises it."""
        parts = torch.split(direction(gradient, self._rule), [one.numel() for one in self._parameters])
        try:
            for parameter, part in zip(self._parameters, parts, strict=True):
                parameter.sub_(self._size * part.view_as(parameter).to(parameter.dtype))
            return self._before - self._loss()
        finally:
            for parameter, kept in zip(self._parameters, self._kept, strict=True):
                parameter.copy_(kept)

    @torch.no_grad()
    def _loss(self) -> float:
        with self._adapted():
            return float(np.mean([float(self._loss_of(self._model, one)) for one in self._anchors]))


def direction(gradient: Tensor, rule: str) -> Tensor:
    """What a step of size 1 goes along; zero for a zero gradient."""
    if rule == "adam":
        return gradient / (gradient.abs() + 1e-8)
    if rule == "sgd":
        return gradient
    length = torch.linalg.vector_norm(gradient)
    return gradient / length if length > 0 else gradient
