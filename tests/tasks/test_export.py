"""Export over a finished small run: what is written, byte by byte where it matters, and what is refused."""

import csv
import json
from pathlib import Path

import datasets
import pytest
from finished_run import BROKEN_BY_EXTRACTION, BROKEN_BY_VALIDATION, ROWS, TEXT_ONLY, finish, make_settings

from tasks.errors import InputError, LineageError
from tasks.export import export
from tasks.formats import WRITERS, open_dataset
from tasks.layout import Layout
from tasks.params import DatasetSettings

LAYOUTS = {
    "flat": lambda folder: Layout.flat(folder / "out"),
    "workspace": lambda folder: Layout.workspace(folder / "data"),
}


def read_ids(layout: Layout) -> list[dict[str, str]]:
    with (layout.subset / "ids.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("layout_of", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_subset_holds_the_originals_text_in_the_datasets_order(tmp_path: Path, layout_of) -> None:
    layout = layout_of(tmp_path)
    settings = finish(tmp_path, layout)
    ids = read_ids(layout)
    wanted = [int(line["row"]) for line in ids]
    originals = [row.original for row in open_dataset(settings.dataset)]
    written = list(open_dataset(DatasetSettings(path=str(layout.subset / "subset.json"), format="llava")))
    assert [row.original for row in written] == [originals[row] for row in wanted]
    assert wanted == sorted(wanted)
    assert len(wanted) == 5
    assert sorted(int(line["position"]) for line in ids if line["status"] == "selected") == [0, 1, 2, 3]


def test_text_only_rows_are_exported_beside_the_budget_only_when_kept(tmp_path: Path) -> None:
    for policy, expected in (("keep", True), ("exclude", False)):
        layout = Layout.flat(tmp_path / policy / "out")
        finish(tmp_path / policy, layout, dataset__text_only=policy)
        line = next((line for line in read_ids(layout) if int(line["row"]) == TEXT_ONLY), None)
        assert (line is not None) == expected
        if line:
            assert (line["status"], line["position"], line["score"], line["rank"]) == ("set_aside", "", "", "")


@pytest.mark.parametrize("layout_of", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_row_is_accounted_for(tmp_path: Path, layout_of) -> None:
    layout = layout_of(tmp_path)
    finish(tmp_path, layout)
    counts = json.loads(layout.manifest.read_text())["accounting"]
    assert counts["rows_in"] == ROWS
    assert counts["rows_in"] == sum(counts[key] for key in ("selected", "not_selected", "set_aside", "rejected"))
    assert (counts["selected"], counts["set_aside"], counts["rejected"], counts["exported"]) == (4, 1, 2, 5)
    assert counts["reasons"]["rejected"] == {"image_missing": 1, "span_not_found": 1}
    assert counts["reasons"]["set_aside"] == {"text_only": 1}
    lines = [json.loads(line) for line in layout.all_rejects.read_text().splitlines()]
    assert [line["row"] for line in lines] == [BROKEN_BY_VALIDATION, BROKEN_BY_EXTRACTION]
    assert [line["detail"] for line in lines] == ["images/missing.png", "answer"]


def test_exporting_twice_gives_the_same_bytes_and_forgets_formats_no_longer_asked_for(tmp_path: Path) -> None:
    layout = Layout.flat(tmp_path / "out")
    settings = finish(tmp_path, layout)
    names = ("subset.json", "ids.csv", "rejects.jsonl", "README.md", "croissant.json", "manifest.json")
    first = {name: (layout.subset / name).read_bytes() for name in names}
    export(make_settings(tmp_path, export__formats=["llava", "ms_swift"]), layout)
    assert (layout.subset / "ms_swift/subset.jsonl").exists()
    export(settings, layout)
    assert {name: (layout.subset / name).read_bytes() for name in names} == first
    assert not (layout.subset / "ms_swift").exists()
    assert not (layout.subset / "llava").exists()


def test_empty_subset(tmp_path: Path) -> None:
    layout = Layout.flat(tmp_path / "out")
    finish(tmp_path, layout, select__budget=0, dataset__text_only="exclude", export__formats=list(WRITERS))
    assert json.loads((layout.subset / "subset.json").read_text()) == []
    assert read_ids(layout) == []
    assert json.loads(layout.manifest.read_text())["accounting"]["exported"] == 0


def test_dataset_that_changed_since_validation_is_refused(tmp_path: Path) -> None:
    layout = Layout.flat(tmp_path / "out")
    settings = finish(tmp_path, layout)
    data = Path(settings.dataset.path)
    whole = data.read_text()
    data.write_text(whole.replace("A colour", "A flavour"))
    with pytest.raises(LineageError, match=r"data\.json: row \d+ is not the row that was validated"):
        export(settings, layout)
    data.write_text("[\n" + whole.splitlines()[1].rstrip(",") + "\n]\n")
    with pytest.raises(LineageError, match=r"selected rows are gone|is not the row"):
        export(settings, layout)


def test_the_dataset_is_never_overwritten(tmp_path: Path) -> None:
    layout = Layout.flat(tmp_path / "out")
    finish(tmp_path, layout)
    before = (tmp_path / "out/subset.json").read_bytes()
    with pytest.raises(InputError, match="would overwrite the dataset"):
        export(make_settings(tmp_path, dataset__path=str(tmp_path / "out/subset.json")), layout)
    assert (tmp_path / "out/subset.json").read_bytes() == before


def test_missing_stage_is_named(tmp_path: Path) -> None:
    layout = Layout.flat(tmp_path / "out")
    settings = finish(tmp_path, layout)
    layout.scores.unlink()
    with pytest.raises(InputError, match=r"scores\.parquet: no such file; run the stages before"):
        export(settings, layout)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run exported in every format; returns the subset's folder."""
    folder = tmp_path_factory.mktemp("everything")
    layout = Layout.flat(folder / "out")
    finish(folder, layout, export__formats=list(WRITERS))
    return layout.subset


@pytest.mark.parametrize(
    ("export_name", "kind", "pattern"),
    [
        ("llamafactory", "json", "subset.json"),
        ("messages", "json", "subset.json*"),
        ("ms_swift", "json", "subset.jsonl"),
        ("parquet", "parquet", "*.parquet"),
    ],
)
def test_exports_load_with_datasets(
    everything: Path, tmp_path: Path, export_name: str, kind: str, pattern: str
) -> None:
    files = sorted(str(path) for path in (everything / export_name).glob(pattern))
    loaded = datasets.load_dataset(kind, data_files=files, split="train", cache_dir=str(tmp_path))
    assert len(loaded) == 5
    for row in loaded:
        shown = sum(turn["content"].count("<image>") for turn in row["messages"])
        assert shown == len(row["images"])


def test_native_subset_loads_with_datasets_through_the_card(everything: Path, tmp_path: Path) -> None:
    loaded = datasets.load_dataset(str(everything), split="train", cache_dir=str(tmp_path))
    assert len(loaded) == 5
    assert set(loaded.column_names) >= {"id", "conversations", "zeta"}


@pytest.mark.parametrize("export_name", ["llamafactory", "ms_swift"])
def test_relative_image_paths_lead_from_the_exports_folder(everything: Path, export_name: str) -> None:
    folder = everything / export_name
    text = next(path for path in sorted(folder.glob("subset.json*"))).read_text()
    rows = json.loads(text) if export_name == "llamafactory" else [json.loads(line) for line in text.splitlines()]
    images = [image for row in rows for image in row["images"]]
    assert len(images) == 4
    assert all(not Path(image).is_absolute() and (folder / image).is_file() for image in images)


def test_llamafactory_description_names_the_columns_and_tags_its_converter_reads(everything: Path) -> None:
    folder = everything / "llamafactory"
    (entry,) = json.loads((folder / "dataset_info.json").read_text()).values()
    rows = json.loads((folder / entry["file_name"]).read_text())
    tags, columns = entry["tags"], entry["columns"]
    assert entry["formatting"] == "sharegpt"
    for row in rows:
        roles = [turn[tags["role_tag"]] for turn in row[columns["messages"]]]
        assert roles == [tags["user_tag"], tags["assistant_tag"]] * (len(roles) // 2)
        shown = sum(turn[tags["content_tag"]].count("<image>") for turn in row[columns["messages"]])
        assert shown == len(row[columns["images"]])
