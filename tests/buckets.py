"""Object storage to test against: fsspec's memory, in this process, or a real S3-compatible server on loopback."""

import logging
import uuid

import fsspec
import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def s3_endpoint():
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint, monkeypatch):
    """URL of a new bucket; the environment says how it is reached, here and in processes started from here."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    import boto3

    name = f"team-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def bucket(request):
    """URL of an empty bucket."""
    if request.param == "s3":
        return request.getfixturevalue("s3")
    url = f"memory://{uuid.uuid4().hex}"
    fsspec.filesystem("memory").mkdir(url)
    return url


def upload(folder, url):
    """Everything under a folder, as objects under `url`."""
    files = fsspec.filesystem(url.partition("://")[0])
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files.pipe_file(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return url


def put(url, data):
    fsspec.filesystem(url.partition("://")[0]).pipe_file(url, data)


def keys(url):
    files = fsspec.filesystem(url.partition("://")[0], use_listings_cache=False)
    base = files._strip_protocol(url)
    return sorted(one.removeprefix(base + "/") for one in files.find(url))
