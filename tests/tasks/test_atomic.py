"""Files that exist are complete."""

import os
from pathlib import Path

import pytest

from tasks.atomic import replacing, write_json, write_text


def test_an_error_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_read_only_hard_link_is_replaced_not_written_through(tmp_path: Path) -> None:
    cached, target = tmp_path / "cache", tmp_path / "out.txt"
    write_text(cached, "kept")
    cached.chmod(0o444)
    os.link(cached, target)
    write_text(target, "new")
    assert (cached.read_text(), target.read_text()) == ("kept", "new")


def test_json_bytes_do_not_depend_on_key_order(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": "é"})
    write_json(tmp_path / "b", {"a": "é", "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == '{\n  "a": "é",\n  "b": 1\n}\n'.encode()
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "c", float("nan"))


def test_files_are_as_readable_as_the_umask_allows(tmp_path: Path) -> None:
    write_text(tmp_path / "out", "x")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o666 & ~mask
