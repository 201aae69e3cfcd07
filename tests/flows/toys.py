"""A toy workspace: the product's own dvc.yaml and params.yaml, with commands that take no time.

Everything about doors, caches, locks and records is real; only what the stages compute is not.
"""

import subprocess
import sys
from pathlib import Path

from flows.scaffold import scaffold

STAGE = """
import json, os, shutil, sys, time
from pathlib import Path
import yaml

settings = yaml.safe_load(open("params.yaml"))
stage = sys.argv[1]
with open("ran.log", "a") as log:
    log.write(stage + "\\n")
budget = settings["select"]["budget"]
print(f"{stage}: working", flush=True)
if (pause := Path("pause")).exists():
    time.sleep(float(pause.read_text()))
if stage == "select" and budget == 13:
    sys.exit(print("BudgetError: 13 rows were asked for;\\nonly 12 are there", file=sys.stderr) or 2)
if stage == "select" and budget == 14:
    raise RuntimeError("unforeseen")
if stage == "extract" and Path("flaky").exists():
    Path("flaky").unlink()
    sys.exit(print("EngineError: 2 workers died", file=sys.stderr) or 1)

def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)

accounting = {"rows_in": 3, "selected": 1, "not_selected": 1, "set_aside": 1, "rejected": 0, "exported": 1,
              "reasons": {one: {} for one in ("selected", "not_selected", "set_aside", "rejected")}}
files = {
    "validate": {"samples/samples.parquet": open(settings["dataset"]["path"]).read(), "samples/rejects.jsonl": "",
                 "samples/validation.json": json.dumps({"rows": 3, "gates": [], "reasons": {}}),
                 "reports/validation/index.html": "<p>docs"},
    "extract": {"features/attended/part-00000.parquet": "f" + str(settings["extract"]["attention_threshold"])},
    "score": {"scores/scores.parquet": "s", "scores/spectrum.csv": "component,energy\\n1,0.9\\n2,0.1\\n",
              "scores/score_curve.csv": "rank,score\\n0,0.5\\n1,0.25\\n", "scores/metrics.json": json.dumps({"k": 2})},
    "select": {"selection/selection.parquet": str(budget),
               "selection/source_mix.csv": "source,pool,selected,pool_share,selected_share\\na,1,1,1,1\\n",
               "selection/metrics.json": json.dumps({"budget": budget})},
    "export": {"subsets/subset.json": str(budget), "subsets/rejects.jsonl": "", "reports/report.html": "<p>report",
               "subsets/manifest.json": json.dumps({"accounting": accounting, "method": {"name": "toy"}})},
}
for name, text in files[stage].items():
    write("data/" + name, text)
"""


def make_toy(folder: Path) -> Path:
    scaffold(folder)
    (folder / "stage.py").write_text(STAGE)
    dag = folder / "dvc.yaml"
    dag.write_text(dag.read_text().replace("cmd: python -m tasks", f"cmd: {sys.executable} stage.py"))
    for name in ("data/raw/demo/data.json", "data/raw/demo/images/a.png", "data/raw/demo/model/config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("three rows")
    return folder


def ran(workspace: Path) -> list[str]:
    """Stages whose command really ran, in order; and forget them."""
    log = workspace / "ran.log"
    stages = log.read_text().split() if log.exists() else []
    log.write_text("")
    return stages


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
