"""Recipes for other trainers: files that are there, readable, and agree with the settings."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from small_evaluation import make_settings

from tasks.evaluation.planning import Run
from tasks.evaluation.recipes import write_recipes
from tasks.evaluation.subsets import Chooser, read_rows
from tasks.sample import digest_bytes


def test_every_training_run_has_both_recipes(small):
    folder, layout = small
    settings, out = make_settings(folder, seeds=1), folder / "recipes"
    folders = write_recipes(settings, layout, out)
    assert [one.name for one in folders] == ["full-1.0-s0", "scalselect-0.3-s0", "random-0.3-s0"]
    chosen = Chooser(settings, layout).choose(Run("scalselect", 0.3, 0)).rows
    wanted = [(one.turns[-1].content, one.images[0].sha256) for one in read_rows(layout.samples, chosen)]
    array = json.loads((folders[1] / "llama_factory/subset.json").read_text())
    lines = [json.loads(line) for line in (folders[1] / "ms_swift/subset.jsonl").read_text().splitlines()]
    for rows, start in ((array, folders[1] / "llama_factory"), (lines, Path("/nowhere"))):
        found = [(row["messages"][-1]["content"], (start / row["images"][0]).read_bytes()) for row in rows]
        assert [(answer, digest_bytes(data)) for answer, data in found] == wanted


def test_llama_factory_recipe_says_what_the_settings_say(small):
    folder, layout = small
    settings = make_settings(folder, seeds=2, tune={"lora_rank": 8, "learning_rate": 2e-5, "epochs": 2.0})
    folders = write_recipes(settings, layout, folder / "recipes")
    recipe = yaml.safe_load((folders[2] / "llama_factory/train.yaml").read_text())
    assert (recipe["stage"], recipe["finetuning_type"], recipe["lora_rank"]) == ("sft", "lora", 8)
    assert (recipe["template"], recipe["model_name_or_path"]) == ("llava", str(folder / "model"))
    assert (recipe["learning_rate"], recipe["num_train_epochs"], recipe["seed"]) == (2e-5, 2.0, 0)
    info = json.loads((folders[2] / "llama_factory/dataset_info.json").read_text())
    assert recipe["dataset"] in info
    swift = yaml.safe_load((folders[3] / "ms_swift/train.yaml").read_text())
    assert (swift["tuner_type"], swift["model"], swift["dataset"]) == ("lora", str(folder / "model"), ["subset.jsonl"])


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [([], (False, False, False)), (["vision_tower"], (True, False, False)), (["visual"], (True, True, False)),
     (["vision_tower", "multi_modal_projector", "language_model"], (True, True, True))],
)  # fmt: skip
def test_the_same_parts_learn_with_every_trainer(small, freeze, frozen):
    folder, layout = small
    settings = make_settings(folder, seeds=1, methods=["random"], tune={"freeze": freeze})
    run = write_recipes(settings, layout, folder / "recipes")[1]
    factory = yaml.safe_load((run / "llama_factory/train.yaml").read_text())
    swift = yaml.safe_load((run / "ms_swift/train.yaml").read_text())
    names = ("freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model")
    assert tuple(factory[name] for name in names) == frozen
    assert tuple(swift[name] for name in ("freeze_vit", "freeze_aligner", "freeze_llm")) == frozen


def test_the_script_skips_what_is_done(small):
    folder, layout = small
    out = folder / "recipes"
    write_recipes(make_settings(folder, seeds=1, methods=["random"]), layout, out)
    tools = folder / "bin"
    tools.mkdir()
    for name in ("llamafactory-cli", "python", "scalselect"):
        (tools / name).write_text(f'#!/bin/sh\necho "{name} in $(basename $(dirname $PWD))" >> {folder}/calls\n')
        (tools / name).chmod(0o755)
    (out / "full-1.0-s0/model").mkdir()
    (out / "full-1.0-s0/model/all_results.json").write_text("{}")
    (out / "random-0.3-s0/lmms_eval/model").mkdir(parents=True)
    (out / "random-0.3-s0/lmms_eval/model/1_results.json").write_text("{}")
    subprocess.run(["bash", out / "run.sh"], check=True, env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"})
    assert [line.split()[0] for line in (folder / "calls").read_text().splitlines()] == ["python", "scalselect"]


def test_the_script_is_sound_and_ends_in_the_table(small):
    folder, layout = small
    write_recipes(make_settings(folder, seeds=1), layout, folder / "recipes")
    script = folder / "recipes/run.sh"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    assert "llamafactory-cli train train.yaml" in text
    assert "lmms_eval --model llava_hf --model_args pretrained=" in text
    entries = json.loads((folder / "recipes/results.json").read_text())
    assert [one["method"] for one in entries] == ["full", "scalselect", "random"]
    assert all(f"{one['method']}-{one['budget']}-s{one['seed']}/lmms_eval" == one["lmms_eval"] for one in entries)
