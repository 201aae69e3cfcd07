"""Trace and verify over a finished small run: each kind of tampering is named, and folders may be moved."""

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml
from finished_run import BROKEN_BY_EXTRACTION, SCORED, TEXT_ONLY, finish, make_settings

from tasks import lineage, params
from tasks.errors import LineageError
from tasks.layout import Layout
from tasks.manifest import count_rows, describe_settings, digest_content

LAYOUTS = {"flat": Layout.flat(Path("out")), "workspace": Layout.workspace()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of each layout, each in a working folder of its own, made with relative paths as users write them."""
    folder = tmp_path_factory.mktemp("made")
    for name, layout in LAYOUTS.items():
        (folder / name).mkdir()
        with contextlib.chdir(folder / name):
            finish(Path(), layout)
    return folder


@pytest.fixture(params=LAYOUTS)
def run(
    made: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Layout]:
    """(working folder, layout) of a copy that may be spoilt."""
    folder = Path(shutil.copytree(made / request.param, tmp_path / "run"))
    monkeypatch.chdir(folder)
    return folder, LAYOUTS[request.param]


@pytest.fixture
def workspace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A copy of the run in the workspace layout."""
    monkeypatch.chdir(shutil.copytree(made / "workspace", tmp_path / "run"))
    return LAYOUTS["workspace"]


def steps_of(subset: Path, **keys: object) -> dict[str, dict[str, object]]:
    return {step.name: dict(step.facts) for step in lineage.trace(subset, **keys)}


def selected_row(layout: Layout) -> int:
    lines = (layout.subset / "ids.csv").read_text().splitlines()[1:]
    return next(int(line.split(",")[0]) for line in lines if ",selected," in line)


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def names(verification: lineage.Verification) -> list[str]:
    return [finding.name for finding in verification.mismatches]


def test_an_untouched_run_verifies(run: tuple[Path, Layout]) -> None:
    verification = lineage.verify(run[1].subset)
    assert verification.ok, str(verification)
    assert verification.unreachable == []
    assert str(verification).splitlines()[-1].endswith("0 failed, 0 out of reach")


def test_trace_walks_a_row_back_to_weights_and_parameters(run: tuple[Path, Layout]) -> None:
    layout = run[1]
    row = selected_row(layout)
    steps = steps_of(layout.subset, row=row)
    assert steps["subset"]["status"] == "selected"
    assert steps["score"]["rank"] == steps["subset"]["position"]
    offset = SCORED.index(row)
    assert steps["features attended"]["shard"].endswith(f"features/attended/part-{offset // 5:05d}.parquet")
    assert steps["features attended"]["offset"] == offset % 5
    assert steps["features attended"]["fingerprint"] == "f" * 64
    assert steps["sample"]["turn 0"] == f"user: <image> What is in picture {row}? é | ✓"
    assert Path(steps["image 0"]["path"]) == Path(f"raw/images/{row}.png")
    assert steps["model attended"]["tensors"] == "a" * 64
    assert steps["parameters"]["select.budget"] == 4
    assert str(lineage.trace(layout.subset, row=row)).startswith("subset\n  row ")


def test_rows_that_were_not_selected_have_a_story_too(run: tuple[Path, Layout]) -> None:
    subset = run[1].subset
    rejected = steps_of(subset, row=BROKEN_BY_EXTRACTION)
    assert (rejected["subset"]["status"], rejected["subset"]["reason"]) == ("rejected", "span_not_found")
    assert rejected["subset"]["detail"] == "answer"
    assert "score" not in rejected
    kept = steps_of(subset, row=TEXT_ONLY)
    assert (kept["subset"]["status"], "line" in kept["subset"], "image 0" in kept) == ("set_aside", True, False)


def test_trace_finds_a_row_by_id_and_refuses_shared_and_unknown_ones(run: tuple[Path, Layout]) -> None:
    subset = run[1].subset
    assert steps_of(subset, id="9")["subset"]["row"] == 9
    with pytest.raises(LineageError, match="rows 0, 4, 8 share it"):
        lineage.trace(subset, id="row-0")
    with pytest.raises(LineageError, match="no row of the dataset has it"):
        lineage.trace(subset, id="nobody")
    with pytest.raises(LineageError, match="rows 0 to 11"):
        lineage.trace(subset, row=12)


def test_trace_of_the_whole_subset(run: tuple[Path, Layout]) -> None:
    steps = steps_of(run[1].subset)
    assert steps["selection"] == {"rows_in": 12, "selected": 4, "not_selected": 5, "set_aside": 1, "rejected": 2}
    assert steps["score"]["method"] == "scalselect"
    assert "raw/data.json" in steps["dataset"]


def test_any_file_of_the_run_leads_to_it(run: tuple[Path, Layout]) -> None:
    folder, layout = run
    for start in (
        layout.subset,
        layout.subset / "subset.json",
        layout.manifest,
        layout.features,
        folder / layout.samples,
    ):
        assert lineage.open_finished(start).manifest.resolve() == layout.manifest.resolve()
    with pytest.raises(LineageError, match="no such file or folder"):
        lineage.trace(folder / "nowhere")
    with pytest.raises(LineageError, match=r"no manifest\.json"):
        lineage.trace(Path("/usr"))


TAMPERED = {
    "subset": (lambda layout: layout.subset / "subset.json", "subset.json"),
    "ids": (lambda layout: layout.subset / "ids.csv", "ids.csv"),
    "features": (
        lambda layout: layout.features / "attended/part-00001.parquet",
        "features/attended/part-00001.parquet",
    ),
    "scores": (lambda layout: layout.scores, "scores.parquet"),
    "selection": (lambda layout: layout.selection, "selection.parquet"),
    "samples": (lambda layout: layout.samples, "samples.parquet"),
    "dataset": (lambda layout: Path("raw/data.json"), "raw/data.json"),
    "weights": (lambda layout: Path("model/model.safetensors"), "model/model.safetensors"),
    "croissant": (lambda layout: layout.subset / "croissant.json", "croissant.json"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_one_changed_byte_is_named(run: tuple[Path, Layout], what: str) -> None:
    path, expected = TAMPERED[what]
    flip_a_byte(path(run[1]))
    found = names(lineage.verify(run[1].subset))
    assert any(name.endswith(expected) for name in found), found


def test_a_changed_image_of_an_exported_row_is_named(run: tuple[Path, Layout]) -> None:
    row = selected_row(run[1])
    flip_a_byte(Path(f"raw/images/{row}.png"))
    assert names(lineage.verify(run[1].subset)) == [f"raw/images/{row}.png"]


@pytest.mark.parametrize("change", ["settings", "accounting", "outputs"])
def test_a_changed_manifest_is_named(run: tuple[Path, Layout], change: str) -> None:
    manifest = run[1].manifest
    content = json.loads(manifest.read_text())
    if change == "settings":
        content["settings"]["select"]["budget"] = 5
    elif change == "accounting":
        content["accounting"]["selected"] += 1
    else:
        first = next(iter(content["outputs"]))
        content["outputs"][first]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(content))
    assert names(lineage.verify(run[1].subset))[0] == "manifest.json"


def test_a_resealed_manifest_still_disagrees_with_the_files(run: tuple[Path, Layout]) -> None:
    manifest = run[1].manifest
    content = json.loads(manifest.read_text())
    content["accounting"]["selected"] += 1
    content["digest"] = digest_content(content)
    manifest.write_text(json.dumps(content))
    verification = lineage.verify(run[1].subset)
    assert names(verification) == ["accounting"]
    assert "selected is 4, recorded 5" in str(verification)


def test_a_broken_manifest_is_an_error_that_names_it(run: tuple[Path, Layout]) -> None:
    run[1].manifest.write_text("{")
    with pytest.raises(LineageError, match=r"manifest\.json: not valid JSON"):
        lineage.verify(run[1].manifest)
    run[1].manifest.write_text('{"schema": 1}')
    with pytest.raises(LineageError, match="`base` is missing"):
        lineage.verify(run[1].manifest)
    run[1].manifest.write_text("[]")
    with pytest.raises(LineageError, match="not a ScalSelect manifest"):
        lineage.verify(run[1].manifest)


def test_a_removed_output_is_named(run: tuple[Path, Layout]) -> None:
    (run[1].subset / "ids.csv").unlink()
    verification = lineage.verify(run[1].subset)
    assert [(one.name.split("/")[-1], one.detail) for one in verification.mismatches] == [("ids.csv", "no such file")]


def test_a_run_may_be_moved_with_its_inputs(
    run: tuple[Path, Layout], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, layout = run
    elsewhere = tmp_path / "elsewhere/deeper"
    elsewhere.mkdir(parents=True)
    for name in (str(layout.samples.parts[0]), "raw", "model"):
        shutil.move(folder / name, elsewhere / name)
    monkeypatch.chdir("/")
    verification = lineage.verify(elsewhere / layout.subset)
    assert verification.ok, str(verification)
    assert verification.unreachable == []


def test_absolute_inputs_are_found_where_they_were_moved_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    monkeypatch.chdir(before)
    finish(before, Layout.flat(before / "out"))
    monkeypatch.chdir("/")
    before.rename(after)
    verification = lineage.verify(after / "out")
    assert verification.ok, str(verification)
    assert verification.unreachable == []
    flip_a_byte(after / "model/config.json")
    assert names(lineage.verify(after / "out")) == [f"{before}/model/config.json"]


def test_a_folder_outside_the_working_folder_still_finds_absolute_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    layout = Layout.flat(tmp_path / "out")
    finish(work, layout)
    monkeypatch.chdir("/")
    verification = lineage.verify(layout.subset)
    assert verification.ok, str(verification)
    assert verification.unreachable == []


def test_inputs_out_of_reach_are_said_to_be_so(run: tuple[Path, Layout]) -> None:
    shutil.rmtree("raw")
    shutil.rmtree("model")
    verification = lineage.verify(run[1].subset)
    assert verification.ok, str(verification)
    found = {one.name for one in verification.unreachable}
    assert {"raw/data.json", "model/config.json", "subset"} <= found


def test_inputs_are_found_from_anywhere_though_the_folder_was_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    layout = Layout.flat(tmp_path / "there")
    finish(Path(), layout)
    monkeypatch.chdir("/")
    verification = lineage.verify(layout.subset)
    assert verification.ok
    assert not verification.unreachable


def test_git_and_dvc_facts_are_traced_and_checked(workspace: Layout) -> None:
    layout = workspace
    code = [{"path": "tasks/scoring.py", "md5": "1" * 32}]
    held = {"outs": [{"path": "data/scores/scores.parquet", "md5": _md5(layout.scores)}], "deps": code}
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"score": held}}))
    dvc = {"score": {side: {one["path"]: one["md5"] for one in files} for side, files in held.items()}}
    completed = lineage.complete(json.loads(layout.manifest.read_text()), {"commit": "c" * 40}, dvc)
    recorded = Path("data/manifests/manifest.json")
    recorded.parent.mkdir()
    recorded.write_text(json.dumps(completed))
    for start in (layout.subset, recorded):
        steps = steps_of(start, row=0)
        assert steps["git"] == {"commit": "c" * 40}
        assert steps["dvc score"] == {"data/scores/scores.parquet": f"md5 {_md5(layout.scores)}"}
        assert lineage.verify(start).ok
    held["outs"][0]["md5"] = "0" * 32
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"score": held}}))
    assert names(lineage.verify(layout.subset)) == ["dvc.lock score data/scores/scores.parquet"]
    completed["record"]["git"]["commit"] = "d" * 40
    recorded.write_text(json.dumps(completed))
    assert "record" in names(lineage.verify(layout.subset))


def test_the_record_of_another_run_is_not_this_ones(workspace: Layout) -> None:
    layout = workspace
    other = {**json.loads(layout.manifest.read_text()), "digest": "e" * 64}
    Path("data/manifests").mkdir()
    Path("data/manifests/manifest.json").write_text(json.dumps(lineage.complete(other, {"commit": "c" * 40}, {})))
    assert "git" not in steps_of(layout.subset)


def test_counts_of_a_selection_add_up(run: tuple[Path, Layout]) -> None:
    counts = count_rows(run[1].selection)
    assert counts["rows_in"] == counts["selected"] + counts["not_selected"] + counts["set_aside"] + counts["rejected"]


def test_manifest_has_no_absolute_paths_and_no_run_settings(run: tuple[Path, Layout]) -> None:
    text = run[1].manifest.read_text()
    assert str(run[0]) not in text
    settings = json.loads(text)["settings"]
    assert settings.keys() == {"dataset", "validate", "model", "extract", "score", "select", "export", "methods"}


def test_the_manifest_holds_what_decides_the_result_and_nothing_else(tmp_path: Path) -> None:
    plain = make_settings(tmp_path)
    others = make_settings(tmp_path, methods__prism={"unused": 1}, run__workers=3, record__push=False)
    assert describe_settings(others) == describe_settings(plain)
    official = describe_settings(make_settings(tmp_path, extract__preset="official"))["extract"]
    assert (official["instruction_tokens"], official["visual_tokens"]) == ("non_answer", "with_markers")
    assert describe_settings(params.parse(describe_settings(plain))) == describe_settings(plain)


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()
