"""What engines hand to workers and get back."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.errors import EngineError, ScalSelectError
from tasks.sample import Sample
from tasks.shards import Refusal

Values = dict[str, dict[str, NDArray[np.generic]]]
"""signal -> column -> (n, d) or (n,) array."""


class Preparer(Protocol):
    """Turns a sample and its decoded images into model inputs, which have `.n_tokens`, or into a Problem."""

    def __call__(self, sample: Sample, images: list[Image.Image]) -> Any:
        """Prepare one row; picklable, so that other processes can do it."""


class Extractor(Protocol):
    """A loaded model that measures signals on prepared rows."""

    def preparer(self) -> Preparer:
        """The part that needs no model weights."""

    def stage(self, batch: list[Any]) -> Any:
        """Prepared samples as `measure` takes them; touches no device, so another thread may do it."""

    def measure(self, staged: Any) -> Values:
        """Signals of a staged batch, one row per prepared sample."""


@dataclass(frozen=True, slots=True)
class Job:
    """Rows that become one shard."""

    number: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a job: the rows extracted, in the job's order, with their values, and those refused."""

    number: int
    digests: tuple[str, ...]
    values: Values
    refusals: tuple[Refusal, ...]


class Work(Protocol):
    """Does jobs one after another; told of the next, it may begin preparing it."""

    def __call__(self, job: Job, upcoming: Job | None = None) -> Outcome:
        """Do one job. Bad rows are refusals, never exceptions."""

    def close(self) -> None:
        """Let go of threads and processes."""


Make = Callable[[str], Work]
"""Loads a worker onto a device, "cpu" or "cuda:1". Picklable: it is called in the process that will do the work."""


def guard(act: Callable[[], object]) -> tuple[str, Any]:
    """("done", result) or ("failed", error): errors cross process borders as values, with their trace as text."""
    try:
        return "done", act()
    except ScalSelectError as error:
        return "failed", error
    except Exception:
        return "failed", EngineError(f"a worker failed:\n{traceback.format_exc()}")


def name_rows(samples: Sequence[Sample]) -> str:
    """The rows of a job, for messages."""
    rows = [sample.row for sample in samples]
    return f"rows {min(rows)} to {max(rows)}" if len(rows) > 1 else f"row {rows[0]}"
