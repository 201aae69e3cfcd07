"""Digests of weights: right, remembered while a file stays as it is, and never taken from memory by a check."""

import hashlib
import json
import os

import pytest
import torch
from safetensors.torch import save_file

from tasks.vlm.checkpoint import Checkpoint
from tasks.vlm.digests import Digests, name_in_hub

NAMES = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(folder, **values):
    """Two shards; a value for each of a, b, c."""
    values = {"a": 1.0, "b": 2.0, "c": 3.0, **values}
    for shard in set(NAMES.values()):
        save_file({name: torch.full((3,), values[name]) for name, at in NAMES.items() if at == shard}, folder / shard)
    return Checkpoint(folder, str(folder), "", NAMES)


def turn_back(path, stamp):
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


@pytest.fixture
def memory(tmp_path):
    return tmp_path / "store" / "weights.json"


@pytest.fixture
def checkpoint(tmp_path):
    return write(tmp_path)


def test_a_file_that_stays_as_it_is_is_read_once(tmp_path, memory, checkpoint):
    """Proven by bytes changed behind an unchanged stamp: only who reads them sees it."""
    path = tmp_path / "one.safetensors"
    before, stamp = sha256(path), path.stat()
    assert Digests(memory).file(path) == before
    tensors = Digests(memory).tensors(checkpoint, NAMES)
    write(tmp_path, a=7.0)
    turn_back(path, stamp)
    turn_back(tmp_path / "two.safetensors", stamp)
    assert Digests(memory).file(path) == before
    assert Digests().file(path) == sha256(path) != before
    assert Digests().tensors(checkpoint, NAMES) != tensors


def test_a_changed_file_has_another_digest(tmp_path, memory, checkpoint):
    path = tmp_path / "one.safetensors"
    file, tensors = Digests(memory).file(path), Digests(memory).tensors(checkpoint, NAMES)
    stamp = path.stat()
    write(tmp_path, a=7.0)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert Digests(memory).file(path) == sha256(path) != file
    assert Digests(memory).tensors(checkpoint, NAMES) == Digests().tensors(checkpoint, NAMES) != tensors


def test_other_tensors_of_a_known_shard_are_added(memory, checkpoint):
    Digests(memory).tensors(checkpoint, ["a", "c"])
    assert Digests(memory).tensors(checkpoint, NAMES) == Digests().tensors(checkpoint, NAMES)
    held = json.loads(memory.read_text())
    assert sorted(name for entry in held.values() for name in entry["tensors"]) == ["a", "b", "c"]


def test_the_same_tensors_in_other_shards_have_the_same_digest(tmp_path, checkpoint):
    everything = {"a": 1.0, "b": 2.0, "c": 3.0}
    save_file({name: torch.full((3,), value) for name, value in everything.items()}, tmp_path / "all.safetensors")
    whole = Checkpoint(tmp_path, "", "", dict.fromkeys(NAMES, "all.safetensors"))
    assert Digests().tensors(whole, NAMES) == Digests().tensors(checkpoint, NAMES)


@pytest.mark.parametrize(
    "damage", ["", "[]", "null", "{", '{"x": 1}', '{"PATH": {"sha256": 5}}', '{"PATH": {"tensors": [1]}}', "\0\xff"]
)
def test_a_damaged_memory_is_started_anew(tmp_path, memory, checkpoint, damage):
    path = tmp_path / "one.safetensors"
    memory.parent.mkdir()
    memory.write_text(damage.replace("PATH", str(path)), encoding="latin-1")
    assert Digests(memory).file(path) == sha256(path)
    assert Digests(memory).tensors(checkpoint, NAMES) == Digests().tensors(checkpoint, NAMES)
    assert json.loads(memory.read_text())[str(path)]["sha256"] == sha256(path)


def test_a_file_of_a_hub_cache_is_named_by_its_digest(tmp_path, memory):
    blobs, snapshot = tmp_path / "models--a--b/blobs", tmp_path / "models--a--b/snapshots/0"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    claimed = "5" * 64
    (blobs / claimed).write_bytes(b"weights")
    (snapshot / "model.safetensors").symlink_to(blobs / claimed)
    (blobs / ("5" * 40)).write_bytes(b"small")
    (snapshot / "config.json").symlink_to(blobs / ("5" * 40))
    assert Digests(memory).file(snapshot / "model.safetensors") == claimed
    assert Digests().file(snapshot / "model.safetensors") == hashlib.sha256(b"weights").hexdigest()
    assert Digests(memory).file(snapshot / "config.json") == hashlib.sha256(b"small").hexdigest()


def test_a_name_like_a_digest_elsewhere_says_nothing(tmp_path):
    (tmp_path / ("5" * 64)).write_bytes(b"weights")
    (tmp_path / "link").symlink_to(tmp_path / ("5" * 64))
    assert name_in_hub(tmp_path / "link") is None
    assert name_in_hub(tmp_path / ("5" * 64)) is None
