"""The Qwen vision-language models: sizes are pixel counts, and Qwen3 injects DeepStack between layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tasks.vlm.families.family import Family

# What the official ScalSelect code sets on every Qwen processor, in pixels: 256 to 576 tokens of 32 x 32.
OFFICIAL_SIZE = {"longest_edge": 576 * 32 * 32, "shortest_edge": 256 * 32 * 32}


def drop_deepstack(config: Any, depth: int) -> None:
    """DeepStack features join after decoder layers 0, 1, 2, ...: those after the last layer read are never seen."""
    vision = config.vision_config
    vision.deepstack_visual_indexes = list(vision.deepstack_visual_indexes)[: depth - 1]


PLAIN = Family(official_size=OFFICIAL_SIZE, official_keeps_empty=True)
STACKED = replace(PLAIN, trim=drop_deepstack)

FAMILIES = {"qwen2_vl": PLAIN, "qwen2_5_vl": PLAIN, "qwen3_vl": STACKED, "qwen3_vl_moe": STACKED}
