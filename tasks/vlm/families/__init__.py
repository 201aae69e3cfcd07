"""What a model family does differently, one small file per difference; nothing else branches on the family.

A family is known by `model_type` of its configuration. Families that are not named here need no special care.
"""

from __future__ import annotations

from typing import Any

from tasks.errors import ModelError
from tasks.vlm.families import qwen, refused
from tasks.vlm.families.family import Family

FAMILIES: dict[str, Family] = {**qwen.FAMILIES, **refused.FAMILIES}


def family_of(config: Any) -> Family:
    """The family of a configuration. Raises ModelError, by name and with the reason, for one we cannot read rightly."""
    family = FAMILIES.get(config.model_type, Family())
    reason = family.refused or _unreadable(config)
    if reason:
        raise ModelError(f"model family `{config.model_type}` is not supported: {reason}")
    return family


def _unreadable(config: Any) -> str:
    """Why the decoder's first layer gives no attention rows, or rows we would compute wrongly; "" when all is well."""
    text = config.get_text_config()
    first = (getattr(text, "layer_types", None) or ["full_attention"])[0]
    if "attention" not in first or "linear" in first:
        return f"its first decoder layer is `{first}`, which forms no attention rows"
    if getattr(text, "attn_logit_softcapping", None):
        return "its attention logits are soft-capped, which SDPA does not do"
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder-decoder: instruction and visual tokens do not share one sequence"
    return ""
