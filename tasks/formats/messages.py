"""Messages: `messages` of {role, content}, `images` a list of file names, as a JSON array or JSON lines.

Content is text with `<image>` placeholders, or OpenAI / Hugging Face parts {type: text | image | image_url}.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tasks.formats.conversation import Spelling
from tasks.formats.export import ImageFiles, PathPolicy, scalar_fields, turn_objects, write_array
from tasks.formats.json_dataset import JsonDataset, open_json
from tasks.params import DatasetSettings
from tasks.sample import Sample

SPELLING = Spelling(
    turns=("messages", "conversations", "conversation"),
    role=("role", "from"),
    content=("content", "value"),
    images=("images", "image"),
    system="system",
)


def open_messages(settings: DatasetSettings) -> JsonDataset:
    """Open a messages file. Raises DatasetError."""
    return open_json(settings, "messages", SPELLING)


def write_messages(
    rows: Iterable[tuple[Sample, Any]], out: Path, paths: PathPolicy, name: str = "subset"
) -> list[Path]:
    """Write out/<name>.json: id, messages, images, source, and the scalar fields of JSON originals."""
    files = ImageFiles(out, paths)
    data = out / f"{name}.json"
    write_array(data, _objects(rows, files))
    return [data, *files.written]


def _objects(rows: Iterable[tuple[Sample, Any]], files: ImageFiles) -> Iterator[dict[str, Any]]:
    for sample, original in rows:
        extra = scalar_fields(original)
        yield {
            "id": extra.get("id", sample.id),
            "messages": turn_objects(sample),
            "images": [files.spell(ref) for ref in sample.images],
            "source": sample.source,
            **extra,
        }
