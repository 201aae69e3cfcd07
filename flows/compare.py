"""Compare: one DVC stage beside the pipeline's five, behind both doors; or plainly in this process.

The stage and its plots live in a dvc.yaml of their own, comparison/dvc.yaml, written when a comparison is first asked
for: `dvc repro` of the pipeline runs no method but the one in use.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect import flow, get_run_logger
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.contrast import tabulate
from flows.stages import stage
from flows.workspace import PACKAGE, find, holding, override, refresh_code
from tasks.atomic import write_json, write_text
from tasks.errors import ScalSelectError
from tasks.layout import Layout
from tasks.params import Settings
from tasks.sample import digest_bytes, digest_json

FOLDER = Path("comparison")
STAGE = f"{FOLDER}/dvc.yaml:compare"
OUT = Path("data/comparison")
BEFORE = ("validate", "extract")
"""Stages that a comparison builds on: it scores and selects by itself, once for each method."""

BARS = {
    "captured": "Energy captured",
    "distance": "Mean distance to the nearest selected row",
    "clusters": "Share of clusters with a selected row",
    "near_duplicates": "Share of near duplicates",
}


@flow(name="scalselect-compare")
def compare(overrides: dict[str, Any] | None = None, workspace: str = ".") -> State[Any]:
    """Compare the methods and budgets of `compare` in params.yaml, on features that are brought up to date first.

    overrides: dotted keys such as {"compare.budgets": [0.05, 0.16]}, written into the workspace's params.yaml.
    workspace: a folder in the workspace.
    """
    log = get_run_logger()
    try:
        root = find(Path(workspace))
        with holding(root, log.info):
            settings = override(root, overrides or {})
            refresh_code(root)
            outcomes = [stage(name, str(root)).result() for name in BEFORE]
            write_stage(root, settings)
            outcomes.append(stage(STAGE, str(root)).result())
            _publish(root)
    except ScalSelectError as error:
        return Failed(message=str(error), data=error)
    return Completed(message=f"tables in {OUT}", data=outcomes)


def write_stage(root: Path, settings: Settings) -> None:
    """Write comparison/dvc.yaml and the digest of the code it depends on; features must have been extracted.

    Raises ParamsError for an unknown method, FeatureError saying which signals to add.
    """
    from tasks.comparison import choose_methods

    methods = choose_methods(settings, Layout.workspace(root / "data"))
    pipeline = {"stages": {"compare": describe_stage()}, "plots": describe_plots(methods)}
    path, text = root / FOLDER / "dvc.yaml", yaml.safe_dump(pipeline, sort_keys=False)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    # A scaffolded workspace holds no code that DVC could watch; this file stands in for it, in a checkout too.
    write_json(root / FOLDER / "code.lock.json", {"compare": _digest_code()})


def describe_stage() -> dict[str, Any]:
    """The stage as DVC is told it; paths are relative to the workspace."""
    return {
        "desc": "Run every method at every budget, measure the subsets, write tables and page",
        "wdir": "..",
        "cmd": "python -m tasks.comparison",
        "deps": [Layout.workspace().samples.as_posix(), Layout.workspace().features.as_posix()],
        "params": ["compare", "select", "methods", "extract", {f"{FOLDER}/code.lock.json": ["compare"]}],
        "outs": [OUT.as_posix()],
    }


def describe_plots(methods: list[str]) -> list[Mapping[str, Any]]:
    """What `dvc plots show` draws: energy captured over the budget, and a bar for each subset and measure."""
    curve, measures = (f"../{OUT}/{name}" for name in ("curve.csv", "measures.csv"))
    lines = {"title": "Energy captured, by share selected", "x": "share", "y": {curve: list(methods)}}
    bars = [
        {
            f"comparison_{name}": {
                "title": title,
                "template": "bar_horizontal",
                "x": {measures: name},
                "y": {measures: "subset"},
            }
        }
        for name, title in BARS.items()
    ]
    return [{"comparison_curve": lines}, *bars]


def _publish(root: Path) -> None:
    """A table for each budget, and a link to the page."""
    from tasks.comparison import PAGE, read_comparison

    record, costs = read_comparison(root / OUT)
    for at in record["budgets"]:
        title = f"{at['rows']:,} of {record['rows']:,} rows"
        create_table_artifact(tabulate(record, costs, at), key=f"scalselect-compare-{at['rows']}", description=title)
    create_link_artifact((root / OUT / PAGE).as_uri(), "Comparison", key="scalselect-comparison")


def _digest_code() -> str:
    files = sorted((PACKAGE / "tasks").rglob("*.py"))
    return digest_json({path.relative_to(PACKAGE).as_posix(): digest_bytes(path.read_bytes()) for path in files})
