"""Which machine multiplies large blocks: BLAS on the CPU, or torch on a GPU where one is to be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.linalg.matrix import Block
from tasks.linalg.products import HOST, Products
from tasks.params import RunSettings

if TYPE_CHECKING:
    import torch

GPU_PAYS = 1 << 40
"""Multiplications below which the CPU is done before torch has been imported."""


class TorchProducts:
    """Products on one torch device, in full float32 or float64: never TF32, which keeps three digits."""

    def __init__(self, device: str) -> None:
        self.device = device

    def gram(self, rows: Block) -> Block:
        """X^T X."""
        moved = self._send(rows)
        return self._fetch(moved.T @ moved)

    def times(self, rows: Block, basis: Block) -> Block:
        """X B."""
        return self._fetch(self._send(rows) @ self._send(basis))

    def _send(self, values: Block) -> torch.Tensor:
        import torch

        torch.set_float32_matmul_precision("highest")
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)

    def _fetch(self, values: torch.Tensor) -> Block:
        product: np.ndarray[Any, Any] = values.cpu().numpy()
        return product


def choose_products(run: RunSettings, multiplications: int) -> Products:
    """The first device of `run.device` for work that is worth it; `auto` is the first GPU, if there is one."""
    if multiplications < GPU_PAYS or run.device == "cpu":
        return HOST
    if run.device != "auto":
        return TorchProducts(run.device.split(",")[0].strip())
    import torch

    return TorchProducts("cuda:0") if torch.cuda.is_available() else HOST
