"""A small finished run made without a model: a real dataset and images, and the files stages 1 to 4 leave behind."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tasks import params
from tasks.export import export
from tasks.formats import open_dataset
from tasks.images import read_bytes
from tasks.layout import Layout
from tasks.linalg.matrix import ArrayMatrix
from tasks.methods import METHODS
from tasks.methods.contract import Tables, best_first
from tasks.sample import Sample, digest_bytes, digest_sample
from tasks.tables import SCORES, SELECTION, features_schema, write_samples

ROWS = 12
TEXT_ONLY = 3
BROKEN_BY_VALIDATION = 5
BROKEN_BY_EXTRACTION = 7
SCORED = [0, 1, 2, 4, 6, 8, 9, 10, 11]


def write_dataset(folder: Path) -> Path:
    """A LLaVA JSON file of ROWS rows with odd ids, unknown fields and uneven white space; row 3 has no image."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    texts = []
    for row in range(ROWS):
        image = f"images/{row}.png"
        Image.new("RGB", (8 + row, 8), (20 * row, 90, 30)).save(folder / image)
        shown = {} if row == TEXT_ONLY else {"image": "images/missing.png" if row == BROKEN_BY_VALIDATION else image}
        turns = [
            {"from": "human", "value": ("" if row == TEXT_ONLY else "<image>\n") + f"What is in picture {row}? é | ✓"},
            {"from": "gpt", "value": f"A colour, the {row}th."},
        ]
        value = {
            "zeta": 1.50,
            "id": row if row % 2 else f"row-{row % 4}",
            **shown,
            "conversations": turns,
            "extra": [row],
        }
        texts.append(json.dumps(value, ensure_ascii=row % 3 == 0, separators=(",  ", ":") if row % 2 else None))
    path = folder / "data.json"
    path.write_text("[\n" + ",\n".join(texts) + "\n]\n", encoding="utf-8")
    return path


def make_settings(folder: Path, **overrides: object) -> params.Settings:
    tree = {
        "dataset": {"path": str(folder / "raw/data.json"), "text_only": "keep"},
        "model": {"path": str(folder / "model")},
        "select": {"budget": 4},
    }
    return params.parse(tree, {key.replace("__", "."): value for key, value in overrides.items()})


def write_stages(settings: params.Settings, layout: Layout) -> None:
    """Everything that the stages before export leave behind, for the dataset of `settings`."""
    samples = write_validation(settings, layout)
    features = write_features(settings, layout, samples)
    order = write_scores(layout, samples, features)
    write_selection(settings, layout, samples, order)


def write_validation(settings: params.Settings, layout: Layout) -> dict[int, Sample]:
    samples = {}
    for row in open_dataset(settings.dataset):
        if row.row == BROKEN_BY_VALIDATION:
            continue
        images = tuple(
            replace(image, sha256=digest_bytes(read_bytes(image)), width=8, height=8) for image in row.images
        )
        digest = digest_sample(row.turns, [image.sha256 for image in images])
        samples[row.row] = Sample(row.row, row.id, "demo", row.turns, images, digest)
    write_samples(layout.samples, samples.values())
    reject = {"row": BROKEN_BY_VALIDATION, "id": "5", "reason": "image_missing", "detail": "images/missing.png"}
    layout.rejects.write_text(json.dumps(reject) + "\n")
    layout.validation.write_text("{}\n")
    return samples


def write_features(settings: params.Settings, layout: Layout, samples: dict[int, Sample]) -> np.ndarray:
    """Two parts of random features, and the record of a model whose files hold a few bytes."""
    features = np.random.default_rng(5).normal(size=(len(SCORED), 6)).astype(np.float32)
    (layout.features / "attended").mkdir(parents=True)
    for part, chosen in enumerate((slice(0, 5), slice(5, None))):
        rows = SCORED[chosen]
        table = {
            "row": rows,
            "id": [samples[row].id for row in rows],
            "digest": [samples[row].digest for row in rows],
            "feature": features[chosen].tolist(),
        }
        path = layout.features / f"attended/part-{part:05d}.parquet"
        pq.write_table(pa.table(table, schema=features_schema(6)), path)
    model = Path(settings.model.path)
    model.mkdir(exist_ok=True)
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    for name, data in files.items():
        (model / name).write_bytes(data)
    record = {
        "model": settings.model.path,
        "revision": None,
        "commit": "",
        "family": "llava",
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "tensors": "a" * 64,
        "dtype": "float32",
    }
    entry = {"fingerprint": "f" * 64, "columns": {"feature": 6}, "statistics": [], "parts": 2, "record": record}
    (layout.features / "extraction.json").write_text(json.dumps({"signals": {"attended": entry}, "rows": len(SCORED)}))
    reject = {"row": BROKEN_BY_EXTRACTION, "id": "7", "reason": "span_not_found", "detail": "answer"}
    (layout.features / "rejects.jsonl").write_text(json.dumps(reject) + "\n")
    return features


def write_scores(layout: Layout, samples: dict[int, Sample], features: np.ndarray) -> np.ndarray:
    digests = np.array([samples[row].digest for row in SCORED])
    tables = Tables(digests, np.array(["demo"] * len(SCORED)), {"attended": ArrayMatrix(features)})
    method = METHODS["scalselect"]
    score = method.score(tables, method.parse({}))["score"]
    order = best_first(score, digests)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    ids = [samples[row].id for row in SCORED]
    layout.scores.parent.mkdir(parents=True, exist_ok=True)
    table = {"row": SCORED, "id": ids, "digest": digests, "score": score, "rank": rank}
    pq.write_table(pa.table(table, schema=SCORES), layout.scores)
    layout.score_metrics.write_text('{"k": 4}\n')
    return order


def write_selection(settings: params.Settings, layout: Layout, samples: dict[int, Sample], order: np.ndarray) -> None:
    chosen = [SCORED[place] for place in order[: int(settings.select.budget)]]
    lines = [_line(row, samples, chosen, settings.dataset.text_only == "keep") for row in range(ROWS)]
    layout.selection.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(lines, schema=SELECTION), layout.selection)


def _line(row: int, samples: dict[int, Sample], chosen: list[int], keep: bool) -> dict[str, object]:
    status, reason = "selected" if row in chosen else "not_selected", ""
    if row == TEXT_ONLY:
        status, reason = "set_aside", "text_only"
    if row in (BROKEN_BY_VALIDATION, BROKEN_BY_EXTRACTION):
        status, reason = "rejected", "image_missing" if row == BROKEN_BY_VALIDATION else "span_not_found"
    sample = samples.get(row)
    return {
        "row": row,
        "id": sample.id if sample else "5",
        "digest": sample.digest if sample else None,
        "source": "demo",
        "status": status,
        "reason": reason,
        "position": chosen.index(row) if row in chosen else None,
        "exported": row in chosen or (row == TEXT_ONLY and keep),
    }


def finish(folder: Path, layout: Layout, **overrides: object) -> params.Settings:
    """The whole run in `folder`: dataset in raw/, model in model/, outputs where `layout` says."""
    write_dataset(folder / "raw")
    settings = make_settings(folder, **overrides)
    layout.samples.parent.mkdir(parents=True, exist_ok=True)
    write_stages(settings, layout)
    export(settings, layout)
    return settings
