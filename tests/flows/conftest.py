"""Toy workspaces, and a home of their own for everything that git, DVC and Prefect keep about a user."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toys import git, make_toy


@pytest.fixture(scope="session", autouse=True)
def _own_places(tmp_path_factory):
    """DVC's and Prefect's per-user folders, a git identity: all inside the test's temporary folder."""
    home = tmp_path_factory.mktemp("home")
    (home / "gitconfig").write_text("[user]\n name = Test\n email = test@localhost\n[init]\n defaultBranch = main\n")
    saved = dict(os.environ)
    os.environ.update(
        DVC_SITE_CACHE_DIR=str(home / "dvc"),
        DVC_GLOBAL_CONFIG_DIR=str(home / "dvc-config"),
        GIT_CONFIG_GLOBAL=str(home / "gitconfig"),
        PREFECT_HOME=str(home / "prefect"),
    )
    yield
    os.environ.clear()
    os.environ.update(saved)


@pytest.fixture(scope="session")
def _toy_template(tmp_path_factory, _own_places):
    return make_toy(tmp_path_factory.mktemp("template") / "toy")


@pytest.fixture
def toy(tmp_path, _toy_template):
    return Path(shutil.copytree(_toy_template, tmp_path / "toy"))


@pytest.fixture(scope="session")
def _done_template(tmp_path_factory, _toy_template):
    folder = Path(shutil.copytree(_toy_template, tmp_path_factory.mktemp("done") / "toy"))
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "workspace")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=folder, check=True)
    return folder


@pytest.fixture
def done(tmp_path, _done_template):
    """A toy workspace committed to git and reproduced."""
    return Path(shutil.copytree(_done_template, tmp_path / "toy"))
