"""Every row of the dataset has one line in the selection: what became of it, and why. Rows never vanish.

rows in = selected + not_selected + set_aside + rejected.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.atomic import replacing
from tasks.errors import FeatureError
from tasks.layout import Layout
from tasks.tables import SELECTION

STATUSES = ("selected", "not_selected", "set_aside", "rejected")

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Intake:
    """What the stages before selection left: rows in, the accepted samples, and the rejected rows of every stage.

    samples: Arrow table of row, id, source, digest, text_only, n_turns, characters; in row order.
    """

    rows: int
    samples: pa.Table
    rejects: tuple[Mapping[str, Any], ...]


def read_intake(layout: Layout) -> Intake:
    """Read validation.json, the samples and both files of rejects."""
    columns = ["row", "id", "source", "digest", "text_only", "n_turns", "characters"]
    report = json.loads(layout.validation.read_text(encoding="utf-8"))
    rejects = [*_read_lines(layout.rejects), *_read_lines(layout.features / "rejects.jsonl")]
    return Intake(int(report["rows"]), pq.read_table(layout.samples, columns=columns), tuple(rejects))


def account(intake: Intake, scored: Rows, picks: Rows, refused: Mapping[int, str], export_aside: bool) -> pa.Table:
    """The selection table, one line for each row of the dataset, in row order.

    scored: dataset rows with a score; picks: those selected, best first; refused: dataset row -> limit that refused it.
    export_aside: whether rows set aside are exported. Raises FeatureError naming a row that no stage accounts for.
    """
    lines: list[dict[str, Any] | None] = [None] * intake.rows
    known = {int(line["row"]): line for line in intake.samples.to_pylist()}
    positions = {int(row): place for place, row in enumerate(picks)}
    for line in intake.rejects:
        row = int(line["row"])
        sample = known.get(row, {"id": line["id"], "digest": None, "source": None})
        lines[row] = _line(row, sample, "rejected", line["reason"])
    for row, sample in known.items():
        if sample["text_only"] and lines[row] is None:
            lines[row] = _line(row, sample, "set_aside", "text_only", exported=export_aside)
    for row in scored.tolist():
        _check_free(row, lines[row], known)
        position = positions.get(row)
        if position is None:
            lines[row] = _line(row, known[row], "not_selected", refused.get(row, ""))
        else:
            lines[row] = _line(row, known[row], "selected", "", position, exported=True)
    return pa.Table.from_pylist(_complete(lines), schema=SELECTION)


def write_selection(path: Path, table: pa.Table) -> None:
    """Write the selection table; same rows, same bytes."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def count_statuses(table: pa.Table) -> dict[str, int]:
    """Rows in, and rows of each status; they add up, or FeatureError is raised."""
    found = table["status"].to_pylist()
    counts = {status: found.count(status) for status in STATUSES}
    if sum(counts.values()) != len(found):
        raise FeatureError(f"{len(found)} rows in, {sum(counts.values())} accounted for: {counts}")
    return {"rows_in": len(found), **counts}


def _line(
    row: int, sample: Mapping[str, Any], status: str, reason: str, position: int | None = None, exported: bool = False
) -> dict[str, Any]:
    named = {key: sample[key] for key in ("id", "digest", "source")}
    return {"row": row, **named, "status": status, "reason": reason, "position": position, "exported": exported}


def _check_free(row: int, line: Mapping[str, Any] | None, known: Mapping[int, Any]) -> None:
    if row not in known:
        raise FeatureError(f"row {row} has a score but is not among the samples: run extract and score again")
    if line is not None:
        raise FeatureError(f"row {row} has a score but is {line['status']} ({line['reason']}): run score again")


def _complete(lines: Iterable[dict[str, Any] | None]) -> list[dict[str, Any]]:
    whole = []
    for row, line in enumerate(lines):
        if line is None:
            raise FeatureError(
                f"row {row} was neither rejected nor set aside, and has no score: run extract and score again"
            )
        whole.append(line)
    return whole


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
