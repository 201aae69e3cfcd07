"""Encoded images: where a name leads, the bytes there, whether they decode, and what a trainer would see.

Images lie whole in files, as byte ranges of tar shards, or in cells of Parquet and Arrow files (ImageRef.member).
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from tasks import cells, places
from tasks.problem import Problem
from tasks.sample import ImageRef
from tasks.unicode import is_unicode

Image.init()
# What training sets hold. Others stay closed: some of Pillow's readers start programs, or are unfit for strangers.
_WANTED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
ENCODINGS = tuple(name for name in _WANTED if name in Image.OPEN)  # a Pillow may be built without the last two
SUFFIXES = frozenset(["jpg", "jpeg", "jpe", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "jp2", "avif"])

# The limit is validate.maximum_pixels, checked before decoding; Pillow's own would cap it at a constant and warn.
Image.MAX_IMAGE_PIXELS = None

_URL = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)
_WEB = re.compile(r"(https?|ftp)://|data:", re.IGNORECASE)
_MAGIC = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image that decodes: its size in pixels as stored (EXIF orientation not applied), Pillow mode and encoding."""

    width: int
    height: int
    mode: str
    format: str


def locate(name: str, root: Path, beside: Path | None = None) -> ImageRef | Problem:
    """Where `name`, absolute or relative to the image root, leads; nothing is opened.

    A name that leads out of the root is tried from `beside`, the data file's folder: exports spell them so. The path is
    kept as relative as `root` is. Names that leave the root are refused by their spelling: links inside the root are
    the user's own and are followed. A URL may only name what lies under a root that is a URL. Reasons:
    image_outside_root, image_url_not_allowed, malformed_images.
    """
    if not name or "\0" in name or not is_unicode(name):
        return Problem("malformed_images", f"not a file name: {name[:200]!a}")
    remote = places.is_url(root)
    if _URL.match(name) and (not remote or _WEB.match(name)):
        return Problem("image_url_not_allowed", f"{name[:200]}: download it and name the file")
    spelled_out = name.startswith("/") or _URL.match(name)
    inside = _inside(name, root) if spelled_out else os.path.normpath(name)
    if inside is not None and inside.startswith("../") and beside is not None and places.is_url(beside) == remote:
        start = str(beside) if remote else os.path.abspath(beside)  # noqa: PTH100
        inside = _inside(os.path.join(start, name), root)  # noqa: PTH118
    if inside is None or inside == ".." or inside.startswith("../"):
        return Problem("image_outside_root", f"{name}: not under {root}; set dataset.image_root")
    if remote:
        return ImageRef(path=f"{root}/{inside}", name=name)
    return ImageRef(path=os.path.normpath(os.path.join(root, inside)), name=name)  # noqa: PTH118


def _inside(name: str, root: Path) -> str | None:
    """An absolute name made relative to the root, however the root is spelled; None when it lies elsewhere."""
    if places.is_url(root):
        scheme, _, rest = name.partition("://")
        normal = f"{scheme}://{os.path.normpath(rest)}"
        return normal.removeprefix(f"{root}/") if normal.startswith(f"{root}/") else None
    target = Path(os.path.normpath(name))
    for base in (Path(os.path.abspath(root)), root.resolve()):  # noqa: PTH100
        if target.is_relative_to(base):
            return str(target.relative_to(base))
    return None


def read_bytes(ref: ImageRef) -> bytes:
    """The encoded bytes. Raises OSError when the file is gone, LookupError when the cell is empty, StorageError."""
    if not ref.member:
        return places.read_bytes(ref.path)
    kind, _, where = ref.member.partition(":")
    if kind == "tar":
        offset, size = map(int, where.split(":"))
        return places.read_bytes(ref.path, offset, size)
    row, _, rest = where.partition(":")
    column, _, index = rest.rpartition(":")
    return cells.read_image(places.place(ref.path), int(row), column, int(index))


def fetch(ref: ImageRef) -> bytes | Problem:
    """The encoded bytes, or why there are none: image_missing, image_unreadable. Raises StorageError."""
    try:
        return read_bytes(ref)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return Problem("image_missing", f"{ref.path}: no such file (image `{ref.name}`)")
    except (OSError, LookupError) as error:
        return Problem("image_unreadable", f"{ref.path}: {error}")


def inspect(data: bytes, maximum_pixels: int) -> ImageInfo | Problem:
    """Decode every pixel and say what the image is, or why not: image_unreadable, image_truncated, image_too_large.

    The size is checked from the header, before memory is given to the pixels. Of a JPEG every coefficient is read,
    where damage shows, but colours are computed at an eighth of the size: half the time.
    """
    try:
        with Image.open(io.BytesIO(data), formats=ENCODINGS) as image:
            width, height = image.size
            if width * height > maximum_pixels:
                limit = f"validate.maximum_pixels is {maximum_pixels}"
                return Problem("image_too_large", f"{width} x {height} pixels; {limit}")
            info = ImageInfo(width, height, image.mode, image.format or "")
            image.draft("L", (1, 1))
            image.load()
    # Pillow's readers raise whatever their parsers stumble on: SyntaxError, struct.error, zlib.error, ValueError, ...
    except Exception as error:
        return _explain(data, error)
    return info


def _explain(data: bytes, error: Exception) -> Problem:
    if not data:
        return Problem("image_unreadable", "0 bytes")
    short = data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data)
    cut = short or isinstance(error, EOFError) or re.search(r"truncat|unexpected end", str(error), re.IGNORECASE)
    text = str(error) if not isinstance(error, UnidentifiedImageError) else "no known image encoding"
    return Problem("image_truncated" if cut else "image_unreadable", f"{text} ({len(data)} bytes)")


def decode(data: bytes) -> Image.Image:
    """The image in RGB, as trainers see it: Image.open(...).convert("RGB"), first frame, alpha dropped.

    EXIF orientation is not applied, because LLaVA, LLaMA-Factory and ms-swift do not apply it. 16-bit grey is scaled to
    8 bits where a bare `convert` would clip it to white. Raises OSError for data that `inspect` refuses.
    """
    with Image.open(io.BytesIO(data), formats=ENCODINGS) as image:
        if image.mode.startswith("I"):
            levels = np.clip(np.asarray(image, dtype=np.int64), 0, 65535) >> 8
            return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
        return image.convert("RGB")


def suffix(data: bytes, name: str = "") -> str:
    """File suffix without the dot, told by the first bytes, else by the name, else "img"."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    known = next((one for magic, one in _MAGIC if data.startswith(magic)), None)
    named = Path(name).suffix.lower().removeprefix(".")
    return known or (named if named in SUFFIXES else "img")
