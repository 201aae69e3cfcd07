"""Measure rows of a finished selection again with the real model, and score all rows again from its features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.engines.local import list_devices
from tasks.engines.work import Job
from tasks.features import FeatureTable
from tasks.findings import Finding
from tasks.finished import Finished
from tasks.methods import METHODS
from tasks.models import Loader, Signals, Vlm
from tasks.params import Settings
from tasks.pool import read_pool
from tasks.sample import Sample, digest_json
from tasks.tables import read_samples

# Largest change of a row relative to its own norm, by the precision it was computed in.
TOLERANCE = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 8e-2}
SCORE_TOLERANCE = 1e-6


def compare_features(finished: Finished, count: int) -> Iterator[Finding]:
    """Extract `count` rows again, the same ones every time, and compare with the recorded features."""
    settings = finished.settings()
    for signals in Vlm().groups(settings):
        described = Vlm().describe(settings, signals)
        for signal in signals:
            recorded = finished.extraction()["signals"][signal]["fingerprint"]
            found = described.fingerprints[signal]
            if recorded != found:
                detail = f"recorded {recorded}, found {found}: model, processor or settings are others"
                yield Finding(f"fingerprint of {signal}", "mismatch", detail)
        yield from _compare_group(finished, settings, signals, str(described.record["dtype"]), count)


def compare_scores(finished: Finished) -> Iterator[Finding]:
    """Score every row again from the recorded features; the scores and their order have to come out the same."""
    settings = finished.settings()
    method = METHODS[settings.score.method]
    options = method.parse(settings.methods.get(method.name, {}))
    pool = read_pool(finished.layout(), method.signals(options), settings.extract.pooled)
    scores = pl.read_parquet(finished.output("scores"))
    if scores["row"].to_list() != pool.rows.tolist():
        yield Finding("scores", "mismatch", "other rows were scored than have features")
        return
    again = method.score(pool.tables, options)["score"]
    recorded = scores["score"].to_numpy()
    scale = np.abs(recorded).max(initial=0.0) or 1.0
    wrong = np.flatnonzero(~(np.abs(again - recorded) <= SCORE_TOLERANCE * scale))
    for at in wrong[:10]:
        yield Finding(
            f"score of row {scores['row'][int(at)]}", "mismatch", f"recorded {recorded[at]}, found {again[at]}"
        )
    if len(wrong) > 10:
        yield Finding("scores", "mismatch", f"{len(wrong) - 10} more rows score differently")
    if not len(wrong):
        yield Finding(f"{len(recorded)} scores computed again", "ok")


def choose(rows: Mapping[int, str], seed: str, count: int) -> list[int]:
    """`count` of the rows (row -> digest), spread by chance but always the same for one manifest."""
    return sorted(sorted(rows, key=lambda row: digest_json([seed, rows[row]]))[:count])


def _compare_group(
    finished: Finished, settings: Settings, signals: Signals, dtype: str, count: int
) -> Iterator[Finding]:
    tables = {signal: FeatureTable(finished.output("features") / signal) for signal in signals}
    first = tables[signals[0]]
    places = {int(row): place for place, row in enumerate(first.rows)}
    rows = choose(dict(zip(places, map(str, first.digests), strict=True)), finished.content["digest"], count)
    wanted = _samples(finished, rows)
    samples = [one for one in wanted if all(finished.find(image.path) for image in one.images)]
    for sample in wanted:
        if sample not in samples:
            yield Finding(f"{signals[0]} of row {sample.row}", "unreachable", "its images are not here")
    if not samples:
        return
    outcome = Loader(Vlm(), settings, signals)(list_devices(settings.run)[0])(Job(0, tuple(samples)))
    for refusal in outcome.refusals:
        yield Finding(
            f"sample {refusal.digest[:12]}", "mismatch", f"cannot be extracted: {refusal.reason}: {refusal.detail}"
        )
    done = {digest: at for at, digest in enumerate(outcome.digests)}
    for sample in samples:
        if sample.digest not in done:
            continue
        for signal, table in tables.items():
            new = {name: values[done[sample.digest]] for name, values in outcome.values[signal].items()}
            yield _compare_row(f"{signal} of row {sample.row}", table, places[sample.row], new, TOLERANCE[dtype])


def _compare_row(
    name: str, table: FeatureTable, place: int, new: Mapping[str, NDArray[np.generic]], tolerance: float
) -> Finding:
    worst = 0.0
    for column, values in new.items():
        at = np.array([place])
        old = table.matrix(column).take(at)[0] if column in table.matrices else table.column(column)[at]
        worst = max(worst, distance(np.atleast_1d(old).astype(float), np.atleast_1d(values).astype(float)))
    if worst <= tolerance:
        return Finding(name, "ok")
    return Finding(name, "mismatch", f"differs by {worst:.2g} of its norm; {tolerance:g} is allowed")


def distance(old: NDArray[np.float64], new: NDArray[np.float64]) -> float:
    """Norm of the difference over the norm of `old`; infinite when either is not finite where the other is."""
    if not np.array_equal(np.isnan(old), np.isnan(new)):
        return float("inf")
    difference = float(np.linalg.norm(np.nan_to_num(new - old)))
    norm = float(np.linalg.norm(np.nan_to_num(old)))
    return difference / norm if norm else (0.0 if difference == 0 else float("inf"))


def _samples(finished: Finished, rows: Sequence[int]) -> list[Sample]:
    """The samples of `rows`, their images named as they are reached from here."""
    wanted = set(rows)
    found = (sample for sample in read_samples(finished.output("samples")) if sample.row in wanted)
    return [replace(one, images=tuple(replace(i, path=_reach(finished, i.path)) for i in one.images)) for one in found]


def _reach(finished: Finished, path: str) -> str:
    return str(finished.find(path) or path)
