"""Evaluation's doors: the stage beside the pipeline, the command line, and who may import whom."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from toys import ran
from typer.testing import CliRunner

from flows import dvc
from flows.cli import app
from flows.evaluate import OUT, STAGE, prepare, write_stage
from flows.evaluate_command import read_overrides
from flows.evaluate_direct import with_needed_signals
from tasks.errors import ParamsError
from tasks.params import load, parse

ROOT = Path(__file__).parent.parent.parent

# Stands in for the trainings: a record for each method, kept from one run to the next.
TOY = """
import pathlib, yaml
folder = pathlib.Path("data/evaluation/runs")
folder.mkdir(parents=True, exist_ok=True)
for method in yaml.safe_load(open("params.yaml"))["evaluate"]["methods"]:
    record = folder / method
    if not record.exists():
        record.write_text("trained")
        open("ran.log", "a").write(f"train-{method}\\n")
"""


@pytest.fixture
def evaluated(toy):
    """A toy workspace whose evaluation stage runs TOY, with samples and features in place."""
    (toy / "evaluate.py").write_text(TOY)
    for name in ("validate", "extract"):
        dvc.reproduce(name, toy, print)
    prepare(toy, {"evaluate.methods": ["random"]})
    ran(toy)
    return toy


def reproduce(workspace):
    """The stage as DVC runs it, with the toy command."""
    path = workspace / "evaluation/dvc.yaml"
    path.write_text(path.read_text().replace("python -m tasks.evaluation", f"{sys.executable} evaluate.py"))
    return dvc.reproduce(STAGE, workspace, print).how


def test_the_stage_is_cached_keeps_its_records_and_is_no_part_of_the_pipeline(evaluated):
    assert reproduce(evaluated) == "ran"
    assert ran(evaluated) == ["train-random"]
    assert reproduce(evaluated) == "unchanged"
    assert not [name for name in dvc.status(evaluated) if "evaluate" in name]
    # Another method: what was trained before is neither deleted nor trained again.
    prepare(evaluated, {"evaluate.methods": ["random", "stratified"]})
    dvc.call(evaluated, "repro")
    assert not [line for line in ran(evaluated) if line.startswith("train")]
    assert reproduce(evaluated) == "ran"
    assert ran(evaluated) == ["train-stratified"]
    assert sorted(path.name for path in (evaluated / OUT / "runs").iterdir()) == ["random", "stratified"]


def test_the_stage_watches_what_decides_a_training(toy):
    settings = load(
        toy / "params.yaml", {"evaluate.tasks": {"vqa": {"path": "data/raw/demo/data.json"}, "hub": {"path": "a/b"}}}
    )
    write_stage(toy, settings)
    stage = yaml.safe_load((toy / "evaluation/dvc.yaml").read_text())["stages"]["evaluate"]
    assert stage["deps"][2:] == ["data/raw/demo/model", "data/raw/demo/data.json"]
    assert {"model", "select", "methods", "evaluate"} <= {one for one in stage["params"] if isinstance(one, str)}
    before = (toy / "evaluation/dvc.yaml").stat().st_mtime_ns
    write_stage(toy, settings)
    assert (toy / "evaluation/dvc.yaml").stat().st_mtime_ns == before


def test_preparing_asks_for_every_signal_and_refuses_unknown_methods(toy):
    settings = prepare(toy, {"evaluate.methods": ["prism", "el2n"]})
    assert settings.extract.signals == ("attended", "pooled", "answers")
    assert load(toy / "params.yaml").extract.signals == ("attended", "pooled", "answers")
    with pytest.raises(ParamsError, match="no method or variant `prisn`"):
        prepare(toy, {"evaluate.methods": ["prisn"]})


def test_signals_in_force_stay_first():
    settings = parse({"dataset": {"path": "d"}, "model": {"path": "m"}, "extract": {"signals": ["answers"]}})
    assert with_needed_signals(settings).extract.signals == ("answers", "attended")


def test_named_options_become_settings_and_set_wins():
    found = read_overrides("prism, random", "0.1,500", 2, ["evaluate.seeds=5", "evaluate.tune.lora_rank=8"])
    assert found == {
        "evaluate.methods": ["prism", "random"],
        "evaluate.budgets": [0.1, 500],
        "evaluate.seeds": 5,
        "evaluate.tune.lora_rank": 8,
    }


def test_imported_results_are_tabulated_on_the_terminal_and_in_files(tmp_path):
    lines = [
        {"method": name, "budget": budget, "tasks": {"gqa": score}}
        for name, budget, score in (("full", 1.0, 0.8), ("random", 0.1, 0.4), ("ours", 0.1, 0.6))
    ]
    (tmp_path / "results.json").write_text(json.dumps(lines))
    done = CliRunner().invoke(app, ["evaluate", "--import", str(tmp_path / "results.json")])
    assert done.exit_code == 0, done.output
    words = [line.split() for line in done.output.splitlines() if line.startswith(("full", "random", "ours"))]
    assert [(one[0], one[3]) for one in words] == [("full", "100.0"), ("ours", "75.0"), ("random", "50.0")]
    assert (tmp_path / "evaluation/evaluation.html").exists()


def test_nothing_below_the_flows_imports_evaluation():
    from test_layers import imports, modules

    for module, file in modules().items():
        if module.startswith("tasks") and not module.startswith("tasks.evaluation"):
            assert not [name for name in imports(file) if name.startswith("tasks.evaluation")], module
