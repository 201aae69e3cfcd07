"""What is remembered of a model: the same as found out anew, and only while nothing it depends on changed."""

import os
import shutil
import subprocess
import sys

import pytest

from tasks.errors import ModelError
from tasks.models import Vlm
from tasks.params import parse
from tasks.vlm import recall
from tasks.vlm.grouping import SHARED
from tasks.vlm.signals import SIGNALS


def settings(path, extract=None, **model):
    return parse({"dataset": {"path": "x"}, "model": {"path": str(path), **model}, "extract": extract or {}})


def touch(path):
    stamp = path.stat()
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))


def test_the_light_list_of_signals_is_the_real_one():
    assert list(SHARED) == list(SIGNALS)


def test_what_is_remembered_is_what_was_found(folder, tmp_path):
    signals = ("attended", "answers")
    fresh = Vlm().describe(settings(folder), signals)
    assert Vlm(tmp_path / "store").describe(settings(folder), signals) == fresh
    assert len(list((tmp_path / "store/models").iterdir())) == 1
    assert Vlm(tmp_path / "store").describe(settings(folder), signals) == fresh


def test_an_unchanged_model_is_described_without_torch(folder, tmp_path):
    code = f"""
import sys
from pathlib import Path
from tasks.models import Vlm
from tasks.params import parse
vlm, settings = Vlm(Path({str(tmp_path)!r})), parse({{"dataset": {{"path": "x"}}, "model": {{"path": {str(folder)!r}}}}})
print(len(vlm.describe(settings, vlm.groups(settings)[0]).fingerprints), [one for one in ("torch", "transformers") if one in sys.modules])
"""  # noqa: E501
    said = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    ]
    assert said == ["1 ['torch', 'transformers']", "1 []"]


def test_a_damaged_description_is_made_again(folder, tmp_path):
    found = Vlm(tmp_path).describe(settings(folder), ("attended",))
    (kept,) = (tmp_path / "models").iterdir()
    for damage in ("", "{}", "[]", kept.read_text()[:100]):
        kept.write_text(damage)
        assert Vlm(tmp_path).describe(settings(folder), ("attended",)) == found


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja"])
def test_any_file_of_the_model_counts(folder, name):
    before = recall.identify(settings(folder).model)
    assert recall.identify(settings(folder).model) == before
    touch(folder / name)
    assert recall.identify(settings(folder).model) != before


def test_settings_code_and_packages_count(folder, monkeypatch):
    model = settings(folder).model
    before = recall.identify(model, "a")
    assert recall.identify(model, "b") != before
    assert recall.identify(settings(folder, max_length=7).model, "a") != before
    for part in ("_code", "_packages"):
        with monkeypatch.context() as patch:
            patch.setattr(recall, part, lambda: "other")
            assert recall.identify(model, "a") != before


def test_a_model_with_code_of_its_own_is_not_remembered(folder, tmp_path):
    trusted = settings(folder, trust_remote_code=True)
    assert recall.identify(trusted.model) is None
    Vlm(tmp_path).describe(trusted, ("attended",))
    assert not (tmp_path / "models").exists()


def test_a_model_that_is_gone_is_not_remembered(folder, tmp_path):
    Vlm(tmp_path).describe(settings(folder), ("attended",))
    shutil.rmtree(folder)
    with pytest.raises(ModelError, match="no such folder"):
        Vlm(tmp_path).describe(settings(folder), ("attended",))
