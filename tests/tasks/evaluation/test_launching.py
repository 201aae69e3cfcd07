"""Several processes train one model, and leave what one process leaves."""

import json

import pytest
from small_evaluation import make_settings

from tasks.errors import EngineError
from tasks.evaluation.launching import train
from tasks.evaluation.material import Memory
from tasks.evaluation.planning import Run
from tasks.evaluation.subsets import Chooser, read_rows


@pytest.mark.slow
def test_two_processes_train_one_model(small):
    folder, layout = small
    settings = make_settings(folder)
    rows = Chooser(settings, layout).choose(Run("random", 8, 0)).rows
    tune = settings.evaluate.tune.model_copy(update={"processes": 2})
    record = train(settings.model, read_rows(layout.samples, rows), tune, 0, 3, folder / "run", Memory())
    assert (record["rows"], record["steps"]) == (8, 3)
    assert json.loads((folder / "run/training.json").read_text()) == record
    assert (folder / "run/model/model.safetensors").exists()


@pytest.mark.slow
def test_a_training_that_dies_in_a_process_is_an_error_here(small):
    folder, layout = small
    settings = make_settings(folder)
    samples = read_rows(layout.samples, Chooser(settings, layout).choose(Run("random", 4, 0)).rows)
    (folder / "model/config.json").write_text("{}")
    tune = settings.evaluate.tune.model_copy(update={"processes": 2})
    with pytest.raises(EngineError, match="accelerate launch ended with 1"):
        train(settings.model, samples, tune, 0, 3, folder / "run", Memory())
