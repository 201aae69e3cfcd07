"""What a row must be like: the checks, in the order they run. The first one that fails names the row's reason.

    reader's own problem -> roles -> text -> placeholders -> images -> policy -> length -> unique

Cheap checks come first, so a row that fails one never has its images read. `unique` comes last, so that the row a
duplicate names is always an accepted one. docs/validation.md gives every reason with an example.
"""

from __future__ import annotations

from collections.abc import Sequence

from tasks.formats.record import Row
from tasks.problem import Problem
from tasks.sample import IMAGE_PLACEHOLDER, Turn

# The reasons that each check gives. A reason found nowhere here is the reader's, and counts under READABLE.
READABLE = "readable"
CHECKS: dict[str, tuple[str, ...]] = {
    READABLE: (),
    "roles": ("no_turns", "first_turn_not_user", "roles_not_alternating", "no_answer"),
    "text": ("empty_text",),
    "placeholders": ("placeholder_mismatch",),
    "images": (
        "image_outside_root",
        "image_url_not_allowed",
        "image_missing",
        "image_unreadable",
        "image_truncated",
        "image_too_large",
    ),
    "policy": ("text_only_dropped",),
    "length": ("over_max_length", "not_renderable"),
    "unique": ("duplicate",),
}

# Rows a setting turned away: nothing is wrong with them, so they do not count as defects.
POLICIES = ("text_only_dropped", "duplicate")


def check_of(reason: str) -> str:
    """The check that gives `reason`."""
    return next((check for check, reasons in CHECKS.items() if reason in reasons), READABLE)


def check_row(row: Row) -> Problem | None:
    """Everything that can be said of a row without opening its images."""
    return row.problem or check_roles(row.turns) or check_text(row.turns) or check_placeholders(row)


def check_roles(turns: Sequence[Turn]) -> Problem | None:
    """After at most one leading system turn: user, assistant, user, assistant, ..., and an assistant has the last word.

    A last question without an answer is refused because trainers differ on it: some mask it, some drop the whole row
    without a word, and then a budget of N is not N.
    """
    spoken = turns[1:] if turns and turns[0].role == "system" else turns
    if not spoken:
        return Problem("no_turns", "only a system turn" if turns else "the conversation is empty")
    if spoken[0].role != "user":
        return Problem("first_turn_not_user", f"the first turn is `{spoken[0].role}`; expected `user`")
    for index, turn in enumerate(spoken):
        expected = ("user", "assistant")[index % 2]
        if turn.role != expected:
            number = index + len(turns) - len(spoken)
            return Problem("roles_not_alternating", f"turn {number} is `{turn.role}`; expected `{expected}`")
    if len(spoken) % 2:
        return Problem("no_answer", "the last turn is the user's; there is no answer to learn from")
    return None


def check_text(turns: Sequence[Turn]) -> Problem | None:
    """Each user turn says or shows something, and at least one answer says something.

    `<image>` alone is a legal question (captioning data asks so, and trainers accept it). One empty answer among
    others is legal too: it teaches the end of the turn.
    """
    for index, turn in enumerate(turns):
        if turn.role == "user" and not turn.content.strip():
            return Problem("empty_text", f"turn {index} (user) has neither text nor an image")
    if not any(_text(turn) for turn in turns if turn.role == "assistant"):
        return Problem("empty_text", "every assistant turn is empty")
    return None


def check_placeholders(row: Row) -> Problem | None:
    """One `<image>` in the turns for each image of the row."""
    placeholders = sum(turn.content.count(IMAGE_PLACEHOLDER) for turn in row.turns)
    if placeholders == len(row.images):
        return None
    return Problem("placeholder_mismatch", f"{placeholders} `{IMAGE_PLACEHOLDER}` for {len(row.images)} images")


def _text(turn: Turn) -> str:
    return turn.content.replace(IMAGE_PLACEHOLDER, "").strip()
