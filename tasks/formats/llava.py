"""LLaVA: `conversations` of {from, value}, `image` a file name or a list of them, as a JSON array or JSON lines.

ShareGPT files that hold `conversations` beside `images` read the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tasks.formats.conversation import Spelling
from tasks.formats.export import ImageFiles, PathPolicy, scalar_fields, write_array
from tasks.formats.json_dataset import JsonDataset, open_json
from tasks.params import DatasetSettings
from tasks.sample import Sample

SPELLING = Spelling(
    turns=("conversations",), role=("from", "role"), content=("value", "content"), images=("image", "images")
)
_NAMES = {"user": "human", "assistant": "gpt", "system": "system"}


def open_llava(settings: DatasetSettings) -> JsonDataset:
    """Open a LLaVA file. Raises DatasetError."""
    return open_json(settings, "llava", SPELLING)


def write_llava(rows: Iterable[tuple[Sample, Any]], out: Path, paths: PathPolicy, name: str = "subset") -> list[Path]:
    """Write out/<name>.json: `image` is a string for one image, a list for several, absent for none."""
    files = ImageFiles(out, paths)
    data = out / f"{name}.json"
    write_array(data, _objects(rows, files))
    return [data, *files.written]


def _objects(rows: Iterable[tuple[Sample, Any]], files: ImageFiles) -> Iterator[dict[str, Any]]:
    for sample, original in rows:
        extra = scalar_fields(original)
        images = [files.spell(ref) for ref in sample.images]
        turns = [{"from": _NAMES[turn.role], "value": turn.content} for turn in sample.turns]
        shown = {"image": images[0] if len(images) == 1 else images} if images else {}
        source = {"source": sample.source} if sample.source else {}
        yield {"id": extra.get("id", sample.id), **shown, "conversations": turns, **source, **extra}
