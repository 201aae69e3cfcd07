"""Ratings of the rows by a strong model behind an endpoint: the signals `judge` and `deita`, beside those of models.

Every distinct content is asked once and remembered in the store, unreadable replies too, so a second run costs nothing.
The cost is estimated first, and a run above `extract.judge.maximum_cost` does not start.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.atomic import replacing, write_json
from tasks.endpoint import Endpoint
from tasks.errors import ParamsError
from tasks.images import read_bytes
from tasks.layout import Layout
from tasks.mirror import Mirror
from tasks.params import ExtractSettings, JudgeSettings
from tasks.rubrics import RUBRICS, Json, Rubric
from tasks.sample import Sample, digest_json
from tasks.store import JUDGED
from tasks.tables import read_samples

log = logging.getLogger(__name__)

_CHARACTERS_PER_TOKEN = 4
_REPLY_TOKENS = 64


@dataclass(frozen=True)
class Estimate:
    """What asking would take. requests: distinct contents not yet rated. cost: in the currency of the prices."""

    requests: int
    input_tokens: int
    output_tokens: int
    cost: float


@dataclass(frozen=True)
class _Question:
    rubric: Rubric
    sample: Sample
    path: Path


def asked_for(extract: ExtractSettings) -> tuple[str, ...]:
    """The signals of `extract.signals` that are ratings. Raises ParamsError when there is nobody to ask."""
    names = tuple(name for name in dict.fromkeys(extract.signals) if name in RUBRICS)
    if names and extract.judge is None:
        raise ParamsError(
            f"extract.judge: the signal `{names[0]}` needs an OpenAI-compatible endpoint, for example "
            "--set extract.judge.url=http://localhost:8000/v1 --set extract.judge.model=Qwen/Qwen3-VL-8B-Instruct"
        )
    return names


def rate(
    settings: JudgeSettings, layout: Layout, names: Sequence[str], rows: Collection[int], mirror: Mirror | None = None
) -> dict[str, Json]:
    """Rate rows (of the dataset), write features/<rubric>/part-00000.parquet for each rubric.

    Replies that only the mirror holds are fetched first, and new ones are sent there.

    Returns what extraction.json says of each: among it `unread`, how many rows hold NaN because their reply could not
    be read. Raises ParamsError above the cost limit, EngineError when the endpoint stays away.
    """
    wanted = set(rows)
    samples = [sample for sample in read_samples(layout.samples) if sample.row in wanted]
    rubrics = [RUBRICS[name] for name in names]
    if mirror is not None:
        mirror.share(layout.store / JUDGED)
    questions = _unanswered(settings, layout.store, rubrics, samples)
    expected = estimate(settings, questions)
    log.info("judge: %d requests, about %d tokens, cost %.2f", expected.requests, expected.input_tokens, expected.cost)
    if expected.cost > settings.maximum_cost:
        raise ParamsError(
            f"extract.judge: {expected.requests} requests would cost about {expected.cost:.2f}, "
            f"above extract.judge.maximum_cost {settings.maximum_cost:.2f}"
        )
    try:
        _ask(settings, questions)
    finally:
        if mirror is not None:
            mirror.share(layout.store / JUDGED)
    return {
        rubric.name: _describe(settings, rubric, unread=_write(settings, layout, rubric, samples)) for rubric in rubrics
    }


def estimate(settings: JudgeSettings, questions: Sequence[_Question]) -> Estimate:
    """Tokens by characters (4 each) and images, price by the settings."""
    tokens = 0
    for question in questions:
        text = sum(len(turn.content) for turn in question.sample.turns) + len(question.rubric.instruction)
        images = len(question.sample.images) * settings.tokens_per_image if settings.images else 0
        tokens += text // _CHARACTERS_PER_TOKEN + images
    replies = _REPLY_TOKENS * len(questions)
    cost = (tokens * settings.input_price + replies * settings.output_price) / 1e6
    return Estimate(len(questions), tokens, replies, cost)


def _unanswered(
    settings: JudgeSettings, store: Path, rubrics: Sequence[Rubric], samples: Sequence[Sample]
) -> list[_Question]:
    """One question for each rubric and distinct content that the store does not answer yet."""
    found = {}
    for rubric in rubrics:
        for sample in samples:
            path = _remembered(settings, store, rubric, sample)
            if path not in found and not path.exists():
                found[path] = _Question(rubric, sample, path)
    return list(found.values())


def _remembered(settings: JudgeSettings, store: Path, rubric: Rubric, sample: Sample) -> Path:
    """Where the reply lies: named by everything that decides what is asked, and of whom."""
    digest = digest_json([*_identity(settings, rubric), sample.digest])
    return store / JUDGED / digest[:2] / f"{digest}.json"


def _identity(settings: JudgeSettings, rubric: Rubric) -> list[Any]:
    return [settings.model, settings.images, rubric.instruction, rubric.schema()]


def _describe(settings: JudgeSettings, rubric: Rubric, unread: int) -> Json:
    # The same fields as a model's signal; an endpoint has no files to show.
    record = {"model": settings.model, "commit": "", "dtype": "", "tensors": "", "files": {}, "images": settings.images}
    return {
        "fingerprint": digest_json(_identity(settings, rubric)),
        "columns": {},
        "statistics": dict.fromkeys(rubric.columns, "double"),
        "parts": 1,
        "unread": unread,
        "record": record,
    }


def _ask(settings: JudgeSettings, questions: Sequence[_Question]) -> None:
    """Ask all, several at a time. After a failure nothing more is sent: every request costs."""
    with Endpoint(settings) as endpoint, ThreadPoolExecutor(settings.parallel) as pool:
        asked = [pool.submit(_answer, settings, endpoint, question) for question in questions]
        try:
            for one in asked:
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _answer(settings: JudgeSettings, endpoint: Endpoint, question: _Question) -> None:
    rubric, sample = question.rubric, question.sample
    text = endpoint.ask(list(_messages(settings, rubric, sample)), rubric.name, rubric.schema())
    write_json(question.path, {"reply": text, "readable": rubric.parse(text, sample) is not None})


def _messages(settings: JudgeSettings, rubric: Rubric, sample: Sample) -> Iterator[dict[str, Any]]:
    yield {"role": "system", "content": rubric.instruction}
    said = "\n\n".join(f"[{turn.role}]\n{turn.content}" for turn in sample.turns)
    content: list[dict[str, Any]] = [{"type": "text", "text": said}]
    for image in sample.images if settings.images else ():
        data = read_bytes(image)
        url = f"data:{_media_type(data)};base64,{base64.b64encode(data).decode()}"
        content.append({"type": "image_url", "image_url": {"url": url}})
    yield {"role": "user", "content": content}


def _media_type(data: bytes) -> str:
    kinds = {b"\x89PNG": "image/png", b"GIF8": "image/gif", b"RIFF": "image/webp"}
    return kinds.get(data[:4], "image/jpeg")


def _write(settings: JudgeSettings, layout: Layout, rubric: Rubric, samples: Sequence[Sample]) -> int:
    """Write the signal; returns how many rows hold NaN."""
    values = []
    unread = 0
    for sample in samples:
        path = _remembered(settings, layout.store, rubric, sample)
        read = rubric.parse(json.loads(path.read_text(encoding="utf-8"))["reply"], sample)
        unread += read is None
        values.append(read or rubric.unread())
    columns: dict[str, Any] = {
        "row": pa.array([sample.row for sample in samples], pa.int64()),
        "id": pa.array([sample.id for sample in samples], pa.string()),
        "digest": pa.array([sample.digest for sample in samples], pa.string()),
    }
    columns |= {name: pa.array([one[name] for one in values], pa.float64()) for name in rubric.columns}
    with replacing(layout.features / rubric.name / "part-00000.parquet") as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
    log.info("judge: %d of %d replies for `%s` could not be read", unread, len(samples), rubric.name)
    return unread
