"""Recipes for other trainers: files that are there, readable, and agree with the settings."""

import json
import subprocess
from pathlib import Path

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
