"""A store shared through object storage: a second machine is another folder that knows nothing but the URL."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from buckets import keys, put
from fake_models import Models, make_samples, settings, workspace

from tasks.errors import DatasetError, ParamsError
from tasks.extraction import extract_with, plan_with, prune
from tasks.shards import open_keys
from tasks.tables import write_samples

TEXTS = [f"question {row} " + "x" * (row * 7 % 13) for row in range(60)]


@pytest.fixture
def store(bucket):
    return f"{bucket}/teams/one"


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


def computed(log: Path):
    return [line for path in log.iterdir() for line in path.read_text().splitlines()]


def outputs(layout):
    files = (path for path in sorted(layout.features.rglob("*")) if path.is_file())
    return {str(path.relative_to(layout.features)): path.read_bytes() for path in files}


def shards(layout):
    return {path for path in layout.store.rglob("*.arrow") if path.name != "index.arrow"}


def test_a_second_machine_finds_every_row_and_extracts_nothing(tmp_path, store, log):
    texts = [*TEXTS, "LONG one", "POISON one"]
    models = Models(names=(("attended", "answers"),), log=str(log))
    alone, first, second = (workspace(tmp_path / name, texts) for name in ("alone", "first", "second"))
    extract_with(models, settings(), alone)
    rows = len(computed(log))
    extract_with(models, settings(run__store=store), first)
    assert sorted(keys(store)) == sorted(str(path.relative_to(first.store)) for path in shards(first))
    assert len(computed(log)) == 2 * rows
    assert plan_with(models, settings(run__store=store), second).missing == {"attended": 1, "answers": 1}
    assert shards(second) == set(), "planning fetches no features"
    extract_with(models, settings(run__store=store), second)
    assert set(computed(log)[2 * rows :]) <= {"POISON one"}, "what failed is tried again, what was refused is not"
    assert outputs(first) == outputs(second) == outputs(alone)


def test_new_rows_of_either_machine_are_there_for_the_other(tmp_path, store, log):
    models = Models(log=str(log))
    first, second = workspace(tmp_path / "first", TEXTS[:30]), workspace(tmp_path / "second", TEXTS)
    write_samples(second.samples, make_samples(tmp_path / "second/images", TEXTS)[20:])
    for layout in (first, second):
        extract_with(models, settings(run__store=store), layout)
    write_samples(first.samples, make_samples(tmp_path / "first/images", TEXTS))
    extract_with(models, settings(run__store=store), first)
    assert sorted(computed(log)) == sorted(TEXTS)


def test_a_store_kept_before_is_sent_and_so_is_what_a_killed_run_left_unsent(tmp_path, store, log, bucket):
    models = Models(log=str(log))
    first, second = workspace(tmp_path / "first", TEXTS), workspace(tmp_path / "second", TEXTS)
    extract_with(models, settings(), first)
    assert keys(bucket) == []
    extract_with(models, settings(run__store=store), first)
    assert len(keys(store)) == len(shards(first))
    extract_with(models, settings(run__store=store), second)
    assert sorted(computed(log)) == sorted(TEXTS)


def test_a_lost_local_shard_is_fetched_and_a_damaged_copy_extracted_again(tmp_path, store, log):
    models = Models(log=str(log))
    layout = workspace(tmp_path, TEXTS)
    extract_with(models, settings(run__store=store), layout)
    before = outputs(layout)
    lost, damaged, altered, *_ = sorted(shards(layout))
    put(f"{store}/{damaged.relative_to(layout.store)}", b"no shard")
    put(f"{store}/{altered.relative_to(layout.store)}", flipped(altered))
    again = len(TEXTS) + len(open_keys(damaged).digests) + len(open_keys(altered).digests)
    for path in (lost, damaged, altered):
        path.unlink()
    for path in (layout.store / "assembled").rglob("*.parquet"):
        path.unlink()
    extract_with(models, settings(run__store=store), layout)
    assert outputs(layout) == before
    assert lost.exists()
    assert len(computed(log)) == again
    second = workspace(tmp_path / "second", TEXTS)
    extract_with(models, settings(run__store=store), second)
    assert len(computed(log)) == again, "the damaged copies were replaced"
    assert outputs(second) == before


def flipped(path):
    """The shard's bytes with one bit of its features another."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        values = pa.ipc.open_file(source).get_batch(0).column("feature").flatten().buffers()[1].to_pybytes()
    data = bytearray(path.read_bytes())
    data[data.index(values[:16])] ^= 1
    return bytes(data)


def test_gc_leaves_the_url_alone_unless_told(tmp_path, store, log):
    models = Models(log=str(log))
    layout = workspace(tmp_path / "first", TEXTS)
    extract_with(Models(fingerprint="old"), settings(run__store=store), layout)
    extract_with(models, settings(run__store=store), layout)
    every = keys(store)
    write_samples(layout.samples, make_samples(tmp_path / "first/images", TEXTS)[:30])
    extract_with(models, settings(run__store=store), layout)
    before = outputs(layout)
    assert prune(layout) > 0
    assert keys(store) == every
    prune(layout, store)
    left = keys(store)
    assert {key.split("/")[0] for key in left} == {path.parent.name for path in shards(layout)}
    assert len(left) == 4, "thirty rows in shards of eight"
    second = workspace(tmp_path / "second", TEXTS[:30])
    extract_with(models, settings(run__store=store), second)
    extract_with(models, settings(run__store=store), layout)
    assert len(computed(log)) == 60
    assert outputs(second) == outputs(layout) == before


def test_gc_cuts_copies_that_this_machine_never_fetched(tmp_path, store, log):
    models = Models(log=str(log))
    extract_with(models, settings(run__store=store), workspace(tmp_path / "first", TEXTS))
    second = workspace(tmp_path / "second", TEXTS[:12])
    extract_with(models, settings(run__store=store), second)
    for path in shards(second):
        path.unlink()
    prune(second, store)
    assert len(keys(store)) == 2
    third = workspace(tmp_path / "third", TEXTS[:12])
    extract_with(models, settings(run__store=store), third)
    assert outputs(third) == outputs(second)
    assert len(computed(log)) == 60


def test_a_bucket_that_is_not_there_stops_the_run_before_any_work(tmp_path, bucket, log):
    layout = workspace(tmp_path, TEXTS)
    with pytest.raises(DatasetError, match=f"run.store: {bucket}x: there is no bucket"):
        extract_with(Models(log=str(log)), settings(run__store=f"{bucket}x/store"), layout)
    assert computed(log) == []


def test_a_place_that_is_no_url_is_refused():
    with pytest.raises(ParamsError, match=r"run\.store"):
        settings(run__store="/mnt/store")


RUN = """
import sys
from pathlib import Path
sys.path[:] = {path!r}
from fake_models import Models, settings
from tasks.extraction import extract_with
from tasks.layout import Layout
extract_with(Models(log={log!r}, pause=0.02), settings(run__store={store!r}), Layout.workspace(Path({data!r})))
"""


@pytest.mark.slow
def test_killed_again_and_again_any_machine_goes_on_where_it_stopped(tmp_path, s3, log):
    whole = workspace(tmp_path / "whole", TEXTS)
    extract_with(Models(), settings(), whole)
    for machine, rows in enumerate((5, 20, 33, 60)):
        layout = workspace(tmp_path / f"machine{machine}", TEXTS)
        script = tmp_path / "run.py"
        script.write_text(RUN.format(path=sys.path, log=str(log), store=f"{s3}/store", data=str(layout.store.parent)))
        process = subprocess.Popen([sys.executable, script], env=dict(os.environ))
        while len(computed(log)) < rows and process.poll() is None:
            time.sleep(0.005)
        if rows < 60:
            process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == 0
    assert outputs(layout) == outputs(whole)
    assert len(set(computed(log))) == len(TEXTS)
    # At each kill: the shard in flight, and those written and not yet sent.
    assert len(computed(log)) <= len(TEXTS) + 3 * 8 * 3


@pytest.mark.slow
def test_refused_credentials_stop_the_run_and_keep_what_is_done(tmp_path, s3):
    layout = workspace(tmp_path, TEXTS)
    environment = {**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    script = tmp_path / "run.py"
    log = tmp_path / "log"
    log.mkdir()
    script.write_text(RUN.format(path=sys.path, log=str(log), store=f"{s3}/store", data=str(layout.store.parent)))
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert "AwayError" in done.stderr.splitlines()[-1]
    assert "AWS_ENDPOINT_URL" in done.stderr.splitlines()[-1]
    assert computed(log) == []
