"""The door to this room: what signals depend on, and the extractor that computes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import PIL.Image
import torch

from tasks.anchor_rows import read_step_anchors
from tasks.errors import DatasetError, ModelError
from tasks.images import decode, read_bytes
from tasks.params import ExtractSettings, ModelSettings, Settings
from tasks.problem import Problem
from tasks.sample import IMAGE_PLACEHOLDER, ImageRef, Sample, Turn, digest_json
from tasks.vlm.batch import Batch, Prepared, collate
from tasks.vlm.checkpoint import open_checkpoint
from tasks.vlm.counting import counter
from tasks.vlm.description import Description
from tasks.vlm.digests import Digests
from tasks.vlm.forward import Record, Taps, run
from tasks.vlm.gradients import Gradients
from tasks.vlm.grouping import model_of
from tasks.vlm.loading import Plan, load, plan
from tasks.vlm.preparation import Preparer
from tasks.vlm.processing import Processor
from tasks.vlm.pruning import Need
from tasks.vlm.records import digest_processor, record_model
from tasks.vlm.signals import SIGNALS

# Raise when the same files and settings would give other features than before: rows in a store are then not reused.
RULES = 1


Columns = dict[str, dict[str, np.ndarray[Any, Any]]]
"""signal -> column -> (n, d) or (n,) array."""


@dataclass(frozen=True)
class Staged:
    """A batch on the host: its rows, collated with their images and, where a signal asks for it, without."""

    rows: list[Prepared]
    whole: Batch
    blind: Batch | None


class Extractor:
    """One model in memory, computing the signals that share it: one forward per batch."""

    def __init__(self, settings: Settings, signals: tuple[str, ...], device: str) -> None:
        self._extract = settings.extract.resolved()
        self._signals = signals
        self._settings = model_of(settings, signals[0])
        self._taps = _taps(self._extract, signals)
        planned = plan(self._settings, need(self._taps))
        self._folder = planned.checkpoint.folder
        self._device = torch.device(device)
        self._dtype = planned.dtype
        self._model = load(planned, device)
        self._gradients = Gradients(self._model, self._extract.gradients) if self._taps.gradients else None
        preparer = self.preparer()
        self._pad_id = preparer.processor.pad_id
        chosen = self._extract.gradients
        if self._gradients is not None and chosen.step is not None:
            self._gradients.take_steps(self._anchors(preparer), chosen.step, chosen.step_along)
        self._try_out(preparer, planned.family)

    def preparer(self) -> Preparer:
        """The weightless part, to be pickled into worker processes."""
        return Preparer(self._folder, self._settings, self._extract, self._signals, self._dtype)

    def compute(self, batch: list[Prepared]) -> Columns:
        """Columns of each signal, row i for batch[i]. Out-of-memory errors of torch are the caller's to handle."""
        return self.measure(self.stage(batch))

    def stage(self, batch: list[Prepared]) -> Staged:
        """The batch collated in host memory, from which a device can fetch it without waiting."""
        blind = self._collate([one.blind for one in batch if one.blind]) if self._taps.blind else None
        return Staged(batch, self._collate(batch), blind)

    def measure(self, staged: Staged) -> Columns:
        """Columns of each signal, row i for the i-th sample staged."""
        padded = self._there(staged.whole)
        record = run(self._model, padded, self._taps) if self._taps.shared else Record()
        if staged.blind is not None:
            blind = self._there(staged.blind)
            record.blind = blind, run(self._model, blind, Taps(final=True))
        if self._gradients is not None:
            each = (self._there(self._collate([one])) for one in staged.rows)
            record.gradients = self._gradients.measure(each)
        return {name: SIGNALS[name].compute(padded, record, self._extract) for name in self._signals}

    def _collate(self, batch: list[Prepared]) -> Batch:
        return collate(batch, self._pad_id, pinned=self._device.type == "cuda")

    def _there(self, batch: Batch) -> Batch:
        return batch.to(self._device, self._dtype)

    def _anchors(self, preparer: Preparer) -> list[Batch]:
        """The anchors of simulated steps, one a batch. Raises DatasetError when none can be prepared."""
        ready = [
            preparer(sample, [decode(read_bytes(image)) for image in sample.images])
            for sample in read_step_anchors(self._extract)
        ]
        good = [one for one in ready if not isinstance(one, Problem)]
        if not good:
            raise DatasetError("extract.gradients.anchors.anchor: not one of its rows could be prepared")
        return [self._there(self._collate([one])) for one in good]

    def _try_out(self, preparer: Preparer, family: str) -> None:
        """Put a blank image and a question through: a family that does not fit is refused before work starts."""
        unlimited = self._settings.model_copy(update={"max_length": 1 << 30})
        turns = (Turn("user", f"{IMAGE_PLACEHOLDER}\nWhat is shown?"), Turn("assistant", "Nothing."))
        sample = Sample(0, None, "", turns, (ImageRef("", "blank", width=64, height=64),), "")
        try:
            prepared = replace(preparer, model=unlimited)(sample, [PIL.Image.new("RGB", (64, 64))])
            if isinstance(prepared, Problem):
                raise ModelError(f"model family `{family}`: a plain question cannot be prepared: {prepared.detail}")
            self.compute([prepared])
        except (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ModelError(
                f"model family `{family}` is not supported: reading a blank image failed: {reason}"
            ) from error


def describe(settings: Settings, signals: tuple[str, ...], digests: Digests | None = None) -> Description:
    """What `signals` (one group) will be computed from. Reads files, loads no weights. Raises ModelError."""
    digests = digests or Digests()
    extract, model = settings.extract.resolved(), model_of(settings, signals[0])
    planned = plan(model, need(_taps(extract, signals)))
    processor = Processor(planned.checkpoint.folder, model, extract)
    record = _record(planned, model, processor, digests)
    width = planned.config.get_text_config().hidden_size
    return Description(
        fingerprints={name: _fingerprint(settings, name, processor, record, digests) for name in signals},
        record=record,
        matrices={name: SIGNALS[name].matrices(extract, width) for name in signals},
        statistics={name: SIGNALS[name].statistics(extract) for name in signals},
    )


def token_counter(settings: Settings) -> Callable[[Sample], int]:
    """How many tokens a sample becomes when rendered for the target model, images included. Loads no weights."""
    folder = open_checkpoint(settings.model, weights=False).folder
    return counter(Preparer(folder, settings.model, settings.extract.resolved(), ()))


def need(taps: Taps) -> Need:
    """How much of the model has to be there."""
    return Need(taps.depth, head=taps.whole)


def _taps(extract: ExtractSettings, signals: tuple[str, ...]) -> Taps:
    return reduce(or_, (SIGNALS[name].taps(extract) for name in signals))


def _fingerprint(
    settings: Settings, signal: str, processor: Processor, record: dict[str, Any], digests: Digests
) -> str:
    """A signal's own tensors count, not those of the group: adding a signal must not make others' rows stale."""
    extract = settings.extract.resolved()
    own = plan(model_of(settings, signal), need(SIGNALS[signal].taps(extract)))
    return digest_json(
        {
            "rules": RULES,
            "signal": signal,
            "tensors": digests.tensors(own.checkpoint, own.tensors),
            "config": record["files"]["config.json"],
            "processor": record["processor"],
            "chat_template": record["chat_template"],
            "image_backend": processor.backend,
            "image_size": processor.image_size,
            "dtype": record["dtype"],
            "max_length": record["max_length"],
            "over_length": record["over_length"],
            "preset": extract.preset,
            "instruction_tokens": extract.instruction_tokens,
            "visual_tokens": extract.visual_tokens,
            "options": SIGNALS[signal].options(extract),
        }
    )


def _record(planned: Plan, model: ModelSettings, processor: Processor, digests: Digests) -> dict[str, Any]:
    record = record_model(planned, model, processor.inner, digests)
    template = processor.inner.chat_template or processor.tokenizer.chat_template
    return {
        **record,
        "processor": digest_processor(planned, record["files"]),
        "chat_template": digest_json(template),
        "max_length": model.max_length,
        "over_length": model.over_length,
    }
