"""The checkpoint's processor: loaded without weights, its image size set, called so that expansions are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor
from transformers import AutoProcessor
from transformers.utils import logging as transformers_logging

from tasks.errors import ModelError
from tasks.params import ExtractSettings, ImageSize, ModelSettings
from tasks.vlm.configuration import read_config
from tasks.vlm.families import family_of

# Outputs of processors that no model's forward takes.
BOOKKEEPING = ("offset_mapping", "text_replacement_offsets", "special_tokens_mask", "num_patches", "rows", "cols")


@dataclass(frozen=True)
class Tokens:
    """A rendered conversation as tokens.

    inputs: model inputs, batch axis first (of one).
    offsets: (L, 2) characters of the *expanded* text each token covers; (0, 0) for tokens that stand for no text.
    replaced: for each image, the characters of the rendered text its placeholder took, and those of its expansion.
    """

    inputs: dict[str, Tensor]
    offsets: Tensor
    replaced: tuple[tuple[tuple[int, int], tuple[int, int]], ...]


class Processor:
    """Tokenizer and image processor of one checkpoint, under the settings that change what the model sees."""

    def __init__(self, folder: Path, model: ModelSettings, extract: ExtractSettings) -> None:
        config = read_config(folder, model)
        family = family_of(config)
        self.inner = load_processor(folder, model)
        self.tokenizer = self.inner.tokenizer
        if not self.tokenizer.is_fast:
            raise ModelError(f"{model.path}: its tokenizer has no fast version, so token offsets are not known")
        self.image_token = str(_required(self.inner, "image_token", model))
        self.image_id = int(_image_id(self.inner, config))
        self.marker_ids = _marker_ids(config)
        self.official = extract.preset == "official"
        self.official_keeps_empty = family.official_keeps_empty
        _resize(self.inner.image_processor, extract.image_size, family.official_size if self.official else None)

    @property
    def backend(self) -> str:
        """Which image library resizes: pixel values differ between them, so it is part of a feature's identity."""
        return describe_backend(self.inner)

    @property
    def image_size(self) -> dict[str, int]:
        """The image processor's size setting, as it stands."""
        size = self.inner.image_processor.size
        items = size.items() if isinstance(size, dict) else vars(size).items()
        return {name: int(value) for name, value in items if value is not None}

    @property
    def pad_id(self) -> int:
        """A token that pads safely: one that no model looks for among image tokens."""
        special = {self.image_id, *self.marker_ids}
        special |= {
            one for one in (getattr(self.inner, f"{kind}_token_id", None) for kind in ("video", "audio")) if one
        }
        preferred = [self.tokenizer.eos_token_id, self.tokenizer.bos_token_id, 0, 1, 2, 3, 4, 5, 6, 7]
        return int(next(one for one in preferred if one is not None and one not in special))

    def __call__(self, text: str, images: Sequence[PIL.Image.Image]) -> Tokens:
        """Tokens of one rendered conversation with its images. Raises ValueError where the processor does."""
        output = self.inner(
            text=[text],
            images=[list(images)] if images else None,
            return_tensors="pt",
            return_offsets_mapping=True,
            return_text_replacement_offsets=True,
            add_special_tokens=self._adds_special(text),
        )
        found = output.get("text_replacement_offsets", [[]] if not images else None)
        if found is None:
            raise ModelError(f"`{type(self.inner).__name__}` does not say where it expanded images in the text")
        replaced = tuple((tuple(one["span"]), tuple(one["new_span"])) for one in found[0])
        inputs = {name: value for name, value in output.items() if name not in BOOKKEEPING}
        if "mm_token_type_ids" in inputs:
            inputs["mm_token_type_ids"] = torch.as_tensor(inputs["mm_token_type_ids"])
        return Tokens(inputs, output["offset_mapping"][0], replaced)

    def count(self, text: str) -> int:
        """How many tokens a rendered text has while its images are single placeholders."""
        return len(self.tokenizer(text, add_special_tokens=self._adds_special(text))["input_ids"])

    def _adds_special(self, text: str) -> bool:
        """Templates that write the beginning-of-text token themselves must not get a second one.

        The official code tokenises the rendered text without looking, so under its preset they do.
        """
        usual = (getattr(self.inner, "text_kwargs", None) or {}).get("add_special_tokens", True)
        written = self.tokenizer.bos_token and text.startswith(self.tokenizer.bos_token)
        return bool(usual and (self.official or not written))


def describe_backend(processor: Any) -> str:
    """Class and library of a processor's images: "CLIPImageProcessor/torchvision"."""
    images = processor.image_processor
    return f"{type(images).__name__}/{getattr(images, 'backend', 'unknown')}"


def load_processor(folder: Path, model: ModelSettings) -> Any:
    """A checkpoint's processor for images and text. Raises ModelError when it has none."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        inner = AutoProcessor.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"{model.path}: its processor cannot be loaded: {error}") from None
    finally:
        transformers_logging.set_verbosity(verbosity)
    if not hasattr(inner, "image_processor") or not hasattr(inner, "tokenizer"):
        raise ModelError(f"{model.path}: it has no processor for images and text together")
    return inner


def _required(processor: Any, name: str, model: ModelSettings) -> Any:
    value = getattr(processor, name, None)
    if value is None:
        raise ModelError(
            f"{model.path}: `{type(processor).__name__}` has no {name}, so images cannot be placed in text"
        )
    return value


def _image_id(processor: Any, config: Any) -> int:
    """The id the model itself looks for; configurations name it in three ways."""
    for name in ("image_token_id", "image_token_index"):
        if getattr(config, name, None) is not None:
            return int(getattr(config, name))
    found = getattr(processor, "image_token_id", None)
    return int(found if found is not None else processor.tokenizer.convert_tokens_to_ids(processor.image_token))


def _marker_ids(config: Any) -> frozenset[int]:
    names = ("vision_start_token_id", "vision_end_token_id", "image_start_token_id", "image_end_token_id")
    return frozenset(one for one in (getattr(config, name, None) for name in names) if one is not None)


def _resize(images: Any, asked: ImageSize | None, official: dict[str, int] | None) -> None:
    size = asked.model_dump(exclude_none=True) if asked else official
    if size:
        images.size = size
