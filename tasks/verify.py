"""Check a finished selection against everything its manifest records, naming each thing that is not as recorded.

A file that is out of reach (a dataset on another disk) is said to be so; it is not a mismatch. Files that this product
wrote itself have to be there.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import yaml

from tasks.errors import ScalSelectError
from tasks.findings import Finding, State, Verification
from tasks.finished import Finished, open_finished, record_is_whole
from tasks.formats import Dataset, open_dataset
from tasks.images import read_bytes
from tasks.manifest import Json, count_rows, describe_code, digest_content, digest_file, locked
from tasks.sample import ImageRef, Sample, digest_bytes, digest_sample
from tasks.tables import read_samples


def verify(subset: Path, recompute: int = 0) -> Verification:
    """Hash everything recorded again; with `recompute`, measure that many rows again and score all rows again.

    `subset` is the output folder, a file in it, or the manifest. Raises LineageError when there is no manifest to
    check against; every other fault is a finding.
    """
    finished = open_finished(subset)
    checks: list[Callable[[Finished], Iterator[Finding]]] = [*CHECKS]
    if recompute:
        # Loads the model, with torch and transformers.
        from tasks.recompute import compare_features, compare_scores

        checks += [lambda one: compare_features(one, recompute), compare_scores]
    return Verification(tuple(finding for check in checks for finding in _guarded(check, finished)))


def check_manifest(finished: Finished) -> Iterator[Finding]:
    """The manifest still has the digest it was sealed with, and so has its record of git and DVC."""
    yield _compare(finished.manifest.name, finished.content["digest"], digest_content(finished.content))
    record = finished.record()
    if record is not None and not record_is_whole(record):
        yield Finding("record", "mismatch", "the git and dvc record was changed after it was written")


def check_outputs(finished: Finished) -> Iterator[Finding]:
    """Every file of every stage."""
    for name, recorded in finished.content["outputs"].items():
        yield _check_file(name, finished.base / name, recorded["sha256"], missing="mismatch")


def check_dataset(finished: Finished) -> Iterator[Finding]:
    """The files the rows came from."""
    for file in finished.content["inputs"]["dataset"]["files"]:
        yield _check_file(file["path"], finished.find(file["path"]), file["sha256"])


def check_models(finished: Finished) -> Iterator[Finding]:
    """Every file the models were read from."""
    records = [entry.get("record", {}) for entry in finished.extraction().get("signals", {}).values()]
    files = {(one["model"], one["commit"], name): sha for one in records for name, sha in one["files"].items()}
    for (model, commit, name), sha256 in sorted(files.items()):
        yield _check_file(f"{model}/{name}", _model_file(finished, model, commit, name), sha256)


def check_accounting(finished: Finished) -> Iterator[Finding]:
    """The counts of the manifest are those of selection.parquet, and every row in is accounted for."""
    counted, recorded = count_rows(finished.output("selection")), finished.content["accounting"]
    wrong = [key for key in counted if counted[key] != recorded.get(key)]
    detail = ", ".join(f"{key} is {counted[key]}, recorded {recorded.get(key)}" for key in wrong)
    yield Finding("accounting", "mismatch" if wrong else "ok", detail)


def check_rows(finished: Finished) -> Iterator[Finding]:
    """Each exported row: its images' bytes, and its digest from its turns and those bytes."""
    known: dict[tuple[str, str], str | None] = {}
    count = 0
    for sample in exported_samples(finished):
        for image in sample.images:
            key = (image.path, image.member)
            if key not in known:
                known[key] = _hash_image(finished, image)
                yield from _check_image(image, known[key])
        if digest_sample(sample.turns, [image.sha256 for image in sample.images]) != sample.digest:
            yield Finding(f"row {sample.row}", "mismatch", "its digest is not that of its turns and images")
        count += 1
    yield Finding(f"{count} exported rows, {len(known)} images", "ok")


def check_subset(finished: Finished) -> Iterator[Finding]:
    """The subset is what the dataset's own rows, at the recorded positions, give when written again."""
    dataset = _open_dataset(finished)
    if dataset is None:
        yield Finding("subset", "unreachable", "the dataset is not here, so its rows cannot be compared")
        return
    rows = {sample.row: sample for sample in exported_samples(finished)}
    changed = [row.row for row in dataset if row.row in rows and row.turns != rows[row.row].turns]
    for row in changed:
        yield Finding(f"row {row}", "mismatch", "the dataset now says something else")
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / f"subset{dataset.extension}"
        dataset.write_native((row for row in dataset if row.row in rows), again)
        name = finished.content["subset"]["files"][0]
        present = finished.output("subset") / name
        yield _compare(f"{name} written again", digest_file(present), digest_file(again))


def check_dvc(finished: Finished) -> Iterator[Finding]:
    """dvc.lock still holds the recorded md5s, and the files of one piece have them."""
    record = finished.record()
    if record is None or not record["dvc"]:
        return
    lock = finished.root / "dvc.lock"
    if not lock.is_file():
        yield Finding("dvc.lock", "unreachable", "no such file in the workspace")
        return
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    for stage, sides in record["dvc"].items():
        for side, files in sides.items():
            held = {one["path"]: locked(one) for one in stages.get(stage, {}).get(side, [])}
            for path, md5 in files.items():
                yield _compare(f"dvc.lock {stage} {path}", md5, held.get(path))
                if side == "outs" and (lock.parent / path).is_file():
                    yield _compare(f"md5 of {path}", md5, _md5(lock.parent / path))


def check_code(finished: Finished) -> Iterator[Finding]:
    """Whether the code that checks is the code that made it; other code is worth knowing, not wrong."""
    made, here = finished.content["code"], describe_code()
    if made["digest"] != here["digest"]:
        detail = (
            f"made by {made['version']} ({made['digest'][:12]}), checked by {here['version']} ({here['digest'][:12]})"
        )
        yield Finding("code", "note", detail)


CHECKS = (
    check_manifest,
    check_outputs,
    check_dataset,
    check_models,
    check_accounting,
    check_rows,
    check_subset,
    check_dvc,
    check_code,
)


def exported_samples(finished: Finished) -> Iterator[Sample]:
    """Samples that the subset holds, in row order."""
    lines = pl.scan_parquet(finished.output("selection")).filter(pl.col("exported")).select("row").collect()
    rows = set(lines["row"].to_list())
    return (sample for sample in read_samples(finished.output("samples")) if sample.row in rows)


def _guarded(check: Callable[[Finished], Iterator[Finding]], finished: Finished) -> Iterator[Finding]:
    """A check that stumbles over a damaged file is a finding, and the others still run."""
    try:
        yield from check(finished)
    except (
        ScalSelectError,
        OSError,
        pa.ArrowException,
        pl.exceptions.PolarsError,
        ValueError,
        KeyError,
        TypeError,
    ) as error:
        name = getattr(check, "__name__", "recompute").removeprefix("check_")
        yield Finding(name, "mismatch", f"cannot be checked: {type(error).__name__}: {error}")


def _check_file(name: str, path: Path | None, sha256: str, missing: State = "unreachable") -> Finding:
    if path is None or not path.is_file():
        return Finding(name, missing, "no such file")
    return _compare(name, sha256, digest_file(path))


def _compare(name: str, recorded: object, found: object) -> Finding:
    if recorded == found:
        return Finding(name, "ok")
    return Finding(name, "mismatch", f"recorded {recorded}, found {found}")


def _model_file(finished: Finished, model: str, commit: str, name: str) -> Path | None:
    if not commit:
        folder = finished.find(model)
        return folder / name if folder else None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, name, revision=commit)
    return Path(cached) if isinstance(cached, str) else None


def _hash_image(finished: Finished, image: ImageRef) -> str | None:
    path = finished.find(image.path)
    return None if path is None else digest_bytes(read_bytes(replace(image, path=str(path))))


def _check_image(image: ImageRef, found: str | None) -> Iterator[Finding]:
    name = f"{image.path} {image.member}".strip()
    if found is None:
        yield Finding(name, "unreachable", "no such file")
    elif found != image.sha256:
        yield Finding(name, "mismatch", f"recorded {image.sha256}, found {found}")


def _open_dataset(finished: Finished) -> Dataset | None:
    settings = finished.settings().dataset
    recorded: list[Json] = finished.content["inputs"]["dataset"]["files"]
    if any(finished.find(file["path"]) is None for file in recorded):
        return None
    return open_dataset(settings)


def _md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
