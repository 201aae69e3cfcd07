"""A small deterministic extractor: everything extraction asks of a model, in numpy."""

from __future__ import annotations

import hashlib
import os
import signal as signals_module
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from tasks.errors import ModelError
from tasks.layout import Layout
from tasks.params import Settings, parse
from tasks.problem import Problem
from tasks.sample import ImageRef, Sample, Turn, digest_bytes, digest_sample
from tasks.tables import write_samples
from tasks.vlm.description import Description

WIDTH = 8


@dataclass
class Ready:
    n_tokens: int
    seed: int
    text: str


@dataclass(frozen=True)
class Preparer:
    def __call__(self, sample, images):
        text = sample.turns[0].content
        if "LONG" in text:
            return Problem("over_length", "too long")
        if "CRASH" in text:
            raise ValueError("preparer crashed")
        seed = hashlib.sha256(text.encode() + b"".join(image.tobytes() for image in images)).digest()
        return Ready(len(text), int.from_bytes(seed[:4], "big"), text)


@dataclass(frozen=True)
class Models:
    """`fingerprint` names the settings; `log` is a folder where every computed row leaves its text."""

    fingerprint: str = "f" * 64
    names: tuple[tuple[str, ...], ...] = (("attended",),)
    log: str | None = None
    pause: float = 0.0
    limit: int | None = None  # batches above this run out of memory
    kill: str | None = None  # the text on which the process kills itself, while the file kill exists
    broken: str | None = None  # what is wrong with the model; "deadly": loading kills the process

    def groups(self, settings):
        return list(self.names)

    def describe(self, settings, signals):
        prints = {name: hashlib.sha256((self.fingerprint + name).encode()).hexdigest() for name in signals}
        matrices = {name: {"image": 3, "text": 2} if name == "clip" else {"feature": WIDTH} for name in signals}
        matrices = {name: {} if name == "answers" else one for name, one in matrices.items()}
        statistics = {name: [("n_visual", pa.int32()), ("loss", pa.float64())] for name in signals}
        return Description(prints, {"model": "fake"}, matrices, statistics)

    def load(self, settings, signals, device):
        if self.broken == "deadly":
            os.kill(os.getpid(), signals_module.SIGKILL)
        if self.broken:
            raise ModelError(self.broken)
        return Extractor(self, signals)


@dataclass
class Extractor:
    models: Models
    signals: tuple[str, ...]
    batches: list = field(default_factory=list)

    def preparer(self):
        return Preparer()

    def stage(self, batch):
        return batch

    def measure(self, batch):
        time.sleep(self.models.pause)
        self._misbehave(batch)
        self.batches.append([row.text for row in batch])
        if self.models.log:
            with (Path(self.models.log) / f"{os.getpid()}").open("a") as log:
                log.writelines(row.text + "\n" for row in batch)
        # Like real arithmetic, the last digit depends on the company a row is in.
        noise = np.float32(1 + 1e-7 * len(batch))
        return {name: self._values(name, batch, noise) for name in self.signals}

    def _misbehave(self, batch):
        if self.models.limit is not None and len(batch) > self.models.limit:
            raise MemoryError
        texts = [row.text for row in batch]
        if any("POISON" in text for text in texts):
            raise RuntimeError("poisoned row")
        if self.models.kill and any(self.models.kill in text for text in texts) and self._may_die():
            os.kill(os.getpid(), signals_module.SIGKILL)

    def _may_die(self):
        mark = Path(self.models.log) / "kill"
        try:
            lives = int(mark.read_text())
        except FileNotFoundError:
            return False
        mark.write_text(str(lives - 1)) if lives > 1 else mark.unlink()
        return True

    def _values(self, name, batch, noise):
        def draw(width, salt):
            rows = [np.random.default_rng([row.seed, salt]).standard_normal(width) for row in batch]
            values = np.asarray(rows, dtype=np.float32).reshape(len(batch), width) * noise
            values[[("NAN" in row.text) for row in batch]] = np.nan
            return values

        columns = {"n_visual": np.array([row.n_tokens for row in batch], dtype=np.int32)}
        columns["loss"] = np.array([row.seed / 2**32 for row in batch])
        if name == "clip":
            return columns | {"image": draw(3, 1), "text": draw(2, 2)}
        return columns if name == "answers" else columns | {"feature": draw(WIDTH, 0)}


def make_samples(folder: Path, texts: list[str], per_image: int = 2) -> list[Sample]:
    """One sample a text; `per_image` neighbours share a picture; a text without "IMG" off shows one."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for row, text in enumerate(texts):
        turns = (Turn("user", text), Turn("assistant", "yes"))
        images = () if "TEXTONLY" in text else (_picture(folder, row // per_image),)
        digest = digest_sample(turns, [image.sha256 for image in images])
        samples.append(Sample(row, f"id{row}" if row % 3 else None, "s", turns, images, digest))
    return samples


def _picture(folder: Path, number: int) -> ImageRef:
    path = folder / f"{number}.jpg"
    if not path.exists():
        Image.new("RGB", (2, 2), (number % 256, number // 256 % 256, 7)).save(path)
    return ImageRef(str(path), path.name, "", digest_bytes(path.read_bytes()), 2, 2)


def workspace(root: Path, texts: list[str], **kwargs) -> Layout:
    layout = Layout.workspace(root / "data")
    write_samples(layout.samples, make_samples(root / "images", texts, **kwargs))
    return layout


def settings(**overrides) -> Settings:
    tree = {"dataset": {"path": "unused"}, "model": {"path": "unused"}}
    run = {"run.device": "cpu", "run.shard_rows": 8, "run.token_budget": 64, "run.workers": 0}
    return parse(tree, run | {key.replace("__", "."): value for key, value in overrides.items()})
