"""Checkpoints of the published shapes with random weights, written a tensor at a time, in little memory."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tasks.demo.model import CHAT_TEMPLATE as LLAVA_TEMPLATE

SHARD_BYTES = 5_000_000_000
POOL = 1 << 24

QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}"
)
QWEN_WORDS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


@dataclass(frozen=True)
class Shape:
    """Sizes of a model; `layers` is the decoder's depth, `tower` the vision tower's."""

    width: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    tower_width: int
    tower_inner: int
    tower: int
    tower_heads: int
    edge: int


# Sizes as in the published configurations.
LLAVA_7B = Shape(4096, 11008, 32, 32, 32, 32064, 1024, 4096, 24, 16, 336)
QWEN3_8B = Shape(4096, 12288, 36, 32, 8, 151936, 1152, 4304, 27, 16, 768)
LLAVA_TINY = Shape(64, 128, 4, 4, 4, 512, 32, 64, 4, 4, 112)
QWEN3_TINY = Shape(64, 128, 4, 4, 2, 512, 32, 64, 4, 4, 128)


def llava(shape: Shape) -> tuple[Any, Any]:
    """Configuration and processor of LLaVA-1.5: CLIP tower read before its last layer, projector, Llama."""
    words = tokenizer("<image>")
    config = hf.LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": shape.tower_width,
            "intermediate_size": shape.tower_inner,
            "num_hidden_layers": shape.tower,
            "num_attention_heads": shape.tower_heads,
            "image_size": shape.edge,
            "patch_size": 14,
        },
        text_config={"model_type": "llama", **decoder(shape)},
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    size = {"height": shape.edge, "width": shape.edge}
    images = hf.CLIPImageProcessor(size={"shortest_edge": shape.edge}, crop_size=size)
    processor = hf.LlavaProcessor(
        images,
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )
    return config, processor


def qwen3_vl(shape: Shape) -> tuple[Any, Any]:
    """Configuration and processor of Qwen3-VL: images of at most edge x edge pixels, one token for 32 x 32 of them."""
    words = tokenizer(*QWEN_WORDS)
    names = {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>", "image": "<|image_pad|>"}
    ids = {f"{name}_token_id": words.convert_tokens_to_ids(token) for name, token in names.items()}
    half = shape.width // shape.heads // 2
    third = half // 8 * 3 - half // 16
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": True}
    rope["mrope_section"] = [half - 2 * third, third, third]
    config = hf.Qwen3VLConfig(
        text_config={
            "model_type": "qwen3_vl_text",
            **decoder(shape),
            "head_dim": shape.width // shape.heads,
            "rope_parameters": rope,
        },
        vision_config={
            "depth": shape.tower,
            "hidden_size": shape.tower_width,
            "intermediate_size": shape.tower_inner,
            "num_heads": shape.tower_heads,
            "patch_size": 16,
            "out_hidden_size": shape.width,
            "deepstack_visual_indexes": [shape.tower // 4, shape.tower // 2, shape.tower - 2],
            "num_position_embeddings": 2304,
        },
        video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
        **ids,
    )
    size = {"shortest_edge": 4 * 32 * 32, "longest_edge": shape.edge**2}
    images = hf.Qwen2VLImageProcessor(patch_size=16, merge_size=2, size=size)
    return config, hf.Qwen3VLProcessor(images, words, hf.Qwen3VLVideoProcessor(), chat_template=QWEN_TEMPLATE)


FAMILIES: dict[str, tuple[Callable[[Shape], tuple[Any, Any]], dict[str, Shape]]] = {
    "llava": (llava, {"tiny": LLAVA_TINY, "full": LLAVA_7B}),
    "qwen3_vl": (qwen3_vl, {"tiny": QWEN3_TINY, "full": QWEN3_8B}),
}


def decoder(shape: Shape) -> dict[str, Any]:
    """The decoder's sizes, as transformers names them."""
    return {
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    }


def tokenizer(*special: str) -> hf.PreTrainedTokenizerFast:
    """Byte-level, without merges: a byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>", *alphabet])}
    raw = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    made = hf.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    made.add_special_tokens({"additional_special_tokens": [*special]}, replace_extra_special_tokens=False)
    return made


def write_checkpoint(folder: Path, family: str, shape: Shape, dtype: str = "bfloat16") -> int:
    """Write a sharded checkpoint; returns the bytes of its tensors."""
    folder.mkdir(parents=True)
    config, processor = FAMILIES[family][0](shape)
    config.dtype = dtype
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    with torch.device("meta"):
        tensors = hf.AutoModelForImageTextToText.from_config(config).state_dict()
    stored, size = ("BF16", 2) if dtype == "bfloat16" else ("F32", 4)
    shards = list(_shards({name: tuple(one.shape) for name, one in tensors.items()}, size))
    weight_map = {}
    for number, held in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(folder / name, held, stored, size)
        weight_map |= dict.fromkeys(held, name)
    total = sum(size * int(np.prod(one)) for held in shards for one in held.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def _shards(tensors: dict[str, tuple[int, ...]], size: int) -> Iterator[dict[str, tuple[int, ...]]]:
    held: dict[str, tuple[int, ...]] = {}
    filled = 0
    for name, shape in tensors.items():
        amount = size * int(np.prod(shape))
        if held and filled + amount > SHARD_BYTES:
            yield held
            held, filled = {}, 0
        held[name] = shape
        filled += amount
    yield held


def _write_shard(path: Path, tensors: dict[str, tuple[int, ...]], stored: str, size: int) -> None:
    """The safetensors layout: header length, header, tensor bytes one after another."""
    header, offset = {}, 0
    for name, shape in tensors.items():
        amount = size * int(np.prod(shape))
        header[name] = {"dtype": stored, "shape": shape, "data_offsets": [offset, offset + amount]}
        offset += amount
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in tensors.items():
            for part in _values(name, int(np.prod(shape)), stored):
                file.write(part)


def _values(name: str, count: int, stored: str) -> Iterator[memoryview]:
    """A tensor's bytes: ones for norms, else stretches of one pool of normal numbers, begun where the name says."""
    size = 2 if stored == "BF16" else 4
    pool = _pool(stored)
    if "norm" in name and name.endswith("weight"):
        yield memoryview((torch.ones(count).bfloat16() if size == 2 else torch.ones(count)).view(torch.uint8).numpy())
        return
    start = sum(name.encode()) * 7919 % POOL
    while count:
        part = pool[start * size : (start + min(count, POOL - start)) * size]
        yield part
        count -= len(part) // size
        start = 0


_pools: dict[str, memoryview] = {}


def _pool(stored: str) -> memoryview:
    if stored not in _pools:
        values = torch.randn(POOL, generator=torch.Generator().manual_seed(0)) * 0.02
        values = values.bfloat16() if stored == "BF16" else values
        _pools[stored] = memoryview(values.view(torch.uint8).numpy())
    return _pools[stored]
