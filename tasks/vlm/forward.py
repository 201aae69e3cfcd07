"""One forward of one batch, feeding every signal that asked for something, stopped once all have it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tasks.errors import ModelError
from tasks.vlm.batch import Batch
from tasks.vlm.capture import capturing
from tasks.vlm.gradients import Measured
from tasks.vlm.pruning import decoder
from tasks.vlm.sharing import encode, visual_only


@dataclass(frozen=True)
class Taps:
    """What signals want of a forward.

    rows: attention of instruction tokens to visual tokens at decoder layer 0.
    layers: decoder layers whose raw output (residual stream, before any norm or later injection) is kept.
    visual: decoder layers of which it is kept too, but read at visual tokens only.
    attention: decoder layers whose attention output projection (before the residual addition) is kept.
    final: the last hidden state after the final norm; the forward then runs to its end.
    blind: a second forward, of the conversations without their images, to the same end.
    gradients: a forward and a backward of each sample alone (tasks.vlm.gradients).
    """

    rows: bool = False
    layers: frozenset[int] = frozenset()
    visual: frozenset[int] = frozenset()
    attention: frozenset[int] = frozenset()
    final: bool = False
    blind: bool = False
    gradients: bool = False

    def __or__(self, other: Taps) -> Taps:
        return Taps(
            self.rows or other.rows,
            self.layers | other.layers,
            self.visual | other.visual,
            self.attention | other.attention,
            self.final or other.final,
            self.blind or other.blind,
            self.gradients or other.gradients,
        )

    @property
    def depth(self) -> int:
        """How many decoder layers have to run."""
        return 1 + max([*self.layers, *self.visual, *self.attention, 0])

    @property
    def shared(self) -> bool:
        """Whether anything is read from the batch's forward."""
        return bool(self.rows or self.layers or self.visual or self.attention or self.final)

    @property
    def whole(self) -> bool:
        """Whether the whole decoder and the vocabulary head are needed."""
        return self.final or self.gradients

    @property
    def lean(self) -> bool:
        """Whether the deepest layer's output is read at visual tokens only, if at all."""
        return not self.final and self.depth - 1 not in self.layers


@dataclass
class Record:
    """What a forward left: attention is (B, L), zero at all but visual tokens; hidden and projected map a layer to
    (B, L, d).

    final (B, L, d) and the output embedding `head` go with taps.final; blind is the batch without images and its own.
    """

    attention: Tensor | None = None
    hidden: dict[int, Tensor] = field(default_factory=dict)
    projected: dict[int, Tensor] = field(default_factory=dict)
    final: Tensor | None = None
    head: Any = None
    blind: tuple[Batch, Record] | None = None
    gradients: Measured | None = None


class _ReachedError(Exception):
    """The deepest layer asked for has spoken; nothing after it needs to run."""


@torch.inference_mode()
def run(model: Any, batch: Batch, taps: Taps) -> Record:
    """Forward `batch` (already on the model's device) and return what `taps` ask for. Raises ModelError."""
    record = Record()
    layers = decoder(model).layers
    with ExitStack() as stack:
        rows = stack.enter_context(capturing(batch)) if taps.rows else None
        for index in taps.attention:
            hook = layers[index].self_attn.register_forward_hook(_keep(record.projected, index))
            stack.callback(hook.remove)
        for index in taps.layers | taps.visual:
            hook = layers[index].register_forward_hook(_keep(record.hidden, index))
            stack.callback(hook.remove)
        if taps.lean:
            stack.enter_context(visual_only(layers[taps.depth - 1], batch))
        if not taps.final:
            stack.callback(layers[taps.depth - 1].register_forward_hook(_stop).remove)
        with suppress(_ReachedError):
            record.final = model.base_model(**encode(model, batch), use_cache=False).last_hidden_state
            record.head = model.get_output_embeddings()
    if rows is not None:
        if rows.attention is None:
            raise ModelError(
                f"model family `{model.config.model_type}` is not supported: its first decoder layer "
                "does not call transformers' attention interface, so its attention cannot be read"
            )
        record.attention = rows.attention
    return record


def _keep(store: dict[int, Tensor], index: int) -> Callable[..., None]:
    def hook(module: Any, inputs: Any, output: Any) -> None:
        store[index] = output[0] if isinstance(output, tuple) else output

    return hook


def _stop(module: Any, inputs: Any, output: Any) -> None:
    raise _ReachedError
