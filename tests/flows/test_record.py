import hashlib
import json

import pytest
from toys import git

from flows import dvc, record
from flows.workspace import override
from tasks.errors import InputError
from tasks.sample import digest_bytes


def silent(line):
    pass


def test_the_manifest_holds_what_dvc_lock_holds(done):
    made = record.record(done, silent)
    manifest = json.loads(made.manifest.read_text())
    assert made.digest == digest_bytes(made.manifest.read_bytes())
    assert made.pushed == "local"
    held = manifest["record"]
    assert held["git"] == {"commit": git(done, "rev-parse", "HEAD")}
    assert list(held["dvc"]) == ["export", "extract", "score", "select", "validate"]
    lock = dvc.lock(done)
    for stage, sides in held["dvc"].items():
        for side in ("deps", "outs"):
            assert sides[side] == {one["path"]: one["md5"] for one in lock[stage][side]}
    samples = (done / "data/samples/samples.parquet").read_bytes()
    assert held["dvc"]["validate"]["outs"]["data/samples/samples.parquet"] == hashlib.md5(samples).hexdigest()


def test_recording_twice_changes_nothing(done):
    override(done, {"record.push": False, "record.git_commit": True})
    first = record.record(done, silent)
    assert first.commit == git(done, "rev-parse", "HEAD")
    files = sorted(git(done, "show", "--name-only", "--format=", "HEAD").splitlines())
    assert files == ["data/manifests/manifest.json", "dvc.lock", "params.yaml"]
    second = record.record(done, silent)
    assert (second.digest, second.commit, second.pushed) == (first.digest, None, None)
    assert git(done, "rev-parse", "HEAD") == first.commit


def test_only_the_record_is_committed(done):
    override(done, {"record.push": False, "record.git_commit": True})
    (done / "notes.txt").write_text("mine")
    git(done, "add", "notes.txt")
    record.record(done, silent)
    assert "A  notes.txt" in git(done, "status", "--porcelain")


def test_the_tag_names_date_and_digest(done):
    override(done, {"record.push": False, "record.git_commit": True, "record.git_tag": "subset-{digest}"})
    made = record.record(done, silent)
    assert made.tag == f"subset-{made.digest[:12]}"
    assert git(done, "tag", "--list") == made.tag
    assert record.record(done, silent).tag is None


def test_a_stale_workspace_is_not_recorded(done):
    override(done, {"select.budget": 7})
    with pytest.raises(InputError, match="select, export not up to date; run `dvc repro`"):
        record.record(done, silent)
    assert not (done / record.MANIFEST).exists()


def test_outputs_that_were_not_committed_to_the_cache_are(toy):
    override(toy, {"record.push": False})
    dvc.call(toy, "repro", "--no-commit")
    record.record(toy, silent)
    subset = toy / "data/subsets/subset.json"
    content = subset.read_bytes()
    subset.unlink()
    dvc.call(toy, "checkout")
    assert subset.read_bytes() == content


def test_md5s_of_ours_only():
    stages = {
        "score": {"deps": [{"path": "a", "md5": "1"}], "outs": [{"path": "b", "md5": "2"}], "cmd": "x"},
        "train": {"outs": [{"path": "c", "md5": "3"}]},
    }
    assert record.md5s(stages) == {"score": {"deps": {"a": "1"}, "outs": {"b": "2"}}}
