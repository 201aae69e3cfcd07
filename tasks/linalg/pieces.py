"""Moments of many rows, kept piece by piece, so that a refresh multiplies only what is new.

Where a piece ends is decided by the digests of its rows, not by their number: rows added, removed or moved change the
pieces they lie in and no other. Pieces are made of leaves, and the last piece, which grows, is kept leaf by leaf. What
was removed is never subtracted: its piece is measured again. The result depends on the rows alone, to the bit: pieces
are always combined in order, whether they were kept or measured now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.linalg.matrix import Block
from tasks.linalg.moments import Moments, Sums, combine, gather, product_dtype, shift_of, sum_rows
from tasks.linalg.products import HOST, Products

Span = tuple[int, int]
Read = Callable[[Iterable[Span]], Iterator[Block]]
"""Rows of each span in turn, as arrays that the caller may overwrite."""

LEAF_ROWS = (2048, 8192)
"""Fewest and most rows of a leaf; about 4000 on average. The most sets the memory needed."""
PIECE_LEAVES = 32
"""Most leaves of a piece; about 8 on average, so that what is kept is d / 32,000 of the size of the features."""


class Keep(Protocol):
    """Where sums are kept between runs. Whatever it has lost or spoilt is measured again."""

    def has(self, key: str) -> bool:
        """Whether there is something under this key."""

    def get(self, key: str) -> Sums | None:
        """The sums, or None when they are not there or not whole."""

    def put(self, key: str, sums: Sums) -> None:
        """Keep sums."""

    def retain(self, keys: Iterable[str]) -> None:
        """Let go of all others."""


class Nothing:
    """A Keep that keeps nothing: every piece is measured, to the same result."""

    def has(self, key: str) -> bool:
        """Never."""
        return False

    def get(self, key: str) -> Sums | None:
        """Nothing."""
        return None

    def put(self, key: str, sums: Sums) -> None:
        """Forget."""

    def retain(self, keys: Iterable[str]) -> None:
        """There is nothing to let go of."""


@dataclass(frozen=True)
class Leaf:
    """Rows multiplied together. The key names them and the first leaf of their piece, which sets the shift."""

    span: Span
    key: str


@dataclass(frozen=True)
class Piece:
    """Leaves about one shift. An open piece is the last one: more rows may join it."""

    leaves: Sequence[Leaf]
    key: str
    closed: bool

    @property
    def keys(self) -> list[str]:
        """What is kept of it: its sums, or while it is open those of each leaf."""
        return [self.key] if self.closed else [leaf.key for leaf in self.leaves]


def cut_pieces(digests: NDArray[np.str_], scope: str = "") -> list[Piece]:
    """All rows in order, cut into pieces by their digests (64 hex digits). `scope` is part of every key."""
    digests = digests.astype("U64")
    leaf_ends, piece_ends = _marks(digests)
    pieces: list[Piece] = []
    spans: list[Span] = []
    start = 0
    while start < len(digests):
        stop = _next_end(leaf_ends, start, len(digests))
        spans.append((start, stop))
        cut_short = stop == len(digests) and stop not in piece_ends
        start = stop
        if stop in piece_ends or (len(spans) == PIECE_LEAVES and not cut_short):
            pieces.append(_make_piece(digests, spans, scope, closed=True))
            spans = []
    return [*pieces, _make_piece(digests, spans, scope, closed=False)] if spans else pieces


def measure_pieces(
    read: Read, shape: tuple[int, int], digests: NDArray[np.str_], keep: Keep, products: Products = HOST
) -> Moments:
    """Moments of n x d float32 rows named by their digests; only the pieces that `keep` lacks are read.

    Memory: a leaf (8192 rows), a float32 and two float64 d x d. Raises ValueError when there are no rows.
    """
    pieces = _pieces_of(shape, digests)
    wanted = [leaf.span for piece in pieces for leaf in _unknown(piece, keep)]
    work = _Work(read, read(wanted), set(wanted), keep, products, shape)
    moments = combine(map(work.measure, pieces))
    keep.retain(key for piece in pieces for key in piece.keys)
    return moments


def missing_pieces(shape: tuple[int, int], digests: NDArray[np.str_], keep: Keep) -> list[Piece]:
    """The closed pieces that `keep` lacks: each may be measured anywhere by `measure_piece` and put under its key."""
    return [piece for piece in _pieces_of(shape, digests) if piece.closed and not keep.has(piece.key)]


def measure_piece(read: Read, shape: tuple[int, int], piece: Piece, products: Products = HOST) -> Sums:
    """Sums of one closed piece of n x d rows, as `measure_pieces` would find them."""
    spans = [leaf.span for leaf in piece.leaves]
    return _Work(read, read(spans), set(spans), Nothing(), products, shape).measure(piece)


@dataclass
class _Work:
    """Measures piece after piece; `ahead` yields the rows of the spans `expected`, read while others are multiplied."""

    read: Read
    ahead: Iterator[Block]
    expected: set[Span]
    keep: Keep
    products: Products
    shape: tuple[int, int]

    def measure(self, piece: Piece) -> Sums:
        awaited = any(leaf.span in self.expected for leaf in piece.leaves)
        if piece.closed and not awaited and (kept := self.keep.get(piece.key)) is not None:
            return kept
        sums = gather(self._leaf_sums(piece), self.shape[1])
        if piece.closed:
            self.keep.put(piece.key, sums)
        return sums

    def _leaf_sums(self, piece: Piece) -> Iterator[Sums]:
        dtype = _dtype_of(self.shape)
        shift: NDArray[Any] | None = None
        for leaf in piece.leaves:
            # Rows that are on their way must be taken, even if another process has kept their sums meanwhile.
            sums = None if leaf.span in self.expected else self.keep.get(leaf.key)
            if sums is None:
                rows = self._rows(leaf.span)
                shift = shift_of(rows, dtype) if shift is None else shift
                sums = sum_rows(rows, shift, self.products)
                if not piece.closed:
                    self.keep.put(leaf.key, sums)
            shift = sums.shift.astype(dtype)
            yield sums

    def _rows(self, span: Span) -> Block:
        # What was thought to be kept and turns out to be spoilt is read out of turn.
        return next(self.ahead if span in self.expected else self.read([span]))


def _dtype_of(shape: tuple[int, int]) -> np.dtype[Any]:
    return product_dtype(shape, np.dtype(np.float32))


def _pieces_of(shape: tuple[int, int], digests: NDArray[np.str_]) -> list[Piece]:
    return cut_pieces(digests, f"{shape[1]} {_dtype_of(shape)}")


def _unknown(piece: Piece, keep: Keep) -> list[Leaf]:
    if piece.closed and keep.has(piece.key):
        return []
    return [leaf for leaf in piece.leaves if not keep.has(leaf.key)]


def _marks(digests: NDArray[np.str_]) -> tuple[NDArray[np.int64], set[int]]:
    """Row numbers after which a leaf may end (one in 2048), and a piece ends (one in eight of those)."""
    letters = np.ascontiguousarray(digests).view(np.uint32).reshape(-1, 64)
    zero = letters[:, 62:] == ord("0")
    leaf = zero.all(axis=1) & (letters[:, 61] >= ord("0")) & (letters[:, 61] < ord("2"))
    piece = leaf & (letters[:, 60] < ord("2"))
    return np.flatnonzero(leaf) + 1, set((np.flatnonzero(piece) + 1).tolist())


def _next_end(ends: NDArray[np.int64], start: int, n: int) -> int:
    fewest, most = LEAF_ROWS
    at = int(np.searchsorted(ends, start + fewest))
    return int(min(ends[at], start + most, n)) if at < len(ends) else min(start + most, n)


def _make_piece(digests: NDArray[np.str_], spans: Sequence[Span], scope: str, closed: bool) -> Piece:
    prints = [hashlib.sha256(digests[start:stop].tobytes()).digest() for start, stop in spans]
    leaves = [Leaf(span, _key(scope, "leaf", prints[0], one)) for span, one in zip(spans, prints, strict=True)]
    return Piece(leaves, _key(scope, "piece", *prints), closed)


def _key(scope: str, kind: str, *prints: bytes) -> str:
    return hashlib.sha256(f"{scope} {kind}".encode() + b"".join(prints)).hexdigest()
