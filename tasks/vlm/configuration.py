"""A checkpoint's configuration, as transformers reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from tasks.errors import ModelError
from tasks.params import ModelSettings


def read_config(folder: Path, settings: ModelSettings) -> Any:
    """The configuration in `folder`. Raises ModelError when there is none, or it asks for code that is not allowed."""
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(f"{settings.path}: no usable config.json: {error}") from None
