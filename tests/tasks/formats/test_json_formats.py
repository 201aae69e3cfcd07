import json
import re
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_datasets import ROWS, contents, read, write

import tasks
from tasks.errors import DatasetError
from tasks.formats import FORMATS, detect, llava, open_dataset, parquet
from tasks.formats.conversation import read_row
from tasks.params import DatasetSettings
from tasks.sample import Turn


def messages_of(rows):
    names = {"human": "user", "gpt": "assistant", "system": "system"}
    for row in rows:
        image = row.get("image", [])
        turns = [{"role": names[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
        rest = {key: row[key] for key in row if key not in ("image", "conversations")}
        yield {**rest, "messages": turns, "images": [image] if isinstance(image, str) else image}


def test_llava_rows_are_normalised(folder):
    rows = read(folder / "data.json")
    assert [row.row for row in rows] == [0, 1, 2]
    assert [row.id for row in rows] == ["7", "seven", None]
    assert [row.source for row in rows] == ["coco", "coco", "text"]
    assert rows[0].turns == (Turn("user", "<image>\nWhat is it?"), Turn("assistant", "A café."))
    assert [ref.path for ref in rows[1].images] == [f"{folder}/coco/a.jpg", f"{folder}/vg/b.png"]
    assert [turn.role for turn in rows[2].turns] == ["system", "user", "assistant"]
    assert rows[2].images == ()


@pytest.mark.parametrize("style", ["llava", "messages"])
@pytest.mark.parametrize("extension", [".json", ".jsonl"])
def test_both_styles_in_both_layouts_say_the_same(folder, style, extension):
    expected = [contents(row) for row in read(folder / "data.json")]
    objects = ROWS if style == "llava" else list(messages_of(ROWS))
    text = json.dumps(objects) if extension == ".json" else "".join(json.dumps(one) + "\n" for one in objects)
    path = write(folder / f"other{extension}", text)
    dataset = open_dataset(DatasetSettings(path=str(path)))
    assert (dataset.format, dataset.extension, dataset.root, dataset.files) == (style, extension, folder, (path,))
    assert [contents(row) for row in dataset] == expected
    assert [contents(row) for row in dataset] == expected, "a dataset can be read again"


def test_json_lines_in_a_file_called_json(folder):
    path = write(folder / "lines.json", "".join(json.dumps(one) + "\n" for one in ROWS))
    assert open_dataset(DatasetSettings(path=str(path))).extension == ".jsonl"
    assert len(read(path)) == 3


plain = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
objects = st.dictionaries(plain, plain | numbers | st.lists(plain | numbers, max_size=2), max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(objects, st.sampled_from([None, 1, 4]), st.booleans()), max_size=5), st.data())
def test_any_subset_is_byte_faithful(tmp_path_factory, generated, data):
    base = tmp_path_factory.getbasetemp()
    texts = [json.dumps(one, indent=indent, ensure_ascii=ascii_) for one, indent, ascii_ in generated]
    gap = data.draw(st.sampled_from(["", " ", "\n", "\r\n  "]))
    end = data.draw(st.sampled_from(["]", "\n]\n", " ]"]))
    path = base / "any.json"
    path.write_bytes(("[" + gap + ("," + gap).join(texts) + end).encode())
    dataset = open_dataset(DatasetSettings(path=str(path), format="llava"))
    rows = list(dataset)
    dataset.write_native(rows, base / "all.json")
    assert (base / "all.json").read_bytes() == path.read_bytes()
    for chosen in combinations(range(min(len(rows), 3)), 2):
        dataset.write_native([rows[index] for index in chosen], base / "some.json")
        written = open_dataset(DatasetSettings(path=str(base / "some.json"), format="llava"))
        assert [row.original for row in written] == [texts[index] for index in chosen]


def test_lines_are_byte_faithful(tmp_path):
    lines = [b'{"id": 1.50, "b": "\\u00e9\xc3\xa9"}', b"  {broken", b'{"bytes": "\xff"}', b'{"n":1E5 ,"n":2}']
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    dataset = open_dataset(DatasetSettings(path=str(path), format="messages"))
    rows = list(dataset)
    dataset.write_native([rows[3], *rows], tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == b"\n".join([lines[3], *lines]) + b"\n"
    dataset.write_native([], tmp_path / "none.jsonl")
    assert (tmp_path / "none.jsonl").read_bytes() == b""


def test_an_array_without_rows_is_written_and_read(folder):
    dataset = open_dataset(DatasetSettings(path=str(folder / "data.json")))
    dataset.write_native([], folder / "none.json")
    assert json.loads((folder / "none.json").read_text()) == []
    assert read(folder / "none.json", format="llava") == []


USER, ASSISTANT = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "malformed_json"),
        ("[1]", "not_an_object"),
        ("null", "not_an_object"),
        ({}, "no_turns"),
        ({"messages": []}, "no_turns"),
        ({"messages": "Q"}, "no_turns"),
        ({"messages": ["Q"]}, "malformed_turn"),
        ({"messages": [{"role": "tool", "content": "Q"}]}, "unknown_role"),
        ({"messages": [{"content": "Q"}]}, "unknown_role"),
        ({"messages": [{"role": "user", "content": None}]}, "non_string_content"),
        ({"messages": [{"role": "user", "content": 7}]}, "non_string_content"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "non_string_content"),
        ({"messages": [USER], "system": 3}, "non_string_content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "malformed_text"),
        ({"messages": [USER], "images": [3]}, "malformed_images"),
        ({"messages": [USER], "images": [None]}, "malformed_images"),
        ({"messages": [USER], "images": [""]}, "malformed_images"),
        ({"messages": [USER], "images": ["../a.jpg"]}, "image_outside_root"),
        ({"messages": [USER], "images": ["https://a/b.jpg"]}, "image_url_not_allowed"),
    ],
)
def test_rows_that_make_no_conversation_are_rejected_by_name(tmp_path, line, reason):
    good = json.dumps({"id": "good", "messages": [USER, ASSISTANT]})
    bad = line if isinstance(line, str) else json.dumps({"id": "bad", **line})
    rows = read(write(tmp_path / "a.jsonl", f"{good}\n{bad}\n{good}\n"))
    assert [row.problem.reason if row.problem else None for row in rows] == [None, reason, None]
    assert rows[1].original == bad
    assert rows[1].id == (None if isinstance(line, str) else "bad")
    rows[1].problem.detail.encode()


def turns_and_names(tmp_path, row, **options):
    (found,) = read(write(tmp_path / "a.json", [row]), **options)
    assert found.problem is None, found.problem
    return [turn.content for turn in found.turns], [ref.name for ref in found.images]


def test_parts_become_placeholders_where_they_stand(tmp_path):
    text = lambda value: {"type": "text", "text": value}  # noqa: E731
    parts = [text("a"), {"type": "image"}, text("b <image> c"), {"type": "image_url", "image_url": {"url": "z.jpg"}}]
    row = {"messages": [{"role": "user", "content": parts}, ASSISTANT], "images": ["x.jpg", "y.jpg"]}
    assert turns_and_names(tmp_path, row) == (["a<image>b <image> c<image>", "A"], ["x.jpg", "y.jpg", "z.jpg"])
    own = [{"type": "image", "image": "1.jpg"}, {"type": "image", "path": "2.jpg"}, "t"]
    assert turns_and_names(tmp_path, {"messages": [{"role": "user", "content": own}]}) == (
        ["<image><image>t"],
        ["1.jpg", "2.jpg"],
    )


def test_too_many_and_too_few_images_are_left_for_validation_to_count(tmp_path):
    row = {"messages": [{"role": "user", "content": "<image>"}], "images": ["x.jpg", "y.jpg"]}
    assert turns_and_names(tmp_path, row) == (["<image>"], ["x.jpg", "y.jpg"])
    row = {"messages": [{"role": "user", "content": "<image><image>"}], "image": "x.jpg"}
    assert turns_and_names(tmp_path, row) == (["<image><image>"], ["x.jpg"])
    assert turns_and_names(tmp_path, {"messages": [USER], "images": ["x.jpg"]}) == (["Q"], ["x.jpg"])


def test_a_system_field_becomes_the_first_turn(tmp_path):
    assert turns_and_names(tmp_path, {"messages": [USER], "system": "S"})[0] == ["S", "Q"]
    both = {"messages": [{"role": "system", "content": "T"}, USER], "system": "S"}
    assert turns_and_names(tmp_path, both)[0] == ["T", "Q"]


@pytest.mark.parametrize(
    ("extra", "options", "source"),
    [
        ({"source": "s", "dataset": "d"}, {}, "s"),
        ({"channel": "c"}, {}, "c"),
        ({"dataset": 3}, {}, "3"),
        ({"source": ["s"]}, {}, "x"),
        ({"source": "s", "domain": "d"}, {"source_field": "domain"}, "d"),
        ({"source": "s"}, {"source_field": "domain"}, ""),
        ({}, {}, "x"),
        ({"images": ["a.jpg"]}, {}, ""),
        ({"images": []}, {}, ""),
    ],
)
def test_where_the_source_comes_from(tmp_path, extra, options, source):
    row = {"messages": [USER], "images": ["x/y/a.jpg"], **extra}
    assert read(write(tmp_path / "a.json", [row]), **options)[0].source == source


def test_the_source_folder_is_below_the_root_however_it_is_spelled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, root in ((".x/a.jpg", "."), ("./.x/a.jpg", "./"), (str(tmp_path / ".x/a.jpg"), "../" + tmp_path.name)):
        path = write(tmp_path / "a.json", [{"messages": [USER], "images": [name]}])
        assert read(path, image_root=root)[0].source == ".x"
    path = write(tmp_path / "a.json", [{"messages": [USER], "images": ["/x/a.jpg"]}])
    assert read(path, image_root="/")[0].source == "x"


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        ('"007"', "007"),
        ("7", "7"),
        ("null", None),
        ('""', ""),
        ("true", "true"),
        ('"\\ud800"', "\\ud800"),
        ("[1]", "[1]"),
    ],
)
def test_ids_are_opaque_text(tmp_path, spelled, expected):
    row = f'{{"id": {spelled}, "messages": [{json.dumps(USER)}]}}'
    assert read(write(tmp_path / "a.jsonl", row))[0].id == expected


def test_sharegpt_conversations_with_a_list_of_images(tmp_path):
    row = {"conversations": [{"from": "human", "value": "<image>"}], "images": ["a.jpg"]}
    assert detect(write(tmp_path / "a.json", [row])) == "llava"
    assert turns_and_names(tmp_path, row) == (["<image>"], ["a.jpg"])


def test_detection_looks_past_broken_rows(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"\n[]\n' + json.dumps({"messages": [USER]}))
    assert detect(path) == "messages"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "", "it is empty"),
        ("a.json", '{\n "a": 1}', "expected a JSON array"),
        ("a.json", "\x00", "starts with '.x00'"),
        ("a.json", "[]", "it has no rows"),
        ("a.jsonl", "", "it has no rows"),
        ("a.json", "[1, 2]", "cannot tell the format"),
        ("a.json", '[{"instruction": "x", "output": "y"}]', r"\(fields: `instruction`, `output`\)"),
        ("a.csv", "a,b", "unknown kind of file"),
    ],
)
def test_what_cannot_be_recognised_is_said_with_the_fix(tmp_path, name, text, message):
    with pytest.raises(DatasetError, match=message):
        read(write(tmp_path / name, text))


def test_missing_and_ambiguous_paths(tmp_path):
    with pytest.raises(DatasetError, match="no such file"):
        read(tmp_path / "none.json")
    write(tmp_path / "a.json", [])
    write(tmp_path / "b.json", [])
    with pytest.raises(DatasetError, match=r"found a\.json, b\.json"):
        read(tmp_path)


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"parquet"}))
def test_a_forced_format_on_a_missing_path_is_the_users_error(tmp_path, name):
    with pytest.raises(DatasetError, match="none"):
        read(tmp_path / "none.json", format=name)


def test_every_reason_is_documented():
    folder = Path(tasks.__file__).parent
    code = "".join(path.read_text() for path in [*folder.glob("formats/*.py"), folder / "images.py"])
    reasons = set(re.findall(r'(?:Problem|_UnreadableError)\(\s*"(\w+)"', code)) | {
        "image_truncated",
        "image_unreadable",
    }
    documented = re.findall(r"^\| `(\w+)` \| .* \|$", (folder.parent / "docs/formats.md").read_text(), re.MULTILINE)
    assert len(reasons) >= 14
    assert reasons <= set(documented)


FIELDS = "messages conversations role from content value images image id source system type text path"
keys = st.sampled_from(FIELDS.split())
words = (
    st.sampled_from(["user", "human", "gpt", "text", "image", "<image>", "a.jpg", "../x", "\ud800", "\0"]) | st.text()
)
anything = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(keys, anything, max_size=5) | anything, st.sampled_from([llava.SPELLING, parquet.SPELLING]))
def test_no_row_makes_a_reader_raise_and_all_it_says_can_be_written(value, spelling):
    row = read_row(0, "", value, spelling, Path("data"), None)
    said = [row.id or "", row.source, *(turn.content for turn in row.turns), *(ref.path for ref in row.images)]
    said += [row.problem.reason, row.problem.detail] if row.problem else []
    "".join(said).encode()
    assert (row.problem is None) == bool(row.turns)
    assert all(Path(ref.path).parts[0] == "data" and ".." not in Path(ref.path).parts for ref in row.images)
