"""ms-swift: JSON lines of {messages, images}; written only, because `messages` reads it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.formats.export import ImageFiles, PathPolicy, uniform_object, write_lines
from tasks.sample import Sample


def write_ms_swift(
    rows: Iterable[tuple[Sample, Any]], out: Path, paths: PathPolicy, name: str = "subset"
) -> list[Path]:
    """Write out/<name>.jsonl. ms-swift resolves relative paths against ROOT_IMAGE_DIR, else where it is started."""
    files = ImageFiles(out, paths)
    data = out / f"{name}.jsonl"
    write_lines(data, (uniform_object(sample, files) for sample, _ in rows))
    return [data, *files.written]
