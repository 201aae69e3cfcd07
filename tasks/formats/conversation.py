"""Turns and images out of the many spellings of a conversation; one Row out of one decoded object."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tasks import images
from tasks.formats.record import Row
from tasks.places import is_url
from tasks.problem import Problem
from tasks.sample import IMAGE_PLACEHOLDER, ImageRef, Turn
from tasks.unicode import escape, is_unicode

ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
SOURCE_FIELDS = ("source", "dataset", "channel")

Locate = Callable[[str], ImageRef | Problem]
"""Where the image of that name lies."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """Which fields hold what. Of several names the first that is there counts.

    `leading_images`: a row with images and no `<image>` anywhere shows them before the first user turn.
    """

    turns: tuple[str, ...]
    role: tuple[str, ...]
    content: tuple[str, ...]
    images: tuple[str, ...]
    system: str | None = None
    roles: Mapping[str, str] = field(default_factory=lambda: ROLES)
    leading_images: bool = False


class _UnreadableError(Exception):
    """Carries a Problem out of the depths of a row; never leaves this module."""

    def __init__(self, reason: str, detail: str) -> None:
        self.problem = Problem(reason, detail)


def read_row(
    row: int,
    original: Any,
    value: Any,
    spelling: Spelling,
    root: Path,
    source_field: str | None,
    beside: Path | None = None,
) -> Row:
    """The Row of a decoded JSON object (or of a Problem, where decoding failed). Never raises for what is in it.

    Images lie under `root`; `beside` is the folder of the file that names them.
    """
    if not isinstance(value, dict):
        problem = Problem("not_an_object", f"expected an object, found {_kind(value)}")
        return Row(row, original, None, "", (), (), value if isinstance(value, Problem) else problem)
    named, source = _read_id(value), _read_source(value, source_field)
    try:
        turns, refs = _read_conversation(value, spelling, partial(images.locate, root=root, beside=beside))
    except _UnreadableError as error:
        return Row(row, original, named, source, (), (), error.problem)
    if not source and not source_field:
        source = _folder(refs, root)
    return Row(row, original, named, source, turns, refs)


def _read_conversation(
    value: Mapping[str, Any], spelling: Spelling, locate: Locate
) -> tuple[tuple[Turn, ...], tuple[ImageRef, ...]]:
    messages = _list_of_turns(_first(value, spelling.turns), spelling)
    turns, slots = [], []
    for index, message in enumerate(messages):
        turn, own = _read_turn(index, message, spelling)
        turns.append(turn)
        slots += own
    turns = _with_system(turns, value, spelling)
    listed = [_resolve(image, locate) for image in _list_of_images(_first(value, spelling.images))]
    if spelling.leading_images and listed and not slots:
        turns = _show_first(turns, len(listed))
    return tuple(turns), tuple(_fill(slots, listed, locate))


def _list_of_turns(found: Any, spelling: Spelling) -> Sequence[Any]:
    if isinstance(found, dict):
        found = _from_columns(found)
    if not isinstance(found, list) or not found:
        raise _UnreadableError("no_turns", f"no turns in {' or '.join(f'`{name}`' for name in spelling.turns)}")
    return found


def _from_columns(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Turns out of a struct of lists, which is how older `datasets` store a list of structs."""
    columns = {name: column for name, column in found.items() if isinstance(column, list)}
    if len({len(column) for column in columns.values()}) != 1:
        return []
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _read_turn(index: int, message: Any, spelling: Spelling) -> tuple[Turn, list[Any]]:
    """The turn, and for each `<image>` in it the image it names itself (None: the next one of the row's list)."""
    if not isinstance(message, dict):
        raise _UnreadableError("malformed_turn", f"turn {index} is {_kind(message)}, not an object")
    role, content = _first(message, spelling.role), _first(message, spelling.content)
    if not isinstance(role, str) or role not in spelling.roles:
        raise _UnreadableError("unknown_role", f"turn {index}: {json.dumps(role)[:80]}")
    if isinstance(content, str):
        text, slots = content, [None] * content.count(IMAGE_PLACEHOLDER)
    else:
        text, slots = _join_parts(index, content)
    if not is_unicode(text):
        raise _UnreadableError("malformed_text", f"turn {index}: not valid Unicode (a lone surrogate, or not UTF-8)")
    return Turn(spelling.roles[role], text), slots


def _join_parts(index: int, content: Any) -> tuple[str, list[Any]]:
    """The parts' text, images as placeholders, and what each placeholder names."""
    text, slots = "", list[Any]()
    for part in content if isinstance(content, list) and content else [content]:
        kind = part.get("type") if isinstance(part, dict) else "text"
        piece = part.get("text") if isinstance(part, dict) else part
        if kind == "text" and isinstance(piece, str):
            text += piece
            slots += [None] * piece.count(IMAGE_PLACEHOLDER)
        elif kind in ("image", "image_url"):
            text += IMAGE_PLACEHOLDER
            slots.append(_first(part, ("image", "image_url", "path", "url")))
        else:
            shown = _kind(part) if kind in (None, "text") else f"a part of type {kind!r}"
            raise _UnreadableError("non_string_content", f"turn {index}: {shown}")
    return text, slots


def _with_system(turns: list[Turn], value: Mapping[str, Any], spelling: Spelling) -> list[Turn]:
    """A system prompt kept in a field of its own becomes the first turn, unless there is one."""
    prompt = value.get(spelling.system) if spelling.system else None
    if not prompt or turns[0].role == "system":
        return turns
    if not isinstance(prompt, str):
        raise _UnreadableError("non_string_content", f"`{spelling.system}` is {_kind(prompt)}")
    return [Turn("system", prompt), *turns]


def _show_first(turns: list[Turn], count: int) -> list[Turn]:
    first = next((index for index, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None:
        return turns
    shown = Turn("user", IMAGE_PLACEHOLDER * count + turns[first].content)
    return [*turns[:first], shown, *turns[first + 1 :]]


def _fill(slots: list[Any], listed: list[ImageRef], locate: Locate) -> Iterator[ImageRef]:
    """Images in the order they are shown; any that nobody shows come last, for validation to count."""
    remaining = iter(listed)
    for own in slots:
        ref = next(remaining, None) if own is None else _resolve(own, locate)
        if ref is not None:
            yield ref
    yield from remaining


def _list_of_images(found: Any) -> list[Any]:
    if found is None or found == "":
        return []
    return found if isinstance(found, list) else [found]


def _resolve(image: Any, locate: Locate) -> ImageRef:
    if isinstance(image, dict):
        image = _first(image, ("path", "url"))
    if isinstance(image, str):
        image = locate(image)
    if isinstance(image, Problem):
        raise _UnreadableError(image.reason, image.detail)
    if not isinstance(image, ImageRef):
        raise _UnreadableError("malformed_images", f"expected a file name, found {_kind(image)}")
    return image


def _read_id(value: Mapping[str, Any]) -> str | None:
    found = value.get("id")
    if found is None:
        return None
    return escape(found if isinstance(found, str) else json.dumps(found, default=str))


def _read_source(value: Mapping[str, Any], source_field: str | None) -> str:
    for name in (source_field,) if source_field else SOURCE_FIELDS:
        found = value.get(name)
        if isinstance(found, str | int):
            return escape(str(found))
    return ""


def _folder(refs: Sequence[ImageRef], root: Path) -> str:
    """First folder under the root on the way to the first image."""
    if not refs or refs[0].member:
        return ""
    base = str(root) if is_url(root) else os.path.normpath(root)
    inside = refs[0].path.removeprefix(os.path.join(base, ""))  # noqa: PTH118
    return inside.partition("/")[0] if "/" in inside else ""


def _first(value: Mapping[str, Any], names: Sequence[str]) -> Any:
    for name in names:
        found = value.get(name)
        if found is not None:
            return found
    return None


def _kind(value: Any) -> str:
    names = {"NoneType": "nothing", "dict": "an object", "list": "a list", "str": "text", "bool": "true or false"}
    return names.get(type(value).__name__, "a number" if isinstance(value, int | float) else type(value).__name__)
