"""The differences a family can have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def leave(config: Any, depth: int) -> None:
    """Cut nothing more than the decoder layers."""


@dataclass(frozen=True)
class Family:
    """The differences.

    refused: why this family cannot be read rightly; "" when it can.
    trim(config, depth): drop, in the configuration, parts that the first `depth` decoder layers do not need.
    official_keeps_empty: whether the `official` preset keeps turns without text.
    official_size: image size that the `official` preset gives the processor, when the user sets none.
    """

    refused: str = ""
    trim: Callable[[Any, int], None] = leave
    official_size: dict[str, int] | None = None
    official_keeps_empty: bool = False
