"""The dataset card: front matter as the hub reads it, and numbers that are those of the manifest."""

import json

import pytest
import yaml
from finished_run import finish

from tasks.card import size_category, write_card
from tasks.formats import WRITERS
from tasks.layout import Layout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    folder = tmp_path_factory.mktemp("card")
    layout = Layout.flat(folder / "out")
    finish(folder, layout, export__formats=list(WRITERS), export__name="tiny | set", export__license="cc-by-4.0")
    return layout


def split(text: str) -> tuple[dict, str]:
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_front_matter_names_licence_size_and_files_that_exist(run: Layout) -> None:
    front, _ = split((run.subset / "README.md").read_text())
    assert (front["license"], front["pretty_name"], front["size_categories"]) == ("cc-by-4.0", "tiny | set", ["n<1K"])
    default, *others = front["configs"]
    assert default["data_files"] == [{"split": "train", "path": ["subset.json"]}]
    assert {one["config_name"] for one in others} == {"llamafactory", "llava", "messages", "ms_swift"}
    files = [path for config in front["configs"] for data in config["data_files"] for path in data["path"]]
    assert all((run.subset / path).is_file() for path in files)
    assert not any("dataset_info" in path or path.endswith(".png") for path in files)


def test_body_tells_counts_method_model_and_how_to_verify(run: Layout) -> None:
    _, body = split((run.subset / "README.md").read_text())
    for text in (
        "# tiny | set",
        "4 of 12 samples",
        "| selected | 4 |",
        "| rejected: `image_missing` | 1 |",
        "| **exported** | 5 | selected, and 1 text-only beside the budget |",
        "| `methods.scalselect.energy` | 0.9 |",
        "| `select.budget` | 4 |",
        "a" * 64,
        "scalselect verify",
        "- `llamafactory/subset.json`: for LLaMA-Factory",
        "| `methods.scalselect.rank` | null |",
    ):
        assert text in body, text


def test_the_card_is_a_function_of_the_manifest_without_its_environment(run: Layout) -> None:
    facts = json.loads(run.manifest.read_text())
    text = (run.subset / "README.md").read_text()
    for key in ("environment", "outputs", "digest"):
        del facts[key]
    assert write_card(facts) == text


@pytest.mark.parametrize(
    ("rows", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (665_000, "100K<n<1M"), (10**9, "n>100M")],
)
def test_size_category(rows: int, name: str) -> None:
    assert size_category(rows) == name


def test_a_local_model_is_named_without_the_folders_it_lies_in(run: Layout) -> None:
    text = (run.subset / "README.md").read_text()
    assert "| attended | `model` |" in text
    assert str(run.subset.parent) not in text
