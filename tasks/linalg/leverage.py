"""Statistical leverage: how far a row reaches into the principal subspace, in units of each direction's spread.

For X centred with thin SVD X = U S V^T, the rank-k leverage of row i is the squared norm of the first k entries of U's
row i; the scores sum to k. U itself is never formed: U = X V S^-1, streamed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.linalg.matrix import Matrix, buffer_rows, rebatched
from tasks.linalg.moments import product_dtype, shifted
from tasks.linalg.products import HOST, Products
from tasks.linalg.spectrum import Spectrum


def leverage(
    matrix: Matrix, spectrum: Spectrum, rank: int, ridge: float = 0.0, products: Products = HOST
) -> NDArray[np.float64]:
    """Sum over the first `rank` directions of (x . v)^2 / (s^2 + ridge), one float64 per row. Cost: n d rank."""
    score = np.zeros(matrix.shape[0])
    for start, block in coordinate_blocks(matrix, spectrum, rank, ridge, products):
        score[start : start + len(block)] = np.einsum("ij,ij->i", block, block, dtype=np.float64)
    return score


def coordinates(
    matrix: Matrix, spectrum: Spectrum, rank: int, ridge: float = 0.0, products: Products = HOST
) -> NDArray[np.float32]:
    """The first `rank` left singular coordinates of every row, (n, rank) float32."""
    result = np.zeros((matrix.shape[0], rank), dtype=np.float32)
    for start, block in coordinate_blocks(matrix, spectrum, rank, ridge, products):
        result[start : start + len(block)] = block
    return result


def coordinate_blocks(
    matrix: Matrix, spectrum: Spectrum, rank: int, ridge: float, products: Products
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (first row, (b, rank) coordinates), in the dtype of the products."""
    values = spectrum.values[:rank] + ridge
    inverse = np.divide(1.0, np.sqrt(values), out=np.zeros_like(values), where=values > 0)
    basis = spectrum.vectors[:, :rank] * inverse
    for start, block in rebatched(matrix, buffer_rows(*matrix.shape)):
        dtype = product_dtype(matrix.shape, block.dtype)
        # What float32 cannot hold of the centre is taken off after the product: a large mean costs no digits.
        centre: NDArray[Any] = spectrum.centre.astype(dtype)
        left = (spectrum.centre - centre) @ basis
        yield start, products.times(shifted(block, centre), basis.astype(dtype)) - left.astype(dtype)
