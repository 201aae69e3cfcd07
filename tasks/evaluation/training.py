"""One training: fine-tune the target VLM on one subset with transformers' Trainer.

A finished training is known by its folder's `training.json`, written last; an unfinished one goes on from the
Trainer's last checkpoint.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from tasks.atomic import write_json
from tasks.evaluation.material import Material, labels
from tasks.params import ExtractSettings, ModelSettings, TuneSettings
from tasks.sample import Sample
from tasks.vlm.batch import Prepared, collate
from tasks.vlm.checkpoint import open_checkpoint
from tasks.vlm.preparation import Preparer

log = logging.getLogger(__name__)


def fine_tune(
    settings: ModelSettings,
    samples: Sequence[Sample],
    tune: TuneSettings,
    seed: int,
    out: Path,
    steps: int | None = None,
) -> dict[str, Any]:
    """Train on `samples`, write the model to `out`/model, return what `out`/training.json holds.

    `steps` overrides tune.epochs (step-matched training). A folder that holds a finished training is returned as it is.
    """
    marker = out / "training.json"
    if marker.exists():
        finished: dict[str, Any] = json.loads(marker.read_text())
        return finished
    out.mkdir(parents=True, exist_ok=True)
    folder = open_checkpoint(settings).folder
    preparer = Preparer(folder, settings, ExtractSettings(), ())
    model = _model(folder, settings, tune)
    started = time.perf_counter()
    trainer = _trainer(model, Material(samples, preparer), preparer, tune, seed, out, steps)
    trained = trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out)))
    _save(trainer, folder, settings, out / "model")
    record = {
        "rows": len(samples),
        "seed": seed,
        "steps": trainer.state.global_step,
        "loss": float(trained.training_loss),
        "seconds": time.perf_counter() - started,
    }
    write_json(marker, record)
    return record


def _model(folder: Path, settings: ModelSettings, tune: TuneSettings) -> Any:
    model = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=settings.dtype, trust_remote_code=settings.trust_remote_code
    )
    for name, weight in model.named_parameters():
        weight.requires_grad_(not any(part in name for part in tune.freeze))
    if tune.lora_rank is None:
        return model
    from peft import LoraConfig, get_peft_model

    # "all-linear" would also wrap the vision tower; the field trains the decoder's adapters.
    targets = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    adapters = LoraConfig(r=tune.lora_rank, lora_alpha=2 * tune.lora_rank, lora_dropout=0.05, target_modules=targets)
    return get_peft_model(model, adapters)


def _trainer(
    model: Any, material: Material, preparer: Preparer, tune: TuneSettings, seed: int, out: Path, steps: int | None
) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(out),
        num_train_epochs=tune.epochs,
        max_steps=steps or -1,
        per_device_train_batch_size=tune.batch_size,
        gradient_accumulation_steps=tune.accumulate,
        learning_rate=tune.learning_rate,
        weight_decay=tune.weight_decay,
        warmup_steps=tune.warmup,  # below 1 it is a share of the steps
        lr_scheduler_type="cosine",
        bf16=torch.cuda.is_available(),
        seed=seed,
        data_seed=seed,
        save_steps=tune.save_steps,
        save_total_limit=1,
        logging_steps=50,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=tune.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    pad_id = preparer.processor.pad_id

    def stack(batch: list[Prepared]) -> dict[str, Any]:
        stacked = collate(batch, pad_id)
        ids, mask = stacked.inputs["input_ids"], stacked.inputs["attention_mask"]
        return {**stacked.inputs, "labels": labels(stacked.answer, ids, mask)}

    return Trainer(model=model, args=arguments, train_dataset=material, data_collator=stack)


def _save(trainer: Trainer, folder: Path, settings: ModelSettings, out: Path) -> None:
    """Weights (adapters merged, so that any tool can load the folder) and the processor beside them."""
    model: Any = trainer.model
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.save_pretrained(out)
    AutoProcessor.from_pretrained(folder, trust_remote_code=settings.trust_remote_code).save_pretrained(out)
