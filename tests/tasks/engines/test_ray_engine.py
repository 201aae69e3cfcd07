"""Against real Ray clusters on this machine: one node, and several of which one goes away."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fake_models import Models, settings, workspace

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

from tasks.engines.cluster import plan_actors  # noqa: E402
from tasks.errors import EngineError, ModelError  # noqa: E402
from tasks.extraction import extract_with  # noqa: E402
from tasks.features import FeatureTable  # noqa: E402
from tasks.params import RaySettings  # noqa: E402

TEXTS = [f"question {row} " + "x" * (row * 7 % 13) for row in range(60)]


@pytest.fixture
def cluster(monkeypatch):
    # Workers import the fake models and the tasks package as the driver does.
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(Path(__file__).parent.parent)]))
    one = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield one
    ray.shutdown()
    one.shutdown()


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


def features(layout):
    return np.concatenate(list(FeatureTable(layout.features / "attended").matrix().blocks()))


def on_ray(cluster, **more):
    return settings(run__engine="ray", run__ray__address=cluster.address, **more)


def compare_with_local(tmp_path, layout):
    local = workspace(tmp_path / "local", TEXTS)
    extract_with(Models(), settings(), local)
    np.testing.assert_array_equal(features(layout), features(local))


@pytest.mark.slow
def test_ray_gives_what_local_gives_and_resumes_from_the_same_store(tmp_path, cluster, log):
    layout = workspace(tmp_path / "ray", TEXTS)
    extract_with(Models(log=str(log)), on_ray(cluster), layout)
    compare_with_local(tmp_path, layout)
    rows = sum(len(path.read_text().splitlines()) for path in log.iterdir())
    extract_with(Models(log=str(log)), on_ray(cluster), layout)
    extract_with(Models(log=str(log)), settings(), layout)
    assert sum(len(path.read_text().splitlines()) for path in log.iterdir()) == rows == 60


@pytest.mark.slow
def test_a_killed_actor_costs_its_shard_only(tmp_path, cluster, log):
    layout = workspace(tmp_path / "ray", TEXTS)
    (log / "kill").write_text("1")
    models = Models(log=str(log), kill="question 17 ")
    extract_with(models, on_ray(cluster, run__ray__cpus_per_actor=0.5), layout)
    assert not (log / "kill").exists()
    compare_with_local(tmp_path, layout)


@pytest.mark.slow
def test_rows_that_kill_every_actor_are_named(tmp_path, cluster, log):
    layout = workspace(tmp_path / "ray", TEXTS)
    (log / "kill").write_text("99")
    with pytest.raises(EngineError, match="3 ray actors died on rows 16 to 23"):
        extract_with(Models(log=str(log), kill="question 17 "), on_ray(cluster), layout)


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_that_error_and_no_other(tmp_path, cluster):
    layout = workspace(tmp_path / "ray", TEXTS)
    with pytest.raises(ModelError, match=r"^no weights here$"):
        extract_with(Models(broken="no weights here"), on_ray(cluster), layout)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("StreamingExecutor")]


@pytest.mark.slow
def test_actors_that_die_while_loading_are_not_tried_for_ever(tmp_path, cluster):
    layout = workspace(tmp_path / "ray", TEXTS)
    with pytest.raises(EngineError, match="3 ray actors died on loading the model"):
        extract_with(Models(broken="deadly"), on_ray(cluster), layout)


@pytest.mark.slow
def test_jobs_that_do_not_fit_in_memory_go_in_windows(tmp_path, cluster, log, monkeypatch):
    layout = workspace(tmp_path / "ray", TEXTS[:24])
    monkeypatch.setattr("tasks.engines.ray._WINDOW_BYTES", 3000)
    extract_with(Models(log=str(log)), on_ray(cluster), layout)
    local = workspace(tmp_path / "local", TEXTS[:24])
    extract_with(Models(), settings(), local)
    np.testing.assert_array_equal(features(layout), features(local))
    assert len(list(log.iterdir())) == 2  # processes: an actor for each window


@pytest.mark.slow
def test_a_node_may_leave(tmp_path, cluster, log):
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    layout = workspace(tmp_path / "ray", TEXTS)

    def leave():
        while len([path for path in log.iterdir() if path.stat().st_size]) < 2:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)

    leaving = threading.Thread(target=leave)
    leaving.start()
    models = Models(log=str(log), pause=0.4)
    extract_with(models, on_ray(cluster, run__ray__actors=3, run__ray__cpus_per_actor=1), layout)
    leaving.join()
    compare_with_local(tmp_path, layout)


@pytest.mark.slow
def test_standing_still_is_said(tmp_path, cluster):
    layout = workspace(tmp_path / "ray", TEXTS)
    stuck = on_ray(cluster, run__ray__actors=1, run__ray__cpus_per_actor=64, run__ray__stall_seconds=4)
    with pytest.raises(EngineError, match="no shard finished for 4 s: 1 of 1 ray actors have not loaded"):
        extract_with(Models(), stuck, layout)


def test_no_such_cluster(tmp_path):
    layout = workspace(tmp_path, TEXTS)
    nowhere = settings(run__engine="ray", run__ray__address="127.0.0.1:1")
    with pytest.raises(EngineError, match=r"run\.ray\.address 127\.0\.0\.1:1: cannot join"):
        extract_with(Models(), nowhere, layout)


def test_no_ray_client(tmp_path):
    layout = workspace(tmp_path, TEXTS)
    client = settings(run__engine="ray", run__ray__address="ray://127.0.0.1:10001")
    with pytest.raises(EngineError, match=r"Ray Client is not supported"):
        extract_with(Models(), client, layout)


@pytest.mark.parametrize(
    ("cpus", "gpus", "options", "expected"),
    [
        (8, 0, {}, (7, 1.0)),
        (2, 0, {}, (1, 1.0)),
        (1, 0, {}, (1, 0.5)),
        (2, 0, {"cpus_per_actor": 0.5}, (2, 0.5)),
        (8, 2, {"gpus_per_actor": 1}, (2, 1.0)),
        (8, 2, {"gpus_per_actor": 0.5}, (4, 1.0)),
        (8, 0, {"actors": 20}, (20, 1.0)),
    ],
)
def test_a_cpu_stays_free(cpus, gpus, options, expected):
    assert plan_actors({"CPU": cpus, "GPU": gpus}, RaySettings(**options)) == expected


def test_no_gpu_for_an_actor_that_needs_one():
    with pytest.raises(EngineError, match="no room for an actor of 1 GPUs"):
        plan_actors({"CPU": 8}, RaySettings(gpus_per_actor=1))
