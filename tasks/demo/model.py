"""A small LLaVA from a fixed seed: the real architecture, tokenizer, chat template and processor, random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]

# LLaVA-1.5's own wording: USER: ... ASSISTANT: ...
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %} "
    "{% else %}{{ message['role'].upper() + ': ' }}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ '</s>' }}{% else %}{{ ' ' }}{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT: ' }}{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """Sizes of a small LLaVA; width is that of the tower and the decoder alike."""

    width: int = 128
    layers: int = 4
    vision_layers: int = 3
    image_edge: int = 112
    patch: int = 14


def save_model(folder: Path, texts: list[str], seed: int, shape: Shape = Shape(), sharpen: bool = True) -> None:
    """Write a Hugging Face LLaVA checkpoint to `folder`. `texts` train the tokenizer. Same arguments, same bytes.

    `sharpen` widens the random weights, for a model that is used as it is; a model that will be trained goes without.
    """
    tokenizer = train_tokenizer(texts)
    edge = shape.image_edge
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge}),
        tokenizer=tokenizer,
        patch_size=shape.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config(tokenizer, shape))
    if sharpen:
        _sharpen(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def train_tokenizer(texts: list[str], vocabulary: int = 1024) -> Any:
    """A byte-level BPE tokenizer over the given texts, with LLaVA's special tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=sorted(alphabet))
    # Sorted distinct texts: merges then do not depend on the order rows were drawn in.
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )


def config(tokenizer: Any, shape: Shape) -> LlavaConfig:
    """LLaVA-1.5's shape in small: CLIP tower, two-layer projector, Llama decoder with grouped key-value heads."""
    vision = CLIPVisionConfig(
        hidden_size=shape.width,
        intermediate_size=2 * shape.width,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=4,
        image_size=shape.image_edge,
        patch_size=shape.patch,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=2 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def _sharpen(model: LlavaForConditionalGeneration) -> None:
    """Widen the random weights: at their usual scale attention is uniform and every image gives the same feature."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim < 2:
                continue
            scale = 6.0 if name.endswith(("q_proj.weight", "k_proj.weight")) else 3.0
            weight.mul_(scale)
