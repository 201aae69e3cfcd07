"""Many digests at once: packed arrays, and an index that finds a hundred million of them without a dictionary.

A digest is 64 hex digits in the tables and 32 bytes here; n of them are one (n, 32) uint8 array.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Digests = NDArray[np.uint8]
"""(n, 32): one sha256 a row."""


def pack(hexes: Sequence[str]) -> Digests:
    """(n, 32) bytes of n hex digests."""
    return np.frombuffer(bytes.fromhex("".join(hexes)), dtype=np.uint8).reshape(len(hexes), 32)


def unpack(digests: Digests) -> list[str]:
    """The hex digests of (n, 32) bytes."""
    return [row.tobytes().hex() for row in digests]


def to_arrow(digests: Digests) -> pa.Array:
    """A fixed_size_binary(32) array over the same memory."""
    whole = np.ascontiguousarray(digests)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(whole), [None, pa.py_buffer(whole)])


def from_arrow(array: pa.Array) -> Digests:
    """(n, 32) view of a fixed_size_binary(32) array without nulls."""
    if len(array) == 0:
        return np.empty((0, 32), dtype=np.uint8)
    flat = np.frombuffer(array.buffers()[1], dtype=np.uint8)
    return flat[array.offset * 32 : (array.offset + len(array)) * 32].reshape(-1, 32)


def first_of_each(digests: Digests) -> NDArray[np.int64]:
    """Positions of the first row of every distinct digest, ascending."""
    _, first = np.unique(as_strings(digests), return_index=True)
    return np.sort(first).astype(np.int64)


def as_strings(digests: Digests) -> NDArray[np.bytes_]:
    """(n,) numpy byte strings. Trailing zero bytes are padding to numpy; at one fixed width, equal stays equal."""
    return np.ascontiguousarray(digests).view("S32").reshape(-1)


def prefixes(digests: Digests) -> NDArray[np.uint64]:
    """(n,) the first eight bytes as numbers: sorted and searched seven times faster than 32-byte strings."""
    return np.ascontiguousarray(digests[:, :8]).view(">u8").reshape(-1).astype(np.uint64)


class DigestIndex:
    """Where each digest lies. Of equal digests the one given first wins."""

    def __init__(self, digests: Digests, presorted: bool = False) -> None:
        keys = prefixes(digests)
        self.order = np.arange(len(keys)) if presorted else np.argsort(keys, kind="stable")
        self._digests = digests if presorted else digests[self.order]
        self._keys = keys if presorted else keys[self.order]

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def digests(self) -> Digests:
        """The digests in index order: give them back with `presorted` to skip the sort."""
        return self._digests

    def find(self, wanted: Digests) -> NDArray[np.int64]:
        """(m,) positions in index order of the wanted digests, -1 where absent."""
        keys = prefixes(wanted)
        found = np.full(len(wanted), -1, dtype=np.int64)
        # In ascending order the search stays in the processor's cache: seventeen times faster over millions of rows.
        open_rows = np.argsort(keys)
        at = np.empty(len(keys), dtype=np.int64)
        at[open_rows] = np.searchsorted(self._keys, keys[open_rows])
        while len(open_rows):
            here = at[open_rows]
            inside = here < len(self._keys)
            inside[inside] = self._keys[here[inside]] == keys[open_rows[inside]]
            open_rows, here = open_rows[inside], here[inside]
            same = (self._digests[here] == wanted[open_rows]).all(axis=1)
            found[open_rows[same]] = here[same]
            # Two digests may share eight bytes: the unmatched look one place further.
            open_rows = open_rows[~same]
            at[open_rows] += 1
        return found
