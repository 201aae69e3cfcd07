"""Compare on the command line and behind both doors: real features, a real DVC, a real flow."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from toys import make_toy

from flows import compare, compare_command, contrast, dvc
from tasks.errors import FeatureError, InputError, ParamsError
from tasks.params import parse

sys.path.insert(0, str(Path(__file__).parent.parent / "tasks" / "comparison"))
from extracted_rows import SCORED, settings, write_rows


@pytest.fixture
def finished(tmp_path):
    """What is needed of a folder that `scalselect select --out` wrote: features, and settings in the manifest."""
    layout = write_rows(tmp_path / "out")
    given = settings(methods={"scalselect": {"rank": 2}}).model_dump(mode="json", by_alias=True)
    layout.manifest.write_text(json.dumps({"settings": {key: given[key] for key in ("dataset", "model", "methods")}}))
    return tmp_path / "out"


@pytest.fixture
def workspace(tmp_path):
    """A toy workspace whose first two stages leave real samples and features."""
    root = make_toy(tmp_path / "toy")
    layout = write_rows(tmp_path / "rows")
    shutil.rmtree(root / "data" / "features", ignore_errors=True)
    (root / "ready").mkdir()
    shutil.move(layout.samples, root / "ready/samples.parquet")
    shutil.move(layout.features, root / "ready/features")
    text = (root / "stage.py").read_text()
    copies = (
        'if stage == "validate":\n    shutil.copy("ready/samples.parquet", "data/samples/samples.parquet")\n'
        'if stage == "extract":\n    shutil.copytree("ready/features", "data/features", dirs_exist_ok=True)\n'
        '    Path("data/features/attended/part-00000.parquet").unlink()\n'
        '    shutil.copy("ready/features/attended/part-00000.parquet", "data/features/attended/")\n'
    )
    (root / "stage.py").write_text(text + copies)
    return root


def called(folder, *arguments):
    compare_command.compare(str(folder), **{"budgets": "0.25,9", "methods": "margin,scalselect", **dict(arguments)})


def test_a_folder_is_compared_with_the_settings_it_was_made_with(finished, capsys):
    called(finished)
    said = capsys.readouterr().out
    assert "14 rows (24.1%)" in said
    assert "Overlap at 9 rows (Jaccard)" in said
    assert [name in said for name in ("margin", "random", "stratified", "comparison.html")] == [True] * 4
    record = json.loads((finished / "comparison/comparison.json").read_text())
    assert record["rows"] == len(SCORED)
    two = record["curve"]["scalselect"]
    called(finished, ("assign", ["methods.scalselect.rank=1"]), ("out", finished / "other"))
    assert json.loads((finished / "other/comparison.json").read_text())["curve"]["scalselect"] != two


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(InputError, match="a dataset needs --model"):
        called(tmp_path)


def test_a_dataset_needs_a_folder_to_write():
    with pytest.raises(ParamsError, match="--out"):
        compare_command.compare("data.json", model="model")


def test_command_line_values_become_settings():
    overrides = compare_command.read_overrides("a, b", "0.05,300", 5, ["compare.sample=9", "compare.seeds=2"])
    assert overrides == {
        "compare.methods": ["a", "b"],
        "compare.budgets": [0.05, 300],
        "compare.seeds": 2,
        "compare.sample": 9,
    }
    with pytest.raises(ParamsError, match="expected a count"):
        compare_command.read_overrides(None, "0.05,many", None, [])


@pytest.mark.parametrize(
    ("named", "signals"),
    [(None, ["attended"]), (["coincide", "margin"], ["attended", "pooled", "answers"]), (["random"], ["attended"])],
)
def test_a_dataset_is_extracted_as_the_methods_need(named, signals):
    overrides = {"dataset.path": "d", "model.path": "m", "compare.methods": named}
    found = compare_command._with_signals(parse({}, overrides), overrides)
    assert list(found.extract.signals) == signals


def test_artifact_tables_hold_measures_costs_and_overlap(finished):
    called(finished)
    record, costs = contrast.read_comparison(finished / "comparison")
    lines = contrast.tabulate(record, costs, record["budgets"][0])
    assert [line["Method"] for line in lines] == ["margin", "scalselect", "random", "stratified"]
    assert lines[0]["margin"] == "1.00"
    assert "±" in lines[2]["Energy captured"]
    assert "±" not in lines[0]["Energy captured"]


def test_the_stage_runs_through_dvc_then_has_nothing_to_do(workspace):
    for name in ("validate", "extract"):
        dvc.reproduce(name, workspace, lambda line: None)
    given = compare.override(workspace, {"compare.methods": ["margin"], "compare.budgets": [9]})
    compare.write_stage(workspace, given)
    assert dvc.reproduce(compare.STAGE, workspace, lambda line: None).how == "ran"
    first = (workspace / "data/comparison/comparison.json").read_bytes()
    compare.write_stage(workspace, given)
    assert dvc.reproduce(compare.STAGE, workspace, lambda line: None).how == "unchanged"
    other = compare.override(workspace, {"compare.budgets": [12]})
    compare.write_stage(workspace, other)
    assert dvc.reproduce(compare.STAGE, workspace, lambda line: None).how == "ran"
    compare.override(workspace, {"compare.budgets": [9]})
    assert dvc.reproduce(compare.STAGE, workspace, lambda line: None).how == "restored"
    assert (workspace / "data/comparison/comparison.json").read_bytes() == first
    assert "compare" not in "".join(dvc.status(workspace))


def test_the_pipeline_runs_without_the_comparison(workspace):
    for name in ("validate", "extract"):
        dvc.reproduce(name, workspace, lambda line: None)
    compare.write_stage(workspace, compare.override(workspace, {"compare.methods": ["margin"]}))
    dvc.call(workspace, "repro")
    assert not (workspace / "data/comparison").exists()


def test_missing_signals_are_told_before_the_stage_is_written(workspace):
    for name in ("validate", "extract"):
        dvc.reproduce(name, workspace, lambda line: None)
    with pytest.raises(FeatureError, match="coincide needs pooled"):
        compare.write_stage(workspace, compare.override(workspace, {"compare.methods": ["coincide"]}))
    assert not (workspace / "comparison").exists()


def test_plots_name_columns_that_the_files_have(finished):
    called(finished)
    files = {name: next(csv.reader((finished / "comparison" / name).open())) for name in ("curve.csv", "measures.csv")}
    for plot in compare.describe_plots(["margin", "scalselect", "random", "stratified"]):
        (drawn,) = plot.values()
        for axis in ("x", "y"):
            given = drawn[axis] if isinstance(drawn[axis], dict) else {"../data/comparison/curve.csv": drawn[axis]}
            for path, columns in given.items():
                wanted = [columns] if isinstance(columns, str) else columns
                assert set(wanted) <= set(files[Path(path).name])


@pytest.mark.slow
def test_the_command_in_a_workspace_runs_the_flow_and_dvc_draws(workspace):
    command = [sys.executable, "-c", "from flows.cli import main; main()", "compare", "--methods", "margin"]
    done = subprocess.run(command, cwd=workspace, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Overlap at" in done.stdout
    assert yaml.safe_load((workspace / "params.yaml").read_text())["compare"]["methods"] == ["margin"]
    again = subprocess.run(command, cwd=workspace, check=False, capture_output=True, text=True, timeout=300)
    assert "Finished in state Cached" in again.stderr
    dvc.call(workspace, "plots", "show")
    page = "".join(path.read_text() for path in (workspace / "dvc_plots").glob("*.html"))
    assert all(title in page for title in ("Energy captured, by share selected", *compare.BARS.values()))
