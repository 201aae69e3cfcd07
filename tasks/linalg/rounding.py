"""Ties that are ties: numbers that differ only by the order of additions are made equal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def settle(values: NDArray[np.float64], bits: int = 40) -> NDArray[np.float64]:
    """Values rounded to `bits` significant bits (40 is about 12 digits).

    Equal rows may score a last bit apart, depending on their place in a block and on the number of BLAS threads;
    rounded, they tie, and the digest decides.
    """
    mantissa, exponent = np.frexp(np.asarray(values, dtype=np.float64))
    rounded: NDArray[np.float64] = np.ldexp(np.rint(np.ldexp(mantissa, bits)), exponent - bits)
    return rounded
