"""Seeded draws that belong to a row's content, not its position: adding or moving rows never reshuffles the others."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray


def draws(digests: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.float64]:
    """(n,) uniform numbers in (0, 1): a hash of one salt from `rng`, the digest, and which of its equals the row is."""
    salt = rng.bytes(16)
    seen: defaultdict[str, int] = defaultdict(int)
    result = np.empty(len(digests), dtype=np.uint64)
    for position, digest in enumerate(digests.tolist()):
        content = f"{seen[digest]}:{digest}".encode()
        seen[digest] += 1
        result[position] = int.from_bytes(hashlib.blake2b(content, digest_size=8, key=salt).digest(), "big")
    return ((result >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def weighted_keys(weights: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys whose N largest are a sample of N without replacement, proportional to weight (Efraimidis & Spirakis 2006).

    A weight of zero gives -inf: drawn only when everything else is.
    """
    keys = np.full(len(weights), -np.inf)
    positive = weights > 0
    keys[positive] = np.log(uniform[positive]) / weights[positive]
    return keys
