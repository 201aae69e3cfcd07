"""Training in this process, or in several that accelerate starts: one for each GPU, each running this very module."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tasks.errors import EngineError
from tasks.evaluation.material import Memory
from tasks.evaluation.training import fine_tune
from tasks.params import ModelSettings, TuneSettings
from tasks.sample import Sample
from tasks.tables import read_samples, write_samples


def train(
    settings: ModelSettings,
    samples: Sequence[Sample],
    tune: TuneSettings,
    seed: int,
    steps: int,
    out: Path,
    memory: Memory,
) -> dict[str, Any]:
    """`fine_tune`, in tune.processes processes. Raises EngineError when one of several fails; its output says why."""
    if tune.processes == 1:
        return fine_tune(settings, samples, tune, seed, steps, out, memory)
    job = {
        "model": settings.model_dump(mode="json"),
        "tune": tune.model_dump(mode="json"),
        "seed": seed,
        "steps": steps,
        "out": str(out),
    }
    with tempfile.TemporaryDirectory(prefix="scalselect-") as folder:
        write_samples(Path(folder) / "samples.parquet", samples)
        (Path(folder) / "job.json").write_text(json.dumps(job), encoding="utf-8")
        done = subprocess.run([*_launcher(tune.processes), "-m", __name__, folder], check=False)
    if done.returncode != 0:
        raise EngineError(f"{out}: accelerate launch ended with {done.returncode}; its own output, above, says why")
    record: dict[str, Any] = json.loads((out / "training.json").read_text(encoding="utf-8"))
    return record


def run_job(folder: Path) -> None:
    """What each process does: `folder` holds job.json and samples.parquet."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    samples = list(read_samples(folder / "samples.parquet"))
    model, tune = ModelSettings.model_validate(job["model"]), TuneSettings.model_validate(job["tune"])
    fine_tune(model, samples, tune, job["seed"], job["steps"], Path(job["out"]))


def _launcher(processes: int) -> list[str]:
    where = ["--multi_gpu"] if torch.cuda.is_available() else ["--cpu"]
    return [sys.executable, "-m", "accelerate.commands.launch", *where, "--num_processes", str(processes)]


if __name__ == "__main__":
    run_job(Path(sys.argv[1]))
