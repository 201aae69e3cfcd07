"""Settings: typos are refused by name, overrides reach their key, budgets keep their type."""

from pathlib import Path

import pytest

from tasks.errors import ParamsError
from tasks.params import load, parse, parse_assignment

SMALLEST = {"dataset": {"path": "data.json"}, "model": {"path": "model"}}


def test_smallest_settings_take_every_default() -> None:
    settings = parse(SMALLEST)
    assert settings.score.method == "scalselect"
    assert settings.extract.signals == ("attended",)
    assert settings.extract.attention_threshold == 0.9


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"dataset": {"path": "x", "txt_only": "keep"}}, "unknown key `dataset.txt_only`; did you mean `text_only`?"),
        ({"validate": {"gates": {"minimum_row": 1}}}, "did you mean `minimum_rows`?"),
        ({"selct": {}}, "unknown key `selct`; did you mean `select`?"),
        ({"model": {"path": "m", "dtype": "f32"}}, "`model.dtype`"),
        ({"dataset": {}}, "`dataset.path` is required"),
        ({"extract": {"attention_threshold": 0}}, "extract.attention_threshold"),
    ],
)
def test_mistakes_are_named(tree: dict[str, object], message: str) -> None:
    with pytest.raises(ParamsError, match=message.replace("?", r"\?")):
        parse(SMALLEST | tree, where="params.yaml")


def test_overrides_create_missing_sections_and_leave_the_input_alone() -> None:
    tree = {"dataset": {"path": "x"}, "model": {"path": "m"}, "select": None}
    settings = parse(tree, {"select.budget": 7, "validate.gates.minimum_rows": 3, "methods.prism.version": "v1"})
    assert settings.select.budget == 7
    assert settings.validation.gates.minimum_rows == 3
    assert settings.methods == {"prism": {"version": "v1"}}
    assert tree["select"] is None


def test_an_override_cannot_run_through_a_value() -> None:
    with pytest.raises(ParamsError, match="`path` is a value, not a section"):
        parse(SMALLEST, {"model.path.name": 1})


def test_a_count_stays_a_count_and_a_share_a_share() -> None:
    assert isinstance(parse(SMALLEST, {"select.budget": 1}).select.budget, int)
    assert isinstance(parse(SMALLEST, {"select.budget": 1.0}).select.budget, float)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select.budget=0.5", ("select.budget", 0.5)),
        ("model.revision=null", ("model.revision", None)),
        ("extract.signals=[pooled, clip]", ("extract.signals", ["pooled", "clip"])),
        ("dataset.path=a=b.json", ("dataset.path", "a=b.json")),
    ],
)
def test_assignments(text: str, expected: tuple[str, object]) -> None:
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["budget=3", "select.budget", "a.b=[1"])
def test_assignments_that_say_nothing(text: str) -> None:
    with pytest.raises(ParamsError, match="--set"):
        parse_assignment(text)


def test_files_that_are_not_settings(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no such file"):
        load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1")
    with pytest.raises(ParamsError, match="not valid YAML"):
        load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("- 1")
    with pytest.raises(ParamsError, match="expected sections"):
        load(tmp_path / "params.yaml")


def test_the_official_preset_spells_out_both_choices() -> None:
    resolved = parse(SMALLEST, {"extract.preset": "official"}).extract.resolved()
    assert (resolved.instruction_tokens, resolved.visual_tokens) == ("non_answer", "with_markers")
