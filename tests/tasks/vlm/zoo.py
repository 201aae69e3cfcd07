"""Small random models of each family, made on the spot: configuration, tokenizer, processor and chat template."""

from collections.abc import Callable
from pathlib import Path

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.tasks.vlm.templates import GEMMA, IDEFICS, INTERNVL, LLAVA, MISTRAL, QWEN

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    # Sharp attention: uniform rows would hide a mistake.
    "initializer_range": 0.3,
}
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
SIGLIP = {**CLIP, "model_type": "siglip_vision_model", "vision_use_head": False}


def tokenizer(*special: str, **named: str) -> hf.PreTrainedTokenizerFast:
    """Byte-level, without merges: every byte of text is a token, and each special string is one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>", *alphabet])}
    raw = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    made = hf.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
        extra_special_tokens=named,
    )
    made.add_special_tokens({"additional_special_tokens": [*special]}, replace_extra_special_tokens=False)
    return made


def save(folder: Path, config: hf.PreTrainedConfig, processor: hf.ProcessorMixin) -> None:
    torch.manual_seed(1)
    model = hf.AutoModelForImageTextToText.from_config(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            # Norms away from one, so that a norm applied by mistake shows.
            if "norm" in name and name.endswith("weight"):
                value.uniform_(0.5, 1.5)
            elif not value.any():
                value.normal_(0, 0.3)
            elif "q_proj" in name or "k_proj" in name:
                value.mul_(2.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def clip_images(size: int = 56) -> hf.CLIPImageProcessor:
    return hf.CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def llava(folder: Path, text: dict | None = None, vision: dict | None = None, layer: int | list[int] = -2) -> None:
    words = tokenizer("<image>")
    select = "default" if (vision or CLIP)["model_type"] == "clip_vision_model" else "full"
    config = hf.LlavaConfig(
        text_config={"model_type": "llama", **TEXT, "vocab_size": len(words) + 8, **(text or {})},
        vision_config=vision or CLIP,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        vision_feature_layer=layer,
        vision_feature_select_strategy=select,
    )
    processor = hf.LlavaProcessor(
        clip_images(),
        words,
        patch_size=14,
        vision_feature_select_strategy=select,
        num_additional_image_tokens=1 if select == "default" else 0,
        chat_template=LLAVA,
    )
    save(folder, config, processor)


def llava_gqa(folder: Path) -> None:
    llava(folder, {"model_type": "mistral", "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 12})


def llava_siglip(folder: Path) -> None:
    llava(folder, vision=SIGLIP)


def llava_layers(folder: Path) -> None:
    llava(folder, layer=[-3, -2])


def llava_next(folder: Path) -> None:
    words = tokenizer("<image>")
    pinpoints = [[56, 112], [112, 56], [112, 112]]
    config = hf.LlavaNextConfig(
        text_config={"model_type": "llama", **TEXT, "vocab_size": len(words)},
        vision_config=CLIP,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        image_seq_length=16,
    )
    images = hf.LlavaNextImageProcessor(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=pinpoints
    )
    processor = hf.LlavaNextProcessor(
        images,
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA,
    )
    save(folder, config, processor)


def llava_onevision(folder: Path) -> None:
    words = tokenizer("<image>", "<video>")
    pinpoints = [[56, 112], [112, 56], [112, 112]]
    config = hf.LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **TEXT, "num_key_value_heads": 2, "vocab_size": len(words)},
        vision_config={**SIGLIP, "patch_size": 14},
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
    )
    images = hf.LlavaOnevisionImageProcessor(size={"height": 56, "width": 56}, image_grid_pinpoints=pinpoints)
    processor = hf.LlavaOnevisionProcessor(
        images,
        words,
        hf.LlavaOnevisionVideoProcessor(),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=LLAVA,
    )
    save(folder, config, processor)


QWEN_WORDS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def qwen_ids(words: hf.PreTrainedTokenizerFast) -> dict[str, int]:
    names = {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>", "image": "<|image_pad|>"}
    ids = {f"{name}_token_id": words.convert_tokens_to_ids(token) for name, token in names.items()}
    return {**ids, "video_token_id": words.convert_tokens_to_ids("<|video_pad|>")}


def qwen_images(patch: int) -> hf.Qwen2VLImageProcessor:
    return hf.Qwen2VLImageProcessor(
        patch_size=patch, merge_size=2, size={"shortest_edge": 16 * patch * patch, "longest_edge": 200 * patch * patch}
    )


def mrope(sections: list[int], **more: object) -> dict:
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections, **more}


def qwen2_vl(folder: Path) -> None:
    words = tokenizer(*QWEN_WORDS)
    config = hf.Qwen2VLConfig(
        text_config={
            **TEXT,
            "model_type": "qwen2_vl_text",
            "num_key_value_heads": 2,
            "vocab_size": len(words),
            "rope_parameters": mrope([2, 1, 1]),
        },
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 4,
            "patch_size": 14,
            "mlp_ratio": 2,
        },
        **qwen_ids(words),
    )
    processor = hf.Qwen2VLProcessor(qwen_images(14), words, hf.Qwen2VLVideoProcessor(), chat_template=QWEN)
    save(folder, config, processor)


def qwen2_5_vl(folder: Path) -> None:
    words = tokenizer(*QWEN_WORDS)
    config = hf.Qwen2_5_VLConfig(
        text_config={
            **TEXT,
            "model_type": "qwen2_5_vl_text",
            "num_key_value_heads": 2,
            "vocab_size": len(words),
            "rope_parameters": mrope([2, 1, 1]),
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 4,
            "patch_size": 14,
            "out_hidden_size": 32,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        **qwen_ids(words),
    )
    processor = hf.Qwen2_5_VLProcessor(qwen_images(14), words, hf.Qwen2VLVideoProcessor(), chat_template=QWEN)
    save(folder, config, processor)


def qwen3_vl(folder: Path) -> None:
    words = tokenizer(*QWEN_WORDS)
    config = hf.Qwen3VLConfig(
        text_config={
            **TEXT,
            "model_type": "qwen3_vl_text",
            "num_key_value_heads": 2,
            "head_dim": 8,
            "vocab_size": len(words),
            "rope_parameters": mrope([2, 1, 1], mrope_interleaved=True),
        },
        vision_config={
            "depth": 4,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 4,
            "patch_size": 16,
            "out_hidden_size": 32,
            "deepstack_visual_indexes": [0, 1, 2],
            "num_position_embeddings": 256,
        },
        **qwen_ids(words),
    )
    processor = hf.Qwen3VLProcessor(qwen_images(16), words, hf.Qwen3VLVideoProcessor(), chat_template=QWEN)
    save(folder, config, processor)


def internvl(folder: Path) -> None:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    words = tokenizer("<|im_start|>", "<|im_end|>", **named)
    config = hf.InternVLConfig(
        text_config={"model_type": "qwen2", **TEXT, "num_key_value_heads": 2, "vocab_size": len(words)},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": [56, 56],
            "patch_size": [14, 14],
        },
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    images = hf.GotOcr2ImageProcessor(size={"height": 56, "width": 56}, max_patches=4, crop_to_patches=True)
    processor = hf.InternVLProcessor(
        images, words, hf.InternVLVideoProcessor(), image_seq_length=4, chat_template=INTERNVL
    )
    save(folder, config, processor)


IDEFICS_WORDS = (
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)),
)
IDEFICS_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}


def idefics3(folder: Path) -> None:
    words = tokenizer(*IDEFICS_WORDS)
    config = hf.Idefics3Config(
        text_config={"model_type": "llama", **TEXT, "num_key_value_heads": 2, "vocab_size": len(words)},
        vision_config=IDEFICS_VISION,
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=2,
    )
    images = hf.Idefics3ImageProcessor(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    save(folder, config, hf.Idefics3Processor(images, words, image_seq_len=4, chat_template=IDEFICS))


def smolvlm(folder: Path) -> None:
    words = tokenizer(*IDEFICS_WORDS)
    config = hf.SmolVLMConfig(
        text_config={"model_type": "llama", **TEXT, "num_key_value_heads": 2, "vocab_size": len(words)},
        vision_config=IDEFICS_VISION,
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=2,
    )
    images = hf.SmolVLMImageProcessor(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    videos = hf.SmolVLMVideoProcessor()
    save(folder, config, hf.SmolVLMProcessor(images, words, videos, image_seq_len=4, chat_template=IDEFICS))


def gemma3(folder: Path) -> None:
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    words = tokenizer("<start_of_turn>", "<end_of_turn>", **named)
    config = hf.Gemma3Config(
        text_config={
            "model_type": "gemma3_text",
            **TEXT,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "vocab_size": len(words),
            "sliding_window": 16,
        },
        vision_config=SIGLIP,
        mm_tokens_per_image=4,
        boi_token_index=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=words.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=words.convert_tokens_to_ids("<image_soft_token>"),
    )
    images = hf.Gemma3ImageProcessor(size={"height": 56, "width": 56})
    save(folder, config, hf.Gemma3Processor(images, words, chat_template=GEMMA, image_seq_length=4))


def mistral3(folder: Path) -> None:
    words = tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]")
    config = hf.Mistral3Config(
        text_config={
            "model_type": "mistral",
            **TEXT,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "vocab_size": len(words),
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 112,
            "patch_size": 14,
            "head_dim": 8,
        },
        image_token_index=words.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
    )
    images = hf.PixtralImageProcessor(size={"longest_edge": 112}, patch_size={"height": 14, "width": 14})
    processor = hf.PixtralProcessor(images, words, patch_size=14, spatial_merge_size=2, chat_template=MISTRAL)
    save(folder, config, processor)


FAMILIES: dict[str, Callable[[Path], None]] = {
    "llava": llava,
    "llava_gqa": llava_gqa,
    "llava_siglip": llava_siglip,
    "llava_layers": llava_layers,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "internvl": internvl,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "gemma3": gemma3,
    "mistral3": mistral3,
}
