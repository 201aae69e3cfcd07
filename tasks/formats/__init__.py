"""Dataset formats: one file each. FORMATS reads them, WRITERS writes exports; docs/formats.md says what each holds."""

from __future__ import annotations

from tasks.formats.detection import detect
from tasks.formats.export import PathPolicy, Writer
from tasks.formats.export_parquet import write_parquet
from tasks.formats.export_webdataset import write_webdataset
from tasks.formats.llamafactory import open_llamafactory, write_llamafactory
from tasks.formats.llava import open_llava, write_llava
from tasks.formats.messages import open_messages, write_messages
from tasks.formats.ms_swift import write_ms_swift
from tasks.formats.parquet import open_parquet
from tasks.formats.record import Dataset, Format, Row
from tasks.formats.webdataset import open_webdataset
from tasks.params import DatasetSettings
from tasks.places import reach
from tasks.problem import Problem

__all__ = [
    "FORMATS",
    "WRITERS",
    "Dataset",
    "Format",
    "PathPolicy",
    "Problem",
    "Row",
    "Writer",
    "detect",
    "open_dataset",
]

FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format("llava", open_llava),
        Format("messages", open_messages),
        Format("llamafactory", open_llamafactory),
        Format("parquet", open_parquet),
        Format("webdataset", open_webdataset),
    )
}

# The names of export.formats.
WRITERS: dict[str, Writer] = {
    "llava": write_llava,
    "messages": write_messages,
    "llamafactory": write_llamafactory,
    "ms_swift": write_ms_swift,
    "parquet": write_parquet,
    "webdataset": write_webdataset,
}


def open_dataset(settings: DatasetSettings) -> Dataset:
    """Open the dataset in the format that is set, or detected. Raises DatasetError naming the file and the fix.

    For a URL also StorageError, when its storage refuses or cannot be reached.
    """
    reach(settings.path, "dataset.path")
    if settings.image_root:
        reach(settings.image_root, "dataset.image_root")
    name = settings.format
    if name == "auto":
        name = "llamafactory" if settings.columns or settings.tags else detect(settings.path)  # type: ignore[assignment]
    return FORMATS[name].open(settings)
