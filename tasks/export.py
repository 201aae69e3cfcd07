"""Stage 5: the subset as files that trainers load, and the record of how it came about.

    native subset -> further formats -> ids, rejects -> Croissant -> card -> manifest -> report

Rows keep the dataset's order, so line n of ids.csv is row n of every file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from tasks.atomic import replacing, write_json, write_text
from tasks.card import write_card
from tasks.croissant import describe_subset
from tasks.errors import InputError, LineageError
from tasks.formats import WRITERS, Dataset, PathPolicy, Row, open_dataset
from tasks.layout import Layout
from tasks.manifest import base_of, describe_file, describe_run, input_path, read_json, relative, write_manifest
from tasks.params import Settings
from tasks.sample import Sample
from tasks.tables import read_samples

log = logging.getLogger(__name__)


def export(settings: Settings, layout: Layout) -> None:
    """Write the subset and its records. Raises DatasetError, LineageError when the dataset changed since validation."""
    # The report draws with matplotlib, which nothing else here needs.
    from tasks import report

    for path in (layout.samples, layout.scores, layout.selection):
        if not path.exists():
            raise InputError(f"{path}: no such file; run the stages before `export` first")
    dataset = open_dataset(settings.dataset)
    rows = _exported_rows(layout.selection)
    native = layout.subset / f"subset{dataset.extension}"
    if any(native.resolve() == path.resolve() for path in dataset.files):
        raise InputError(f"{native}: the subset would overwrite the dataset it is chosen from; name another folder")
    _forget_previous(layout)
    dataset.write_native((row for row, _ in _pair(dataset, layout.samples, rows)), native)
    further = _write_further(settings, layout, dataset, rows)
    ids = layout.subset / "ids.csv"
    write_ids(layout, ids)
    write_rejects(layout)
    described = [native, *(path for paths in further.values() for path in paths), ids]
    source, subset = _describe_dataset(dataset, layout), _describe_subset(dataset, layout, native, further)
    facts = describe_run(settings, layout, source, subset)
    files = [*described, *_write_descriptions(facts, layout, described)]
    write_manifest(facts, layout, files)
    report.write(layout, settings)
    log.info("exported %d rows to %s", len(rows), native)


def write_ids(layout: Layout, path: Path) -> None:
    """ids.csv: row, id, digest, source, status, position, score, rank of every exported row, in the dataset's order."""
    scores = pl.scan_parquet(layout.scores).select("row", "score", "rank")
    lines = pl.scan_parquet(layout.selection).filter(pl.col("exported")).join(scores, on="row", how="left").sort("row")
    columns = ("row", "id", "digest", "source", "status", "position", "score", "rank")
    with replacing(path) as temporary:
        lines.select(columns).collect().write_csv(temporary)


def write_rejects(layout: Layout) -> None:
    """One line for every rejected row of the selection, with the detail that the stage which rejected it left."""
    details = _read_rejects(layout.rejects) | _read_rejects(layout.features / "rejects.jsonl")
    rejected = pl.scan_parquet(layout.selection).filter(pl.col("status") == "rejected").sort("row")
    lines = []
    for row, identity, reason in rejected.select("row", "id", "reason").collect().iter_rows():
        line = details.get(row, {"row": row, "id": identity, "reason": reason, "detail": ""})
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_text(layout.all_rejects, "".join(lines))


def _read_rejects(path: Path) -> dict[int, dict[str, Any]]:
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text(encoding="utf-8").split("\n")[:-1])
    return {line["row"]: line for line in lines}


def _exported_rows(selection: Path) -> frozenset[int]:
    rows = pl.scan_parquet(selection).filter(pl.col("exported")).select("row").collect()["row"]
    return frozenset(rows.to_list())


def _pair(dataset: Dataset, samples: Path, rows: frozenset[int]) -> Iterator[tuple[Row, Sample]]:
    """Exported rows as the dataset has them, each with its sample. Raises LineageError when they do not agree."""
    originals = (row for row in dataset if row.row in rows)
    wanted = (sample for sample in read_samples(samples) if sample.row in rows)
    count = 0
    for original, sample in zip(originals, wanted, strict=False):
        if (original.row, original.turns) != (sample.row, sample.turns):
            raise LineageError(f"{_name(dataset)}: row {sample.row} is not the row that was validated; run again")
        count += 1
        yield original, sample
    if count != len(rows):
        raise LineageError(f"{_name(dataset)}: {len(rows) - count} selected rows are gone since validation; run again")


def _name(dataset: Dataset) -> str:
    return str(dataset.files[0] if dataset.files else dataset.root)


def _write_further(settings: Settings, layout: Layout, dataset: Dataset, rows: frozenset[int]) -> dict[str, list[Path]]:
    paths = PathPolicy.of(settings.export)
    return {
        name: WRITERS[name](
            ((sample, row.original) for row, sample in _pair(dataset, layout.samples, rows)),
            layout.subset / name,
            paths,
        )
        for name in dict.fromkeys(settings.export.formats)
    }


def _write_descriptions(facts: dict[str, Any], layout: Layout, described: list[Path]) -> list[Path]:
    croissant, card = layout.subset / "croissant.json", layout.subset / "README.md"
    write_json(croissant, describe_subset(facts, layout.subset, described))
    write_text(card, write_card(facts))
    return [croissant, card]


def _describe_dataset(dataset: Dataset, layout: Layout) -> dict[str, Any]:
    return {
        "format": dataset.format,
        "rows": pl.scan_parquet(layout.selection).select(pl.len()).collect().item(),
        "files": [{"path": input_path(path, base_of(layout)), **describe_file(path)} for path in dataset.files],
    }


def _describe_subset(dataset: Dataset, layout: Layout, native: Path, further: dict[str, list[Path]]) -> dict[str, Any]:
    """What the subset is made of; files are relative to its folder."""
    return {
        "format": dataset.format,
        "files": [relative(native, layout.subset)],
        "exports": {name: [relative(path, layout.subset) for path in paths] for name, paths in further.items()},
    }


def _forget_previous(layout: Layout) -> None:
    """Remove what the last export wrote: a format no longer asked for must not lie beside the new subset."""
    if not layout.manifest.exists():
        return
    try:
        subset = read_json(layout.manifest)["subset"]
        names = [*subset["files"], *(name for files in subset["exports"].values() for name in files)]
    except (LineageError, KeyError, TypeError):
        return  # not ours, or broken: every file this run writes replaces its predecessor anyway
    folder = layout.subset.resolve()
    for path in (folder / name for name in names):
        if path.resolve().is_relative_to(folder):
            path.unlink(missing_ok=True)
            _drop_empty(path.parent, folder)
    layout.manifest.unlink()


def _drop_empty(inner: Path, outer: Path) -> None:
    """Remove `inner` and the folders above it, below `outer`, as far as they are empty."""
    while inner != outer and inner.is_dir() and not any(inner.iterdir()):
        inner.rmdir()
        inner = inner.parent
