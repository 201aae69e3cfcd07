"""Approximate leverage against exact: what a sketch of the rows costs in time and in the rows selected.

python -m bench.sketch                                        # seconds: a smoke run
python -m bench.sketch --rows 1000000 --columns 256 --kept 64 128
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np
from scipy import sparse

from bench.scoring import make_rows
from tasks.linalg.leverage import leverage
from tasks.linalg.matrix import ArrayMatrix
from tasks.linalg.moments import Moments, measure
from tasks.linalg.spectrum import Spectrum, from_moments

BLOCK = 8192
SHARE = 0.16


def centred_blocks(data: np.ndarray, mean: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(data), BLOCK):
        yield data[start : start + BLOCK] - mean


def frequent_directions(data: np.ndarray, mean: np.ndarray, kept: int) -> np.ndarray:
    """(d, d) B^T B of a sketch B of `kept` rows (Ghashami, Liberty, Phillips & Woodruff 2016), shrunk once a block.

    0 <= A^T A - B^T B <= ||A - A_k||_F^2 / (kept - k) in the order of matrices, for every k < kept.
    """
    sketch = np.zeros((0, data.shape[1]), dtype=np.float32)
    for block in centred_blocks(data, mean):
        stacked = np.concatenate([sketch, block])
        wide = len(stacked) > stacked.shape[1]
        values, vectors = np.linalg.eigh((stacked.T @ stacked if wide else stacked @ stacked.T).astype(np.float64))
        values, vectors = np.maximum(values[::-1][: kept + 1], 0), vectors[:, ::-1][:, :kept]
        weight = np.sqrt(np.maximum(values[:kept] - (values[kept] if len(values) > kept else 0), 0))
        if not wide:
            vectors = stacked.T @ (vectors / np.sqrt(np.maximum(values[:kept], 1e-30)))
        sketch = (vectors * weight).T.astype(np.float32)
    return sketch.T.astype(np.float64) @ sketch


def random_projection(data: np.ndarray, mean: np.ndarray, kept: int) -> np.ndarray:
    """(d, d) B^T B of B = S A, S a sparse sign matrix of `kept` rows (Clarkson & Woodruff 2013).

    For a fixed x, |Bx|^2 is |Ax|^2 within a relative sqrt(2 / kept) in the root mean square.
    """
    rng = np.random.default_rng(0)
    sketch = np.zeros((kept, data.shape[1]), dtype=np.float64)
    for block in centred_blocks(data, mean):
        columns = np.arange(len(block))
        signs = rng.choice(np.array([-1, 1], dtype=np.float32), len(block))
        sketch += sparse.csr_array((signs, (rng.integers(0, kept, len(block)), columns)), (kept, len(block))) @ block
    return sketch.T @ sketch


def sampled(data: np.ndarray, mean: np.ndarray, kept: int) -> np.ndarray:
    """(d, d) scatter of `kept` rows drawn evenly, scaled to all."""
    rows = np.sort(np.random.default_rng(0).choice(len(data), min(kept, len(data)), replace=False))
    few = data[rows] - mean
    return (few.T @ few).astype(np.float64) * (len(data) / len(rows))


def compare(name: str, data: np.ndarray, scatter: np.ndarray, seconds: float, exact: tuple) -> None:
    """Error of the covariance, of the scores, and the share of the selection that stays."""
    moments, scores, rank, spectrum = exact
    approximate = from_moments(Moments(moments.count, moments.mean, scatter, moments.precision))
    found = leverage(ArrayMatrix(data), approximate, min(rank, approximate.numerical_rank))
    error = float(np.abs(np.linalg.eigvalsh(moments.scatter - scatter)).max())
    kept = int(SHARE * len(data))
    shared = len(np.intersect1d(np.argpartition(-scores, kept)[:kept], np.argpartition(-found, kept)[:kept])) / kept
    tail = float(spectrum.values[rank:].sum())
    print(f"{name:32}{seconds:8.1f} s   covariance off by {error / spectrum.values[0]:.1e} of the largest eigenvalue "
          f"({error / max(tail, 1e-30):.1e} of the energy beyond k)   median score error "
          f"{np.median(np.abs(found / np.maximum(scores, 1e-30) - 1)):.1e}   top 16 % shared {shared:.4f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--columns", type=int, default=256)
    parser.add_argument("--kept", type=int, nargs="+", default=[100, 128, 192], help="rows of frequent directions")
    parser.add_argument("--projected", type=int, nargs="+", default=[2048, 16_384])
    parser.add_argument("--sampled", type=float, nargs="+", default=[0.01, 0.1], help="shares")
    args = parser.parse_args()
    data = make_rows(args.rows, args.columns, 0)
    began = time.perf_counter()
    moments = measure(ArrayMatrix(data))
    seconds = time.perf_counter() - began
    spectrum: Spectrum = from_moments(moments)
    rank = spectrum.rank_for(0.9)
    exact = (moments, leverage(ArrayMatrix(data), spectrum, rank), rank, spectrum)
    print(f"{args.rows} x {args.columns}, k {rank}")
    compare("exact", data, moments.scatter, seconds, exact)
    mean = moments.mean.astype(np.float32)
    trials = [(f"frequent directions, {kept}", frequent_directions, kept) for kept in args.kept]
    trials += [(f"random projection, {kept}", random_projection, kept) for kept in args.projected]
    trials += [(f"{share:.0%} of the rows", sampled, int(share * args.rows)) for share in args.sampled]
    for name, sketch, kept in trials:
        began = time.perf_counter()
        scatter = sketch(data, mean, kept)
        compare(name, data, scatter, time.perf_counter() - began, exact)


if __name__ == "__main__":
    main()
