"""A small CLIP from a fixed seed, for the methods that need one: the real architecture, random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import processors
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from tasks.demo.model import train_tokenizer

EDGE = 64
LENGTH = 77
START, END = "<s>", "<|endoftext|>"


def save_clip(folder: Path, texts: list[str], seed: int) -> None:
    """Write a Hugging Face CLIP checkpoint to `folder`. `texts` train the tokenizer. Same arguments, same bytes."""
    tokenizer = _tokenizer(texts)
    torch.manual_seed(seed)
    model = CLIPModel(_config(tokenizer))
    with torch.no_grad():
        for weight in model.parameters():
            # At their usual scale random weights give every picture, and every text, nearly the same vector.
            if weight.ndim > 1:
                weight.mul_(3.0)
    images = CLIPImageProcessor(size={"shortest_edge": EDGE}, crop_size={"height": EDGE, "width": EDGE})
    model.save_pretrained(folder)
    CLIPProcessor(images, tokenizer).save_pretrained(folder)


def _tokenizer(texts: list[str]) -> Any:
    """Byte-level BPE with a start and an end, as CLIP's; the end has the highest number and is what text is read at."""
    tokenizer = train_tokenizer(texts)
    tokenizer.add_special_tokens({"eos_token": END})
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (START, END)]
    template = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ids)
    tokenizer.backend_tokenizer.post_processor = template
    return tokenizer


def _config(tokenizer: Any) -> CLIPConfig:
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {
        **tower,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPConfig(
        text_config=text, vision_config={**tower, "image_size": EDGE, "patch_size": 16}, projection_dim=64
    )
