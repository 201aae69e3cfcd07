"""A training sample as every stage sees it, and the digests that identify it.

A sample is known by what it says and shows, never by its id or its path: ids repeat, change type and go missing,
and the same image lies under many names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

IMAGE_PLACEHOLDER = "<image>"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. `role` is system, user or assistant; `content` holds one `<image>` where each image stands."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where an image's encoded bytes lie.

    `path` is a file; `member` says where inside it: "" is the whole file, "tar:OFFSET:SIZE" a byte range,
    "parquet:ROW:COLUMN:INDEX" a cell ("arrow:..." in an Arrow file). `name` is how the dataset itself called the image.
    `sha256` is of the encoded bytes ("" until validation has read them).
    """

    path: str
    name: str
    member: str = ""
    sha256: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """A validated row: position in the dataset, the dataset's own id (opaque), source, content and content digest."""

    row: int
    id: str | None
    source: str
    turns: tuple[Turn, ...]
    images: tuple[ImageRef, ...]
    digest: str

    @property
    def text_only(self) -> bool:
        """True when the sample shows no image."""
        return not self.images


def digest_bytes(data: bytes) -> str:
    """sha256 of encoded bytes, as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: object) -> str:
    """sha256 of a JSON value in canonical form: keys sorted, no white space, UTF-8."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def digest_sample(turns: Sequence[Turn], image_digests: Sequence[str]) -> str:
    """The sample's identity: its turns and its images' bytes in order. Ids and paths play no part."""
    return digest_json({"turns": [[turn.role, turn.content] for turn in turns], "images": list(image_digests)})
