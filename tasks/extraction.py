"""Stage 2: measure every sample on the model, once, and lay the features out for scoring.

What was measured before is in the feature store and is not measured again: only rows with new content are. Then
data/features is assembled from the store, with the same rows in every signal.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.anchors import ANCHORED, AnchorSet, assemble_anchors, opened, refuse_anchors
from tasks.assembly import SignalShape, assemble
from tasks.atomic import write_json, write_text
from tasks.digests import unpack
from tasks.engines import run_jobs
from tasks.engines.local import list_devices
from tasks.engines.work import Job, Outcome, name_rows
from tasks.errors import EngineError
from tasks.judge import asked_for, rate
from tasks.layout import Layout
from tasks.mirror import Mirror, mirrored
from tasks.models import Loader, Models, Signals, Vlm
from tasks.params import Settings
from tasks.pending import Census, Spool, take_census
from tasks.progress import Progress, track
from tasks.rates import read_rate, record_rate
from tasks.shards import CorruptShardError, Refusal
from tasks.store import Shelf, collect
from tasks.vlm.description import Description

log = logging.getLogger(__name__)

Rows = NDArray[np.int64]
"""Positions in a census."""

Records = dict[str, dict[str, Any]]
"""What extraction.json says of each signal."""

_REPAIRS = 3
_SYSTEMATIC_ROWS = 8
_CALIBRATION_ROWS = 8


@dataclass(frozen=True)
class Group:
    """Signals extracted together, what is known of them, and where they are kept."""

    signals: Signals
    description: Description
    shelves: dict[str, Shelf]

    def shape(self, signal: str) -> SignalShape:
        """The columns of a signal."""
        return SignalShape(self.description.matrices[signal], self.description.statistics[signal])


@dataclass(frozen=True)
class Plan:
    """What `extract` would do. Rows are distinct samples with images; cached and missing are counted by signal."""

    rows: int
    cached: dict[str, int]
    missing: dict[str, int]
    seconds: float


def extract(settings: Settings, layout: Layout) -> None:
    """Read samples, measure those not in the store, write features/. Raises ModelError, EngineError, DatasetError."""
    extract_with(Vlm(layout.store), settings, layout)


def plan(settings: Settings, layout: Layout) -> Plan:
    """What there is to do, and how long it would take: by the rate of earlier runs, or of a few rows tried now."""
    return plan_with(Vlm(layout.store), settings, layout)


def prune(layout: Layout, store: str | None = None) -> int:
    """Remove from the store what the present features and samples do not use; returns the bytes freed on this disk.

    `store`: URL of a mirror, to remove it there too. Raises StorageError.
    """
    record = layout.features / "extraction.json"
    if not record.is_file():
        return 0
    signals = json.loads(record.read_text(encoding="utf-8"))["signals"].values()
    fingerprints = {one["fingerprint"] for one in signals}
    with mirrored(store, layout.store) as mirror:
        return collect(layout.store, fingerprints, unpack(take_census(layout.samples).digests), mirror)


def extract_with(models: Models, settings: Settings, layout: Layout) -> None:
    """`extract`, on the given models."""
    rated = asked_for(settings.extract)
    census = take_census(layout.samples)
    with mirrored(settings.run.store, layout.store) as mirror:
        groups = _open_groups(models, settings, layout, mirror)
        for shelf in (shelf for group in groups for shelf in group.shelves.values()):
            shelf.publish()
        with opened(settings, layout) as anchors:
            rows, signals = _measure(models, settings, layout, census, groups, anchors)
        if settings.extract.judge is not None and rated:
            signals |= rate(settings.extract.judge, layout, rated, census.rows[rows].tolist(), mirror)
    counts = {"samples": census.total, "with_images": len(census)}
    counts |= {"rows": len(rows), "rejected": len(census) - len(rows)}
    write_json(layout.features / "extraction.json", {**counts, "signals": signals})
    log.info("features of %d rows, %d rejected", len(rows), counts["rejected"])


def plan_with(models: Models, settings: Settings, layout: Layout) -> Plan:
    """`plan`, on the given models."""
    census = take_census(layout.samples)
    distinct = census.distinct()
    cached, missing, seconds = {}, {}, 0.0
    with mirrored(settings.run.store, layout.store) as mirror:
        groups = _open_groups(models, settings, layout, mirror)
    for group in groups:
        for signal, shelf in group.shelves.items():
            found = shelf.find(census.digests[distinct])
            cached[signal] = int((found.extracted | found.refused).sum())
            missing[signal] = len(distinct) - cached[signal]
        for signals, wanted in _missing(census, distinct, group, retry=True):
            rate = read_rate(layout.store, _rate_key(settings, group, signals))
            seconds += len(wanted) / (rate or _calibrate(models, settings, layout, census, signals, wanted))
    return Plan(len(distinct), cached, missing, seconds)


def _measure(
    models: Models, settings: Settings, layout: Layout, census: Census, groups: list[Group], anchors: list[AnchorSet]
) -> tuple[Rows, Records]:
    """Extract what the store lacks and write features/, all but its record; returns the rows in it."""
    retry = True
    for _ in range(_REPAIRS):
        for group in groups:
            _fill(models, settings, layout, census, group, retry)
        for one in anchors:
            _fill(models, settings, replace(layout, samples=one.samples), one.census, _alone(groups, ANCHORED), retry)
        try:
            return _assemble(layout, census, groups, anchors)
        except CorruptShardError as error:
            log.warning("%s; its rows are extracted again", error)
            _discard(groups, error.path)
            retry = False
    raise EngineError(f"{layout.store}: shards are damaged as fast as they are written; is the disk failing?")


def _open_groups(models: Models, settings: Settings, layout: Layout, mirror: Mirror | None) -> list[Group]:
    groups = []
    for signals in models.groups(settings):
        description = models.describe(settings, signals)
        shelves = {signal: Shelf(layout.store, description.fingerprints[signal], mirror) for signal in signals}
        groups.append(Group(signals, description, shelves))
    return groups


def _missing(census: Census, distinct: Rows, group: Group, retry: bool) -> Iterator[tuple[Signals, Rows]]:
    """Which of the distinct rows lack which signals: rows that lack the same ones go together, failed ones last.

    Rows that failed before never share a job with fresh ones, so a resumed run makes the jobs an unbroken one would.
    """
    found = [shelf.find(census.digests[distinct]) for shelf in group.shelves.values()]
    failed = [one.failed for one in found]
    fresh = [~(one.extracted | one.refused | one.failed) for one in found]
    for lacking in (fresh, failed) if retry else (fresh,):
        patterns = np.stack(lacking, axis=1)
        for pattern in np.unique(patterns[patterns.any(axis=1)], axis=0):
            signals = tuple(signal for signal, lacks in zip(group.signals, pattern, strict=True) if lacks)
            yield signals, distinct[(patterns == pattern).all(axis=1)]


def _fill(models: Models, settings: Settings, layout: Layout, census: Census, group: Group, retry: bool) -> None:
    """Extract what the group's shelves lack."""
    for signals, wanted in list(_missing(census, census.distinct(), group, retry)):
        places = census.places[wanted]
        spool = Spool(layout.samples, np.sort(places), layout.store)
        loader = Loader(models, settings, signals, len(list_devices(settings.run)))
        with track(f"extract {', '.join(signals)}", len(wanted)) as progress:
            jobs = spool.jobs(places, settings.run.shard_rows)
            _run(loader, jobs, group, progress)
        record_rate(layout.store, _rate_key(settings, group, signals), progress.rate)
        for shelf in group.shelves.values():
            shelf.refresh()


def _run(loader: Loader, jobs: Iterator[Job], group: Group, progress: Progress) -> None:
    held: dict[int, tuple[str, list[str]]] = {}  # not the jobs: engines take many at once, and texts are long

    def remembered() -> Iterator[Job]:
        for job in jobs:
            held[job.number] = name_rows(job.samples), [sample.digest for sample in job.samples]
            yield job

    for outcome in run_jobs(loader, remembered(), loader.settings.run):
        rows, keys = held.pop(outcome.number)
        if progress.done == 0:
            _refuse_systematic_failure(rows, len(keys), outcome)
        for signal in loader.signals:
            columns = outcome.values.get(signal, {})
            group.shelves[signal].write(outcome.digests, columns, outcome.refusals, keys)
        progress.advance(len(keys))


def _refuse_systematic_failure(rows: str, count: int, outcome: Outcome) -> None:
    """One bad row is a reject; a first shard in which nothing works is a fault of ours or of the set-up."""
    failures = [one for one in outcome.refusals if not one.lasting]
    if len(failures) == count and count >= _SYSTEMATIC_ROWS:
        first = failures[0]
        raise EngineError(f"every row of the first shard failed ({rows}): {first.reason}: {first.detail}")


def _assemble(layout: Layout, census: Census, groups: list[Group], anchors: list[AnchorSet]) -> tuple[Rows, Records]:
    """Write features/ afresh, all but its record. Raises CorruptShardError."""
    refusals = refuse_anchors(anchors)
    good = ~np.isin(np.array(unpack(census.digests), dtype=np.str_), np.array(list(refusals), dtype=np.str_))
    for shelf in (shelf for group in groups for shelf in group.shelves.values()):
        good &= shelf.find(census.digests).extracted
        refusals = shelf.refusals(census.digests) | refusals
    rows = np.flatnonzero(good)
    if len(census) and not len(rows):
        first = next(iter(refusals.values()))
        raise EngineError(f"not one of {len(census)} rows could be extracted: {first.reason}: {first.detail}")
    shutil.rmtree(layout.features, ignore_errors=True)
    signals: Records = {}
    for group in groups:
        for signal in group.signals:
            shape, shelf = group.shape(signal), group.shelves[signal]
            parts = assemble(layout.store, layout.features / signal, shelf, shape, census, rows)
            signals[signal] = _describe_signal(group, signal, shape, parts)
    if anchors:
        shape, shelf = (group := _alone(groups, ANCHORED)).shape(ANCHORED), group.shelves[ANCHORED]
        signals[ANCHORED]["anchors"] = {one.name: assemble_anchors(layout, one, shelf, shape) for one in anchors}
    _write_rejects(layout.features / "rejects.jsonl", census, np.flatnonzero(~good), refusals)
    return rows, signals


def _alone(groups: list[Group], signal: str) -> Group:
    """One signal of its group, as a group."""
    group = next(one for one in groups if signal in one.signals)
    return Group((signal,), group.description, {signal: group.shelves[signal]})


def _describe_signal(group: Group, signal: str, shape: SignalShape, parts: int) -> dict[str, Any]:
    return {
        "fingerprint": group.description.fingerprints[signal],
        "columns": dict(shape.matrices),
        "statistics": {name: str(kind) for name, kind in shape.statistics},
        "parts": parts,
        "record": group.description.record,
    }


def _write_rejects(path: Path, census: Census, rows: Rows, refusals: dict[str, Refusal]) -> None:
    lines = []
    for at, digest in zip(rows, unpack(census.digests[rows]), strict=True):
        why = refusals[digest]
        reject = {
            "row": int(census.rows[at]),
            "id": census.ids[int(at)].as_py(),
            "reason": why.reason,
            "detail": why.detail,
        }
        lines.append(json.dumps(reject, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def _discard(groups: list[Group], path: Path) -> None:
    for shelf in (shelf for group in groups for shelf in group.shelves.values()):
        if shelf.folder == path.parent:
            shelf.discard(path)


def _rate_key(settings: Settings, group: Group, signals: Signals) -> str:
    prints = "+".join(group.description.fingerprints[signal][:16] for signal in signals)
    return f"{settings.run.engine}:{','.join(list_devices(settings.run))}:{prints}"


def _calibrate(
    models: Models, settings: Settings, layout: Layout, census: Census, signals: Signals, wanted: Rows
) -> float:
    """Rows per second over a few rows spread over those wanted, on one device, times the devices."""
    few = wanted[np.unique(np.linspace(0, len(wanted) - 1, _CALIBRATION_ROWS).astype(np.int64))]
    places = census.places[few]
    devices = list_devices(settings.run)
    first, *rest = Spool(layout.samples, np.sort(places), layout.store).take(places)
    work = Loader(models, settings, signals)(devices[0])
    work(Job(0, (first,)))  # the first row pays for what is loaded on first use
    began = time.monotonic()
    work(Job(1, tuple(rest or [first])))
    rate = max(1, len(rest)) / (time.monotonic() - began)
    work.close()
    return rate * len(devices)
