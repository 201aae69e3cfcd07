"""Croissant metadata, judged by the standard's own library."""

import json
from pathlib import Path

import mlcroissant
import pytest
from finished_run import finish

from tasks.croissant import describe_subset
from tasks.formats import WRITERS
from tasks.layout import Layout


@pytest.fixture(scope="module")
def subset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("croissant")
    layout = Layout.flat(folder / "out")
    finish(folder, layout, export__formats=list(WRITERS), export__license="cc-by-4.0")
    return layout.subset


def test_the_library_finds_nothing_wrong_but_the_date_left_out_on_purpose(subset: Path) -> None:
    dataset = mlcroissant.Dataset(jsonld=subset / "croissant.json")
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    assert all("datePublished" in warning or "citeAs" in warning for warning in issues.warnings), issues.warnings


def test_ids_are_read_through_the_library(subset: Path) -> None:
    dataset = mlcroissant.Dataset(jsonld=subset / "croissant.json")
    records = list(dataset.records("ids"))
    lines = (subset / "ids.csv").read_text().splitlines()
    assert [record["ids/row"] for record in records] == [int(line.split(",")[0]) for line in lines[1:]]
    assert all(len(record["ids/digest"]) == 64 for record in records)


def test_conversations_are_read_through_the_library(subset: Path) -> None:
    dataset = mlcroissant.Dataset(jsonld=subset / "croissant.json")
    records = list(dataset.records("rows"))
    originals = json.loads((subset / "subset.json").read_text())
    said = [[turn["rows/conversations/value"].decode() for turn in one["rows/conversations"]] for one in records]
    assert said == [[turn["value"] for turn in one["conversations"]] for one in originals]


@pytest.mark.parametrize("export", ["messages", "llamafactory", "ms_swift"])
def test_turns_of_other_formats_are_read_from_a_uniform_export(subset: Path, tmp_path: Path, export: str) -> None:
    facts = json.loads((subset / "manifest.json").read_text())
    only = {export: facts["subset"]["exports"][export]}
    facts["subset"] = {**facts["subset"], "format": "webdataset", "exports": only}
    document = describe_subset(facts, subset, [subset / "ids.csv", subset / only[export][0]])
    path = subset / f"{export}.croissant.json"
    path.write_text(json.dumps(document))
    records = list(mlcroissant.Dataset(jsonld=path).records("rows"))
    assert [len(one["rows/messages"]) for one in records] == [2] * 5
    assert records[0]["rows/messages"][0]["rows/messages/role"] == b"user"


def test_every_file_is_listed_with_its_digest(subset: Path) -> None:
    document = json.loads((subset / "croissant.json").read_text())
    listed = {file["contentUrl"]: file["sha256"] for file in document["distribution"]}
    recorded = json.loads((subset / "manifest.json").read_text())["outputs"]
    assert {"subset.json", "ids.csv", "llamafactory/dataset_info.json"} <= listed.keys()
    assert {name: recorded[name]["sha256"] for name in listed} == listed


def test_the_library_does_refuse_a_broken_document(subset: Path, tmp_path: Path) -> None:
    document = json.loads((subset / "croissant.json").read_text())
    del document["distribution"][0]["contentUrl"]
    broken = tmp_path / "croissant.json"
    broken.write_text(json.dumps(document))
    with pytest.raises(mlcroissant.ValidationError):
        mlcroissant.Dataset(jsonld=broken)
