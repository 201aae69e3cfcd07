"""Small random dual encoders, made on the spot."""

from collections.abc import Callable
from pathlib import Path

import torch
import transformers as hf
from tokenizers import processors

from tests.tasks.vlm import zoo

LENGTH = 24
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": LENGTH,
    "bos_token_id": 1,
    # transformers takes 2 for the sign of an old CLIP configuration, and then looks for the highest id instead.
    "eos_token_id": 259,
    "pad_token_id": 2,
}
VISION = {name: value for name, value in zoo.CLIP.items() if name != "model_type"}


def words() -> hf.PreTrainedTokenizerFast:
    made = zoo.tokenizer("<|end|>")
    assert made.convert_tokens_to_ids("<|end|>") == TEXT["eos_token_id"]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <|end|>", special_tokens=[("<s>", 1), ("<|end|>", TEXT["eos_token_id"])]
    )
    return made


def save(folder: Path, config: hf.PreTrainedConfig, processor: hf.ProcessorMixin) -> None:
    torch.manual_seed(3)
    model = hf.AutoModel.from_config(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            # Away from their small start, so that every picture and text has a vector of its own.
            value.add_(torch.randn_like(value) * 0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def clip(folder: Path) -> None:
    spoken = words()
    config = hf.CLIPConfig(text_config={**TEXT, "vocab_size": len(spoken)}, vision_config=VISION, projection_dim=20)
    save(folder, config, hf.CLIPProcessor(zoo.clip_images(), spoken))


def siglip(folder: Path) -> None:
    spoken = words()
    spoken.model_input_names = ["input_ids"]
    config = hf.SiglipConfig(text_config={**TEXT, "vocab_size": len(spoken)}, vision_config=VISION)
    images = hf.SiglipImageProcessor(size={"height": 56, "width": 56})
    save(folder, config, hf.SiglipProcessor(images, spoken))


def siglip2(folder: Path) -> None:
    spoken = words()
    spoken.model_input_names = ["input_ids"]
    vision = {name: value for name, value in VISION.items() if name != "image_size"}
    config = hf.Siglip2Config(
        text_config={**TEXT, "vocab_size": len(spoken)}, vision_config={**vision, "num_patches": 16}
    )
    images = hf.Siglip2ImageProcessor(patch_size=14, max_num_patches=16)
    save(folder, config, hf.Siglip2Processor(images, spoken))


ENCODERS: dict[str, Callable[[Path], None]] = {"clip": clip, "siglip": siglip, "siglip2": siglip2}
