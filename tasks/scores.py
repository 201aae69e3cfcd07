"""scores.parquet: one line for every scored row, with the method's own columns after ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.atomic import replacing
from tasks.methods.contract import Columns
from tasks.tables import SCORES


def write_scores(
    path: Path,
    rows: NDArray[np.int64],
    ids: Sequence[str | None],
    digests: Sequence[str | None],
    columns: Columns,
    order: NDArray[np.int64],
) -> None:
    """Write row, id, digest, score, rank, then the method's own columns. `order`: positions, best first."""
    rank = np.empty(len(rows), dtype=np.int64)
    rank[order] = np.arange(len(rows))
    ours = {"row": rows, "id": ids, "digest": digests, "score": columns["score"], "rank": rank}
    arrays = {field.name: pa.array(ours[field.name], field.type) for field in SCORES}
    arrays |= {name: _to_arrow(values) for name, values in columns.items() if name not in arrays}
    with replacing(path) as temporary:
        pq.write_table(pa.table(arrays), temporary, compression="zstd")


def _to_arrow(values: NDArray[Any]) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
