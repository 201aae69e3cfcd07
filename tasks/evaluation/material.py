"""Samples as a trainer or a tester needs them: tokens made exactly as the extractor makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tasks.errors import DatasetError
from tasks.formats.record import Problem
from tasks.images import decode, read_bytes
from tasks.sample import Sample
from tasks.vlm.batch import Prepared
from tasks.vlm.preparation import Preparer, truncate

IGNORED = -100


@dataclass
class Memory:
    """Prepared samples by content digest, as many as fit `limit` bytes: a small pool is read once."""

    limit: int = 1 << 30
    _held: dict[str, Prepared] = field(default_factory=dict)
    _bytes: int = 0

    def get(self, digest: str) -> Prepared | None:
        """The prepared sample, if it is remembered."""
        return self._held.get(digest)

    def put(self, digest: str, prepared: Prepared) -> None:
        """Remember the sample while there is room."""
        size = sum(value.nbytes for value in prepared.inputs.values())
        if self._bytes + size <= self.limit:
            self._held[digest] = prepared
            self._bytes += size


class Material(Dataset[Prepared]):
    """Samples prepared on demand; images are read when asked for, so a pool larger than memory will do.

    Raises DatasetError at access for a row that cannot be prepared (validated pools have none), OSError for lost files.
    """

    def __init__(self, samples: Sequence[Sample], preparer: Preparer, memory: Memory | None = None) -> None:
        self._samples = samples
        self._preparer = preparer
        self._memory = memory or Memory(limit=0)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, place: int) -> Prepared:
        sample = self._samples[place]
        remembered = self._memory.get(sample.digest)
        if remembered is None:
            remembered = self._prepare(sample)
            self._memory.put(sample.digest, remembered)
        return remembered

    def _prepare(self, sample: Sample) -> Prepared:
        prepared = self._preparer(sample, [decode(read_bytes(image)) for image in sample.images])
        if isinstance(prepared, Problem):
            raise DatasetError(f"row {sample.row}: {prepared.reason}: {prepared.detail}")
        return prepared


def labels(answer: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """(B, L) training targets: the answers' tokens and the one token after each, which teaches the model to stop."""
    after = torch.zeros_like(answer)
    after[:, 1:] = answer[:, :-1]
    return torch.where((answer | after) & attention_mask.bool(), input_ids, IGNORED)


def split_last_answer(prepared: Prepared) -> tuple[Prepared, Tensor]:
    """The conversation up to its last answer, and that answer's tokens: the question as the model met it in training.

    Raises DatasetError when there is no answer to ask for.
    """
    places = prepared.answer.nonzero().flatten()
    if not len(places):
        raise DatasetError("a held-out row has no answer to compare with")
    end = int(places[-1])
    start = end
    while start > 0 and prepared.answer[start - 1]:
        start -= 1
    return truncate(prepared, start), prepared.inputs["input_ids"][0, start : end + 1]
