"""The `clip` signal: image and text embeddings of a dual encoder (CLIP, SigLIP, ...), and their cosine.

A model of its own (`extract.clip.model`), never the target: nothing of the conversation's rendering plays a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import torch
from torch import Tensor
from transformers import AutoModel

from tasks.errors import ModelError
from tasks.params import ClipSettings, ModelSettings, Settings
from tasks.problem import Problem
from tasks.sample import IMAGE_PLACEHOLDER, Sample, digest_json
from tasks.vlm.batch import stack
from tasks.vlm.checkpoint import open_checkpoint
from tasks.vlm.configuration import read_config
from tasks.vlm.description import Description
from tasks.vlm.digests import Digests
from tasks.vlm.grouping import CLIP, named_model
from tasks.vlm.loading import Plan, choose_dtype, load
from tasks.vlm.processing import load_processor
from tasks.vlm.pruning import class_of, needed_tensors
from tasks.vlm.records import digest_processor, record_model
from tasks.vlm.travel import Travelling

# Raise when the same files and settings would give other embeddings than before: rows in a store are then not reused.
RULES = 1

STATISTICS: list[tuple[str, pa.DataType]] = [
    ("similarity", pa.float64()),
    ("images", pa.int32()),
    ("text_tokens", pa.int32()),
    ("truncated", pa.int32()),
]


@dataclass(frozen=True)
class Pair(Travelling):
    """A row's images and text as the encoders take them. truncated: text tokens cut off; text_tokens: those left."""

    images: dict[str, Tensor]
    text: dict[str, Tensor]
    text_tokens: int
    truncated: int
    n_tokens: int

    @property
    def n_images(self) -> int:
        """How many images the row shows."""
        return len(self.images["pixel_values"])


@dataclass
class Preparer:
    """Turns (sample, images) into a Pair. Small to pickle: a worker process loads its own processor on first use."""

    folder: Path
    settings: ClipSettings
    length: int
    patch: int

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @cached_property
    def processor(self) -> Any:
        """The checkpoint's processor."""
        return load_processor(self.folder, named_model(self.settings))

    def __call__(self, sample: Sample, images: list[PIL.Image.Image]) -> Pair | Problem:
        """Pixels and text tokens of one sample, or the named reason why it has none: no_image, no_text."""
        if not images:
            return Problem("no_image", "the sample shows no image to embed")
        words = text_of(sample, self.settings.text)
        if not words:
            return Problem("no_text", f"extract.clip.text is {self.settings.text}, and the first exchange has none")
        pixels = dict(self.processor.image_processor(images, return_tensors="pt"))
        tokenizer = self.processor.tokenizer
        whole = len(tokenizer(words, truncation=False, verbose=False)["input_ids"])
        # Always padded to full length: SigLIP was trained so, and CLIP, being causal, does not notice.
        text = dict(
            tokenizer(words, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt")
        )
        patches = pixels["pixel_values"].numel() // (3 * self.patch**2)
        kept = min(whole, self.length)
        return Pair(pixels, text, kept, whole - kept, self.length + patches)


class Extractor:
    """A dual encoder in memory."""

    def __init__(self, settings: Settings, device: str) -> None:
        self._settings = settings.extract.clip
        self._planned = plan(named_model(self._settings))
        self._device = torch.device(device)
        self._model = load(self._planned, device)
        self._try_out()

    def preparer(self) -> Preparer:
        """The weightless part, to be pickled into worker processes."""
        config = self._planned.config
        length = min(config.get_text_config().max_position_embeddings, named_model(self._settings).max_length)
        return Preparer(self._planned.checkpoint.folder, self._settings, length, config.vision_config.patch_size)

    def stage(self, batch: list[Pair]) -> list[Pair]:
        """The batch as it is."""
        return batch

    @torch.inference_mode()
    def measure(self, batch: Sequence[Pair]) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
        """Columns image and text, (B, d) float32 unit rows, and STATISTICS; row i for batch[i]."""
        images = _unit(self._model.get_image_features(**self._inputs([one.images for one in batch])))
        text = _unit(self._model.get_text_features(**self._inputs([one.text for one in batch])))
        own = torch.split(images, [one.n_images for one in batch])
        joined = torch.stack([join(*pair, self._settings.images) for pair in zip(own, text, strict=True)])
        columns = {
            "image": joined.cpu().numpy(),
            "text": text.cpu().numpy(),
            "similarity": (joined.double() * text.double()).sum(1).cpu().numpy(),
            "images": np.array([one.n_images for one in batch], dtype=np.int32),
            "text_tokens": np.array([one.text_tokens for one in batch], dtype=np.int32),
            "truncated": np.array([one.truncated for one in batch], dtype=np.int32),
        }
        return {CLIP: columns}

    def _inputs(self, rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        joined = {name: stack([row[name] for row in rows]) for name in rows[0]}
        dtype = self._planned.dtype
        return {
            name: value.to(self._device, dtype if value.is_floating_point() else None) for name, value in joined.items()
        }

    def _try_out(self) -> None:
        """Put a blank image and a word through: a family that does not fit is refused before work starts."""
        preparer = self.preparer()
        try:
            pixels = dict(preparer.processor.image_processor([PIL.Image.new("RGB", (64, 64))], return_tensors="pt"))
            text = preparer.processor.tokenizer(
                "blank", padding="max_length", truncation=True, max_length=preparer.length, return_tensors="pt"
            )
            self.measure([Pair(pixels, dict(text), 1, 0, 1)])
        except (
            AttributeError,
            IndexError,
            KeyError,
            NotImplementedError,
            TypeError,
            ValueError,
            RuntimeError,
        ) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ModelError(f"dual encoder `{self._planned.family}` is not supported: {reason}") from error


def describe(settings: Settings, digests: Digests | None = None) -> Description:
    """What the embeddings will be computed from. Reads files, loads no weights. Raises ModelError and ParamsError."""
    digests = digests or Digests()
    clip = settings.extract.clip
    model = named_model(clip)
    planned = plan(model)
    processor = load_processor(planned.checkpoint.folder, model)
    record = record_model(planned, model, processor, digests)
    width = embedding_width(planned.config)
    identity = {
        "rules": RULES,
        "signal": CLIP,
        "tensors": digests.tensors(planned.checkpoint, planned.tensors),
        "config": record["files"]["config.json"],
        "processor": digest_processor(planned, record["files"]),
        "image_backend": record["image_backend"],
        "dtype": record["dtype"],
        "max_length": model.max_length,
        "text": clip.text,
        "images": clip.images,
    }
    return Description(
        fingerprints={CLIP: digest_json(identity)},
        record=record,
        matrices={CLIP: {"image": width, "text": width}},
        statistics={CLIP: STATISTICS},
    )


def plan(model: ModelSettings) -> Plan:
    """The whole dual encoder: both towers and projections. Raises ModelError for a model that is none."""
    checkpoint = open_checkpoint(model)
    config = read_config(checkpoint.folder, model)
    cls = class_of(AutoModel, config, model.trust_remote_code)
    if not (hasattr(cls, "get_text_features") and hasattr(cls, "get_image_features")):
        raise ModelError(
            f"{model.path}: a `{config.model_type}` model does not embed images and text apart; name a CLIP"
        )
    tensors = tuple(needed_tensors(cls, config, sorted(checkpoint.weights)))
    dtype = choose_dtype(model, config, checkpoint, tensors)
    return Plan(checkpoint, config.model_type, config, cls, tensors, dtype)


def embedding_width(config: Any) -> int:
    """Width of the space that images and text share."""
    for holder, name in ((config, "projection_dim"), (config.get_text_config(), "projection_size")):
        if getattr(holder, name, None):
            return int(getattr(holder, name))
    return int(config.vision_config.hidden_size)


def text_of(sample: Sample, which: str) -> str:
    """The words of the first question, of the first answer, or of both; without placeholders, white space made even."""
    found = []
    for role, name in (("user", "question"), ("assistant", "answer")):
        said = next((turn.content for turn in sample.turns if turn.role == role), "")
        if which in (name, "both"):
            found.append(" ".join(said.replace(IMAGE_PLACEHOLDER, " ").split()))
    return "\n".join(one for one in found if one)


def join(images: Tensor, text: Tensor, how: str) -> Tensor:
    """(d,) one unit vector for a row's (k, d) images: their mean direction, or the image nearest to the text."""
    if how == "max":
        return images[int((images @ text).argmax())]
    return torch.nn.functional.normalize(images.mean(0), dim=0)


def _unit(output: Any) -> Tensor:
    """(n, d) float32 unit rows of a model's pooled output."""
    values: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return torch.nn.functional.normalize(values.float(), dim=1)
