"""Exports read by the trainers' own code, fetched as a package of one wheel without its dependencies."""

import importlib
import json
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import datasets
import pytest
from finished_run import finish

from tasks.layout import Layout

LLAMAFACTORY = "llamafactory==0.9.5"


@pytest.fixture(scope="module")
def llamafactory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the unpacked wheel, importable; skipped where no package index is reached."""
    folder = tmp_path_factory.mktemp("llamafactory")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), LLAMAFACTORY]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"{LLAMAFACTORY} cannot be fetched")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


def import_bare(folder: Path, package: str, modules: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> list:
    """Modules of a package whose own __init__ files, which pull in trainers and servers, are not run."""
    monkeypatch.syspath_prepend(str(folder))
    for name in sorted({package, *(module.rpartition(".")[0] for module in modules), f"{package}.extras"}):
        bare = types.ModuleType(name)
        bare.__path__ = [str(folder / name.replace(".", "/"))]
        monkeypatch.setitem(sys.modules, name, bare)
    return [importlib.import_module(module) for module in modules]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["relative", "absolute", "media_dir"])
def test_llamafactory_converts_every_row_and_finds_every_image(
    llamafactory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    layout = Layout.flat(tmp_path / "out")
    media = tmp_path / "raw" if policy == "media_dir" else layout.subset / "llamafactory"
    finish(
        tmp_path, layout, export__formats=["llamafactory"], export__paths=policy,
        export__media_dir=str(media) if policy == "media_dir" else None,
    )  # fmt: skip
    folder = layout.subset / "llamafactory"
    names = ("llamafactory.data.converter", "llamafactory.data.parser")
    converter, parser = import_bare(llamafactory, "llamafactory", names, monkeypatch)
    entries = list(json.loads((folder / "dataset_info.json").read_text()))
    (described,) = parser.get_dataset_list(entries, str(folder))
    arguments = types.SimpleNamespace(media_dir=str(media))
    convert = converter.get_dataset_converter(described.formatting, described, arguments)
    rows = datasets.load_dataset(
        "json", data_files=str(folder / described.dataset_name), split="train", cache_dir=str(tmp_path / "cache")
    )
    converted = [convert(row) for row in rows]
    assert len(converted) == 5
    for row in converted:
        assert [turn["role"] for turn in row["_prompt"] + row["_response"]] == ["user", "assistant"]
        shown = row["_prompt"][0]["content"].count("<image>")
        assert len(row["_images"] or []) == shown
        assert all(Path(image).is_file() for image in row["_images"] or [])
