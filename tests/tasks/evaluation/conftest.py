import shutil
from pathlib import Path

import pytest
import small_evaluation

from tasks.layout import Layout


@pytest.fixture(scope="session")
def _made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation") / "small"
    small_evaluation.make(folder)
    return folder


@pytest.fixture
def small(tmp_path, _made) -> tuple[Path, Layout]:
    """A fresh copy of the pool, the model, the features and the held-out tasks."""
    folder = Path(shutil.copytree(_made, tmp_path / "small"))
    layout = Layout.workspace(folder / "data")
    small_evaluation.write_pool(small_evaluation.make_settings(folder), layout)
    return folder, layout
