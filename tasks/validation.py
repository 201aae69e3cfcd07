"""Stage 1: every row checked, the good ones written as samples, the others with a reason; then the table as a whole.

Rows stream by: while the rows of one window are judged, the images of the next are being read and decoded. Everything
is written before a failed gate stops the run, so that there is a report to look at.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import polars as pl
from jinja2 import TemplateError

from tasks import image_index, lengths, places
from tasks.atomic import replacing, write_json
from tasks.checks import check_row
from tasks.errors import DatasetError, GateError
from tasks.formats import open_dataset
from tasks.formats.record import Dataset, Row
from tasks.image_index import ImageIndex
from tasks.layout import Layout
from tasks.params import Gates, Settings
from tasks.problem import Problem
from tasks.sample import Sample, digest_sample
from tasks.tables import write_samples
from tasks.tally import Tally, count_reasons, count_sources
from tasks.vlm.recall import identify

if TYPE_CHECKING:
    from tasks.expectations import Gate

log = logging.getLogger(__name__)

WINDOW = 256
HINT = " Image names are looked up under dataset.image_root (default: the dataset's folder)."
SPEAK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A row, and the sample made of it or the problem it is rejected for. `duplicate`: it repeats an accepted row."""

    row: Row
    outcome: Sample | Problem
    duplicate: bool = False


def validate(settings: Settings, layout: Layout) -> None:
    """Check the dataset: writes `samples`, `rejects`, `validation` and `docs` of the layout.

    Raises DatasetError when the dataset cannot be read, ModelError when rows must be measured and the model cannot
    be opened, GateError (after writing everything) when the table fails a gate of params.yaml.
    """
    dataset = open_dataset(settings.dataset)
    named = settings.dataset.image_root
    if named is not None and not places.place(named).is_dir():
        raise DatasetError(f"dataset.image_root: {named}: no such folder")
    limits = settings.validation
    readers = settings.run.workers or (places.READERS if places.is_url(dataset.root) else None)
    with (
        image_index.opened(layout.store / "images.sqlite", limits.maximum_pixels, readers) as images,
        _counting(settings, layout) as count,
    ):
        tally = Tally()
        with replacing(layout.rejects) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as rejects:
            verdicts = _tracked(Judge(settings, images, count).judge_all(dataset))
            write_samples(layout.samples, _accepted(verdicts, rejects, tally))
        files = [_describe(path, dataset.root, images) for path in dataset.files]
    frame = tally.frame()
    gates = _audit(frame, limits.gates, layout.docs)
    write_json(layout.validation, summarise(settings, dataset, files, frame, gates))
    _pass_or_stop(gates, frame, layout)


def _audit(frame: pl.DataFrame, gates: Gates, docs: Path) -> tuple[Gate, ...]:
    """The suite takes seconds to import and talks while it does, so it comes last and quietly."""
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    from tasks.expectations import audit

    return audit(frame, gates, docs)


@contextmanager
def _counting(settings: Settings, layout: Layout) -> Iterator[lengths.Count | None]:
    """What measures a rendered sample, or None when over-long rows are truncated and need no measuring."""
    if settings.model.over_length == "truncate":
        yield None
        return

    def make() -> lengths.Count:
        from tasks.vlm.extractor import token_counter

        return token_counter(settings)

    read = settings.extract.resolved().model_dump(mode="json", include={"preset", "image_size"})
    identity = identify(settings.model, read)
    if identity is None:
        yield make()
        return
    with lengths.opened(layout.store / "lengths.sqlite", identity, make) as counts:
        yield counts


@dataclass
class Judge:
    """Puts rows to the checks of `tasks.checks`: first those that need no image, then the rest."""

    settings: Settings
    images: ImageIndex
    count_tokens: lengths.Count | None
    _seen: dict[bytes, int] = field(default_factory=dict)

    def judge_all(self, rows: Iterable[Row]) -> Iterator[Verdict]:
        """A verdict on every row, in order, whatever order the images come in. Two windows of rows are in memory."""
        stream = iter(rows)
        ahead: list[tuple[Row, Problem | None]] = []
        while window := list(islice(stream, WINDOW)):
            ready, ahead = ahead, self._begin(window)
            yield from self._finish(ready)
        yield from self._finish(ahead)

    def _begin(self, window: list[Row]) -> list[tuple[Row, Problem | None]]:
        checked = [(row, check_row(row)) for row in window]
        for row, problem in checked:
            for ref in row.images if problem is None else ():
                self.images.begin(ref)
        return checked

    def _finish(self, checked: list[tuple[Row, Problem | None]]) -> Iterator[Verdict]:
        for row, problem in checked:
            yield Verdict(row, problem) if problem else self._judge(row)
        self.images.flush()

    def _judge(self, row: Row) -> Verdict:
        sample = self._see(row)
        if isinstance(sample, Problem):
            return Verdict(row, sample)
        if problem := self._check_policy(sample) or self._check_length(sample):
            return Verdict(row, problem)
        first = self._seen.setdefault(bytes.fromhex(sample.digest), sample.row)
        duplicate = first != sample.row
        if duplicate and self.settings.validation.duplicates == "reject":
            return Verdict(row, Problem("duplicate", f"same content as row {first}"), duplicate)
        return Verdict(row, sample, duplicate)

    def _see(self, row: Row) -> Sample | Problem:
        """The row as a sample, its images measured and hashed; or the problem of its first bad image."""
        refs = []
        for ref in row.images:
            found = self.images.finish(ref)
            if found.problem:
                named = ref.name in found.problem.detail
                return found.problem if named else replace(found.problem, detail=f"{ref.name}: {found.problem.detail}")
            refs.append(replace(ref, sha256=found.sha256, width=found.width, height=found.height))
        digest = digest_sample(row.turns, [ref.sha256 for ref in refs])
        return Sample(row.row, row.id, row.source, row.turns, tuple(refs), digest)

    def _check_policy(self, sample: Sample) -> Problem | None:
        if sample.text_only and self.settings.dataset.text_only == "drop":
            return Problem("text_only_dropped", "no image, and dataset.text_only is drop")
        return None

    def _check_length(self, sample: Sample) -> Problem | None:
        """Rendering is the model's own: a chat template may also refuse a conversation that trainers accept."""
        if self.count_tokens is None:
            return None
        try:
            tokens = self.count_tokens(sample)
        except TemplateError as error:
            return Problem("not_renderable", f"the model's chat template refuses it: {error}")
        limit = self.settings.model.max_length
        return Problem("over_max_length", f"{tokens} tokens; model.max_length is {limit}") if tokens > limit else None


def summarise(
    settings: Settings, dataset: Dataset, files: list[dict[str, Any]], frame: pl.DataFrame, gates: Sequence[Gate]
) -> dict[str, Any]:
    """validation.json: the same rows, files and settings give the same bytes, wherever the dataset lies."""
    accepted = int(frame["accepted"].sum())
    return {
        "rows": frame.height,
        "accepted": accepted,
        "rejected": frame.height - accepted,
        "reasons": count_reasons(frame),
        "sources": count_sources(frame),
        "text_only": {"policy": settings.dataset.text_only, "rows": int(frame["text_only"].sum())},
        "duplicates": {"policy": settings.validation.duplicates, "rows": int(frame["duplicate"].sum())},
        "gates": [asdict(gate) for gate in gates],
        "passed": all(gate.passed for gate in gates),
        "dataset": {"format": dataset.format, "files": files},
    }


def _accepted(verdicts: Iterable[Verdict], rejects: TextIO, tally: Tally) -> Iterator[Sample]:
    """Pass the samples on, write the rejected rows down, count both."""
    for verdict in verdicts:
        row, outcome = verdict.row, verdict.outcome
        if isinstance(outcome, Sample):
            tally.add(row, None, verdict.duplicate)
            yield outcome
            continue
        tally.add(row, outcome.reason, verdict.duplicate)
        line = {"row": row.row, "id": row.id, "reason": outcome.reason, "detail": outcome.detail}
        rejects.write(json.dumps(line, ensure_ascii=False) + "\n")


def _tracked(verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
    """Say now and then how far along we are; how many rows a stream holds is known only at its end."""
    began = spoke = time.monotonic()
    count = 0
    for count, verdict in enumerate(verdicts, start=1):
        yield verdict
        if (now := time.monotonic()) - spoke >= SPEAK_SECONDS:
            spoke = now
            log.info("validate: %d rows, %.0f rows/s", count, count / (now - began))
    log.info("validate: %d rows read in %.1f s", count, time.monotonic() - began)


def _describe(path: Path, root: Path, images: ImageIndex) -> dict[str, Any]:
    size, _ = places.stamp(path)
    return {"name": places.name_below(path, root), "bytes": size, "sha256": images.digest_file(path)}


def _pass_or_stop(gates: Sequence[Gate], frame: pl.DataFrame, layout: Layout) -> None:
    accepted, reasons = int(frame["accepted"].sum()), count_reasons(frame)
    frequent = ", ".join(f"{reason} ({count})" for reason, count in list(reasons.items())[:5]) or "none"
    report = layout.docs / "index.html"
    log.info("validate: %d of %d rows accepted; rejects: %s; report: %s", accepted, frame.height, frequent, report)
    failed = [
        f"validate.gates.{gate.name} is {gate.limit:g}, found {gate.value:.6g}" for gate in gates if not gate.passed
    ]
    if failed:
        raise GateError(
            f"{'; '.join(failed)}. Most frequent rejects: {frequent}. "
            f"Every rejected row is in {layout.rejects}, the report at {report}; mend the dataset or move the gate."
            + (HINT if next(iter(reasons), "") == "image_missing" else "")
        )
