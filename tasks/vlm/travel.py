"""Prepared rows on their way from one process to another: tensors as plain bytes.

Left to themselves they would travel as open files or through /dev/shm, of which containers have little.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


class Travelling:
    """A dataclass whose tensors, also those in dictionaries, are pickled as bytes."""

    def __reduce__(self) -> Any:
        return _arrive, (type(self), {one.name: _pack(getattr(self, one.name)) for one in fields(self)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Packed:
    data: bytearray
    dtype: torch.dtype
    shape: tuple[int, ...]


def _arrive(kind: type[Any], values: dict[str, Any]) -> Any:
    return kind(**_unpack(values))


def _pack(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _pack(one) for name, one in value.items()}
    if not isinstance(value, Tensor):
        return value
    flat = value.contiguous().flatten()
    data = flat.view(torch.uint8).numpy() if flat.numel() else b""
    return _Packed(bytearray(data), value.dtype, tuple(value.shape))


def _unpack(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _unpack(one) for name, one in value.items()}
    if not isinstance(value, _Packed):
        return value
    if not value.data:
        return torch.empty(value.shape, dtype=value.dtype)
    return torch.frombuffer(value.data, dtype=value.dtype).view(value.shape)
