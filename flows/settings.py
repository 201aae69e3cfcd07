"""`scalselect settings`: every key of params.yaml with its default and meaning. docs/settings.md is this, verbatim."""

from __future__ import annotations

import re
from collections.abc import Iterator

from flows.workspace import template

_LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?: (?P<value>[^#]*?))?(?: *# (?P<comment>.*))?$")

_HEAD = """\
# Settings

Every key of `params.yaml`, its default and meaning, as `scalselect settings` prints it. `--set section.key=value`
reaches each of them. Unknown keys are refused by name, with the nearest known one.
"""


def describe_settings() -> str:
    """The Markdown reference of params.yaml, one table per section, read from the comments of the shipped file."""
    lines = [_HEAD]
    for key, value, comment in _keys(template("params.yaml")):
        if "." not in key:
            lines.append(f"\n## `{key}`\n\n{_sentence(comment)}\n\n| key | default | meaning |\n|---|---|---|\n")
        else:
            shown = f"`{value}`" if value else ""
            lines.append(f"| `{key}` | {shown} | {comment.replace('|', 'or')} |\n")
    return "".join(lines)


def _keys(text: str) -> Iterator[tuple[str, str, str]]:
    """(dotted key, default as written, comment) of each line of a params file, top to bottom."""
    path: list[str] = []
    for line in text.splitlines():
        if found := _LINE.fullmatch(line):
            path = [*path[: len(found["indent"]) // 2], found["key"]]
            yield ".".join(path), found["value"] or "", found["comment"] or ""


def _sentence(comment: str) -> str:
    return comment[:1].upper() + comment[1:] + "."
