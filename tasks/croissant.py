"""Croissant JSON-LD of a subset: its data files with their digests, and how to read the rows.

Source of the vocabulary: mlcommons.org/croissant/1.0. Images that an export unpacked are listed by manifest.json alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.manifest import digest_file

SPECIFICATION = "http://mlcommons.org/croissant/1.0"

# The vocabulary of the specification, appendix "context".
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{
        name: f"cr:{name}"
        for name in (
            "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet",
            "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet",
            "references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField",
            "transform",
        )
    },
}  # fmt: skip

ENCODINGS = {
    ".csv": "text/csv", ".json": "application/json", ".jsonl": "application/jsonlines",
    ".parquet": "application/x-parquet", ".tar": "application/x-tar",
}  # fmt: skip

IDS = {
    "row": ("sc:Integer", "Position in the dataset the subset was chosen from, counted from 0."),
    "id": ("sc:Text", "The dataset's own id; may be missing or repeat."),
    "digest": ("sc:Text", "sha256 of the sample's turns and images: its identity."),
    "source": ("sc:Text", "Where the row came from, as the dataset says."),
    "status": ("sc:Text", "selected, or set_aside for rows exported beside the budget."),
    "position": ("sc:Integer", "Place in the selection, 0 first."),
    "score": ("sc:Float", "The method's score; higher is better."),
    "rank": ("sc:Integer", "Rank among all scored rows, 0 best."),
}

# Exports whose rows all have turns of plain text, whatever the dataset's own format is like.
UNIFORM = ("messages", "llamafactory", "ms_swift")


def describe_subset(facts: Mapping[str, Any], folder: Path, files: Iterable[Path]) -> dict[str, Any]:
    """The Croissant document of `files`, which lie under `folder`. `facts`: the manifest but for output digests.

    The recommended datePublished is left out: the same inputs must give the same bytes.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in files if path.suffix in ENCODINGS)
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": SPECIFICATION,
        "name": facts["name"],
        "description": _describe(facts),
        "license": facts["settings"]["export"]["license"],
        "version": "1.0.0",
        "keywords": ["data-selection", "vision-language", facts["method"]["name"]],
        "distribution": [_file_object(folder, name) for name in names],
        "recordSet": [_ids_record_set(), *_conversation_record_set(facts["subset"])],
    }


def _describe(facts: Mapping[str, Any]) -> str:
    counts = facts["accounting"]
    return (
        f"{counts['selected']} of {counts['rows_in']} visual-instruction samples, chosen by "
        f"{facts['method']['name']} (ScalSelect {facts['code']['version']})."
    )


def _file_object(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": ENCODINGS[PurePosixPath(name).suffix],
        "sha256": digest_file(path),
    }


def _ids_record_set() -> dict[str, Any]:
    fields = [
        _field(f"ids/{name}", kind, text, {"fileObject": {"@id": "ids.csv"}, "extract": {"column": name}})
        for name, (kind, text) in IDS.items()
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "ids",
        "name": "ids",
        "description": "One record for each exported row, in the dataset's order.",
        "key": {"@id": "ids/row"},
        "field": fields,
    }


def _conversation_record_set(subset: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How to read the turns, from the subset itself or the first export that spells them plainly."""
    if subset["format"] == "llava":
        return [_turns_record_set(subset["files"][0], "conversations", ("from", "value"))]
    uniform = [subset["exports"][name][0] for name in UNIFORM if name in subset["exports"]]
    return [_turns_record_set(file, "messages", ("role", "content")) for file in uniform[:1]]


def _turns_record_set(file: str, key: str, parts: tuple[str, str]) -> dict[str, Any]:
    extract = {"column": key} if file.endswith(".jsonl") else {"jsonPath": f"[*].{key}"}
    source = {"fileObject": {"@id": file}, "extract": extract}
    turns = [
        _field(f"rows/{key}/{part}", "sc:Text", text, {**source, "transform": {"jsonPath": f"$.{part}"}})
        for part, text in zip(parts, ("Who speaks.", "What is said; <image> where an image is shown."), strict=True)
    ]
    field = {"@type": "cr:Field", "@id": f"rows/{key}", "name": f"rows/{key}", "source": source}
    rows = {"@type": "cr:RecordSet", "@id": "rows", "name": "rows", "description": "The conversations."}
    return {**rows, "field": [{**field, "repeated": True, "subField": turns}]}


def _field(identity: str, kind: str, text: str, source: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": identity,
        "name": identity,
        "description": text,
        "dataType": kind,
        "source": dict(source),
    }
