"""The embedded proof: a small VLM that has learnt to see, a question pool of known structure, held-out questions.

Nothing is fetched. The model is first trained on captions, so that its features mean something before it is asked to
select. No held-out picture occurs among those or in the pool, and no number here was chosen by looking at the held-out
questions: learning rate and epochs come from questions of another seed.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from tasks.atomic import write_text
from tasks.demo.model import Shape, save_model
from tasks.demo.skills import SKILLS, Question, draw_captions, draw_pool, draw_questions, pixels, texts, write_questions
from tasks.evaluation.held_out import read_clean
from tasks.evaluation.material import Memory
from tasks.evaluation.training import fine_tune
from tasks.params import DatasetSettings, ModelSettings, Settings, TuneSettings, parse

log = logging.getLogger(__name__)

POOL_SEED, HELD_OUT_SEED, CAPTION_SEED, MODEL_SEED = 3, 9, 5, 0


@dataclass(frozen=True)
class Scale:
    """How large the proof is.

    shape: sizes of the model. rows: of the pool. captions, steps, seeing: what teaches it to see, for how many updates,
    and how. per_group: held-out questions of each of the 28 groups. tune: how subsets are learnt. jobs: runs at once.
    """

    shape: Shape
    rows: int
    captions: int
    steps: int
    per_group: int
    seeing: TuneSettings
    tune: Mapping[str, Any]
    jobs: int


_SEEING = TuneSettings(batch_size=64, learning_rate=2e-3, weight_decay=0.01, warmup=0.05, save_steps=250)
_TUNE = {"epochs": 4.0, "weight_decay": 0.01, "save_steps": 500}

SCALES = {
    "small": Scale(
        shape=Shape(width=128, layers=4, vision_layers=4, image_edge=48, patch=8),
        rows=4000,
        captions=8000,
        steps=1000,
        per_group=12,
        seeing=_SEEING,
        tune={**_TUNE, "batch_size": 8, "learning_rate": 5e-4},
        jobs=2,
    ),
    "large": Scale(
        shape=Shape(width=256, layers=6, vision_layers=6, image_edge=48, patch=6),
        rows=8000,
        captions=10000,
        steps=1200,
        per_group=24,
        seeing=_SEEING.model_copy(update={"batch_size": 128, "learning_rate": 1e-3}),
        tune={**_TUNE, "batch_size": 32, "learning_rate": 1e-3},
        jobs=4,
    ),
}
"""`small` for two cores, `large` for a GPU."""

EVALUATE: dict[str, Any] = {
    "methods": ["scalselect", "scalselect-apart", "prism", "coincide", "stratified", "random"],
    "variants": {
        "scalselect-apart": {
            "method": "scalselect",
            "options": {"sampling": "residual"},
            "select": {"near_duplicates": 0.999},
        }
    },
    "budgets": [0.1, 0.3],
    "seeds": 3,
    "full_seeds": 2,
    "new_tokens": 6,
    "batch_size": 84,
    "keep_models": False,
}


def settings_of(root: Path, scale: Scale) -> Settings:
    """The settings of the proof whose inputs lie in `root`."""
    tasks = {
        skill: {
            "path": str(root / "held_out" / skill / "data.json"),
            "image_root": str(root / "held_out" / skill / "images"),
            "metric": "exact_match",
        }
        for skill in SKILLS
    }
    return parse(
        {
            "dataset": {"path": str(root / "pool/data.json"), "image_root": str(root / "pool/images")},
            "model": {"path": str(root / "model"), "dtype": "float32"},
            "evaluate": {**EVALUATE, "tune": scale.tune, "jobs": scale.jobs, "tasks": tasks},
        }
    )


def build(root: Path, scale: Scale) -> None:
    """Make `root`/pool, `root`/held_out/<skill> and `root`/model unless they are there. An unfinished build goes on."""
    marker, label = root / "complete.txt", f"{replace(scale, tune={}, jobs=1)}\n"
    if marker.exists() and marker.read_text(encoding="utf-8") == label:
        return
    transformers_logging.disable_progress_bar()
    pool, captions = draw_pool(scale.rows, POOL_SEED), draw_captions(scale.captions, CAPTION_SEED)
    shown = {pixels(one) for one in [*pool, *captions] if one.view.background == "plain"}
    asked = draw_questions(scale.per_group, HELD_OUT_SEED, shown)
    log.info("proof: writing %d rows, %d held-out questions, %d captions", len(pool), len(asked), len(captions))
    write_questions(pool, root / "pool")
    for skill in SKILLS:
        of_skill = [one for one in asked if one.view.skill == skill]
        write_questions(of_skill, root / "held_out" / skill, source=_background)
    write_questions(captions, root / "captions")
    save_model(root / "start", [*texts(captions), *texts(pool)], MODEL_SEED, scale.shape, sharpen=False)
    learn_to_see(root, scale)
    write_text(marker, label)


def learn_to_see(root: Path, scale: Scale) -> None:
    """Train `root`/start on the captions, into `root`/model."""
    captions = DatasetSettings(path=str(root / "captions/data.json"), image_root=str(root / "captions/images"))
    samples = [sample for _, sample in read_clean(captions, "captions")]
    log.info("proof: teaching the model to see, %d updates of %d captions", scale.steps, scale.seeing.batch_size)
    settings = ModelSettings(path=str(root / "start"), dtype="float32")
    fine_tune(settings, samples, scale.seeing, MODEL_SEED, scale.steps, root / "seeing", Memory())
    shutil.rmtree(root / "model", ignore_errors=True)
    shutil.copytree(root / "seeing" / "model", root / "model")


def _background(question: Question) -> str:
    return question.view.background
