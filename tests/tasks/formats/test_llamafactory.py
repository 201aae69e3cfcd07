import json

import pytest
from small_datasets import as_samples, contents, read, write

from tasks.errors import DatasetError, ParamsError
from tasks.formats import WRITERS, PathPolicy, detect, open_dataset
from tasks.params import DatasetSettings, ExportSettings

ROW = {
    "dialog": [{"who": "U", "says": "<image>Q"}, {"who": "M", "says": "A"}],
    "pictures": ["coco/a.jpg"],
    "prompt": "Be kind.",
}
COLUMNS = {"messages": "dialog", "images": "pictures", "system": "prompt"}
TAGS = {"role_tag": "who", "content_tag": "says", "user_tag": "U", "assistant_tag": "M", "observation_tag": "tool"}
ENTRY = {"file_name": "rows.json", "formatting": "sharegpt", "columns": COLUMNS, "tags": TAGS}


@pytest.fixture
def mapped(folder):
    write(folder / "rows.json", [ROW])
    return folder


def check(rows):
    (row,) = rows
    assert [(turn.role, turn.content) for turn in contents(row)[0]] == [
        ("system", "Be kind."),
        ("user", "<image>Q"),
        ("assistant", "A"),
    ]
    assert [ref.name for ref in row.images] == ["coco/a.jpg"]


def test_mapping_from_params(mapped):
    check(read(mapped / "rows.json", columns=COLUMNS, tags=TAGS))


def test_mapping_from_the_info_file_beside_the_data(mapped):
    info = write(mapped / "dataset_info.json", {"mine": ENTRY, "other": {"file_name": "other.json"}})
    dataset = open_dataset(DatasetSettings(path=str(mapped / "rows.json")))
    assert dataset.format == "llamafactory"
    assert dataset.files == (mapped / "rows.json", info)
    check(list(dataset))


@pytest.mark.parametrize("name", ["", "dataset_info.json"])
def test_opening_the_folder_or_the_info_file(mapped, name):
    write(mapped / "dataset_info.json", {"mine": ENTRY})
    check(read(mapped / name))
    write(mapped / "dataset_info.json", {"mine": ENTRY, "second": ENTRY})
    check(read(mapped / name, config="second"))
    with pytest.raises(DatasetError, match=r"set dataset\.config to one of its entries: mine, second"):
        read(mapped / name)


def test_defaults_are_from_and_value(folder):
    entry = {"file_name": "data.json", "formatting": "sharegpt", "columns": {"images": "image"}}
    write(folder / "dataset_info.json", {"plain": entry})
    plain, mapped = read(folder / "data.json", format="llava"), read(folder / "data.json")
    assert [contents(row) for row in mapped] == [contents(row) for row in plain]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"file_name": "rows.json"}, "not a sharegpt"),
        ({**ENTRY, "ranking": True}, "no ranking"),
        ({"hf_hub_url": "a/b"}, "set dataset.path to its id"),
    ],
)
def test_entries_that_are_no_conversations_are_refused(mapped, entry, message):
    write(mapped / "dataset_info.json", {"mine": entry})
    with pytest.raises(DatasetError, match=message):
        read(mapped / "dataset_info.json", format="llamafactory")


def test_unknown_tags_and_broken_info_files_are_named(mapped):
    with pytest.raises(DatasetError, match="unknown tag `rolle_tag`"):
        read(mapped / "rows.json", tags={"rolle_tag": "x"})
    write(mapped / "dataset_info.json", "{")
    with pytest.raises(DatasetError, match=r"dataset_info\.json: not valid JSON"):
        read(mapped / "rows.json")


def test_tool_turns_are_rejected_by_row(mapped):
    write(mapped / "rows.json", [{**ROW, "dialog": [{"who": "tool", "says": "x"}]}])
    assert read(mapped / "rows.json", columns=COLUMNS, tags=TAGS)[0].problem.reason == "unknown_role"


def test_export_describes_itself(mapped):
    samples = list(as_samples(read(mapped / "data.json")))
    files = WRITERS["llamafactory"](samples, mapped / "out", PathPolicy(), "mine")
    assert [path.name for path in files] == ["mine.json", "dataset_info.json"]
    info = json.loads(files[1].read_text())["mine"]
    assert info["formatting"] == "sharegpt"
    assert info["columns"] == {"messages": "messages", "images": "images"}
    assert detect(mapped / "out") == "llamafactory"
    for row, (sample, _) in zip(json.loads(files[0].read_text()), samples, strict=True):
        # LLaMA-Factory joins media_dir, by default the dataset's folder, and counts placeholders.
        assert all((mapped / "out" / name).is_file() for name in row["images"])
        assert sum(turn["content"].count("<image>") for turn in row["messages"]) == len(row["images"])
        spoken = [turn[info["tags"]["role_tag"]] for turn in row["messages"]]
        assert spoken == [turn.role for turn in sample.turns]
        assert set(spoken) <= {info["tags"][tag] for tag in ("user_tag", "assistant_tag", "system_tag")}


def test_media_dir_must_be_named():
    with pytest.raises(ParamsError, match="media_dir"):
        PathPolicy.of(ExportSettings(paths="media_dir"))
