"""Both doors for real: a Prefect server, a process worker, deployments, DVC, an S3 server; all on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from toys import git, make_toy, ran

from flows import dvc
from flows.record import MANIFEST

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STAGES = ["validate", "extract", "score", "select", "export"]
SUBSET = "data/subsets/subset.json"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def started(*command: str, log: Path, **environment: str):
    """A server in a process group of its own, which is ended with all it started."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def await_answer(url: str, log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=2)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(f"no answer from {url}:\n{log.read_text()[-3000:]}")


class Site:
    """A Prefect server, a work pool and a worker."""

    def __init__(self, api: str):
        self.api = api

    def prefect(self, *arguments: str, cwd: Path, check: bool = True) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=cwd,
            check=False,
            env={**os.environ, "PREFECT_API_URL": self.api, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout + done.stderr

    def ask(self, what: str, **body):
        request = urllib.request.Request(
            f"{self.api}/{what}/filter", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def run(self, cwd: Path, **overrides) -> "Run":
        given = ["--param", f"overrides={json.dumps(overrides)}"] if overrides else []
        self.prefect("deployment", "run", "scalselect/curate", "--watch", *given, cwd=cwd, check=False)
        (last,) = self.ask("flow_runs", sort="EXPECTED_START_TIME_DESC", limit=1)
        return Run(self, last)


class Run:
    def __init__(self, site: Site, facts):
        self.site, self.id, self.state = site, facts["id"], facts["state"]

    def tasks(self) -> dict[str, str]:
        found = self.site.ask("task_runs", flow_runs={"id": {"any_": [self.id]}}, sort="EXPECTED_START_TIME_ASC")
        return {one["name"]: one["state"]["name"] for one in found}

    def log(self) -> str:
        found = self.site.ask("logs", logs={"flow_run_id": {"any_": [self.id]}}, limit=200)
        return "\n".join(one["message"] for one in found)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    home = tmp_path_factory.mktemp("site")
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    server = (sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    worker = (sys.executable, "-m", "prefect", "worker", "start", "--pool", "scalselect", "--name", "test")
    with started(*server, log=home / "server.log", PREFECT_API_URL=api):
        await_answer(f"{api}/health", home / "server.log")
        site = Site(api)
        site.prefect("work-pool", "create", "scalselect", "--type", "process", cwd=home)
        with started(*worker, log=home / "worker.log", PREFECT_API_URL=api, PREFECT_WORKER_QUERY_SECONDS="1"):
            yield site


@pytest.fixture(scope="module")
def deployed(site, tmp_path_factory):
    workspace = make_toy(tmp_path_factory.mktemp("work") / "toy")
    site.prefect("--no-prompt", "deploy", "--all", cwd=workspace)
    return workspace


def repro(workspace: Path) -> str:
    return "\n".join(dvc.call(workspace, "repro"))


def test_deployment_then_nothing_to_do_through_either_door(site, deployed):
    first = site.run(deployed)
    assert first.state["type"] == "COMPLETED", first.log()
    assert first.tasks() == {**dict.fromkeys(STAGES, "Completed"), "record": "Completed"}
    assert ran(deployed) == STAGES
    assert "extract: working" in first.log()
    manifest = (deployed / MANIFEST).read_bytes()

    assert dvc.status(deployed) == {}
    assert repro(deployed).count("didn't change, skipping") == len(STAGES)
    second = site.run(deployed)
    assert second.tasks() == {**dict.fromkeys(STAGES, "Cached"), "record": "Completed"}
    assert ran(deployed) == []
    assert (deployed / MANIFEST).read_bytes() == manifest
    assert dvc.status(deployed) == {}

    keys = {one["key"] for one in site.ask("artifacts", limit=100)}
    wanted = {"run", "validation", "accounting", "data-docs", "report"}
    assert keys == {f"scalselect-{one}" for one in wanted}


def test_the_deployment_admits_one_run_at_a_time(site, deployed):
    deployment = next(one for one in site.ask("deployments") if one["name"] == "curate")
    assert deployment["path"] == str(deployed) or deployment["pull_steps"][0].popitem()[1] == {
        "directory": str(deployed)
    }
    assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert [one["schedule"]["cron"] for one in deployment["schedules"]] == ["0 3 * * *"]


def test_a_parameter_turned_and_turned_back_restores_without_computing(site, deployed):
    site.run(deployed, **{"select.budget": 100})
    first = (deployed / SUBSET).read_bytes()
    other = site.run(deployed, **{"select.budget": 200})
    assert other.tasks()["select"] == "Completed"
    assert (deployed / SUBSET).read_bytes() != first
    ran(deployed)

    back = site.run(deployed, **{"select.budget": 100})
    assert back.tasks() == {**dict.fromkeys(STAGES, "Cached"), "record": "Completed"}
    assert ran(deployed) == []
    assert (deployed / SUBSET).read_bytes() == first
    assert yaml.safe_load((deployed / "params.yaml").read_text())["select"]["budget"] == 100
    assert dvc.status(deployed) == {}


def test_outputs_that_are_gone_are_put_back_without_computing(site, deployed):
    subset, scores = deployed / SUBSET, deployed / "data/scores/scores.parquet"
    expected = subset.read_bytes(), scores.read_bytes()
    subset.unlink()
    scores.unlink()
    ran(deployed)
    assert site.run(deployed).tasks() == {**dict.fromkeys(STAGES, "Cached"), "record": "Completed"}
    assert ran(deployed) == []
    assert (subset.read_bytes(), scores.read_bytes()) == expected
    assert dvc.status(deployed) == {}


def test_a_failing_stage_says_why_and_is_not_tried_again(site, deployed):
    run = site.run(deployed, **{"select.budget": 13})
    assert run.state["type"] == "FAILED"
    assert "13 rows were asked for;\nonly 12 are there" in run.state["message"]
    assert "BudgetError: 13 rows were asked for;" in run.log()
    assert run.tasks()["select"] == "Failed"
    assert ran(deployed) == ["select"]


def test_an_unknown_override_is_refused_before_anything_runs(site, deployed):
    before = (deployed / "params.yaml").read_bytes()
    run = site.run(deployed, **{"select.budgte": 5})
    assert run.state["type"] == "FAILED"
    assert "did you mean `budget`?" in run.state["message"]
    assert run.tasks() == {}
    assert (deployed / "params.yaml").read_bytes() == before


def test_dead_workers_are_tried_again(site, deployed):
    (deployed / "flaky").touch()
    run = site.run(deployed, **{"select.budget": 100, "extract.attention_threshold": 0.5})
    assert run.state["type"] == "COMPLETED", run.log()
    assert ran(deployed).count("extract") == 2


def test_bare_dvc_turned_and_turned_back(toy):
    """The other door alone: run cache, experiments, plots and metrics."""
    repro(toy)
    first = {path: path.read_bytes() for path in sorted((toy / "data/subsets").iterdir())}
    ran(toy)
    params = toy / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("budget: 0.16", "budget: 0.5"))
    repro(toy)
    assert ran(toy) == ["select", "export"]
    params.write_text(text)
    assert repro(toy).count("is cached - skipping run") == 2
    assert ran(toy) == []
    assert {path: path.read_bytes() for path in sorted((toy / "data/subsets").iterdir())} == first


def test_experiments_plots_and_metrics(toy):
    repro(toy)
    git(toy, "add", "--all")
    git(toy, "commit", "--quiet", "--message", "first")
    assert "0.16" in "\n".join(dvc.call(toy, "metrics", "show"))
    page = "\n".join(dvc.call(toy, "plots", "show"))
    assert "index.html" in page
    shown = "".join(path.read_text() for path in toy.glob("dvc_plots/*.html"))
    assert all(title in shown for title in ("Energy by component", "Score by rank", "Share of each source"))
    ran(toy)
    dvc.call(toy, "exp", "run", "--set-param", "select.budget=7")
    assert ran(toy) == ["select", "export"]
    assert (toy / SUBSET).read_text() == "7"


@pytest.fixture
def bucket(tmp_path):
    import boto3

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = tmp_path / "moto.log"
    with started(sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port), log=log):
        await_answer(url, log)
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=url, **keys).create_bucket(Bucket="team")
        yield url


def test_a_clone_pulls_the_same_bytes_from_s3(toy, bucket, tmp_path):
    for arguments in (
        ("remote", "add", "--default", "team", "s3://team/curation"),
        ("remote", "modify", "team", "endpointurl", bucket),
        ("remote", "modify", "--local", "team", "access_key_id", "test"),
        ("remote", "modify", "--local", "team", "secret_access_key", "test"),
    ):
        dvc.call(toy, *arguments)
    (toy / "params.yaml").write_text((toy / "params.yaml").read_text().replace("git_commit: false", "git_commit: true"))
    git(toy, "add", "--all")
    git(toy, "commit", "--quiet", "--message", "workspace")
    repro(toy)
    scalselect(toy, "record")
    assert git(toy, "status", "--porcelain", "--", "dvc.lock", MANIFEST) == ""

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(toy), str(clone))
    (clone / ".dvc/config.local").write_bytes((toy / ".dvc/config.local").read_bytes())
    dvc.call(clone, "pull")
    for name in ("subsets", "features/attended", "scores", "selection", "samples", "manifests"):
        for path in (toy / "data" / name).iterdir():
            assert (clone / "data" / name / path.name).read_bytes() == path.read_bytes()


def scalselect(cwd: Path, *arguments: str) -> str:
    command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
    done = subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_runs_do_not_interleave(site, toy):
    (toy / "pause").write_text("0.5")
    command = [sys.executable, "-c", "from flows.cli import main; main()", "run", "--set"]
    environment = {**os.environ, "PREFECT_API_URL": site.api}
    runs = [
        subprocess.Popen(
            [*command, f"select.budget={budget}"],
            cwd=toy,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for budget in (3, 4)
    ]
    outputs = [run.communicate(timeout=400)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(outputs)
    assert sum("waiting for it to finish" in output for output in outputs) == 1
    assert ran(toy) in ([*STAGES, "select", "export"],)
