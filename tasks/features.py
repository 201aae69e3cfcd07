"""Reading features: the files of `extract`, or a matrix from anywhere, a block at a time.

Every block is checked for NaN and infinity on its way in: one such value would poison every score.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.errors import FeatureError
from tasks.feature_files import FeatureFile, Floats, open_file
from tasks.linalg.matrix import Matrix

_BLOCK_BYTES = 1 << 26


class ShardMatrix:
    """A Matrix over files, in order. At most two blocks of 64 MiB are in memory: one in use, one being read."""

    def __init__(self, files: Sequence[FeatureFile], block_rows: int | None = None) -> None:
        """Raises FeatureError when the files differ in width, or there are none."""
        if not files:
            raise FeatureError("no feature files")
        width = files[0].shape[1]
        for file in files:
            if file.shape[1] != width:
                raise FeatureError(f"{file.path}: vectors of {file.shape[1]}, but {files[0].path} has {width}")
        self._files = files
        self._starts = np.cumsum([0, *(file.shape[0] for file in files)])
        self._width = width
        self._block_rows = block_rows or max(256, _BLOCK_BYTES // (4 * max(1, width)))

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return int(self._starts[-1]), self._width

    def blocks(self) -> Iterator[Floats]:
        """(b, d) blocks in row order. Raises FeatureError at NaN or infinity."""
        n, step = self.shape[0], self._block_rows
        return self.read_spans((start, min(start + step, n)) for start in range(0, n, step))

    def read_spans(self, spans: Iterable[tuple[int, int]]) -> Iterator[Floats]:
        """Rows start to stop of each span, the next read while one is in use. Raises FeatureError as `blocks` does."""
        with ThreadPoolExecutor(1, thread_name_prefix="features") as pool:
            ahead: Future[Floats] | None = None
            for span in spans:
                following = pool.submit(self._read, *span)
                if ahead is not None:
                    yield ahead.result()
                ahead = following
            if ahead is not None:
                yield ahead.result()

    def take(self, rows: NDArray[np.int64]) -> Floats:
        """The given rows, in the order asked for."""
        out = np.empty((len(rows), self._width), dtype=np.float32)
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(numbers):
            where = np.flatnonzero(numbers == number)
            out[where] = self._files[number].take(rows[where] - self._starts[number])
        return out

    def _read(self, start: int, stop: int) -> Floats:
        block = np.empty((stop - start, self._width), dtype=np.float32)
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        for number in range(first, len(self._files)):
            begin, end = int(self._starts[number]), int(self._starts[number + 1])
            if begin >= stop:
                break
            low, high = max(start, begin), min(stop, end)
            if low < high:
                self._files[number].read(low - begin, high - begin, block[low - start : high - start])
        self._check(block, start)
        return block

    def _check(self, block: Floats, start: int) -> None:
        flat = block.reshape(-1)
        # One pass of the dot product instead of three of isfinite; where huge values overflow it, look again.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(np.dot(flat, flat)):
                return
        bad = np.argwhere(~np.isfinite(block))
        if len(bad):
            row, column = start + int(bad[0, 0]), int(bad[0, 1])
            file = self._files[int(np.searchsorted(self._starts, row, side="right")) - 1]
            value = block[tuple(bad[0])]
            raise FeatureError(f"{file.path}: row {row}, column {column} is {value}; leave the row out or mend it")


class FeatureTable:
    """features/<signal>: n rows over one or more parts, the same rows in the same order in every signal."""

    def __init__(self, folder: Path) -> None:
        """Raises FeatureError when the signal was not extracted."""
        self.folder = folder
        self._paths = sorted(folder.glob("*.parquet"))
        if not self._paths:
            raise FeatureError(f"{folder}: no features; add `{folder.name}` to extract.signals and extract")
        self.schema: pa.Schema = pq.read_schema(self._paths[0])

    def __len__(self) -> int:
        return sum(pq.read_metadata(path).num_rows for path in self._paths)

    @property
    def matrices(self) -> list[str]:
        """Names of the matrix columns: "feature", or for clip "image" and "text"."""
        return [field.name for field in self.schema if pa.types.is_fixed_size_list(field.type)]

    @property
    def statistics(self) -> list[str]:
        """Names of the per-row numbers."""
        known = {"row", "id", "digest", *self.matrices}
        return [field.name for field in self.schema if field.name not in known]

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """(n,) row in the dataset, ascending."""
        return np.asarray(self.read(["row"])["row"].to_numpy())

    @cached_property
    def digests(self) -> NDArray[np.str_]:
        """(n,) sample digests."""
        return np.array(self.read(["digest"])["digest"].to_pylist(), dtype="U64")

    def matrix(self, column: str = "feature") -> ShardMatrix:
        """A matrix column, streamed. Raises FeatureError for an unknown one."""
        return ShardMatrix([piece for path in self._paths for piece in open_file(path, column)])

    def column(self, name: str) -> NDArray[np.float64]:
        """(n,) a statistics column as float64. Raises FeatureError for an unknown one."""
        if name not in self.statistics:
            raise FeatureError(f"{self.folder}: no column `{name}`; it has {', '.join(self.statistics) or 'none'}")
        return np.asarray(self.read([name])[name].to_numpy(), dtype=np.float64)

    def read(self, columns: list[str]) -> pa.Table:
        """Some columns of every part, in row order."""
        return pa.concat_tables([_read_columns(path, columns) for path in self._paths])


def open_array(path: Path, column: str | None = None) -> Matrix:
    """Features from anywhere: a .npy, a Parquet file, or a folder of either in order of name. Raises FeatureError."""
    if not path.is_dir():
        if path.suffix not in (".npy", ".parquet"):
            raise FeatureError(f"{path}: expected a .npy or .parquet file, or a folder of them")
        return ShardMatrix(open_file(path, column))
    kinds: dict[str, list[Path]] = {}
    for one in sorted(path.iterdir()):
        if one.suffix in (".npy", ".parquet"):
            kinds.setdefault(one.suffix, []).append(one)
    if len(kinds) != 1:
        raise FeatureError(f"{path}: expected .npy files or .parquet files, found {' and '.join(kinds) or 'neither'}")
    (paths,) = kinds.values()
    return ShardMatrix([piece for one in paths for piece in open_file(one, column)])


def _read_columns(path: Path, columns: list[str]) -> Any:
    with pq.ParquetFile(path) as file:
        return file.read(columns=columns)
