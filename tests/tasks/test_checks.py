"""Row checks: each reason by the smallest row that earns it, and the order between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.checks import CHECKS, POLICIES, READABLE, check_of, check_placeholders, check_roles, check_row, check_text
from tasks.formats.record import Row
from tasks.problem import Problem
from tasks.sample import ImageRef, Turn


def turns(*pairs):
    return tuple(Turn(role, content) for role, content in pairs)


def row(said, images=0, problem=None):
    refs = tuple(ImageRef(f"{index}.png", f"{index}.png") for index in range(images))
    return Row(0, "{}", None, "", said, refs, problem)


GOOD = turns(("user", "<image>\nWhat?"), ("assistant", "That."))


def reason(problem):
    return problem.reason if problem else None


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("", "no_turns"),
        ("s", "no_turns"),
        ("a", "first_turn_not_user"),
        ("au", "first_turn_not_user"),
        ("ss", "first_turn_not_user"),
        ("uu", "roles_not_alternating"),
        ("uaa", "roles_not_alternating"),
        ("uasa", "roles_not_alternating"),
        ("u", "no_answer"),
        ("suau", "no_answer"),
        ("ua", None),
        ("sua", None),
        ("uaua", None),
    ],
)
def test_roles(roles, expected):
    names = {"s": "system", "u": "user", "a": "assistant"}
    assert reason(check_roles(turns(*((names[role], "x") for role in roles)))) == expected


@given(st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=7))
def test_roles_accept_exactly_the_alternating_conversations(roles):
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    legal = len(spoken) >= 2 and spoken == ["user", "assistant"] * (len(spoken) // 2)
    assert (check_roles(turns(*((role, "x") for role in roles))) is None) == legal


def test_role_detail_counts_turns_as_the_reader_does():
    problem = check_roles(turns(("system", "s"), ("user", "q"), ("user", "q")))
    assert problem == Problem("roles_not_alternating", "turn 2 is `user`; expected `assistant`")


@pytest.mark.parametrize(
    ("question", "answers", "expected"),
    [
        ("What?", ["That."], None),
        ("<image>", ["A cat."], None),
        ("", ["That."], "empty_text"),
        (" \n\t", ["That."], "empty_text"),
        ("What?", [""], "empty_text"),
        ("What?", ["<image> "], "empty_text"),
        ("What?", ["", "That."], None),
        ("What?", ["", " "], "empty_text"),
    ],
)
def test_text(question, answers, expected):
    said = [pair for answer in answers for pair in (("user", question), ("assistant", answer))]
    assert reason(check_text(turns(*said))) == expected


def test_an_empty_system_turn_is_legal():
    assert check_text((Turn("system", ""), *GOOD)) is None


@pytest.mark.parametrize(("images", "expected"), [(0, "placeholder_mismatch"), (1, None), (2, "placeholder_mismatch")])
def test_placeholders(images, expected):
    assert reason(check_placeholders(row(GOOD, images))) == expected


def test_placeholders_count_over_all_turns():
    said = turns(("user", "<image><image>"), ("assistant", "a"), ("user", "and <image>?"), ("assistant", "b"))
    assert check_placeholders(row(said, 3)) is None


def test_the_first_failing_check_wins():
    wrong_everywhere = turns(("assistant", ""), ("user", "<image>"))
    assert reason(check_row(row(wrong_everywhere, problem=Problem("malformed_json", "line 3")))) == "malformed_json"
    assert reason(check_row(row(wrong_everywhere))) == "first_turn_not_user"
    assert reason(check_row(row(turns(("user", ""), ("assistant", "a")), images=1))) == "empty_text"
    assert reason(check_row(row(turns(("user", "q"), ("assistant", "a")), images=1))) == "placeholder_mismatch"
    assert check_row(row(GOOD, images=1)) is None


def test_every_reason_belongs_to_one_check():
    reasons = [reason for given in CHECKS.values() for reason in given]
    assert len(reasons) == len(set(reasons))
    assert set(POLICIES) <= set(reasons)
    assert all(reason in CHECKS[check_of(reason)] for reason in reasons)
    assert check_of("malformed_json") == READABLE
