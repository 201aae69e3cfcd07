"""From a hub only what is needed is downloaded: small files, the index, and the shards that hold needed tensors."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.tasks.vlm import zoo
from tests.tasks.vlm.hub_server import COMMIT, serving
from tests.tasks.vlm.test_loading import feature, shard

EXTRACT = """
import json, sys
from tasks.vlm.extractor import describe
from tests.tasks.vlm.test_loading import feature, settings
record = describe(settings("some/model"), ("attended",)).record
first = feature("some/model")
print(json.dumps({"commit": record["commit"], "files": sorted(record["files"]), "feature": first.tolist()}))
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    zoo.llava(folder)
    shard(folder)
    (folder / "README.md").write_text("never needed")
    (folder / "pytorch_model.bin").write_bytes(b"never wanted")
    return folder


def extract(endpoint, cache):
    """In a process of its own: the hub's address and the cache are read when huggingface_hub is imported."""
    variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", EXTRACT], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_only_needed_shards_are_downloaded_and_only_once(original, tmp_path):
    with serving("some/model", original) as (endpoint, fetched):
        found = extract(endpoint, tmp_path)
        once = sorted(fetched)
        extract(endpoint, tmp_path)
    assert "a.safetensors" in once
    assert not {"b.safetensors", "README.md", "pytorch_model.bin"} & {*once}
    assert "model.safetensors.index.json" in once
    assert sorted(fetched) == once, "the second run found everything in its cache"
    assert found["commit"] == COMMIT
    assert "b.safetensors" not in found["files"]
    assert found["feature"] == feature(original).tolist()


@pytest.mark.slow
def test_a_checkpoint_of_one_file_is_downloaded_whole(tmp_path):
    folder = tmp_path / "model"
    zoo.llava(folder)
    with serving("some/model", folder) as (endpoint, fetched):
        found = extract(endpoint, tmp_path / "cache")
    assert fetched.count("model.safetensors") == 1
    assert found["feature"] == feature(folder).tolist()
    shutil.rmtree(folder)
