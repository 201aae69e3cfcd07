"""Exact leverage over feature shards: time against the machine's own matrix products, memory, precision, scaling.

    python -m bench.scoring                                     # seconds: a smoke run
    python -m bench.scoring --rows 625000 --columns 4096 --error-rows 20000 --error-columns 1024 \
        --svd-rows 50000 --svd-columns 2048 --scaling 100000 250000 1000000 --scaling-columns 512 \
        --refresh-rows 100000 --refresh-columns 4096
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from bench.measure import measured
from tasks.features import open_array
from tasks.linalg.leverage import leverage
from tasks.linalg.matrix import ArrayMatrix, buffer_rows
from tasks.linalg.moments import Moments, measure
from tasks.linalg.pieces import measure_pieces
from tasks.linalg.spectrum import from_moments
from tasks.methods import METHODS
from tasks.methods.contract import Tables
from tasks.moment_cache import MomentCache

SHARD_ROWS = 4096
DIRECTIONS = 80
REPORTS = ("shards", "error", "svd", "scaling", "refresh")


def make_rows(rows: int, columns: int, seed: int) -> np.ndarray:
    """Rows in which about 80 directions hold 90 % of the energy, two columns with a large mean."""
    mixing = np.random.default_rng(7).normal(size=(min(DIRECTIONS, columns), columns)).astype(np.float32)
    rng = np.random.default_rng(seed)
    weak = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(2.5)
    weak += rng.standard_normal((rows, len(mixing)), dtype=np.float32) @ mixing
    weak[:, :2] += 300
    return weak


def write_shards(folder: Path, rows: int, columns: int, dtype: str) -> Path:
    """.npy shards of 4096 rows."""
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, rows, SHARD_ROWS)):
        shard = make_rows(min(SHARD_ROWS, rows - start), columns, number).astype(dtype)
        np.save(folder / f"part-{number:05d}.npy", shard)
    return folder


def score_shards(folder: Path) -> dict[str, float]:
    """Seconds by phase, and k."""
    matrix = open_array(folder)
    marks = [time.perf_counter()]
    moments = measure(matrix)
    marks.append(time.perf_counter())
    spectrum = from_moments(moments)
    rank = spectrum.rank_for(0.9)
    marks.append(time.perf_counter())
    scores = leverage(matrix, spectrum, rank)
    marks.append(time.perf_counter())
    assert abs(scores.sum() - rank) < 1e-3 * max(rank, 1), "leverage scores must add up to k"
    return {"moments": marks[1] - marks[0], "eigen": marks[2] - marks[1], "project": marks[3] - marks[2], "k": rank}


def product_floor(rows: int, columns: int, rank: int, eigen: float) -> float:
    """Seconds of the bare products on this machine: X^T X and X V a block at a time; eigenvectors as measured."""
    block = make_rows(min(rows, buffer_rows(rows, columns)), columns, 0)
    basis = np.ones((columns, rank), dtype=np.float32)
    once = min(_seconds(lambda: block.T @ block) + _seconds(lambda: block @ basis) for _ in range(4))
    return once * rows / len(block) + eigen


def published(folder: Path) -> np.ndarray:
    """The authors' way: the whole matrix in memory, a full thin SVD, twice."""
    data = np.concatenate([np.load(path) for path in sorted(folder.glob("*.npy"))])
    data -= data.mean(axis=0)
    values = np.linalg.svd(data, full_matrices=False)[1]
    rank = int(np.searchsorted(np.cumsum(values**2) / np.sum(values**2), 0.9)) + 1
    left = np.linalg.svd(data, full_matrices=False)[0]
    return np.sum(left[:, :rank] ** 2, axis=1)


def ours(folder: Path) -> np.ndarray:
    """The same shards through the method."""
    matrix = open_array(folder)
    names = np.array([f"{row:08d}" for row in range(matrix.shape[0])])
    tables = Tables(names, names, {"attended": matrix})
    method = METHODS["scalselect"]
    return method.score(tables, method.options())["score"]


def report_error(rows: int, columns: int) -> None:
    """Largest relative error against a float64 SVD."""
    data = make_rows(rows, columns, 1)
    wide = data.astype(np.float64)
    left = np.linalg.svd(wide - wide.mean(axis=0), full_matrices=False)[0]
    spectrum = from_moments(measure(ArrayMatrix(data)))
    rank = spectrum.rank_for(0.9)
    exact = np.sum(left[:, :rank] ** 2, axis=1)
    found = leverage(ArrayMatrix(data), spectrum, rank)
    kept = len(exact) * 16 // 100
    shared = len(np.intersect1d(np.argsort(-exact)[:kept], np.argsort(-found)[:kept])) / max(kept, 1)
    print(f"error   {rows} x {columns}, k {rank}: relative {np.max(np.abs(found / exact - 1)):.1e}, "
          f"top 16 % shared {shared:.4f}")  # fmt: skip


def report_shards(rows: int, columns: int, dtype: str) -> float:
    """Time, memory and ratio to the floor; returns seconds."""
    with tempfile.TemporaryDirectory() as folder:
        cost = measured(score_shards, write_shards(Path(folder) / "features", rows, columns, dtype))
    phases = cost.value
    floor = product_floor(rows, columns, int(phases["k"]), phases["eigen"])
    total = phases["moments"] + phases["eigen"] + phases["project"]
    print(f"shards  {rows} x {columns} {dtype}: {total:.2f} s = moments {phases['moments']:.2f} + eigen "
          f"{phases['eigen']:.2f} + project {phases['project']:.2f}; k {phases['k']:.0f}; "
          f"{total / floor:.2f} x its products ({floor:.2f} s); peak {cost.peak / 2**20:.0f} MiB")  # fmt: skip
    return total


def report_svd(rows: int, columns: int) -> None:
    """Against numpy's full SVD, as published; both read the same float32 shards."""
    with tempfile.TemporaryDirectory() as place:
        folder = write_shards(Path(place) / "features", rows, columns, "float32")
        mine, theirs = measured(ours, folder), measured(published, folder)
    worst = np.max(np.abs(mine.value - theirs.value))
    print(f"svd     {rows} x {columns}: ours {mine}, published {theirs}: {theirs.seconds / mine.seconds:.1f} x faster, "
          f"{theirs.peak / mine.peak:.1f} x less memory; scores differ by {worst:.1e}")  # fmt: skip


def report_scaling(sizes: list[int], columns: int, dtype: str) -> None:
    """Exponent of time over rows, by least squares on logarithms."""
    seconds = [report_shards(rows, columns, dtype) for rows in sizes]
    print(f"scaling exponent over {sizes}: {np.polyfit(np.log(sizes), np.log(seconds), 1)[0]:.3f}")


def refresh(folder: Path, cache: Path, rows: int) -> dict[str, float]:
    """Seconds and rows read for the moments of the first `rows` rows, with what `cache` holds."""
    matrix = open_array(folder)
    names = np.array([hashlib.sha256(str(row).encode()).hexdigest() for row in range(rows)])
    seen = 0

    def counted(spans: Iterable[tuple[int, int]]) -> Iterator[np.ndarray]:
        nonlocal seen
        for block in matrix.read_spans(spans):
            seen += len(block)
            yield block

    began = time.perf_counter()
    found: Moments = measure_pieces(counted, (rows, matrix.shape[1]), names, MomentCache(cache))
    seconds = time.perf_counter() - began
    held = sum(path.stat().st_size for path in cache.glob("*.npz"))
    return {"seconds": seconds, "read": seen, "held": held, "trace": float(np.trace(found.scatter))}


def report_refresh(rows: int, columns: int) -> None:
    """Moments of N rows, of N again, and of N and 1 % more; the last against a run that nothing was kept for."""
    more = rows + rows // 100
    with tempfile.TemporaryDirectory() as name:
        folder, cache = write_shards(Path(name) / "features", more, columns, "float32"), Path(name) / "cache"
        runs = [measured(refresh, folder, where, n)
                for where, n in ((cache, rows), (cache, rows), (cache, more), (Path(name) / "none", more))]  # fmt: skip
    assert runs[2].value["trace"] == runs[3].value["trace"], "what was kept changed the result"
    for what, cost in zip(("fresh", "again", "1 % more", "1 % more, fresh"), runs, strict=True):
        value = cost.value
        print(f"refresh {rows} x {columns} {what}: moments {value['seconds']:.2f} s, {value['read']:.0f} rows read, "
              f"kept {value['held'] / 2**20:.0f} MiB; peak {cost.peak / 2**20:.0f} MiB")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--columns", type=int, default=512)
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--error-rows", type=int, default=20_000)
    parser.add_argument("--error-columns", type=int, default=256)
    parser.add_argument("--svd-rows", type=int, default=10_000)
    parser.add_argument("--svd-columns", type=int, default=512)
    parser.add_argument("--scaling", type=int, nargs="+", default=[20_000, 40_000, 80_000])
    parser.add_argument("--scaling-columns", type=int, default=256)
    parser.add_argument("--refresh-rows", type=int, default=40_000)
    parser.add_argument("--refresh-columns", type=int, default=512)
    parser.add_argument("--only", nargs="+", choices=REPORTS, default=REPORTS)
    args = parser.parse_args()
    if "shards" in args.only:
        report_shards(args.rows, args.columns, args.dtype)
    if "error" in args.only:
        report_error(args.error_rows, args.error_columns)
    if "svd" in args.only:
        report_svd(args.svd_rows, args.svd_columns)
    if "scaling" in args.only:
        report_scaling(args.scaling, args.scaling_columns, args.dtype)
    if "refresh" in args.only:
        report_refresh(args.refresh_rows, args.refresh_columns)


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
