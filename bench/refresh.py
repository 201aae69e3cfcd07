"""What a refresh costs: with 1 % new rows and with nothing new, stage by stage; and what DVC adds to large features.

python -m bench.refresh                                       # a minute: a smoke run
python -m bench.refresh --rows 20000 --doors --dvc-gigabytes 5
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from tasks.__main__ import STAGES

ROOT = Path(__file__).resolve().parent.parent
EDGE = 64
PARTS = 150
SCALSELECT = ("-c", "from flows.cli import main; main()")


def make_images(folder: Path, start: int, stop: int) -> None:
    """One small JPEG of noise a row."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in range(start, stop):
        pixels = np.random.default_rng(row).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((EDGE, EDGE)).save(folder / f"{row:07d}.jpg", quality=90)


def write_rows(workspace: Path, rows: int) -> None:
    """data.json: a question about each image."""
    lines = [
        {
            "id": str(row),
            "image": f"{row:07d}.jpg",
            "conversations": [
                {"from": "human", "value": f"<image>\nWhat is shown in picture {row % 997}?"},
                {"from": "gpt", "value": f"Noise, number {row}."},
            ],
        }
        for row in range(rows)
    ]
    (workspace / "data.json").write_text(json.dumps(lines))


def make_workspace(workspace: Path, rows: int) -> None:
    """Dataset, a LLaVA of two layers, and a params.yaml that names them."""
    from tasks.demo.model import Shape, save_model

    make_images(workspace / "images", 0, rows)
    write_rows(workspace, rows)
    save_model(workspace / "model", ["What is shown in picture?", "Noise, number."], 0, Shape(64, 2, 2, 56))
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["dataset"] |= {"path": "data.json", "image_root": "images"}
    tree["model"] |= {"path": "model"}
    (workspace / "params.yaml").write_text(yaml.safe_dump(tree))


def run_stages(workspace: Path) -> dict[str, float]:
    """Seconds of `python -m tasks <stage>`, the interpreter's start included, as DVC would call it."""
    seconds = {}
    for stage in STAGES:
        if stage == "extract":  # as DVC does: a stage's outs go before it runs
            shutil.rmtree(workspace / "data/features", ignore_errors=True)
        seconds[stage] = seconds_of(workspace, "-m", "tasks", stage)
    return seconds


def report_stages(workspace: Path, rows: int) -> None:
    """Full run, again with nothing new, and with 1 % more rows."""
    first, again = run_stages(workspace), run_stages(workspace)
    more = rows // 100
    make_images(workspace / "images", rows, rows + more)
    write_rows(workspace, rows + more)
    refreshed = run_stages(workspace)
    idle = start_up(workspace)
    print(f"stages  {rows} rows, each of its own image, LLaVA of two layers; python with torch starts in {idle:.1f} s")
    print(f"{'':10}{'full':>9}{'nothing new':>13}{'1 % new':>9}{'share':>8}")
    for stage in STAGES:
        print(f"{stage:10}{first[stage]:9.1f}{again[stage]:13.1f}{refreshed[stage]:9.1f}"
              f"{refreshed[stage] / first[stage]:8.1%}")  # fmt: skip
    whole, part = sum(first.values()), sum(refreshed.values())
    print(f"{'together':10}{whole:9.1f}{sum(again.values()):13.1f}{part:9.1f}{part / whole:8.1%}")


def start_up(workspace: Path) -> float:
    """Seconds until torch and transformers are there: what extraction pays before it has looked at a row."""
    return seconds_of(workspace, "-c", "import torch, transformers.models.llava.modeling_llava")


EMPTY_FLOW = """
from prefect import flow, task
@task
def nothing(number): pass
@flow
def empty():
    for number in range(5): nothing(number)
empty()
"""


def report_doors(rows: int) -> None:
    """Seconds of each door when nothing changed, and of DVC and Prefect alone doing five times nothing."""
    with tempfile.TemporaryDirectory() as folder:
        root, workspace = Path(folder), Path(folder) / "workspace"
        make_workspace(root, rows)
        (root / "params.yaml").unlink()
        call(root, *SCALSELECT, "init", "workspace", "--dataset", "data.json", "--model", "model")
        call(workspace, *SCALSELECT, "run", "--set", f"dataset.image_root={root / 'images'}")
        by_dvc = seconds_of(workspace, "-m", "dvc", "repro")
        by_prefect = seconds_of(workspace, *SCALSELECT, "run")
        bare = make_bare(root / "bare")
        alone = seconds_of(bare, "-m", "dvc", "repro")
        once = seconds_of(bare, "-m", "dvc", "repro", "--single-item", "stage0")
        empty = seconds_of(bare, "-c", EMPTY_FLOW)
    print(f"doors   {rows} rows, nothing changed")
    print(f"  dvc repro       {by_dvc:5.1f} s, {by_dvc - alone:.1f} s beyond DVC's own {alone:.1f}")
    print(f"  scalselect run  {by_prefect:5.1f} s, {by_prefect - empty - 5 * once:.1f} s beyond an empty flow "
          f"({empty:.1f}) and five empty stages ({5 * once:.1f})")  # fmt: skip


def make_bare(folder: Path) -> Path:
    """A DVC project of five stages that copy a line."""
    folder.mkdir()
    (folder / "in").write_text("0")
    stages = {f"stage{n}": {"cmd": f"cp in out{n}", "deps": ["in"], "outs": [f"out{n}"]} for n in range(5)}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    call(folder, "-m", "dvc", "init", "--no-scm")
    call(folder, "-m", "dvc", "repro")
    return folder


def report_dvc(gigabytes: float) -> None:
    """One of 150 parts changes: what DVC adds to the stage that rewrites it, by type of cache."""
    for kind in ("reflink,hardlink,copy", "hardlink", "copy"):
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
            _report_dvc_kind(Path(folder), kind, gigabytes)


WRITER = """
import os, shutil, sys
store, out, version = "store", "features", open("version").read().strip()
os.makedirs(store, exist_ok=True)
os.makedirs(out, exist_ok=True)
for part in range({parts}):
    name = f"part-{{part}}-{{version if part == 0 else 0}}"
    if not os.path.exists(f"{{store}}/{{name}}"):
        with open(f"{{store}}/{{name}}", "wb") as file:
            file.write(os.urandom({size}))
    os.link(f"{{store}}/{{name}}", f"{{out}}/part-{{part}}")
"""


def _report_dvc_kind(folder: Path, kind: str, gigabytes: float) -> None:
    """The stage writes new parts to a store beside the out and links all of them into it, as extraction does."""
    size = int(gigabytes * 1e9 / PARTS)
    (folder / "stage.py").write_text(WRITER.format(parts=PARTS, size=size))
    (folder / ".dvcignore").write_text("/store\n")
    stage = {"cmd": "python stage.py", "deps": ["version"], "outs": ["features"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"extract": stage}}))
    call(folder, "-m", "dvc", "init", "--no-scm")
    call(folder, "-m", "dvc", "config", "cache.type", kind)
    seconds = []
    for version in range(3):
        (folder / "version").write_text(str(version))
        seconds.append(seconds_of(folder, "-m", "dvc", "repro"))
    unchanged = seconds_of(folder, "-m", "dvc", "repro")
    used = sum(one.stat().st_blocks * 512 / one.stat().st_nlink for one in folder.rglob("*") if one.is_file())
    print(f"dvc     {gigabytes:g} GB in {PARTS} parts, cache {kind}: first {seconds[0]:.1f} s; one part changed "
          f"{seconds[1]:.1f} s, {seconds[2]:.1f} s; nothing changed {unchanged:.1f} s; "
          f"disk {used / 1e9:.1f} GB")  # fmt: skip


def seconds_of(folder: Path, *arguments: str) -> float:
    """Seconds of one call of Python in `folder`."""
    began = time.perf_counter()
    call(folder, *arguments)
    return time.perf_counter() - began


def call(folder: Path, *arguments: str) -> None:
    """Run Python in `folder` with this checkout importable."""
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": paths, "DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400, help="0: leave the stages out")
    parser.add_argument("--doors", action="store_true")
    parser.add_argument("--dvc-gigabytes", type=float, default=0.2)
    args = parser.parse_args()
    if args.rows:
        with tempfile.TemporaryDirectory() as folder:
            make_workspace(Path(folder), args.rows)
            report_stages(Path(folder), args.rows)
    if args.doors:
        report_doors(max(args.rows, 400))
    if args.dvc_gigabytes:
        report_dvc(args.dvc_gigabytes)


if __name__ == "__main__":
    main()
