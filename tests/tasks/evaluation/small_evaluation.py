"""A pool, a small model, features and held-out tasks, as the stages before evaluation leave them; made in a second."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks import params
from tasks.atomic import write_json
from tasks.demo.model import Shape, save_model
from tasks.demo.skills import COLOURS, draw_pool, draw_questions, texts, write_questions
from tasks.formats import open_dataset
from tasks.images import read_bytes
from tasks.layout import Layout
from tasks.rates import record_rate
from tasks.sample import Sample, digest_bytes, digest_sample
from tasks.tables import features_schema, write_samples

ROWS = 40
FINGERPRINT = "f" * 64


def make(folder: Path) -> tuple[params.Settings, Layout]:
    """40 rows of the skills pool, four of its held-out skills as tasks, random `attended` features."""
    pool, asked = draw_pool(ROWS, seed=3), draw_questions(1, seed=9)
    write_questions(pool, folder / "pool")
    for skill, accepted in (("colour", sorted(COLOURS)), ("digit", list("0123456789"))):
        of_skill = [one for one in asked if one.view.skill == skill]
        write_questions(of_skill, folder / skill, source=lambda one: one.view.background)
        accept_any(folder / skill / "data.json", accepted)
    words = sorted({*texts(pool), *texts(asked)})
    save_model(folder / "model", words, 0, Shape(16, 1, 2, 48, 16), sharpen=False)
    layout = Layout.workspace(folder / "data")
    settings = make_settings(folder)
    write_features(layout, write_pool(settings, layout))
    return settings, layout


def accept_any(path: Path, answers: list[str]) -> None:
    """Any answer of the right kind is right: what a few updates can teach a very small model."""
    path.write_text(json.dumps([{**row, "answers": answers} for row in json.loads(path.read_text())]))


def make_settings(folder: Path, **evaluate: object) -> params.Settings:
    tasks = {
        skill: {
            "path": str(folder / skill / "data.json"),
            "image_root": str(folder / skill / "images"),
            "metric": "exact_match",
        }
        for skill in ("colour", "digit")
    }
    tune = {"batch_size": 4, "learning_rate": 1e-2, "epochs": 6, "save_steps": 4}
    tree = {
        "dataset": {"path": str(folder / "pool/data.json"), "image_root": str(folder / "pool/images")},
        "model": {"path": str(folder / "model")},
        "evaluate": {"seeds": 2, "budgets": [0.3], "tasks": tasks, "tune": tune, "new_tokens": 3, **evaluate},
    }
    return params.parse(tree)


def write_pool(settings: params.Settings, layout: Layout) -> list[Sample]:
    samples = []
    for row in open_dataset(settings.dataset):
        images = tuple(replace(one, sha256=digest_bytes(read_bytes(one)), width=48, height=48) for one in row.images)
        digest = digest_sample(row.turns, [one.sha256 for one in images])
        samples.append(Sample(row.row, row.id, row.source, row.turns, images, digest))
    write_samples(layout.samples, samples)
    return samples


def write_features(layout: Layout, samples: list[Sample]) -> None:
    shown = [sample for sample in samples if not sample.text_only]
    features = np.random.default_rng(5).normal(size=(len(shown), 6)).astype(np.float32)
    table = {
        "row": [one.row for one in shown],
        "id": [one.id for one in shown],
        "digest": [one.digest for one in shown],
        "feature": features.tolist(),
    }
    path = layout.features / "attended/part-00000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(table, schema=features_schema(6)), path)
    write_json(layout.features / "extraction.json", {"signals": {"attended": {"fingerprint": FINGERPRINT}}})
    record_rate(layout.store, f"local:cpu:{FINGERPRINT[:16]}", 100.0)


def truth_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "pool/truth.jsonl").read_text().splitlines()]
