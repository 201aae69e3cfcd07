"""Reading, decoding and processing samples beside the model's own work, a bounded number ahead of it."""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import pickle
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from PIL import Image

from tasks.engines.lifetime import end_with_parent
from tasks.engines.work import Job, Preparer, name_rows
from tasks.errors import EngineError, StorageError
from tasks.problem import Problem
from tasks.sample import ImageRef, Sample
from tasks.shards import Refusal

_AHEAD = 16
"""Rows prepared ahead of the model, per worker."""

_own = threading.local()


class Preparation:
    """Prepares rows with `workers` threads or processes; 0 does it in line.

    Each worker has its own copy of the preparer: fast tokenizers are not safe to share between threads.
    """

    def __init__(self, preparer: Preparer, workers: int, processes: bool) -> None:
        self._ahead = max(1, workers * _AHEAD)
        self._frozen = pickle.dumps(preparer)
        self._pool = _open_pool(self._frozen, workers, processes) if workers else None
        self._begun: tuple[int, deque[Future[Any]]] = (-1, deque())

    def stream(self, job: Job, upcoming: Job | None = None) -> Iterator[Any]:
        """Prepared rows of the job, or refusals, in its order. Leaves the first rows of `upcoming` begun."""
        futures = self._claim(job)
        rest = iter([*job.samples[len(futures) :], *(upcoming.samples if upcoming else ())])
        for _ in job.samples:
            while len(futures) < self._ahead and (sample := next(rest, None)) is not None:
                futures.append(self._submit(sample))
            try:
                yield futures.popleft().result()
            except BrokenExecutor:
                raise EngineError(f"a decoding process died in {name_rows(job.samples)}: out of memory?") from None
        self._begun = (upcoming.number if upcoming else -1, futures)

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _claim(self, job: Job) -> deque[Future[Any]]:
        number, futures = self._begun
        self._begun = (-1, deque())
        return futures if number == job.number else deque()

    def _submit(self, sample: Sample) -> Future[Any]:
        if self._pool is not None:
            return self._pool.submit(prepare_row, sample)
        if getattr(_own, "frozen", None) is not self._frozen:
            _adopt(self._frozen)
        future: Future[Any] = Future()
        future.set_result(prepare_row(sample))
        return future


def prepare_row(sample: Sample) -> Any:
    """One row's model inputs, or a Refusal that says what is wrong with it. Raises StorageError: no row's fault."""
    try:
        images = [_decode(image) for image in sample.images]
    except StorageError:
        raise
    except _ChangedImageError as error:
        return Refusal(sample.digest, "image_changed", str(error), lasting=False)
    except Exception as error:
        return Refusal(sample.digest, "image_unreadable", _say(error), lasting=False)
    try:
        prepared = _own.preparer(sample, images)
    except Exception as error:
        return Refusal(sample.digest, "extraction_failed", _say(error), lasting=False)
    if isinstance(prepared, Problem):
        return Refusal(sample.digest, prepared.reason, prepared.detail, lasting=True)
    return prepared


class _ChangedImageError(Exception):
    pass


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _open_pool(frozen: bytes, workers: int, processes: bool) -> Executor:
    if processes:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(workers, mp_context=context, initializer=_serve, initargs=(frozen,))
    return ThreadPoolExecutor(workers, thread_name_prefix="prepare", initializer=_adopt, initargs=(frozen,))


def _serve(frozen: bytes) -> None:
    """Start a decoding process: it ends with its parent, even one that was killed."""
    end_with_parent()
    _adopt(frozen)
    # As many processes as cores, and each would otherwise start as many threads.
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def _adopt(frozen: bytes) -> None:
    _own.preparer, _own.frozen = pickle.loads(frozen), frozen


@functools.lru_cache(maxsize=2)
def _decode(image: ImageRef) -> Image.Image:
    """The decoded picture. Neighbours share images, so the last ones are kept."""
    from tasks.images import decode, read_bytes

    data = read_bytes(image)
    if image.sha256 and hashlib.sha256(data).hexdigest() != image.sha256:
        raise _ChangedImageError(f"{image.name}: not the bytes that validation read; validate again")
    return decode(data)
