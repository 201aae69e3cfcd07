"""One row of a subset, walked back to everything it came from.

subset -> rank and score -> feature shards -> sample -> images -> model tensors -> parameters -> DVC and git
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from tasks.errors import LineageError
from tasks.finished import Finished, open_finished
from tasks.manifest import Json

_SHOWN = 100  # characters of a turn


@dataclass(frozen=True)
class Step:
    """One link of the chain: its name, and what is known there, in the order to show it."""

    name: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Trace:
    """The steps from the subset back to the parameters; its text is what the command line prints."""

    steps: tuple[Step, ...]

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __str__(self) -> str:
        return "\n".join(line for step in self.steps for line in _lines(step))


def trace(subset: Path, row: int | None = None, id: str | None = None) -> Trace:  # noqa: A002
    """Walk a row back, or without one the whole subset. `row` is the position in the dataset, `id` the dataset's own.

    `subset` is the output folder, a file in it, or the manifest. Rows that were not selected have a story too. Raises
    LineageError for a row or id that the dataset does not have, an id that several rows share, and missing records.
    """
    finished = open_finished(subset)
    if row is None and id is None:
        return Trace(tuple(_walk_subset(finished)))
    return Trace(tuple(_walk_row(finished, _row_of(finished, id) if row is None else row)))


def _lines(step: Step) -> Iterator[str]:
    yield step.name
    width = max((len(key) for key in step.facts), default=0)
    for key, value in step.facts.items():
        yield f"  {key:<{width}}  {value}"


def _walk_subset(finished: Finished) -> Iterator[Step]:
    content = finished.content
    counts = content["accounting"]
    files = {name: _of_output(finished, finished.output("subset") / name) for name in content["subset"]["files"]}
    yield Step("subset", {"exported": counts["exported"], **files})
    yield Step(
        "selection", {key: counts[key] for key in ("rows_in", "selected", "not_selected", "set_aside", "rejected")}
    )
    yield Step("score", {"method": content["method"]["name"], **content["method"]["options"]})
    for signal, entry in _signals(finished):
        yield Step(f"features {signal}", {"parts": entry.get("parts"), "fingerprint": entry.get("fingerprint")})
    inputs = content["inputs"]
    data = {file["path"]: f"sha256 {file['sha256']}" for file in inputs["dataset"]["files"]}
    yield Step("dataset", {"format": inputs["dataset"]["format"], "rows": inputs["dataset"]["rows"], **data})
    yield Step("images", {"distinct": inputs["images"]["distinct"], "digest": inputs["images"]["digest"]})
    yield from _shared(finished)


def _walk_row(finished: Finished, row: int) -> Iterator[Step]:
    line = _find(finished.output("selection"), row)
    if line is None:
        last = finished.content["accounting"]["rows_in"] - 1
        raise LineageError(f"row {row}: the dataset has rows 0 to {last}")
    yield _subset_step(finished, line)
    score = _find(finished.output("scores"), row)
    if score is not None:
        kept = {key: value for key, value in score.items() if key not in {"row", "id", "digest"}}
        yield Step("score", {"method": finished.content["method"]["name"], **kept})
    yield from _feature_steps(finished, row)
    sample = _find(finished.output("samples"), row)
    if sample is not None:
        yield _sample_step(finished, sample)
        yield from (_image_step(number, image) for number, image in enumerate(sample["images"]))
    yield from _shared(finished)


def _subset_step(finished: Finished, line: Json) -> Step:
    facts: Json = {"row": line["row"], "id": line["id"], "status": line["status"]}
    if line["reason"]:
        facts |= {"reason": line["reason"], **_detail(finished, line["row"])}
    if line["position"] is not None:
        facts["position"] = line["position"]
    if line["exported"]:
        lines = pl.scan_parquet(finished.output("selection")).filter(pl.col("exported"), pl.col("row") < line["row"])
        facts["line"] = lines.select(pl.len()).collect().item()
        facts["files"] = ", ".join(finished.content["subset"]["files"])
    return Step("subset", facts)


def _detail(finished: Finished, row: int) -> Json:
    """What exactly was wrong with a rejected row."""
    with _present(finished.output("all_rejects")).open(encoding="utf-8") as lines:
        return next(({"detail": one["detail"]} for one in map(json.loads, lines) if one["row"] == row), {})


def _feature_steps(finished: Finished, row: int) -> Iterator[Step]:
    for signal, entry in _signals(finished):
        for part in sorted((finished.output("features") / signal).glob("*.parquet")):
            rows = pq.read_table(part, columns=["row"])["row"].to_numpy()
            places = (rows == row).nonzero()[0]
            if len(places):
                facts = {"shard": _of_base(finished, part), "offset": int(places[0]), "columns": entry.get("columns")}
                yield Step(f"features {signal}", {**facts, "fingerprint": entry.get("fingerprint")})
                break


def _sample_step(finished: Finished, sample: Json) -> Step:
    turns = {f"turn {n}": f"{turn['role']}: {_shorten(turn['content'])}" for n, turn in enumerate(sample["turns"])}
    files = ", ".join(file["path"] for file in finished.content["inputs"]["dataset"]["files"])
    return Step("sample", {"dataset": files, "source": sample["source"], "digest": sample["digest"], **turns})


def _image_step(number: int, image: Json) -> Step:
    where = {"member": image["member"]} if image["member"] else {}
    size = f"{image['width']} x {image['height']}"
    return Step(f"image {number}", {"path": image["path"], **where, "sha256": image["sha256"], "size": size})


def _shared(finished: Finished) -> Iterator[Step]:
    """What every row of a subset has in common: model, parameters, code, and the refresh it belongs to."""
    for signal, entry in _signals(finished):
        yield Step(f"model {signal}", _model_facts(entry.get("record", {})))
    yield Step("parameters", dict(_flatten(finished.content["settings"])))
    code = finished.content["code"]
    yield Step("code", {"version": code["version"], "digest": code["digest"]})
    yield Step("manifest", {"path": _of_base(finished, finished.manifest), "digest": finished.content["digest"]})
    yield from _record_steps(finished)


def _model_facts(record: Json) -> Json:
    plain = {key: value for key, value in record.items() if key != "files" and value not in (None, "")}
    return {**plain, **{f"file {name}": f"sha256 {digest}" for name, digest in record.get("files", {}).items()}}


def _record_steps(finished: Finished) -> Iterator[Step]:
    record = finished.record()
    if record is None:
        return
    if record["git"]:
        yield Step("git", record["git"])
    for stage, sides in record["dvc"].items():
        files = {path: _label(value) for side in sides.values() for path, value in side.items()}
        # The hundred source files would bury the data, and the step `code` has their digest.
        yield Step(f"dvc {stage}", {path: known for path, known in files.items() if Path(path).parts[0] != "tasks"})


def _label(locked: str) -> str:
    return locked if locked.startswith("etag ") else f"md5 {locked}"


def _row_of(finished: Finished, identity: str | None) -> int:
    lines = pl.scan_parquet(finished.output("selection")).filter(pl.col("id") == identity).select("row").collect()
    rows = lines["row"].to_list()
    if not rows:
        raise LineageError(f"id `{identity}`: no row of the dataset has it; name a row with --row")
    if len(rows) > 1:
        raise LineageError(f"id `{identity}`: rows {', '.join(map(str, rows))} share it; name one with --row")
    return int(rows[0])


def _find(table: Path, row: int) -> Json | None:
    found = pl.scan_parquet(_present(table)).filter(pl.col("row") == row).collect().to_dicts()
    return found[0] if found else None


def _present(file: Path) -> Path:
    if not file.exists():
        raise LineageError(f"{file}: no such file; fetch the outputs (`dvc pull`) or run again")
    return file


def _signals(finished: Finished) -> list[tuple[str, Json]]:
    return sorted(finished.extraction().get("signals", {}).items())


def _of_output(finished: Finished, path: Path) -> str:
    recorded = finished.content["outputs"].get(_of_base(finished, path), {})
    return f"sha256 {recorded.get('sha256', 'not recorded')}"


def _of_base(finished: Finished, path: Path) -> str:
    whole = path.resolve()
    return whole.relative_to(finished.base).as_posix() if whole.is_relative_to(finished.base) else path.as_posix()


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys that were given a value; null and empty ones are defaults that say nothing."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif value not in (None, [], ""):
            yield f"{prefix}{key}", value


def _shorten(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN else flat[: _SHOWN - 1] + "…"
