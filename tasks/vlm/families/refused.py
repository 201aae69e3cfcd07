"""Families whose attention is not instruction-to-image attention inside one sequence, each with the reason."""

from __future__ import annotations

from tasks.vlm.families.family import Family

_CROSS = "it sees images by cross-attention, so its decoder sequence holds no visual tokens"
_QUERIES = "its images reach the decoder through learned queries of a question transformer, not as image tokens"
_PREFIX = "its prompt is one bidirectional prefix without a chat template, so turns cannot be placed"

FAMILIES = {
    "mllama": Family(refused=_CROSS),
    "idefics": Family(refused=_CROSS),
    "evolla": Family(refused=_CROSS),
    "blip": Family(refused=_CROSS),
    "blip-2": Family(refused=_QUERIES),
    "instructblip": Family(refused=_QUERIES),
    "instructblipvideo": Family(refused=_QUERIES),
    "paligemma": Family(refused=_PREFIX),
    "pi0": Family(refused=_PREFIX),
    "fuyu": Family(refused="it has no image placeholder: patches are woven into the tokens row by row"),
    "git": Family(refused=_PREFIX),
    "diffusion_gemma": Family(refused="it denoises blocks of text and has no causal instruction rows"),
}
