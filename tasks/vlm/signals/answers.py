"""The `answers` signal: how the model takes the response it should learn (EL2N, perplexity, margin, visual gain).

One pass over the whole model; logits are formed at the answer's positions only, with the image and, if asked for,
once more with the images taken out of the conversation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from tasks.linalg.tokens import mean_by_group
from tasks.params import ExtractSettings
from tasks.problem import Problem
from tasks.vlm.batch import Batch, Prepared
from tasks.vlm.forward import Record, Taps
from tasks.vlm.vocabulary import score_tokens

SCORES = ("nll", "el2n", "margin", "entropy")


def statistics(settings: ExtractSettings) -> list[tuple[str, pa.DataType]]:
    """Each score as the mean over tokens, and as the mean over turns of their means; the counts of both."""
    names = [*SCORES, *(["nll_without_image"] if settings.answers.without_image else [])]
    columns = [column for name in names for column in (name, f"{name}_per_turn")]
    return [*((column, pa.float64()) for column in columns), ("tokens", pa.int32()), ("turns", pa.int32())]


def taps(settings: ExtractSettings) -> Taps:
    """The last hidden state, after the final norm; a second forward when the loss without image is wanted."""
    return Taps(final=True, blind=settings.answers.without_image)


def options(settings: ExtractSettings) -> dict[str, Any]:
    """Whether the loss without image is measured too."""
    return {"without_image": settings.answers.without_image}


def matrices(settings: ExtractSettings, width: int) -> dict[str, int]:
    """None: only statistics."""
    return {}


def examine(sample: Prepared, settings: ExtractSettings) -> Problem | None:
    """An empty answer has no loss."""
    return None if sample.answer.any() else Problem("no_answer", "no answer token is left to score")


def compute(batch: Batch, record: Record, settings: ExtractSettings) -> dict[str, np.ndarray[Any, Any]]:
    """Columns named by `statistics`, (B,) each."""
    scores, rows, turns = score(batch, record)
    columns = {}
    for name in SCORES:
        columns[name], columns[f"{name}_per_turn"] = average(scores[name], rows, turns, len(batch))
    if settings.answers.without_image and record.blind is not None:
        blind, rows_blind, turns_blind = score(*record.blind)
        columns["nll_without_image"], columns["nll_without_image_per_turn"] = average(
            blind["nll"], rows_blind, turns_blind, len(batch)
        )
    starts = turn_starts(batch.answer)
    columns["tokens"] = batch.answer.sum(1).numpy().astype(np.int32)
    columns["turns"] = starts.sum(1).numpy().astype(np.int32)
    return columns


def score(batch: Batch, record: Record) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64], NDArray[np.int64]]:
    """Scores of every answer token, the row each belongs to, and its turn (numbered through the batch)."""
    rows, positions = batch.answer.nonzero(as_tuple=True)
    device = record.final.device  # type: ignore[union-attr]
    hidden = record.final[rows.to(device), positions.to(device) - 1]  # type: ignore[index]
    tokens = batch.inputs["input_ids"][rows.to(device), positions.to(device)]
    scores = {name: value.numpy() for name, value in score_tokens(hidden, tokens, record.head).items()}
    turns = turn_starts(batch.answer).flatten().cumsum(0).view_as(batch.answer)[rows, positions] - 1
    return scores, rows.numpy(), turns.numpy()


def turn_starts(answer: torch.Tensor) -> torch.Tensor:
    """(B, L) True where a run of answer tokens begins: templates always write something between two turns."""
    before = torch.nn.functional.pad(answer, (1, 0))[:, :-1]
    return answer & ~before


def average(
    values: NDArray[np.float64], rows: NDArray[np.int64], turns: NDArray[np.int64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per row: the mean over its tokens, and the mean over its turns of their means."""
    _, first = np.unique(turns, return_index=True)
    by_turn = mean_by_group(values, turns, len(first))
    return mean_by_group(values, rows, count), mean_by_group(by_turn, rows[first], count)
