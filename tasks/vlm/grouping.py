"""Which signals share a model. Imports nothing heavy: it is asked on every run, also when nothing is to be read."""

from __future__ import annotations

from tasks.errors import ParamsError
from tasks.params import ClipSettings, ModelSettings, Settings

SHARED = ("attended", "pooled", "answers", "gradients")
"""The signals read from a VLM: the keys of tasks.vlm.signals.SIGNALS."""

CLIP = "clip"
"""The signal read from a dual encoder."""


def groups(settings: Settings) -> list[tuple[str, ...]]:
    """The signals asked for, those that share a model and precision together, as first mentioned; `clip` last."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(settings.extract.signals):
        if name in SHARED:
            found.setdefault(model_of(settings, name).model_dump_json(), []).append(name)
    alone = [(CLIP,)] if CLIP in settings.extract.signals else []
    return [*(tuple(names) for names in found.values()), *alone]


def model_of(settings: Settings, signal: str) -> ModelSettings:
    """The model a signal is read from: its own, or the target. Raises ParamsError for `clip` without one."""
    if signal == CLIP:
        return named_model(settings.extract.clip)
    own: ModelSettings | None = getattr(getattr(settings.extract, signal, None), "model", None)
    return own or settings.model


def named_model(clip: ClipSettings) -> ModelSettings:
    """The dual encoder. Raises ParamsError when none is named: there is no sound default."""
    if clip.model is None:
        raise ParamsError(
            "extract.clip.model: the signal `clip` needs a CLIP or SigLIP model, for example "
            "--set extract.clip.model.path=openai/clip-vit-large-patch14 (of the demo: data/raw/demo/clip)"
        )
    return clip.model
