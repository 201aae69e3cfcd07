"""The dataset card: README.md of a subset, with the YAML front matter that the Hugging Face hub reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

# Upper bound (exclusive) of each size category of the hub.
SIZES = (
    (1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"),
)  # fmt: skip

MEANING = {
    "selected": "chosen by the method, within the budget",
    "not_selected": "scored, and below the budget",
    "set_aside": "not scored by policy",
    "rejected": "failed a check; each with its reason in rejects.jsonl",
}

USES = {
    "llava": "for LLaVA's trainer and those that read its layout; `--image_folder` is the folder of the file",
    "messages": "messages with roles, one JSON object a row",
    "llamafactory": "for LLaMA-Factory; `dataset_dir` and `media_dir` are the folder of the file",
    "ms_swift": "for ms-swift; start it in the folder of the file, or set ROOT_IMAGE_DIR to it",
    "parquet": "images as bytes, for the datasets library",
    "webdataset": "tar shards with images inside, for webdataset",
}

PATHS = {
    "relative": "Image paths of the further exports are relative to the file that names them.",
    "absolute": "Image paths of the further exports are absolute.",
    "media_dir": "Image paths of the further exports are relative to the trainer's media folder.",
}


def write_card(facts: Mapping[str, Any]) -> str:
    """The text of README.md. `facts`: the manifest but for the digests of outputs. Same facts, same text."""
    sections = (
        f"# {facts['name']}",
        _describe(facts),
        "## Rows\n\n" + _accounting(facts["accounting"]),
        "## Method\n\n" + _method(facts),
        "## Target model\n\n" + _models(facts["extraction"]),
        "## Files\n\n" + _files(facts),
        "## Reproduce and verify\n\n" + _reproduce(facts),
        "## Limits\n\n" + _limits(facts),
    )
    return f"---\n{_front_matter(facts)}---\n\n" + "\n\n".join(sections) + "\n"


def size_category(rows: int) -> str:
    """The hub's name for a number of rows."""
    return next((name for bound, name in SIZES if rows < bound), "n>100M")


def _front_matter(facts: Mapping[str, Any]) -> str:
    front = {
        "license": facts["settings"]["export"]["license"],
        "pretty_name": facts["name"],
        "task_categories": ["image-text-to-text", "visual-question-answering"],
        "tags": ["data-selection", "scalselect", "vision-language", "visual-instruction-tuning"],
        "size_categories": [size_category(facts["accounting"]["exported"])],
        "configs": _configs(facts["subset"]),
    }
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True)


def _configs(subset: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One config per data file family; the hub reads all configs of a card with the builder of the first."""
    native = [str(name) for name in subset["files"]]
    configs = [{"config_name": "default", "default": True, "data_files": [{"split": "train", "path": native}]}]
    for name, files in sorted(subset["exports"].items()):
        data = [file for file in files if _builder(file) == _builder(native[0]) and not _describes(file)]
        if data:
            configs.append({"config_name": name, "data_files": [{"split": "train", "path": data}]})
    return configs


def _builder(file: str) -> str:
    return {".jsonl": ".json"}.get(PurePosixPath(file).suffix, PurePosixPath(file).suffix)


def _describes(file: str) -> bool:
    """Whether a file describes data files instead of holding rows."""
    return PurePosixPath(file).name == "dataset_info.json"


def _describe(facts: Mapping[str, Any]) -> str:
    counts = facts["accounting"]
    return (
        f"{_number(counts['selected'])} of {_number(counts['rows_in'])} samples, chosen by `{facts['method']['name']}` "
        "for training the vision-language model named below. Every row can be traced back to its score, its features, "
        "its images and the weights that measured it."
    )


def _accounting(counts: Mapping[str, Any]) -> str:
    lines = [(status, counts[status], MEANING[status]) for status in MEANING]
    reasons = [
        (f"{status}: `{reason}`", number, "")
        for status in MEANING
        for reason, number in sorted(counts["reasons"][status].items())
    ]
    total = [("**rows in**", counts["rows_in"], ""), ("**exported**", counts["exported"], _exported(counts))]
    return _table(("rows", "count", "meaning"), [*lines, *reasons, *total])


def _exported(counts: Mapping[str, Any]) -> str:
    beside = counts["exported"] - counts["selected"]
    return f"selected, and {_number(beside)} text-only beside the budget" if beside else "selected"


def _method(facts: Mapping[str, Any]) -> str:
    settings = facts["settings"]
    options = [(key, value) for key, value in sorted(facts["method"]["options"].items())]
    chosen = [(key, value) for key, value in settings["select"].items() if value not in (None, False, [], {})]
    rows = [("score.method", facts["method"]["name"])]
    rows += [(f"methods.{facts['method']['name']}.{key}", value) for key, value in options]
    rows += [(f"select.{key}", value) for key, value in chosen]
    rows += [("extract.signals", ", ".join(settings["extract"]["signals"]))]
    return _table(("setting", "value"), [(f"`{key}`", value) for key, value in rows])


def _models(extraction: Mapping[str, Any]) -> str:
    rows = []
    for signal, entry in sorted(extraction.get("signals", {}).items()):
        record = entry["record"]
        version = record.get("commit") or record.get("revision") or ""
        rows.append((signal, f"`{_public(record['model'])}`", version, record["dtype"], f"`{record['tensors']}`"))
    return _table(("signal", "model", "revision", "dtype", "sha256 of the tensors used"), rows)


def _public(model: str) -> str:
    """A hub id or relative path as it is; of an absolute path only the name, the rest means nothing elsewhere."""
    return PurePosixPath(model).name if PurePosixPath(model).is_absolute() else model


def _files(facts: Mapping[str, Any]) -> str:
    subset = facts["subset"]
    lines = [f"- `{name}`: the rows as the dataset has them ({subset['format']})" for name in subset["files"]]
    lines += [f"- `{files[0]}`: {USES[name]}" for name, files in sorted(subset["exports"].items())]
    lines += [
        "- `ids.csv`: row, id and digest of each exported sample, with its place, score and rank",
        "- `rejects.jsonl`: every rejected row and why",
        "- `croissant.json`: these files as Croissant metadata",
        "- `manifest.json`: digests of inputs and outputs, model, settings, versions",
    ]
    root = facts["settings"]["dataset"]["image_root"]
    where = f"`{_public(root)}`" if root else "the original dataset's folder"
    note = f"Rows in the dataset's own format are unchanged, so their image paths still start from {where}."
    further = " " + PATHS[facts["settings"]["export"]["paths"]] if subset["exports"] else ""
    return "\n".join(lines) + "\n\n" + note + further


def _reproduce(facts: Mapping[str, Any]) -> str:
    code = facts["code"]
    return (
        f"Made by {code['package']} {code['version']}. The same dataset, model and settings give the same files; "
        "the settings are in `manifest.json`, under the keys of params.yaml.\n\n"
        "```\nscalselect verify .                 # hash every recorded file again\n"
        "scalselect verify . --recompute 8   # and measure 8 rows again\n"
        "scalselect trace . --row R          # one row, back to the weights\n```"
    )


def _limits(facts: Mapping[str, Any]) -> str:
    lines = [
        "- The order of rows is the dataset's; `position` in `ids.csv` is the order of the selection.",
        "- Scores are relative to this dataset and this model; they say nothing about another pool or another model.",
        "- Nothing was rewritten: errors and licences of the source data carry over.",
    ]
    if facts["accounting"]["set_aside"]:
        lines.append("- Rows set aside were not scored, so the budget does not count them.")
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(_cell(value) for value in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        text = value
    else:
        text = _number(value) if isinstance(value, int) and not isinstance(value, bool) else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: int) -> str:
    return f"{value:,}"
