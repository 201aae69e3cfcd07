"""Every method from the dataset to the subset, its signals measured by the demo's own models: one folder, one store."""

import json

import polars as pl
import pytest
from test_judge import Server, server  # noqa: F401

from flows.direct import select, settings_of
from tasks.demo import build
from tasks.methods import METHODS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    build(root, rows=90)
    return root


def reply(body):
    """The grades a judge might give; both rubrics' fields, whichever was asked for."""
    turns = body["messages"][1]["content"][0]["text"].count("[assistant]")
    grade = 1 + len(str(body)) % 5
    if body["response_format"]["json_schema"]["name"] == "deita":
        return json.dumps({"complexity": [grade] * turns, "quality": [3] * turns})
    return json.dumps({"accuracy": grade, "grammar": 5, "informativeness": 3, "coherence": 4})


@pytest.mark.parametrize("name", METHODS)
def test_runs_from_dataset_to_subset(demo, server: Server, name):  # noqa: F811
    server.reply = reply
    chosen = settings_of(
        {
            "dataset.path": str(demo / "data.json"),
            "dataset.image_root": str(demo / "images"),
            "model.path": str(demo / "model"),
            "score.method": name,
            "select.budget": 9,
        },
        {
            "validate.gates.maximum_reject_share": 1.0,
            "extract.clip.model.path": str(demo / "clip"),
            "extract.judge": {"url": server.url, "model": "judge-1"},
            "run.workers": 0,
        },
    )
    layout = select(chosen, demo / "out")
    lines = pl.read_parquet(layout.selection)
    assert (lines["status"] == "selected").sum() == 9
    assert len(lines) == 90
    assert len(json.loads((layout.subset / "subset.json").read_text())) == 9
