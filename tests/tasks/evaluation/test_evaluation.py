"""The whole of an evaluation on a very small model: done once, never twice, and picked up where it was cut off."""

import dataclasses
import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from small_evaluation import make_settings, truth_of

from tasks.errors import InputError
from tasks.evaluation import training
from tasks.evaluation.evaluation import evaluate
from tasks.evaluation.material import Memory
from tasks.evaluation.planning import Run
from tasks.evaluation.subsets import Chooser, read_rows
from tasks.evaluation.training import digest_model, fine_tune, training_key
from tasks.vlm.batch import Prepared


class Killed(BaseException):
    """What a SIGKILL looks like from inside: nothing may catch it."""


def stop_at(steps):
    """A checkpoint callback's way to die: after so many updates of the training at hand."""
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, arguments, state, control, **rest):
            if state.global_step == steps:
                raise Killed

    return Stop()


@pytest.fixture
def counted(monkeypatch):
    """How often a Trainer really trains, and how far."""
    done = []
    train = training.Trainer.train

    def counting(self, **options):
        found = train(self, **options)
        done.append(self.state.global_step)
        return found

    monkeypatch.setattr(training.Trainer, "train", counting)
    return done


def test_the_report_tells_of_every_run_and_is_not_trained_for_twice(small, counted):
    folder, layout = small
    settings, out = make_settings(folder), folder / "data/evaluation"
    report = evaluate(settings, layout, out)
    assert [(line.method, line.seeds) for line in report.lines] == [
        ("full", 1), ("untrained", 1), *((line.method, 2) for line in report.lines[2:])
    ]  # fmt: skip
    assert {line.method for line in report.lines[2:]} == {"random", "scalselect"}
    assert sorted(report.lines[0].tasks) == ["colour", "digit"]
    assert report.lines[0].relative == 100.0
    assert all(set(line.perplexity) == {"colour", "digit"} for line in report.lines)
    assert (len(counted), max(counted)) == (5, 60)

    table = pl.read_csv(out / "table.csv")
    assert table["relative"].to_list() == [line.relative for line in report.lines]
    subsets = pl.read_parquet(out / "subsets.parquet")
    assert subsets.group_by("method", "seed").len()["len"].to_list() == [11] * 4

    again = evaluate(settings, layout, out)
    assert len(counted) == 5
    assert again.lines == [line for line in again.lines if line.relative in table["relative"].to_list()]


def test_what_was_kept_is_told_from_the_truth_beside_the_dataset(small):
    folder, layout = small
    report = evaluate(make_settings(folder, seeds=1), layout, folder / "out")
    whole = next(one for one in report.kept if one.method == "full")
    shown = [one for one in truth_of(folder) if one["group"] != "text"]
    assert whole.rows == len(shown)
    assert whole.groups == len({one["group"] for one in shown})
    assert whole.noise == pytest.approx(sum(one["noise"] for one in shown) / len(shown))


def test_a_killed_evaluation_goes_on_from_its_last_checkpoint(small, counted, monkeypatch):
    folder, layout = small
    settings, out = make_settings(folder, seeds=1), folder / "out"
    build = training._trainer

    def killing(*arguments):
        trainer = build(*arguments)
        if len(arguments[1]) == 11:  # the first subset, after the full data is done
            trainer.add_callback(stop_at(10))
        return trainer

    monkeypatch.setattr(training, "_trainer", killing)
    with pytest.raises(Killed):
        evaluate(settings, layout, out)
    assert counted == [60]
    assert len(list((out / "runs").iterdir())) == 2
    monkeypatch.setattr(training, "_trainer", build)
    cut_off = evaluate(settings, layout, out)
    assert counted == [60, 18, 18]

    shutil.rmtree(out)
    shutil.rmtree(layout.store / "runs")
    unbroken = evaluate(settings, layout, out)
    for one, other in zip(cut_off.lines, unbroken.lines, strict=True):
        assert one.tasks == other.tasks
        assert one.perplexity == pytest.approx(other.perplexity, rel=1e-4)


def test_a_checkpoint_that_was_cut_off_in_mid_write_is_passed_over(small, counted, monkeypatch, caplog):
    folder, layout = small
    settings = make_settings(folder)
    rows = read_rows(layout.samples, Chooser(settings, layout).choose(Run("random", 8, 0)).rows)
    tune = settings.evaluate.tune
    build = training._trainer

    def killing(*arguments):
        trainer = build(*arguments)
        trainer.add_callback(stop_at(6))
        return trainer

    monkeypatch.setattr(training, "_trainer", killing)
    with pytest.raises(Killed):
        fine_tune(settings.model, rows, tune, 0, 12, folder / "run")
    (whole,) = (folder / "run").glob("checkpoint-*")
    torn = shutil.copytree(whole, folder / "run/checkpoint-8")
    (torn / "trainer_state.json").write_text("")
    assert training.last_checkpoint(folder / "run") == str(whole)
    assert "checkpoint-8 was not finished" in caplog.text
    assert not torn.exists()
    monkeypatch.setattr(training, "_trainer", build)
    record = fine_tune(settings.model, rows, tune, 0, 12, folder / "run")
    assert counted == [12]
    assert record["seconds"] > 0


def test_a_training_with_nothing_left_to_do_has_no_time(small, monkeypatch):
    folder, layout = small
    settings = make_settings(folder)
    rows = read_rows(layout.samples, Chooser(settings, layout).choose(Run("random", 8, 0)).rows)
    save = training._save

    def saving(*arguments):  # a kill after the last checkpoint, before the model is there, leaves this
        shutil.copytree(folder / "run/checkpoint-8", folder / "left/checkpoint-8")
        save(*arguments)

    monkeypatch.setattr(training, "_save", saving)
    assert fine_tune(settings.model, rows, settings.evaluate.tune, 0, 8, folder / "run")["seconds"] > 0
    monkeypatch.setattr(training, "_save", save)
    assert fine_tune(settings.model, rows, settings.evaluate.tune, 0, 8, folder / "left")["seconds"] is None


def test_records_alone_are_enough_and_new_questions_need_no_new_training(small, counted):
    folder, layout = small
    settings, out = make_settings(folder, seeds=1), folder / "out"
    evaluate(settings, layout, out)
    trained = len(counted)
    # Another machine, which pulled the records and has no models.
    models = folder / "models"
    shutil.move(layout.store / "runs", models)
    evaluate(settings, layout, out)
    assert len(counted) == trained
    shutil.move(models, layout.store / "runs")
    fewer = make_settings(folder, seeds=1, tasks={"colour": settings.evaluate.tasks["colour"].model_dump()})
    assert set(evaluate(fewer, layout, out).lines[0].tasks) == {"colour"}
    assert len(counted) == trained


def test_models_are_let_go_when_nobody_wants_them(small):
    folder, layout = small
    evaluate(make_settings(folder, seeds=1, keep_models=False), layout, folder / "out")
    assert list((layout.store / "runs").iterdir()) == []


def test_methods_with_the_same_rows_share_one_training(small, counted):
    folder, layout = small
    twin = {"twin": {"method": "scalselect"}}
    evaluate(make_settings(folder, seeds=1, methods=["scalselect", "twin"], variants=twin), layout, folder / "out")
    assert len(counted) == 3


def test_matched_steps_train_a_subset_as_long_as_the_whole(small, counted):
    folder, layout = small
    report = evaluate(make_settings(folder, seeds=1, methods=[], matching=["steps"]), layout, folder / "out")
    assert counted == [60, 60]
    assert report.lines[-1].matching == "steps"


def test_overlap_stops_everything_before_training(small, counted):
    folder, layout = small
    tasks = {"pool": {"path": str(folder / "pool/data.json"), "image_root": str(folder / "pool/images")}}
    with pytest.raises(InputError, match="held-out rows"):
        evaluate(make_settings(folder, tasks=tasks), layout, folder / "out")
    assert counted == []


def test_lora_trains_adapters_and_leaves_a_whole_model(small):
    folder, layout = small
    settings = make_settings(folder)
    tune = settings.evaluate.tune.model_copy(update={"lora_rank": 2, "learning_rate": 0.05})
    rows = Chooser(settings, layout).choose(Run("random", 8, 0)).rows
    fine_tune(settings.model, read_rows(layout.samples, rows), tune, 0, 4, folder / "run")
    from safetensors.numpy import load_file

    before, after = (load_file(path / "model.safetensors") for path in (folder / "model", folder / "run/model"))
    assert set(before) == set(after)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed
    assert all("language_model" in name and "_proj.weight" in name for name in changed)


def test_runs_side_by_side_leave_the_records_of_runs_in_a_row(small):
    folder, layout = small
    reports = [evaluate(make_settings(folder, jobs=jobs), layout, folder / f"out{jobs}") for jobs in (1, 2)]
    assert _without_cost(reports[0]) == _without_cost(reports[1])
    names = [sorted(path.name for path in (folder / f"out{jobs}/runs").iterdir()) for jobs in (1, 2)]
    assert names[0] == names[1]


def test_a_fault_beside_others_is_raised(small):
    folder, layout = small
    settings = make_settings(folder, jobs=2)
    shutil.rmtree(folder / "pool/images")
    with pytest.raises(OSError, match="images"):
        evaluate(settings, layout, folder / "out")


def _without_cost(report):
    return [dataclasses.replace(line, cost=None) for line in report.lines]


def test_a_model_of_half_precision_learns_in_float32_and_is_saved_as_it_was(small):
    from safetensors.torch import load_file

    folder, layout = small
    settings = make_settings(folder)
    half = settings.model.model_copy(update={"dtype": "bfloat16"})
    tune = settings.evaluate.tune.model_copy(update={"learning_rate": 2e-5, "warmup": 0.0, "weight_decay": 0.0})
    model = training._model(folder / "model", half, tune)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    rows = read_rows(layout.samples, Chooser(settings, layout).choose(Run("random", 8, 0)).rows)
    fine_tune(half, rows, tune, 0, 2, folder / "run")
    saved = load_file(folder / "run/model/model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.bfloat16}


def test_frozen_parameters_stay_as_they_are(small):
    folder, layout = small
    settings = make_settings(folder)
    tune = settings.evaluate.tune.model_copy(update={"freeze": ("vision_tower", "lm_head")})
    rows = Chooser(settings, layout).choose(Run("random", 8, 0)).rows
    fine_tune(settings.model, read_rows(layout.samples, rows), tune, 0, 2, folder / "run", Memory())
    from safetensors.numpy import load_file

    before, after = (load_file(path / "model.safetensors") for path in (folder / "model", folder / "run/model"))
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert any("vision_tower" in name for name in same)
    assert all("vision_tower" not in name and "lm_head" not in name for name in set(before) - same)
    assert not any(folder.glob("run/checkpoint-*"))


def test_a_training_is_known_by_all_that_decides_it_and_nothing_else(small):
    folder, _ = small
    settings = make_settings(folder)
    model, tune = digest_model(settings.model), settings.evaluate.tune
    key = training_key(model, ["a", "b"], tune, 0, 5)
    often = tune.model_copy(update={"save_steps": 1, "workers": 3, "epochs": 9.0})
    assert training_key(model, ["a", "b"], often, 0, 5) == key
    others = [
        training_key("x", ["a", "b"], tune, 0, 5),
        training_key(model, ["a"], tune, 0, 5),
        training_key(model, ["a", "b"], tune.model_copy(update={"learning_rate": 0.5}), 0, 5),
        training_key(model, ["a", "b"], tune, 1, 5),
        training_key(model, ["a", "b"], tune, 0, 6),
    ]
    assert len({key, *others}) == 6
    config = folder / "model/generation_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "temperature": 0.5}))
    assert digest_model(settings.model) != model


def test_memory_holds_only_what_fits():
    fake = Prepared({"pixel_values": torch.zeros(10, dtype=torch.float64)}, *[torch.zeros(1, dtype=torch.bool)] * 3)
    memory = Memory(limit=100)
    memory.put("a", fake)
    memory.put("b", fake)
    assert memory.get("a") is not None
    assert memory.get("b") is None
