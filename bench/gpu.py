"""Extraction and scoring on an accelerator: rows a second, share of what its arithmetic allows, what holds it up.

    python -m bench.gpu                                        # needs a GPU; true 7B and 8B shapes, their first layer
    python -m bench.gpu --device cpu --scale tiny --rows 8     # only to see that it runs

The ceiling is the device's own bf16 matrix product, measured here, over the operations that torch counts in our
forward. `model alone` is batches collated before the clock starts; `whole` decodes, prepares and collates them as the
stage does: where it falls behind, decoding is the bottleneck and run.workers the setting. Weights are random.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.checkpoints import FAMILIES, write_checkpoint
from bench.extraction import make_samples
from bench.scoring import make_rows
from tasks.arithmetic import TorchProducts
from tasks.engines.batching import plan_batches
from tasks.engines.work import Job
from tasks.engines.worker import Worker
from tasks.images import decode, read_bytes
from tasks.linalg.leverage import leverage
from tasks.linalg.matrix import ArrayMatrix
from tasks.linalg.moments import measure
from tasks.linalg.products import HOST
from tasks.linalg.spectrum import from_moments
from tasks.methods import METHODS
from tasks.methods.contract import Tables
from tasks.params import Settings, parse
from tasks.sample import Sample
from tasks.vlm.extractor import Extractor, Staged

SHARE = 0.16
SIDE = 8192
AGREEING = 256


def settings(folder: Path, dtype: str, budget: int, workers: int | None) -> Settings:
    """Settings that read the checkpoint in `folder`."""
    run = {"token_budget": budget, "workers": workers}
    return parse({"dataset": {"path": "-"}, "model": {"path": str(folder), "dtype": dtype}, "run": run})


def ceiling(device: torch.device) -> float:
    """Operations a second of a large bf16 matrix product."""
    side = SIDE if device.type == "cuda" else 1024
    left = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    best = min(_seconds(lambda: left @ left, device) for _ in range(8))
    return 2 * side**3 / best


def prepare(extractor: Extractor, samples: list[Sample]) -> list[Any]:
    """Rows as the model takes them."""
    preparer = extractor.preparer()
    return [preparer(sample, [decode(read_bytes(one)) for one in sample.images]) for sample in samples]


def sweep(folder: Path, samples: list[Sample], device: str, args: argparse.Namespace) -> None:
    """Rows a second of the model alone at each token budget, and of the whole at the best of them."""
    extractor = Extractor(settings(folder, "bfloat16", 1, args.workers), ("attended",), device)
    rows, place = prepare(extractor, samples), torch.device(device)
    # By the plain kernel: torch 2.11 cannot count the others where key heads are shared.
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        extractor.compute(rows[:1])
    most = ceiling(place) / counted.get_total_flops()
    print(f"  {counted.get_total_flops() / 1e9:.0f} GF a row, {rows[0].n_tokens} tokens; ceiling {most:.1f} rows/s")
    found = {}
    for budget in args.budgets:
        shown = [sample.images[0].sha256 for sample in samples]
        plan = plan_batches([row.n_tokens for row in rows], shown, budget)
        batches = [[rows[at] for at in one] for one in plan]
        try:
            staged = [extractor.stage(batch) for batch in batches]
            alone = len(rows) / min(_seconds(partial(measure_all, extractor, staged), place) for _ in range(2))
        except torch.OutOfMemoryError:
            print(f"  budget {budget:>7}: out of memory")
            torch.cuda.empty_cache()
            continue
        found[alone] = budget
        memory = f", peak {torch.cuda.max_memory_allocated(place) / 2**30:.1f} GiB" if place.type == "cuda" else ""
        print(f"  budget {budget:>7}: model alone {alone:.1f} rows/s ({alone / most:.0%} of the ceiling){memory}")
    best = max(found)
    worker = Worker(extractor, device, settings(folder, "bfloat16", found[best], args.workers).run)
    worker(Job(0, tuple(samples)))  # until all decoding processes are there
    whole = len(rows) / min(_seconds(partial(worker, Job(number, tuple(samples))), place) for number in (1, 2))
    worker.close()
    held = "decoding" if whole < 0.9 * best else "the model"
    print(f"  whole at {found[best]}: {whole:.1f} rows/s ({whole / most:.0%} of the ceiling), held up by {held}")


def measure_all(extractor: Extractor, batches: list[Staged]) -> None:
    """All batches, one after another."""
    for batch in batches:
        extractor.measure(batch)


def agreement(folder: Path, samples: list[Sample], device: str) -> None:
    """How far bf16 and float32 choose the same rows."""
    chosen, features = [], []
    for dtype in ("bfloat16", "float32"):
        extractor = Extractor(settings(folder, dtype, 1, 0), ("attended",), device)
        values = [extractor.compute([row])["attended"]["feature"][0] for row in prepare(extractor, samples)]
        features.append(np.stack(values))
        scores = METHODS["scalselect"].score(tables(features[-1]), METHODS["scalselect"].options())["score"]
        chosen.append(set(np.argsort(-scores, kind="stable")[: max(1, int(SHARE * len(samples)))].tolist()))
    error = np.linalg.norm(features[0] - features[1], axis=1) / np.linalg.norm(features[1], axis=1)
    print(f"  bf16 against float32 on {len(samples)} rows: features differ by {np.median(error):.1e} (median), "
          f"top {SHARE:.0%} shared {len(chosen[0] & chosen[1]) / len(chosen[0]):.3f}")  # fmt: skip


def scoring(rows: int, columns: int, device: str) -> None:
    """Leverage of the same rows by BLAS on the CPU and by torch on the device, and how far the scores agree."""
    matrix = ArrayMatrix(make_rows(rows, columns, 0))
    seconds, scores = [], []
    for products in (HOST, TorchProducts(device)):
        products.gram(np.ones((2, 2), np.float32))
        began = time.perf_counter()
        spectrum = from_moments(measure(matrix, products))
        marks = [time.perf_counter() - began]
        began = time.perf_counter()
        scores.append(leverage(matrix, spectrum, spectrum.rank_for(0.9), products=products))
        seconds.append((*marks, time.perf_counter() - began))
    worst = np.max(np.abs(scores[1] / scores[0] - 1))
    kept = [set(np.argsort(-one, kind="stable")[: int(SHARE * rows)].tolist()) for one in scores]
    print(f"scoring {rows} x {columns}: CPU moments {seconds[0][0]:.1f} s, projection {seconds[0][1]:.1f} s; {device} "
          f"{seconds[1][0]:.1f} s, {seconds[1][1]:.1f} s (eigenvectors, on the CPU, are among the moments); scores "
          f"differ by {worst:.1e}, top {SHARE:.0%} shared {len(kept[0] & kept[1]) / len(kept[0]):.4f}")  # fmt: skip


def tables(features: np.ndarray[Any, Any]) -> Tables:
    """Features as a method sees them."""
    names = np.array([f"{row:08d}" for row in range(len(features))])
    return Tables(names, names, {"attended": ArrayMatrix(features)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, nargs="+", default=list(FAMILIES))
    parser.add_argument("--scale", choices=("tiny", "full"), default="full")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--budgets", type=int, nargs="+", default=[4096, 8192, 16384, 32768, 65536, 131072])
    parser.add_argument("--score-rows", type=int, default=200_000, help="0: leave scoring out")
    parser.add_argument("--score-columns", type=int, default=4096)
    parser.add_argument("--workers", type=int, default=None, help="decoding processes; default: as the stage chooses")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("no GPU is visible to torch; `--device cpu --scale tiny` only shows that the script runs")
    name = torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else "CPU"
    print(f"{name}, {os.cpu_count()} cores, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}")
    for family in args.family:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "model"
            write_checkpoint(folder, family, replace(FAMILIES[family][1][args.scale], layers=1))
            samples = make_samples(Path(place) / "images", args.rows, 1)
            print(f"{family} {args.scale}")
            sweep(folder, samples, args.device, args)
            agreement(folder, samples[:AGREEING], args.device)
    if args.score_rows:
        scoring(args.score_rows, args.score_columns, args.device)


def _seconds(call: Any, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
