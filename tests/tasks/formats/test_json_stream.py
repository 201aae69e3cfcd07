import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import DatasetError
from tasks.formats.json_stream import parse, read_array, read_lines, starts_with
from tasks.problem import Problem

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
spaces = st.text(" \t\r\n", max_size=3)


def written(path, text):
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(values, st.booleans(), st.sampled_from([None, 1]), spaces, spaces)), st.integers(1, 40))
def test_array_gives_back_values_and_exact_text_at_any_chunk_size(tmp_path_factory, elements, chunk):
    texts = [json.dumps(value, ensure_ascii=ascii_, indent=indent) for value, ascii_, indent, _, _ in elements]
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    document = (
        "[" + ",".join(left + text + right for text, (*_, left, right) in zip(texts, elements, strict=True)) + "]\n"
    )
    path = written(tmp_path_factory.getbasetemp() / "array.json", document)
    found = list(read_array(path, chunk))
    assert [one.text for one in found] == texts
    assert [one.value for one in found] == [json.loads(text) for text in texts]
    if found:
        assert document == "[" + "".join(one.before + one.text for one in found) + elements[-1][-1] + "]\n"


@pytest.mark.parametrize("number", ["1", "-0.0", "1E400", "1.50", "123456789012345678901234567890", "NaN", "-Infinity"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
def test_numbers_are_not_cut_at_a_chunk_and_keep_their_spelling(tmp_path, number, chunk):
    path = written(tmp_path / "a.json", f"[{number}, {number}]")
    assert [one.text for one in read_array(path, chunk)] == [number, number]


@pytest.mark.parametrize(
    ("text", "line", "byte"),
    [
        ('[{"a": 1},\n {"a": é}]', 2, 18),
        ('[{"a": 1}\n {"a": 2}]', 2, 11),
        ('[{"é": 1},\n', 2, 12),
        ('[{"é": 1}', 1, 10),
        ('[{"a": "never closed', 1, 7),
        ('{"a": 1}', 1, 0),
        ("[1] [2]", 1, 4),
        ("[1,]", 1, 3),
        ("", 1, 0),
    ],
)
@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_a_broken_array_names_line_and_byte(tmp_path, text, line, byte, chunk):
    path = written(tmp_path / "a.json", text)
    with pytest.raises(DatasetError, match=rf"a\.json: .* at line {line}, byte {byte};"):
        list(read_array(path, chunk))


def test_too_deep_and_too_long_numbers_are_errors_of_the_input(tmp_path):
    assert parse("[" * 200_000).reason == "malformed_json"
    assert parse("9" * 5000).reason == "malformed_json"
    with pytest.raises(DatasetError):
        list(read_array(written(tmp_path / "a.json", "[" + "9" * 5000 + "]")))


def test_lines_reject_only_what_is_broken(tmp_path):
    path = written(tmp_path / "a.jsonl", '{"a": 1}\r\n\n  \n{"a": \n "\u2028"\n[2]')
    found = list(read_lines(path))
    assert [text for text, _ in found] == ['{"a": 1}', '{"a": ', ' "\u2028"', "[2]"]
    assert isinstance(found[1][1], Problem)
    assert found[1][1].reason == "malformed_json"
    assert [found[index][1] for index in (0, 2, 3)] == [{"a": 1}, "\u2028", [2]]


def test_bytes_that_are_not_utf8_come_back(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "\xff\xfe"}\n')
    ((text, value),) = read_lines(path)
    assert text.encode("utf-8", "surrogateescape") == b'{"a": "\xff\xfe"}'
    assert value == {"a": "\udcff\udcfe"}


def test_byte_order_mark_is_no_content(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf [1]")
    assert starts_with(path) == "["
    assert [one.value for one in read_array(path)] == [1]
    path.write_bytes(b"\xef\xbb\xbf[1, x]")
    with pytest.raises(DatasetError, match="byte 7"):
        list(read_array(path))


def test_missing_file_is_the_users_error(tmp_path):
    with pytest.raises(DatasetError, match="No such file"):
        list(read_lines(tmp_path / "none.jsonl"))


@pytest.mark.parametrize("form", ["lines", "array"])
def test_memory_does_not_grow_with_the_file(tmp_path, form):
    row = json.dumps({"id": 1, "text": "word " * 100})
    count = 40_000  # 20 MB
    joint, ends = ("\n", ("", "\n")) if form == "lines" else (",\n", ("[", "]"))
    path = written(tmp_path / "big", ends[0] + joint.join([row] * count) + ends[1])
    tracemalloc.start()
    seen = sum(1 for _ in (read_lines(path) if form == "lines" else read_array(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == count
    assert path.stat().st_size > 20_000_000
    assert peak < 8_000_000
