"""The worker, its preparation, and the team of processes."""

import threading
import time
from dataclasses import dataclass

import pytest
from fake_models import Models, Preparer, Ready, make_samples, settings

from tasks.engines.local import list_devices, run_jobs
from tasks.engines.preparation import Preparation
from tasks.engines.work import Job
from tasks.engines.worker import Worker, count_workers, is_out_of_memory
from tasks.errors import EngineError, ModelError
from tasks.models import Loader
from tasks.shards import Refusal


def jobs_of(folder, texts, rows=4):
    samples = make_samples(folder, texts)
    return [Job(number, tuple(samples[at : at + rows])) for number, at in enumerate(range(0, len(samples), rows))]


def work(models, job, **overrides):
    extractor = models.load(None, ("attended",), "cpu")
    worker = Worker(extractor, "cpu", settings(**overrides).run)
    outcome = worker(job)
    worker.close()
    return extractor, outcome


def test_outcome_is_in_the_jobs_order_whatever_the_batches(tmp_path):
    (job,) = jobs_of(tmp_path, ["x" * n for n in (3, 30, 1, 20, 7)], rows=5)
    extractor, outcome = work(Models(), job, **{"run__token_budget": 30})
    assert len(extractor.batches) > 1
    assert outcome.digests == tuple(sample.digest for sample in job.samples)
    assert outcome.values["attended"]["n_visual"].tolist() == [3, 30, 1, 20, 7]


def test_out_of_memory_halves_the_batch(tmp_path):
    (job,) = jobs_of(tmp_path, list("abcdefgh"), rows=8)
    extractor, outcome = work(Models(limit=3), job)
    assert [len(batch) for batch in extractor.batches] == [2, 2, 2, 2]
    assert len(outcome.digests) == 8


def test_a_row_too_big_alone_is_refused_and_may_be_tried_again(tmp_path):
    (job,) = jobs_of(tmp_path, list("ab"))
    _, outcome = work(Models(limit=0), job)
    assert [(one.reason, one.lasting) for one in outcome.refusals] == [("out_of_memory", False)] * 2
    assert outcome.digests == ()
    assert outcome.values == {}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("x"), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_rows_come_prepared_in_order_and_the_next_job_is_begun(tmp_path, workers):
    jobs = jobs_of(tmp_path, [f"text {row}" for row in range(12)], rows=4)
    preparation = Preparation(Preparer(), workers, processes=False)
    texts = [ready.text for job, after in zip(jobs, [*jobs[1:], None], strict=True)
             for ready in preparation.stream(job, after)]  # fmt: skip
    preparation.close()
    assert texts == [f"text {row}" for row in range(12)]


def test_decoding_in_processes_gives_the_same(tmp_path):
    (job,) = jobs_of(tmp_path, ["one", "LONG", "three"])
    preparation = Preparation(Preparer(), 1, processes=True)
    rows = list(preparation.stream(job))
    preparation.close()
    assert [row.text for row in rows if isinstance(row, Ready)] == ["one", "three"]
    assert isinstance(rows[1], Refusal)


def test_no_more_rows_are_prepared_ahead_than_allowed(tmp_path):
    counter = Counting()
    (job,) = jobs_of(tmp_path, [f"text {row}" for row in range(100)], rows=100)
    preparation = Preparation(counter, 1, processes=False)
    stream = preparation.stream(job)
    next(stream)
    time.sleep(0.3)
    assert SEEN[0] <= 17
    preparation.close()


SEEN = [0]
LOCK = threading.Lock()


class Counting(Preparer):
    def __call__(self, sample, images):
        with LOCK:
            SEEN[0] += 1
        return super().__call__(sample, images)


def refuse_to_load(device):
    raise ModelError("no such model")


def test_the_rows_of_a_dead_process_are_done_by_another(tmp_path):
    jobs = jobs_of(tmp_path / "images", [f"text {row}" for row in range(16)])
    (tmp_path / "kill").write_text("1")
    loader = Loader(Models(log=str(tmp_path), kill="text 5"), settings(), ("attended",), 2)
    outcomes = list(run_jobs(loader, iter(jobs), settings(run__device="cpu,cpu").run))
    assert sorted(outcome.number for outcome in outcomes) == [0, 1, 2, 3]
    assert not (tmp_path / "kill").exists()


def test_a_job_that_kills_two_processes_is_named(tmp_path):
    jobs = jobs_of(tmp_path / "images", [f"text {row}" for row in range(16)])
    (tmp_path / "kill").write_text("9")
    loader = Loader(Models(log=str(tmp_path), kill="text 5"), settings(), ("attended",), 3)
    with pytest.raises(EngineError, match="two processes died on rows 4 to 7"):
        list(run_jobs(loader, iter(jobs), settings(run__device="cpu,cpu,cpu").run))


def test_an_error_while_loading_is_raised_here(tmp_path):
    jobs = jobs_of(tmp_path, ["a", "b"])
    with pytest.raises(ModelError, match="no such model"):
        list(run_jobs(refuse_to_load, iter(jobs), settings(run__device="cpu,cpu").run))


def test_no_jobs_load_no_model():
    assert list(run_jobs(refuse_to_load, iter([]), settings().run)) == []


def test_devices_as_named():
    assert list_devices(settings(run__device="cuda:0, cuda:2").run) == ["cuda:0", "cuda:2"]


@pytest.mark.parametrize(
    ("options", "beside_gpu", "devices", "expected"),
    [
        ({"run__workers": 0}, True, 1, 0),
        ({"run__workers": 7}, False, 1, 7),
        ({"run__engine": "ray", "run__workers": None, "run__ray__cpus_per_actor": 0.5}, False, 1, 1),
        ({"run__engine": "ray", "run__workers": None, "run__ray__cpus_per_actor": 6}, True, 1, 6),
        ({"run__workers": None}, True, 1_000, 1),
    ],
)
def test_how_many_prepare(options, beside_gpu, devices, expected):
    assert count_workers(settings(**options).run, beside_gpu, devices) == expected


@dataclass(frozen=True)
class Named:
    name: str

    def __call__(self, sample, images):
        return Ready(1, 0, self.name)


@pytest.mark.parametrize("workers", [0, 1])
def test_models_prepare_for_themselves_in_one_process(tmp_path, workers):
    (job,) = jobs_of(tmp_path, ["a"])
    held = [Preparation(Named(name), workers, processes=False) for name in ("first", "second")]
    for name, preparation in zip(("first", "second", "first"), (*held, held[0]), strict=True):
        assert [ready.text for ready in preparation.stream(job)] == [name]
    for preparation in held:
        preparation.close()
