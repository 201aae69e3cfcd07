"""The manifest: what was done, from which bytes, with which settings.

Built by export from the files of every stage; completed with git and DVC facts after the last stage. Paths inside are
POSIX and relative to `base`, the folder that holds every output, so that the folder may be moved as a whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl

from tasks.atomic import write_json
from tasks.errors import LineageError
from tasks.layout import Layout
from tasks.params import Settings
from tasks.places import is_url, opened, stamp
from tasks.sample import digest_json

SCHEMA = 1
FILE = "manifest.json"
STATUSES = ("selected", "not_selected", "set_aside", "rejected")

# Sections that decide the outputs; others say how the work is done, or belong to other commands.
DECISIVE = {"dataset", "validation", "model", "extract", "score", "select", "export", "methods"}

# Versions that can change a number or a byte of the outputs.
PACKAGES = (
    "datasets", "numpy", "pillow", "polars", "pyarrow", "safetensors", "scikit-learn", "scipy", "tokenizers", "torch",
    "torchvision", "transformers",
)  # fmt: skip

Json = dict[str, Any]


def digest_file(path: Path) -> str:
    """sha256 of a file's bytes, as 64 hex digits."""
    with opened(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def describe_file(path: Path) -> Json:
    """{"sha256", "bytes"} of a file."""
    return {"sha256": digest_file(path), "bytes": stamp(path)[0]}


def base_of(layout: Layout) -> Path:
    """The folder that holds every output of the layout: data/ of a workspace, DIR of `--out DIR`."""
    return Path(os.path.commonpath([layout.samples.absolute(), layout.manifest.absolute()]))


def relative(path: Path, start: Path) -> str:
    """`path` as seen from `start`, POSIX separators; both may be relative to the working folder."""
    return Path(os.path.relpath(path.absolute(), start.absolute())).as_posix()


def input_path(path: Path, base: Path) -> str:
    """How an input is recorded: as it was spelled, or relative to the working folder if that holds `base` too."""
    if is_url(path):
        return str(path)
    here = Path.cwd()
    moves_along = base.is_relative_to(here) and path.is_relative_to(here)
    return (path.relative_to(here) if moves_along else path).as_posix()


def describe_run(settings: Settings, layout: Layout, dataset: Json, subset: Json) -> Json:
    """The manifest but for the digests of outputs: what card and Croissant are written from.

    `dataset`: format, rows and files of the input. `subset`: format, files and further exports.
    """
    base = base_of(layout)
    return {
        "schema": SCHEMA,
        "name": settings.export.name,
        "base": relative(base, layout.manifest.parent),
        "root": relative(Path.cwd(), base),
        "layout": {field.name: relative(getattr(layout, field.name), base) for field in dataclasses.fields(layout)},
        "inputs": {"dataset": dataset, "images": _describe_images(layout.samples)},
        "accounting": count_rows(layout.selection),
        "extraction": read_json(layout.features / "extraction.json"),
        "method": describe_method(settings),
        "metrics": {
            "score": read_json(layout.score_metrics) if layout.score_metrics.exists() else {},
            "select": read_json(layout.selection_metrics) if layout.selection_metrics.exists() else {},
        },
        "settings": describe_settings(settings),
        "code": describe_code(),
        "environment": describe_environment(settings),
        "subset": subset,
    }


def write_manifest(facts: Json, layout: Layout, subset_files: Iterable[Path]) -> None:
    """Add the digest of every output, seal, write. The report is written later and is not part of it."""
    base = base_of(layout)
    files = {*_stage_files(layout), *subset_files}
    outputs = {relative(path, base): describe_file(path) for path in sorted(files)}
    write_json(layout.manifest, seal({**facts, "outputs": outputs}))


def seal(content: Mapping[str, Any]) -> Json:
    """The content with `digest` over all of it but `digest` itself and the `record` added after the last stage."""
    return {**content, "digest": digest_content(content)}


def digest_content(content: Mapping[str, Any]) -> str:
    """The digest that `seal` writes."""
    return digest_json({key: value for key, value in content.items() if key not in {"digest", "record"}})


def complete(content: Mapping[str, Any], git: Mapping[str, Any], dvc: Mapping[str, Any]) -> Json:
    """The manifest with its `record` block: the git commit, and the md5 dvc.lock holds for each stage.

    `dvc`: {stage: {"deps": {path: md5}, "outs": {path: md5}}}, each md5 as `locked` gives it. The seal covers the rest
    of the manifest and `record.digest` covers the record, so both can be checked.
    """
    record = {"git": dict(git), "dvc": dict(dvc)}
    return {**content, "record": {**record, "digest": digest_json(record)}}


def locked(entry: Mapping[str, Any]) -> str:
    """What dvc.lock knows a file by: its md5, or "etag ..." for one in object storage; "" where it says neither."""
    return str(entry["md5"]) if "md5" in entry else f"etag {entry['etag']}" if "etag" in entry else ""


def count_rows(selection: Path) -> Json:
    """Row accounting of selection.parquet: rows in = selected + not_selected + set_aside + rejected, and reasons."""
    lines = pl.scan_parquet(selection)
    counts = lines.group_by("status", "reason").agg(pl.len()).sort("status", "reason").collect()
    reasons: dict[str, dict[str, int]] = {status: {} for status in STATUSES}
    for status, reason, count in counts.iter_rows():
        reasons[status][reason] = count
    totals = {status: sum(by_reason.values()) for status, by_reason in reasons.items()}
    exported = lines.select(pl.col("exported").sum()).collect().item()
    return {
        "rows_in": sum(totals.values()),
        **totals,
        "exported": int(exported),
        "reasons": {status: {why: n for why, n in found.items() if why} for status, found in reasons.items()},
    }


def describe_method(settings: Settings) -> Json:
    """The method's name and every option it ran with: defaults included, presets spelled out."""
    from tasks.methods import METHODS  # scipy comes along, and the record of a run does not get here

    name = settings.score.method
    options = METHODS[name].parse(settings.methods.get(name, {}))
    options = options.resolved() if hasattr(options, "resolved") else options
    # Through JSON and back, so that what is sealed is what a reader of the file will see.
    return {"name": name, "options": json.loads(json.dumps(dataclasses.asdict(options)))}


def describe_settings(settings: Settings) -> Json:
    """Every parameter of the five stages, presets spelled out: params.yaml without what never changes a result."""
    method = settings.score.method
    plain = settings.model_copy(
        update={
            "extract": settings.extract.resolved(),
            "methods": {name: options for name, options in settings.methods.items() if name == method},
        }
    )
    return plain.model_dump(mode="json", by_alias=True, include=DECISIVE)


def describe_code() -> Json:
    """Version and digest of the sources that decide the outputs."""
    root = Path(__file__).parent
    sources = {path.relative_to(root).as_posix(): digest_file(path) for path in root.rglob("*.py")}
    return {"package": "scalselect", "version": _version("scalselect"), "digest": digest_json(sources)}


def describe_environment(settings: Settings) -> Json:
    """What may differ between machines: versions, and how the work was done."""
    from tasks.engines.local import list_devices

    return {
        "devices": list_devices(settings.run),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "run": settings.run.model_dump(mode="json"),
    }


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises LineageError naming the file when it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LineageError(f"{path}: no such file; run the stages before it again") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LineageError(f"{path}: not valid JSON ({error}); it was changed after it was written") from None


def _describe_images(samples: Path) -> Json:
    images = pl.scan_parquet(samples).select(pl.col("images").explode().struct.field("sha256")).drop_nulls()
    digests = images.unique().sort("sha256").collect()["sha256"].to_list()
    return {"distinct": len(digests), "digest": digest_json(digests)}


def _stage_files(layout: Layout) -> Iterator[Path]:
    single = (
        layout.samples, layout.rejects, layout.validation, layout.scores, layout.spectrum, layout.score_curve,
        layout.score_metrics, layout.selection, layout.source_mix, layout.selection_metrics, layout.all_rejects,
    )  # fmt: skip
    yield from (path for path in single if path.exists())
    yield from (path for path in layout.features.rglob("*") if path.is_file())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
