"""Recipes for those who train elsewhere: each subset as LLaMA-Factory and ms-swift take it, ready to run.

<out>/<run>/llama_factory/  train.yaml, dataset_info.json, the rows
<out>/<run>/ms_swift/       train.yaml, the rows
<out>/run.sh                everything in order: train, ask lmms-eval's tasks
<out>/results.json          what `scalselect evaluate --import` reads once run.sh is through
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tasks.atomic import write_json, write_text
from tasks.evaluation.planning import LORA_DROPOUT, Run, plan_runs
from tasks.evaluation.subsets import Chooser, read_rows
from tasks.evaluation.table import UNTRAINED
from tasks.formats import WRITERS, PathPolicy
from tasks.layout import Layout
from tasks.params import Settings, TuneSettings
from tasks.sample import Sample
from tasks.vlm.checkpoint import open_checkpoint

# model_type -> LLaMA-Factory's name of its template; a family not named here keeps its own name.
TEMPLATES = {
    "gemma3": "gemma3",
    "glm4v": "glm4v",
    "internvl": "intern_vl",
    "llava": "llava",
    "llava_next": "llava_next",
    "mllama": "mllama",
    "paligemma": "paligemma",
    "qwen2_5_vl": "qwen2_vl",
    "qwen2_vl": "qwen2_vl",
    "qwen3_vl": "qwen3_vl_nothink",
    "smolvlm": "smolvlm",
}

# model_type -> lmms-eval's name of the model; the others are served by vLLM.
TESTERS = {"llava": "llava_hf", "llava_next": "llava_hf", "qwen2_vl": "qwen2_vl", "qwen2_5_vl": "qwen2_5_vl"}

# Words of tune.freeze that mean the vision tower, the projector (Qwen's lies inside `visual`) and the decoder.
_PARTS = tuple(
    map(re.compile, ("vis", "projector|connector|merger|aligner|visual", "language_model|text_model|decoder"))
)

BENCHMARKS = ("gqa", "textvqa_val", "pope", "mme", "scienceqa_img")
"""lmms-eval's tasks that run.sh asks, as the field's papers do; edit the line at its top."""


def write_recipes(settings: Settings, layout: Layout, out: Path) -> list[Path]:
    """Write a recipe for each run that trains; returns their folders. Raises what choosing a subset raises."""
    checkpoint = open_checkpoint(settings.model, weights=False)
    family = json.loads((checkpoint.folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    chooser = Chooser(settings, layout)
    runs = [run for run in plan_runs(settings.evaluate) if run.method != UNTRAINED and run.matching == "epochs"]
    for run in runs:
        samples = read_rows(layout.samples, chooser.choose(run).rows)
        _write_llama_factory(settings, run, samples, out / run.label / "llama_factory", family)
        _write_ms_swift(settings, run, samples, out / run.label / "ms_swift")
    write_text(out / "run.sh", _script(runs, settings.evaluate.tune, family))
    write_json(out / "results.json", [_result(run) for run in runs])
    return [out / run.label for run in runs]


def _write_llama_factory(settings: Settings, run: Run, samples: Sequence[Sample], out: Path, family: str) -> None:
    WRITERS["llamafactory"](((sample, None) for sample in samples), out, PathPolicy("relative"))
    tune = settings.evaluate.tune
    recipe = {
        "model_name_or_path": settings.model.path,
        "trust_remote_code": settings.model.trust_remote_code,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora" if tune.lora_rank else "full",
        **_trained(tune, ("freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model")),
        "dataset_dir": ".",
        "media_dir": ".",
        "dataset": "subset",
        "template": TEMPLATES.get(family, family),
        "cutoff_len": settings.model.max_length,
        "output_dir": "../model",
        "report_to": "none",
        **_schedule(tune, run),
    }
    write_text(out / "train.yaml", _yaml("llamafactory-cli train train.yaml, in this folder", recipe))


def _write_ms_swift(settings: Settings, run: Run, samples: Sequence[Sample], out: Path) -> None:
    # Absolute: ms-swift looks for relative images where it is started.
    WRITERS["ms_swift"](((sample, None) for sample in samples), out, PathPolicy("absolute"))
    tune = settings.evaluate.tune
    recipe = {
        "model": settings.model.path,
        "use_hf": True,
        "tuner_type": "lora" if tune.lora_rank else "full",
        **_trained(tune, ("freeze_vit", "freeze_aligner", "freeze_llm")),
        "dataset": ["subset.jsonl"],
        "split_dataset_ratio": 0.0,
        "max_length": settings.model.max_length,
        "torch_dtype": "bfloat16",
        "output_dir": "../model",
        "add_version": False,
        **_schedule(tune, run),
    }
    write_text(
        out / "train.yaml", _yaml("swift sft --config train.yaml, in this folder (ms-swift 4; 3: train_type)", recipe)
    )


def _trained(tune: TuneSettings, switches: tuple[str, str, str]) -> dict[str, Any]:
    """Which weights learn: adapters in the decoder, or every part that `tune.freeze` does not name.

    switches: what the trainer calls freezing vision tower, projector and decoder. Both freeze the first two unless told
    otherwise, which our own training does not.
    """
    if tune.lora_rank:
        return {"lora_rank": tune.lora_rank, "lora_alpha": 2 * tune.lora_rank, "lora_dropout": LORA_DROPOUT}
    return {
        switch: any(part.search(word) for word in tune.freeze) for switch, part in zip(switches, _PARTS, strict=True)
    }


def _schedule(tune: TuneSettings, run: Run) -> dict[str, Any]:
    """What both trainers take from transformers under the same names."""
    return {
        "per_device_train_batch_size": tune.batch_size,
        "gradient_accumulation_steps": tune.accumulate,
        "learning_rate": tune.learning_rate,
        "weight_decay": tune.weight_decay,
        "num_train_epochs": tune.epochs,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": tune.warmup,
        "bf16": True,
        "seed": run.seed,
        "data_seed": run.seed,
        "save_steps": tune.save_steps,
        "logging_steps": 10,
    }


def _script(runs: Sequence[Run], tune: TuneSettings, family: str) -> str:
    """Train each subset with LLaMA-Factory, ask lmms-eval's tasks, build the table; what is done is not done again."""
    tester = TESTERS.get(family, "vllm")
    argument = "model" if tester == "vllm" else "pretrained"
    merge = ""
    if tune.lora_rank:
        merge = (
            '  [ -d "$run/merged" ] || (cd "$run/llama_factory" && llamafactory-cli export train.yaml '
            "adapter_name_or_path=../model export_dir=../merged)\n"
        )
    model = "merged" if tune.lora_rank else "model"
    names = " ".join(run.label for run in runs)
    return (
        "#!/usr/bin/env bash\n"
        "# Needs llamafactory and lmms-eval. What is done is skipped; a training goes on from its last checkpoint.\n"
        "set -euo pipefail\n"
        'cd "$(dirname "$0")"\n'
        f"tasks={','.join(BENCHMARKS)}\n"
        f"for run in {names}; do\n"
        '  if compgen -G "$run/lmms_eval/**/*results.json" > /dev/null; then continue; fi\n'
        '  [ -f "$run/model/all_results.json" ] || (cd "$run/llama_factory" && llamafactory-cli train train.yaml)\n'
        f"{merge}"
        f'  python -m lmms_eval --model {tester} --model_args {argument}="$run/{model}" --tasks "$tasks" '
        '--batch_size 1 --output_path "$run/lmms_eval"\n'
        "done\n"
        "scalselect evaluate --import results.json\n"
    )


def _result(run: Run) -> dict[str, Any]:
    return {"method": run.method, "budget": run.budget, "seed": run.seed, "lmms_eval": f"{run.label}/lmms_eval"}


def _yaml(how: str, recipe: dict[str, Any]) -> str:
    return f"# {how}\n" + yaml.safe_dump(recipe, sort_keys=False)
