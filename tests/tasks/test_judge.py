"""The judge against a real HTTP server on loopback that speaks the chat API."""

import base64
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.endpoint import Endpoint
from tasks.errors import EngineError, ParamsError
from tasks.judge import rate
from tasks.layout import Layout
from tasks.methods import METHODS
from tasks.mirror import mirrored
from tasks.params import JudgeSettings
from tasks.pool import read_pool
from tasks.rubrics import RUBRICS
from tasks.sample import ImageRef, Sample, Turn, digest_bytes, digest_sample
from tasks.tables import features_schema, write_samples

PNG = b"\x89PNG not really"


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.headers, self.failures, self.lock = [], [], [], threading.Lock()
        self.reply = lambda body: json.dumps({"accuracy": 5, "grammar": 4, "informativeness": 3, "coherence": 4})

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append((self.path, body))
            self.server.headers.append(dict(self.headers))
            status = self.server.failures.pop(0) if self.server.failures else 200
        text = "busy" if status != 200 else json.dumps({"choices": [{"message": {"content": self.server.reply(body)}}]})
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def layout(tmp_path):
    """Five rows, the last with the content of the first."""
    layout = Layout.flat(tmp_path / "run")
    (tmp_path / "a.png").write_bytes(PNG)
    samples = []
    for row in range(5):
        turns = (Turn("user", f"<image> {row % 4}?"), Turn("assistant", "yes"))
        image = ImageRef(str(tmp_path / "a.png"), "a.png", sha256=digest_bytes(PNG))
        samples.append(Sample(row, f"id{row}", "s", turns, (image,), digest_sample(turns, [image.sha256])))
    write_samples(layout.samples, samples)
    rows = {
        "row": list(range(5)),
        "id": [sample.id for sample in samples],
        "digest": [sample.digest for sample in samples],
        "feature": [[0.0, 1.0]] * 5,
    }
    (layout.features / "attended").mkdir(parents=True)
    pq.write_table(pa.table(rows, schema=features_schema(2)), layout.features / "attended" / "part-00000.parquet")
    return layout


def settings(server, **changes):
    return JudgeSettings(**{"url": server.url, "model": "judge-1", "parallel": 3, **changes})


def unread(chosen, layout, name="judge"):
    described = rate(chosen, layout, (name,), range(5))[name]
    assert set(described["statistics"]) == set(table(layout, name).column_names) - {"row", "id", "digest"}
    return described["unread"]


def table(layout, name="judge"):
    return pq.read_table(layout.features / name / "part-00000.parquet")


def test_each_content_is_asked_once_and_remembered(server, layout):
    assert unread(settings(server), layout) == 0
    assert len(server.requests) == 4
    assert table(layout)["score"].to_pylist() == [16 / 20] * 5
    before = (layout.features / "judge" / "part-00000.parquet").read_bytes()
    rate(settings(server), layout, ("judge",), range(5))
    assert len(server.requests) == 4
    assert (layout.features / "judge" / "part-00000.parquet").read_bytes() == before
    rate(settings(server, model="judge-2"), layout, ("judge",), range(5))
    assert len(server.requests) == 8


def test_replies_are_shared_through_a_mirror(server, layout, bucket):
    with mirrored(f"{bucket}/store", layout.store) as mirror:
        rate(settings(server), layout, ("judge",), range(5), mirror)
    assert len(server.requests) == 4
    shutil.rmtree(layout.store)
    with mirrored(f"{bucket}/store", layout.store) as mirror:
        rate(settings(server), layout, ("judge",), range(5), mirror)
    assert len(server.requests) == 4


def test_what_is_asked(server, layout, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    rate(settings(server, api_key_variable="MY_KEY"), layout, ("judge",), range(5))
    path, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert body["model"] == "judge-1"
    assert body["temperature"] == 0
    shape = body["response_format"]["json_schema"]
    assert shape["strict"] is True
    assert shape["schema"]["required"] == ["accuracy", "grammar", "informativeness", "coherence"]
    text, image = body["messages"][1]["content"]
    assert text["text"].startswith("[user]\n<image> ")
    kind, data = image["image_url"]["url"].split(",")
    assert (kind, base64.b64decode(data)) == ("data:image/png;base64", PNG)
    rate(settings(server, images=False), layout, ("judge",), range(5))
    assert [part["type"] for part in server.requests[-1][1]["messages"][1]["content"]] == ["text"]


def test_replies_that_cannot_be_read_are_counted_and_rank_last(server, layout):
    def reply(body):
        said = body["messages"][1]["content"][0]["text"]
        return {"<image> 0?": "no JSON", "<image> 1?": '{"accuracy": 9}'}.get(
            said.split("\n")[1], json.dumps({"accuracy": 1, "grammar": 1, "informativeness": 1, "coherence": 1})
        )

    server.reply = reply
    assert unread(settings(server), layout) == 3
    assert np.isnan(table(layout)["score"].to_numpy()).tolist() == [True, True, False, False, True]
    pool = read_pool(layout, ("judge",))
    method = METHODS["llm_judge"]
    columns = method.score(pool.tables, method.parse({}))
    assert columns["unread"].tolist() == [1, 1, 0, 0, 1]
    picks = method.select(columns, pool.tables, 2, np.random.default_rng(0), method.parse({}))
    assert sorted(picks.tolist()) == [2, 3]


def test_a_run_above_the_cost_limit_does_not_start(server, layout):
    dear = settings(server, input_price=1e6, maximum_cost=3.0)
    with pytest.raises(
        ParamsError, match=r"4 requests would cost about \d+\.\d\d, above extract.judge.maximum_cost 3.00"
    ):
        rate(dear, layout, ("judge",), range(5))
    assert not server.requests


@pytest.mark.parametrize("failures", [[429], [500, 503], [408, 425, 502]])
def test_busy_endpoints_are_asked_again(server, failures):
    server.failures = list(failures)
    with Endpoint(settings(server), first_wait=0.01) as endpoint:
        assert json.loads(endpoint.ask([], "judge", {}))["accuracy"] == 5
    assert len(server.requests) == len(failures) + 1


def test_an_endpoint_that_stays_down_is_our_failure_and_a_refusal_is_not(server):
    server.failures = [503] * 9
    with Endpoint(settings(server, attempts=3), first_wait=0.01) as endpoint:
        with pytest.raises(EngineError, match="3 attempts failed, last HTTP 503: busy"):
            endpoint.ask([], "judge", {})
        assert len(server.requests) == 3
        server.failures = [401]
        with pytest.raises(ParamsError, match="refuses the request, HTTP 401"):
            endpoint.ask([], "judge", {})
    nobody = settings(server, url="http://127.0.0.1:9", attempts=2)
    with Endpoint(nobody, first_wait=0.01) as endpoint, pytest.raises(EngineError, match="ConnectError"):
        endpoint.ask([], "judge", {})


def test_what_was_rated_before_a_failure_is_kept(server, layout):
    server.failures = [200, 200, 400]
    with pytest.raises(ParamsError):
        rate(settings(server, parallel=1), layout, ("judge",), range(5))
    rate(settings(server, parallel=1), layout, ("judge",), range(5))
    assert len(server.requests) == 4 + 1


def test_deita_grades_turns(server, layout):
    server.reply = lambda body: json.dumps({"complexity": [3], "quality": [5]})
    assert unread(settings(server), layout, "deita") == 0
    assert table(layout, "deita")["evol"].to_pylist() == [15.0] * 5
    tables = read_pool(layout, ("deita", "attended")).tables
    method = METHODS["deita"]
    options = method.parse({"features": "attended"})
    assert method.score(tables, options)["score"].tolist() == [15.0] * 5


def test_deita_ranks_unread_rows_last(server, layout):
    server.reply = lambda body: (
        "no JSON"
        if " 1?" in body["messages"][1]["content"][0]["text"]
        else (json.dumps({"complexity": [1], "quality": [1]}))
    )
    assert unread(settings(server), layout, "deita") == 1
    method = METHODS["deita"]
    columns = method.score(read_pool(layout, ("deita", "attended")).tables, method.parse({"features": "attended"}))
    assert columns["score"].tolist() == [1, -1, 1, 1, 1]
    assert columns["unread"].tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"complexity": [1, 2], "quality": [1, 2]}',
        '{"complexity": [true], "quality": [1]}',
        '{"quality": [1]}',
    ],
)
def test_deita_replies_that_do_not_fit(text):
    sample = Sample(0, None, "s", (Turn("user", "q"), Turn("assistant", "a")), (), "d")
    assert RUBRICS["deita"].parse(text, sample) is None
    assert RUBRICS["judge"].parse(text, sample) is None


def test_a_fence_around_the_reply_is_taken_off():
    sample = Sample(0, None, "s", (Turn("user", "q"), Turn("assistant", "a")), (), "d")
    plain = '{"complexity": [2], "quality": [3]}'
    wanted = RUBRICS["deita"].parse(plain, sample)
    assert wanted["evol"] == 6
    for text in (f"```json\n{plain}\n```", f" ```\n{plain}```\n"):
        assert RUBRICS["deita"].parse(text, sample) == wanted
