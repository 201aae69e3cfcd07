"""Every selection method on synthetic features: seconds and peak memory, and the ratio to its naive or published form.

python -m bench.methods                                        # seconds: a smoke run
python -m bench.methods --rows 100000 --columns 1024 --clusters 1000 --naive-rows 4000
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from bench.measure import measured
from tasks.linalg.matrix import ArrayMatrix
from tasks.linalg.mmd import gaussian_block
from tasks.linalg.rescaled import unit_rows
from tasks.methods import METHODS
from tasks.methods.contract import Tables

MATRICES = ("attended", "pooled", "pooled.visual", "pooled.language", "clip.image", "clip.text", "gradients")
COLUMNS = ("answers.nll", "answers.nll_without_image", "answers.el2n", "answers.margin", "judge.score")
SCORERS = ("deita.complexity", "deita.quality", "deita.evol")
CLUSTERED = ("coincide", "semdedup", "self_sup", "presel")
SHARE = 0.16


def make_rows(rows: int, columns: int) -> np.ndarray:
    """Rows around 1000 centres, float32."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((1000, columns), dtype=np.float32)
    data = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.7)
    for start in range(0, rows, 8192):
        data[start : start + 8192] += centres[rng.integers(0, 1000, len(data[start : start + 8192]))]
    return data


def make_tables(rows: int, columns: int) -> Tables:
    """The same features under every name a method may ask for."""
    rng = np.random.default_rng(1)
    matrix = ArrayMatrix(make_rows(rows, columns))
    names = np.array([rng.bytes(8).hex() for _ in range(rows)])
    anchors = {"gradients.anchor": ArrayMatrix(rng.standard_normal((100, columns), dtype=np.float32))}
    numbers = {name: rng.random(rows) for name in (*COLUMNS, *SCORERS)}
    return Tables(names, rng.choice(["a", "b", "c", "d"], rows), dict.fromkeys(MATRICES, matrix) | anchors, numbers)


def select(name: str, rows: int, columns: int, clusters: int) -> float:
    """Seconds to score and select 16 % with a method's defaults."""
    method, tables = METHODS[name], make_tables(rows, columns)
    fields = method.options.__dataclass_fields__
    options = method.parse({"clusters": clusters} if name in CLUSTERED and "clusters" in fields else {})
    began = time.perf_counter()
    method.select(method.score(tables, options), tables, int(SHARE * rows), np.random.default_rng(0), options)
    return time.perf_counter() - began


def naive(name: str, rows: int, columns: int) -> float:
    """Seconds of the naive form, its features made first."""
    data = make_rows(rows, columns)
    began = time.perf_counter()
    NAIVE[name](data)
    return time.perf_counter() - began


def naive_scalselect(data: np.ndarray) -> None:
    """A full thin SVD, twice, as published."""
    data -= data.mean(axis=0)
    for _ in range(2):
        np.linalg.svd(data, full_matrices=False)


def naive_prism(data: np.ndarray) -> np.ndarray:
    """All pairwise correlations."""
    unit = unit_rows(data - data.mean(axis=0, dtype=np.float64))
    return (unit @ unit.T).mean(axis=1)


def naive_semdedup(data: np.ndarray) -> np.ndarray:
    """All pairs of one cluster that holds everything."""
    unit = unit_rows(data.astype(np.float64))
    return np.triu(unit @ unit.T, 1).max(axis=0)


def naive_coincide(data: np.ndarray) -> list[int]:
    """Greedy MMD as published: the whole subset's kernel for every candidate of every pick, in one cluster of 300."""
    unit = unit_rows(data.astype(np.float64))
    kernel, picks = gaussian_block(unit, unit, 1.0), []
    for _ in range(int(SHARE * len(unit))):
        free = [row for row in range(len(unit)) if row not in picks]
        trial = [[*picks, row] for row in free]
        value = [kernel[np.ix_(one, one)].mean() - 2 * kernel[:, one].mean() for one in trial]
        picks.append(free[int(np.argmin(value))])
    return picks


NAIVE: dict[str, Callable[[np.ndarray], object]] = {
    "scalselect": naive_scalselect,
    "prism": naive_prism,
    "semdedup": naive_semdedup,
    "coincide": naive_coincide,
}
"""The naive or published form, where it differs from ours in cost; add a line for a new method."""
NAIVE_LIMIT = {"coincide": 300}
"""Rows beyond which the naive form is hopeless."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--columns", type=int, default=128)
    parser.add_argument("--clusters", type=int, default=60)
    parser.add_argument("--naive-rows", type=int, default=2000)
    parser.add_argument("--naive-columns", type=int, default=256)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    args = parser.parse_args()
    print(f"{args.rows} x {args.columns}: seconds to score and select {SHARE:.0%}, peak memory with the features")
    for name in args.methods:
        cost = measured(select, name, args.rows, args.columns, args.clusters)
        print(f"{name:<14}{cost.value:9.2f} s {cost.peak / 2**20:8.0f} MiB{against_naive(name, args)}")


def against_naive(name: str, args: argparse.Namespace) -> str:
    """How many times slower the naive form is, at a size both can do."""
    if name not in NAIVE:
        return ""
    rows, columns = min(args.naive_rows, NAIVE_LIMIT.get(name, args.naive_rows)), args.naive_columns
    mine = measured(select, name, rows, columns, 1 if name in NAIVE_LIMIT else max(1, rows // 66)).value
    theirs = measured(naive, name, rows, columns).value
    return f"   naive at {rows} x {columns}: {theirs / mine:.1f} x as long"


if __name__ == "__main__":
    main()
