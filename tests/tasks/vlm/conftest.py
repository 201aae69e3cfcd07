"""A small LLaVA checkpoint, made once a module and copied for each test."""

import shutil

import pytest

from tests.tasks.vlm import zoo


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava")
    zoo.llava(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "model")
