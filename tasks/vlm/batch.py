"""What one sample becomes before the model sees it, and how samples stand together in a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import BoolTensor, Tensor

from tasks.vlm.travel import Travelling

# Inputs with one value per token; everything else holds one entry per image, patch or row.
SEQUENCES = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")


@dataclass(frozen=True)
class Prepared(Travelling):
    """One sample as the processor made it, unpadded.

    inputs: what the model's forward takes; sequence inputs are (1, L), the others keep the processor's leading axis.
    visual, instruction, answer: (L,) masks, no two true at one token.
    blind: the same conversation without its images, where a signal asks for it; it has the same answer tokens.
    images: sha256 of each image's encoded bytes in order, "" where not known.
    """

    inputs: dict[str, Tensor]
    visual: BoolTensor
    instruction: BoolTensor
    answer: BoolTensor
    blind: Prepared | None = None
    images: tuple[str, ...] = ()

    @property
    def n_tokens(self) -> int:
        """Length of the rendered conversation, images included."""
        return len(self.visual)

    @property
    def n_visual(self) -> int:
        """How many of the tokens are visual."""
        return int(self.visual.sum())


@dataclass(frozen=True)
class Batch:
    """Samples padded to one length L; masks are (B, L), disjoint, and false on padding.

    images: for each sample the digests of its images.
    """

    inputs: dict[str, Tensor]
    visual: BoolTensor
    instruction: BoolTensor
    answer: BoolTensor
    images: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.visual)

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """The same batch with inputs on `device`, floating inputs in the model's dtype. Masks stay where they are."""
        inputs = {
            name: value.to(device, dtype if value.is_floating_point() else None, non_blocking=value.is_pinned())
            for name, value in self.inputs.items()
        }
        return replace(self, inputs=inputs)


def collate(
    samples: Sequence[Prepared], pad_id: int = 0, side: Literal["left", "right"] = "right", pinned: bool = False
) -> Batch:
    """Stack samples into one batch; `pinned` in page-locked memory, which a GPU reads while the host goes on.

    `pad_id` must be an ordinary text token: it is masked out, but a model that looks for image tokens by id would
    count an image id there. The right side is the default because a causal model then never meets the padding.
    """
    length = max(sample.n_tokens for sample in samples)

    def pad(row: Tensor, fill: int) -> Tensor:
        missing = length - row.shape[-1]
        return torch.nn.functional.pad(row, (missing, 0) if side == "left" else (0, missing), value=fill)

    inputs = {}
    for name in _names(samples):
        values = [sample.inputs[name] for sample in samples if name in sample.inputs]
        if name in SEQUENCES:
            inputs[name] = join([pad(value, pad_id if name == "input_ids" else 0) for value in values], pinned)
        else:
            inputs[name] = stack(values, pinned)
    masks = [_masks(samples, one, pad) for one in (lambda s: s.visual, lambda s: s.instruction, lambda s: s.answer)]
    return Batch(inputs, masks[0], masks[1], masks[2], tuple(sample.images for sample in samples))


def stack(values: Sequence[Tensor], pinned: bool = False) -> Tensor:
    """Join along the first axis, zero-padding the others to the largest: images of unequal size or patch count."""
    shape = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
    return join([_grow(value, shape) for value in values], pinned)


def join(values: Sequence[Tensor], pinned: bool) -> Tensor:
    """Tensors of equal shape but for the first axis, one after another along it."""
    if not pinned:
        return torch.cat(list(values))
    shape = (sum(len(value) for value in values), *values[0].shape[1:])
    # Straight into its place: page-locked memory is kept and used again, fresh memory costs as much as the copy.
    return torch.cat(list(values), out=torch.empty(shape, dtype=values[0].dtype, pin_memory=True))


def _names(samples: Iterable[Prepared]) -> list[str]:
    return list(dict.fromkeys(name for sample in samples for name in sample.inputs))


def _masks(
    samples: Sequence[Prepared], mask: Callable[[Prepared], Tensor], pad: Callable[[Tensor, int], Tensor]
) -> BoolTensor:
    return torch.stack([pad(mask(sample), 0) for sample in samples])  # type: ignore[return-value]


def _grow(value: Tensor, shape: Sequence[int]) -> Tensor:
    missing = [(0, want - have) for want, have in zip(shape, value.shape[1:], strict=True)]
    padding = [amount for pair in reversed(missing) for amount in pair]
    return torch.nn.functional.pad(value, padding) if any(padding) else value
