"""dvc.yaml, params.yaml and prefect.yaml against the code they describe."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest
import yaml
from test_layers import ROOT, imports, modules

from tasks.__main__ import STAGES
from tasks.layout import Layout
from tasks.params import Settings, load

DAG = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))

# Which stage writes each file of the layout (docs/design.md). The store is never an out: DVC deletes outs.
WRITES = {
    "validate": {"samples", "rejects", "validation", "docs"},
    "extract": {"features"},
    "score": {"scores", "spectrum", "score_curve", "score_metrics"},
    "select": {"selection", "source_mix", "selection_metrics"},
    "export": {"subset", "report"},
}


# No stage depends on these: how and when the work is done, and what is asked of the subset afterwards.
BESIDE = {"run", "record", "evaluate", "compare"}


def outs(stage):
    return {*DAG["stages"][stage]["outs"], *DAG["stages"][stage].get("metrics", [])}


def closure(start: str) -> set[Path]:
    """Files of every tasks module that `start` imports, directly or not, and of the packages they lie in."""
    known, seen, queue = modules(), set(), [start]
    while queue:
        name = queue.pop()
        if name in seen or name not in known:
            continue
        seen.add(name)
        queue += [one for one in imports(known[name]) if one.startswith("tasks")]
        queue += [".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1)]
    return {known[name] for name in seen}


def test_the_stages_are_those_of_the_command():
    assert list(DAG["stages"]) == list(STAGES)
    assert all(DAG["stages"][name]["cmd"] == f"python -m tasks {name}" for name in STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_outs_are_the_layout(stage):
    layout = Layout.workspace()
    assert outs(stage) == {getattr(layout, field).as_posix() for field in WRITES[stage]}


def test_every_file_of_the_layout_is_an_out_or_lies_in_one():
    written = set().union(*WRITES.values())
    inside = {"all_rejects", "manifest"}
    assert {field.name for field in dataclasses.fields(Layout)} == written | inside | {"store"}
    layout = Layout.workspace()
    assert all(getattr(layout, name).is_relative_to(layout.subset) for name in inside)
    assert not any(layout.store.is_relative_to(out) for stage in STAGES for out in outs(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_deps_hold_all_the_code_a_stage_runs(stage):
    listed = [ROOT / dep for dep in DAG["stages"][stage]["deps"] if dep.split("/")[0] == "tasks"]
    assert [path for path in listed if not path.exists()] == []
    needed = closure(STAGES[stage]) | {ROOT / "tasks/__main__.py"}
    loose = [file for file in needed if not any(file == dep or dep in file.parents for dep in listed)]
    # tasks/__init__.py holds a docstring and nothing else.
    assert sorted(str(file.relative_to(ROOT)) for file in loose if file != ROOT / "tasks/__init__.py") == []


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "export"])
def test_deps_hold_no_module_a_stage_never_imports(stage):
    files = [ROOT / dep for dep in DAG["stages"][stage]["deps"] if dep.startswith("tasks/")]
    idle = [file for file in files if file.is_file() and file not in closure(STAGES[stage])]
    assert [file.name for file in idle if file.name != "__main__.py"] == []


def test_tasks_holds_no_code_outside_modules():
    assert (ROOT / "tasks/__init__.py").read_text().count("\n") == 1


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_has_its_verb(stage):
    assert callable(getattr(importlib.import_module(STAGES[stage]), stage))


def test_params_of_every_stage_exist_and_none_beside_them_is_tracked():
    for stage in DAG["stages"].values():
        for key in stage["params"]:
            node = PARAMS
            for part in re.sub(r"\$\{score.method\}", PARAMS["score"]["method"], key).split("."):
                assert part in node, key
                node = node[part]
    named = {key.split(".")[0] for stage in DAG["stages"].values() for key in stage["params"]}
    sections = {field.alias or name for name, field in Settings.model_fields.items()}
    assert named == sections - BESIDE


def test_export_depends_on_every_parameter_the_manifest_records():
    assert {key.split(".")[0] for key in DAG["stages"]["export"]["params"]} == set(PARAMS) - BESIDE


def test_params_file_spells_every_setting():
    """A key that is not in the file cannot be found by reading it, and DVC cannot track it."""
    settings = load(ROOT / "params.yaml").model_dump(mode="json", by_alias=True)

    def keys(tree, prefix=""):
        for key, value in tree.items():
            yield prefix + key
            if isinstance(value, dict):
                yield from keys(value, f"{prefix}{key}.")

    assert set(keys(settings)) == set(keys(PARAMS))


def test_every_method_has_a_block_that_it_accepts():
    from tasks.methods import METHODS

    assert set(PARAMS["methods"]) == set(METHODS)
    for name, block in PARAMS["methods"].items():
        METHODS[name].parse(block)


def test_metrics_are_cached():
    """One uncached output switches a stage's run cache off, and A -> B -> A would compute A again."""
    for stage in DAG["stages"].values():
        assert all(isinstance(one, str) for key in ("outs", "metrics") for one in stage.get(key, []))


def test_deployment_imports_its_flow():
    file = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    for deployment in file["deployments"]:
        module, _, name = deployment["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        assert set(deployment.get("parameters", {})) <= set(flow.parameters.properties)
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
        assert deployment["work_pool"]["name"] == "scalselect"
