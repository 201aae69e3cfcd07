"""A small LLaVA from a fixed seed: the real architecture, tokenizer, chat template and processor, random weights."""

from __future__ import annotations

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

IMAGE_EDGE, PATCH = 112, 14
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


def save_model(folder: Path, texts: list[str], seed: int, width: int = 128, layers: int = 4) -> None:
    """Write a Hugging Face LLaVA checkpoint to `folder`. `texts` train the tokenizer. Same arguments, same bytes."""
    tokenizer = train_tokenizer(texts)
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": IMAGE_EDGE}, crop_size={"height": IMAGE_EDGE, "width": IMAGE_EDGE}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config(tokenizer, width, layers))
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


def config(tokenizer: Any, width: int, layers: int) -> LlavaConfig:
    """LLaVA-1.5's shape in small: CLIP tower, two-layer projector, Llama decoder with grouped key-value heads."""
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=IMAGE_EDGE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
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
