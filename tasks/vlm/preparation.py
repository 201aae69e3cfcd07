"""From a sample and its decoded images to tokens and masks: everything that needs no weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import BoolTensor, Tensor

from tasks.params import ExtractSettings, ModelSettings
from tasks.problem import Problem
from tasks.sample import Sample
from tasks.vlm.batch import SEQUENCES, Prepared
from tasks.vlm.processing import Processor, Tokens
from tasks.vlm.signals import SIGNALS
from tasks.vlm.template import Content, Rendered, Template, official_pieces, pieces


@dataclass
class Preparer:
    """Turns (sample, images) into model inputs. Small to pickle: a worker process loads its own processor on first use.

    `extract` must be resolved (presets spelled out). `dtype` is that of the pixels: in the model's own they are half
    as much to carry from process to process, and are rounded as the model would round them.
    """

    folder: Path
    model: ModelSettings
    extract: ExtractSettings
    signals: tuple[str, ...]
    dtype: torch.dtype = torch.float32

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @cached_property
    def processor(self) -> Processor:
        """The checkpoint's processor."""
        return Processor(self.folder, self.model, self.extract)

    @cached_property
    def template(self) -> Template:
        """The checkpoint's chat template."""
        return Template(self.processor.inner, self.processor.image_token)

    def conversation(self, sample: Sample) -> list[tuple[str, Content]]:
        """The sample's turns as text and images in order."""
        processor = self.processor
        if processor.official:
            return official_pieces(sample.turns, processor.image_token, processor.official_keeps_empty)
        return [(turn.role, pieces(turn.content)) for turn in sample.turns]

    def __call__(self, sample: Sample, images: list[PIL.Image.Image]) -> Prepared | Problem:
        """Tokens, pixels and disjoint masks of one sample, or the named reason why it has none.

        Reasons: not_renderable, span_unplaced, image_token_in_text, processor_refused, over_max_length,
        image_truncated_away, and those of the signals' `examine`.
        """
        conversation = self.conversation(sample)
        prepared = self._prepare(conversation, images)
        if isinstance(prepared, Problem):
            return prepared
        prepared = replace(prepared, images=tuple(image.sha256 for image in sample.images))
        if not self._blind:
            return prepared
        words: list[tuple[str, Content]] = [(role, [one for one in content if one]) for role, content in conversation]
        blind = self._read(words, [])
        return blind if isinstance(blind, Problem) else replace(prepared, blind=same_answer(blind, prepared))

    @cached_property
    def _blind(self) -> bool:
        return any(SIGNALS[name].taps(self.extract).blind for name in self.signals)

    def _prepare(self, conversation: list[tuple[str, Content]], images: list[PIL.Image.Image]) -> Prepared | Problem:
        whole = self._read(conversation, images)
        return whole if isinstance(whole, Problem) else self._limit(whole)

    def _read(self, conversation: list[tuple[str, Content]], images: list[PIL.Image.Image]) -> Prepared | Problem:
        rendered = self.template.render(conversation)
        if isinstance(rendered, Problem):
            return rendered
        try:
            tokens = self.processor(rendered.text, images)
        except (ValueError, IndexError, KeyError) as error:
            return Problem("processor_refused", f"{type(error).__name__}: {error}")
        return self._mask(rendered, tokens)

    def _mask(self, rendered: Rendered, tokens: Tokens) -> Prepared:
        ids = tokens.inputs["input_ids"][0]
        inside = covered(tokens.offsets, [new for _, new in tokens.replaced])
        visual = inside & (ids == self.processor.image_id)
        if self.extract.visual_tokens == "with_markers":
            visual = inside | torch.isin(ids, torch.tensor(sorted(self.processor.marker_ids), dtype=ids.dtype))
        spans = {role: [] for role in ("user", "assistant")}  # type: dict[str, list[tuple[int, int]]]
        for span in rendered.spans:
            spans.setdefault(span.role, []).append(shift((span.start, span.end), tokens))
        answer = covered(tokens.offsets, spans["assistant"]) & ~visual
        instruction = covered(tokens.offsets, spans["user"]) & ~visual & ~answer
        if self.extract.instruction_tokens == "non_answer":
            instruction = ~visual & ~answer
        inputs = {
            name: value.to(self.dtype) if value.is_floating_point() else value for name, value in tokens.inputs.items()
        }
        return Prepared(inputs, _bool(visual), _bool(instruction), _bool(answer))

    def _limit(self, sample: Prepared) -> Prepared | Problem:
        """Apply max_length; then let each signal say whether the sample can have it."""
        limit = self.model.max_length
        if sample.n_tokens > limit:
            if self.model.over_length == "reject":
                return Problem("over_max_length", f"{sample.n_tokens} tokens, model.max_length is {limit}")
            if sample.visual[limit:].any():
                return Problem(
                    "image_truncated_away", f"cutting {sample.n_tokens} tokens to {limit} would cut an image"
                )
            sample = truncate(sample, limit)
        for name in self.signals:
            problem = SIGNALS[name].examine(sample, self.extract)
            if problem:
                return problem
        return sample


def covered(offsets: Tensor, spans: Sequence[tuple[int, int]]) -> Tensor:
    """(L,) True for tokens that share at least one character with one of the spans.

    Byte-level tokenizers report a token of nothing but spaces as an empty range where it ends: it belongs to the span
    it lies inside of.
    """
    start, end = offsets[:, 0], offsets[:, 1]
    result = torch.zeros(len(offsets), dtype=torch.bool)
    for first, last in spans:
        result |= (start < last) & (end > first) & ((end > start) | (start > first))
    return result


def shift(span: tuple[int, int], tokens: Tokens) -> tuple[int, int]:
    """A span of the rendered text, moved to where it stands once the images before it are expanded."""
    grown = sum((new[1] - new[0]) - (old[1] - old[0]) for old, new in tokens.replaced if old[1] <= span[0])
    return span[0] + grown, span[1] + grown


def truncate(sample: Prepared, limit: int) -> Prepared:
    """The first `limit` tokens; everything that is not one value per token stays."""
    inputs = {name: value[:, :limit] if name in SEQUENCES else value for name, value in sample.inputs.items()}
    return Prepared(
        inputs, _bool(sample.visual[:limit]), _bool(sample.instruction[:limit]), _bool(sample.answer[:limit])
    )


def same_answer(blind: Prepared, whole: Prepared) -> Prepared:
    """`blind` with only as many answer tokens as are left of the whole sample once it is cut to length."""
    left = blind.answer.cumsum(0) <= whole.answer.sum()
    return replace(blind, answer=_bool(blind.answer & left))


def _bool(mask: Tensor) -> BoolTensor:
    return mask.to(torch.bool)  # type: ignore[return-value]
