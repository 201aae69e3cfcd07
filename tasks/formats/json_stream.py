"""JSON arrays and JSON lines, one value at a time, each with the exact text it was written as.

Text is decoded as UTF-8 with `surrogateescape`, so that even bytes that are not UTF-8 come back unchanged when the text
is encoded the same way. A file is never held whole: memory is one chunk plus the longest value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tasks.errors import DatasetError
from tasks.places import is_url, telling_faults
from tasks.problem import Problem

CHUNK = 1 << 20
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
# A value cut off by the end of the buffer fails, or ends too early, this close to it: `-Infinity` is the longest token.
_NEAR_END = 16


@dataclass(frozen=True, slots=True)
class Value:
    """A JSON value, its text as it stands in the file, and the separator text before it."""

    text: str
    value: Any
    before: str


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open for reading so that encoding the text again (UTF-8, surrogateescape) gives the file's own bytes.

    A byte order mark is dropped. Raises DatasetError when the file cannot be opened, StorageError.
    """
    with telling_faults(path):
        try:
            file = path.open(encoding="utf-8", errors="surrogateescape", newline="\n")
        except OSError as error:
            if is_url(path) and not isinstance(error, FileNotFoundError):
                raise
            raise DatasetError(f"{path}: {error.strerror or 'no such file'}") from None
        with file:
            if file.read(1) != "\ufeff":
                file.seek(0)
            yield file


def parse(text: str) -> Any | Problem:
    """The JSON value, or a Problem `malformed_json` that says where it goes wrong."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return Problem("malformed_json", f"{error.msg} (line {error.lineno} of the row, column {error.colno})")
    except (ValueError, RecursionError) as error:
        return Problem("malformed_json", str(error))


def read_lines(path: Path) -> Iterator[tuple[str, Any | Problem]]:
    """(text, value) of each line that is not blank. A line that is not JSON yields a Problem as its value."""
    with open_text(path) as file:
        for line in file:
            text = line.rstrip("\r\n")
            if text.strip():
                yield text, parse(text)


def read_array(path: Path, chunk: int = CHUNK) -> Iterator[Value]:
    """Elements of the one JSON array in the file.

    Raises DatasetError naming line and byte when the file is not an array or the JSON breaks off: past a syntax error
    nobody can say where the next row starts.
    """
    with open_text(path) as file:
        yield from _Array(path, file, chunk).values()


def starts_with(path: Path) -> str:
    """The first character of the file that is not white space; "" for an empty file."""
    with open_text(path) as file:
        while block := file.read(4096):
            if text := block.lstrip():
                return text[0]
    return ""


class _Array:
    """A window over the file that grows until it holds the next value, and forgets what has been read."""

    def __init__(self, path: Path, file: TextIO, chunk: int) -> None:
        self._path, self._file, self._chunk = path, file, chunk
        self._buffer = ""
        self._position = 0
        self._ended = False
        self._forgotten = 0  # characters dropped from the front of the buffer

    def values(self) -> Iterator[Value]:
        before = self._space()
        self._expect("[")
        before = self._space()
        if self._peek() == "]":
            self._position += 1
        else:
            yield from self._elements(before)
        self._space()
        if self._peek():
            raise self._error("text after the end of the array", self._position)

    def _elements(self, before: str) -> Iterator[Value]:
        while True:
            text, value = self._value()
            yield Value(text, value, before)
            after = self._space()
            mark = self._expect(",]")
            if mark == "]":
                return
            before = after + mark + self._space()

    def _value(self) -> tuple[str, Any]:
        grow = self._chunk
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._position)
                if end < len(self._buffer) - _NEAR_END or self._ended:  # a number could go on: 1, 1.5, 1.5e-7
                    text = self._buffer[self._position : end]
                    self._position = end
                    return text, value
            except json.JSONDecodeError as error:
                if self._ended or not self._is_cut(error):
                    raise self._error(error.msg, error.pos) from None
            except (ValueError, RecursionError) as error:
                raise self._error(str(error), self._position) from None
            self._fill(grow)
            grow *= 2  # a value of n characters is tried O(log n) times

    def _is_cut(self, error: json.JSONDecodeError) -> bool:
        return error.pos >= len(self._buffer) - _NEAR_END or error.msg.startswith("Unterminated string")

    def _fill(self, characters: int) -> None:
        more = self._file.read(characters)
        self._forgotten += self._position
        self._buffer = self._buffer[self._position :] + more
        self._position = 0
        self._ended = not more

    def _peek(self) -> str:
        if self._position >= len(self._buffer) and not self._ended:
            self._fill(self._chunk)
        return self._buffer[self._position : self._position + 1]

    def _space(self) -> str:
        passed = ""
        while self._peek():
            match = _SPACE.match(self._buffer, self._position)
            assert match is not None
            passed += match.group()
            self._position = match.end()
            if self._position < len(self._buffer):
                break
        return passed

    def _expect(self, marks: str) -> str:
        mark = self._peek()
        if not mark or mark not in marks:
            wanted = " or ".join(f"`{one}`" for one in marks)
            raise self._error(
                f"expected {wanted}, found {ascii(mark) if mark else 'the end of the file'}", self._position
            )
        self._position += 1
        return mark

    def _error(self, message: str, position: int) -> DatasetError:
        line, byte = _locate(self._path, self._forgotten + position)
        return DatasetError(
            f"{self._path}: {message} at line {line}, byte {byte}; mend the file, or convert it to JSON lines, "
            "where a broken row is rejected alone"
        )


def _locate(path: Path, characters: int) -> tuple[int, int]:
    """Line (from 1) and byte offset (from 0) of a character; the file is read again, for the message only."""
    line, byte = 1, 0
    with open_text(path) as file:
        byte = file.tell() if characters else 0
        while characters > 0 and (block := file.read(min(characters, CHUNK))):
            characters -= len(block)
            line += block.count("\n")
            byte += len(block.encode("utf-8", "surrogateescape"))
    return line, byte
