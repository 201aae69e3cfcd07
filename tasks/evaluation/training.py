"""One training: fine-tune the target VLM on one subset with transformers' Trainer.

A finished training is known by its folder's `training.json`, written last; an unfinished one goes on from the
Trainer's last checkpoint.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState

from tasks.atomic import write_json
from tasks.evaluation.material import Material, Memory, labels
from tasks.evaluation.planning import LORA_DROPOUT
from tasks.params import ExtractSettings, ModelSettings, TuneSettings
from tasks.sample import Sample, digest_json
from tasks.vlm.batch import Prepared, collate
from tasks.vlm.checkpoint import open_checkpoint, small_files
from tasks.vlm.configuration import read_config
from tasks.vlm.digests import Digests
from tasks.vlm.loading import choose_dtype
from tasks.vlm.preparation import Preparer
from tasks.vlm.pruning import decoder

log = logging.getLogger(__name__)

# Raise when the same settings would train otherwise than before: finished trainings are then done again.
RULES = 2


def training_key(model: str, digests: Sequence[str], tune: TuneSettings, seed: int, steps: int) -> str:
    """Identity of a training: the base model's digest, the subset's content, the recipe, the seed.

    Whatever has this key has the same result, so it is trained once. How often it is saved plays no part.
    """
    recipe = tune.model_dump(mode="json", exclude={"epochs", "save_steps", "workers"})
    return digest_json(
        {"rules": RULES, "model": model, "rows": list(digests), "tune": recipe, "seed": seed, "steps": steps}
    )


def digest_model(settings: ModelSettings) -> str:
    """Identity of the base model as it is trained: every tensor, its processor, and how rows are read through it."""
    checkpoint, digests = open_checkpoint(settings), Digests()
    return digest_json(
        {
            "tensors": digests.tensors(checkpoint, checkpoint.weights),
            "files": {path.name: digests.file(path) for path in small_files(checkpoint.folder)},
            "read": settings.model_dump(mode="json", include={"dtype", "max_length", "over_length"}),
        }
    )


def fine_tune(
    settings: ModelSettings,
    samples: Sequence[Sample],
    tune: TuneSettings,
    seed: int,
    steps: int,
    out: Path,
    memory: Memory | None = None,
) -> dict[str, Any]:
    """Train on `samples` for so many updates, write the model to `out`/model, return what `out`/training.json holds.

    A folder that holds a finished training is returned as it is.
    """
    marker = out / "training.json"
    if marker.exists() and (out / "model").exists():
        finished: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
        return finished
    out.mkdir(parents=True, exist_ok=True)
    folder = whole_checkpoint(settings)
    preparer = Preparer(folder, settings, ExtractSettings(), ())
    begun = last_checkpoint(out)
    set_seed(seed)  # adapters are drawn before the Trainer sets its own
    material = Material(samples, preparer, memory)
    trainer = _trainer(_model(_start(folder, begun, tune), settings, tune), material, preparer, tune, seed, steps, out)
    started = time.perf_counter()
    trained = trainer.train(resume_from_checkpoint=begun)
    seconds = time.perf_counter() - started
    record = {
        "rows": len(samples),
        "seed": seed,
        "steps": steps,
        "loss": float(trained.training_loss),
        "seconds": _whole_time(seconds, steps, _steps_done(begun)),
    }
    if trainer.is_world_process_zero():
        _save(trainer, folder, settings, out / "model")
        write_json(marker, record)
        for checkpoint in out.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    return record


def last_checkpoint(out: Path) -> str | None:
    """The newest checkpoint that was written whole. Torn ones, left by a kill in mid-write, are removed.

    The Trainer writes trainer_state.json last, and removes the checkpoint before only afterwards.
    """
    for folder in sorted(out.glob("checkpoint-*"), key=lambda one: _steps_done(str(one)), reverse=True):
        try:
            TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
        except (OSError, ValueError, TypeError):
            log.warning("%s was not finished; going on without it", folder)
            shutil.rmtree(folder, ignore_errors=True)  # other processes of this training do so too
        else:
            return str(folder)
    return None


def whole_checkpoint(settings: ModelSettings) -> Path:
    """The base model's folder with every shard in it, fetched where need be. Raises ModelError."""
    checkpoint = open_checkpoint(settings)
    for shard in sorted(set(checkpoint.weights.values())):
        checkpoint.shard(shard)
    return checkpoint.folder


class Progress(TrainerCallback):  # type: ignore[misc]
    """Says how far a training is, on our own log."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
        """Called by the Trainer every logging_steps."""
        if logs and "loss" in logs:
            log.info("  update %d of %d, loss %.3f", state.global_step, state.max_steps, float(logs["loss"]))


def _start(base: Path, begun: str | None, tune: TuneSettings) -> Path:
    """Where the weights come from: the base model, or the checkpoint that a training goes on from.

    The Trainer restores a whole model by the names in the file, which for many VLMs are not those in memory: it would
    warn and go on with the base weights. Reading the checkpoint as a model translates them. Adapters it restores well.
    """
    if begun is None or tune.lora_rank is not None:
        return base
    logging.getLogger("transformers.trainer").setLevel(logging.ERROR)
    return Path(begun)


def _whole_time(seconds: float, steps: int, before: int) -> float | None:
    """A training that was resumed is timed by the updates of its last part; None where that part had none."""
    return seconds * steps / (steps - before) if steps > before else None


def _steps_done(checkpoint: str | None) -> int:
    return int(checkpoint.rsplit("-", maxsplit=1)[-1]) if checkpoint else 0


def _model(folder: Path, settings: ModelSettings, tune: TuneSettings) -> Any:
    """The model to train. Weights that learn are float32 whatever the model's precision.

    A bfloat16 weight of 1 does not notice an update below 0.004. Adapters are float32 by themselves.
    """
    dtype = settings.dtype if tune.lora_rank is not None else torch.float32
    model = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=dtype, trust_remote_code=settings.trust_remote_code
    )
    for name, weight in model.named_parameters():
        weight.requires_grad_(not any(part in name for part in tune.freeze))
    if tune.lora_rank is None:
        return model
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(
        r=tune.lora_rank, lora_alpha=2 * tune.lora_rank, lora_dropout=LORA_DROPOUT, target_modules=adapted(model)
    )
    return get_peft_model(model, adapters)


def adapted(model: Any) -> list[str]:
    """Linear layers that get adapters: the decoder's, whatever its family calls them.

    peft's "all-linear" would also wrap the vision tower, and the field trains the decoder's adapters.
    """
    inside = {id(module) for layer in decoder(model).layers for module in layer.modules()}
    found = ((name, module) for name, module in model.named_modules() if id(module) in inside)
    return [name for name, module in found if isinstance(module, torch.nn.Linear)]


def _trainer(
    model: Any, material: Material, preparer: Preparer, tune: TuneSettings, seed: int, steps: int, out: Path
) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=tune.batch_size,
        gradient_accumulation_steps=tune.accumulate,
        learning_rate=tune.learning_rate,
        weight_decay=tune.weight_decay,
        warmup_steps=tune.warmup,  # below 1 it is a share of the steps
        lr_scheduler_type="cosine",
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        seed=seed,
        data_seed=seed,
        save_steps=tune.save_steps,
        save_total_limit=1,
        logging_steps=max(20, steps // 10),
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

    trainer = Trainer(model=model, args=arguments, train_dataset=material, data_collator=stack)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
    return trainer


def _save(trainer: Trainer, folder: Path, settings: ModelSettings, out: Path) -> None:
    """Weights (adapters merged, so that any tool can load the folder; in the base model's precision) and processor."""
    model: Any = trainer.model
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.to(_precision(settings)).save_pretrained(out)
    AutoProcessor.from_pretrained(folder, trust_remote_code=settings.trust_remote_code).save_pretrained(out)


def _precision(settings: ModelSettings) -> torch.dtype:
    """The base model's precision."""
    checkpoint = open_checkpoint(settings)
    config = read_config(checkpoint.folder, settings)
    return choose_dtype(settings, config, checkpoint, tuple(checkpoint.weights))
