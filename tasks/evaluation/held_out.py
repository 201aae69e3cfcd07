"""Held-out tasks: questions read from any dataset format, and the proof that none of them lies in the pool."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.cells import RowRef, read_row
from tasks.checks import check_row
from tasks.errors import DatasetError, InputError, ParamsError
from tasks.formats import Row, open_dataset
from tasks.formats.webdataset import read_fields
from tasks.images import fetch
from tasks.params import DatasetSettings, EvaluateSettings, TaskSettings
from tasks.problem import Problem
from tasks.sample import Sample, digest_bytes, digest_json, digest_sample
from tasks.tables import read_samples

_SHOWN = 5


@dataclass(frozen=True)
class Task:
    """A held-out task: each sample's last answer is asked for, and compared with its references by `metric`."""

    name: str
    metric: str
    samples: tuple[Sample, ...]
    references: tuple[tuple[str, ...], ...]

    @property
    def digest(self) -> str:
        """Identity of what is asked and how it is scored."""
        asked = [[sample.digest, list(answers)] for sample, answers in zip(self.samples, self.references, strict=True)]
        return digest_json({"metric": self.metric, "asked": asked})


def read_tasks(evaluate: EvaluateSettings) -> list[Task]:
    """The tasks of `evaluate.tasks`. Raises ParamsError when there is none, DatasetError naming a row to mend."""
    if not evaluate.tasks:
        raise ParamsError(
            "evaluate.tasks: name at least one held-out task, for example {vqa: {path: vqa.json, image_root: images}}"
        )
    return [_read_task(name, settings) for name, settings in evaluate.tasks.items()]


def check_apart(pool: Path, tasks: Sequence[Task]) -> None:
    """Refuse held-out rows that repeat a row of the pool, or show one of its images, whatever the files are called.

    pool: samples.parquet. Raises InputError naming the rows.
    """
    rows: dict[str, int] = {}
    images: dict[str, int] = {}
    for sample in read_samples(pool):
        rows.setdefault(sample.digest, sample.row)
        for image in sample.images:
            images.setdefault(image.sha256, sample.row)
    found = [line for task in tasks for line in _overlaps(task, rows, images)]
    if found:
        shown = "\n".join(f"  {line}" for line in found[:_SHOWN])
        left = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise InputError(
            f"{len(found)} held-out rows are not held out; take them out of the task or the pool:\n{shown}{left}"
        )


def _overlaps(task: Task, rows: dict[str, int], images: dict[str, int]) -> Iterator[str]:
    for sample in task.samples:
        if sample.digest in rows:
            yield f"evaluate.tasks.{task.name}: row {sample.row} is row {rows[sample.digest]} of the dataset"
            continue
        for image in sample.images:
            if image.sha256 in images:
                yield (
                    f"evaluate.tasks.{task.name}: row {sample.row} shows {image.name}, "
                    f"an image of row {images[image.sha256]} of the dataset"
                )
                break


def read_clean(settings: DatasetSettings, label: str) -> Iterator[tuple[Row, Sample]]:
    """Every row with its sample. Raises DatasetError, beginning with `label`, at a row that has a problem.

    Such a row is refused, not skipped: scores must mean the same rows for everyone.
    """
    for row in open_dataset(settings):
        problem, images = check_row(row), []
        for ref in row.images if problem is None else ():
            data = fetch(ref)
            if isinstance(data, Problem):
                problem = data
                break
            images.append(replace(ref, sha256=digest_bytes(data)))
        if problem:
            raise DatasetError(f"{label}: row {row.row} (id {row.id}): {problem.reason}: {problem.detail}")
        digest = digest_sample(row.turns, [image.sha256 for image in images])
        yield row, Sample(row.row, row.id, row.source, row.turns, tuple(images), digest)


def _read_task(name: str, settings: TaskSettings) -> Task:
    dataset = DatasetSettings(path=settings.path, image_root=settings.image_root)
    pairs = list(read_clean(dataset, f"evaluate.tasks.{name}"))
    if not pairs:
        raise DatasetError(f"evaluate.tasks.{name}: {settings.path} holds no rows")
    references = tuple(_references(row, sample) for row, sample in pairs)
    return Task(name, settings.metric, tuple(sample for _, sample in pairs), references)


def _references(row: Row, sample: Sample) -> tuple[str, ...]:
    """The accepted answers: the row's own list `answers` (texts, or VQA's {"answer": text}), else the last turn."""
    given = own_field(row.original, "answers")
    if isinstance(given, list) and given:
        texts: list[Any] = [one.get("answer") if isinstance(one, dict) else one for one in given]
        if all(isinstance(one, str) for one in texts):
            return tuple(texts)
    return (sample.turns[-1].content.strip(),)


def own_field(original: Any, name: str) -> Any:
    """A field of a row as its file has it, whatever the format; None where there is none."""
    if isinstance(original, str):
        return json.loads(original).get(name)
    if isinstance(original, RowRef):
        table = read_row(original)
        return table[name][0].as_py() if name in table.column_names else None
    fields = read_fields(original)
    return fields.get(name) if isinstance(fields, dict) else None
