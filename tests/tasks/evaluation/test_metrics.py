"""Answer scores: published rules on small cases."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluation.metrics import (
    METRICS,
    anls,
    choice_accuracy,
    edit_distance,
    exact_match,
    normalise_vqa,
    perplexity,
    token_f1,
    vqa_accuracy,
)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [("The  Cat.", "cat", 1.0), ("cats", "cat", 0.0), ("", "", 1.0), ("a", "the", 1.0)],
)
def test_exact_match_ignores_case_articles_and_punctuation(answer: str, reference: str, expected: float) -> None:
    assert exact_match(answer, [reference]) == expected


def test_vqa_accuracy_leaves_one_annotator_out() -> None:
    # Two of ten agree: eight annotators see 2/3, the two themselves see 1/3.
    assert vqa_accuracy("red", ["red"] * 2 + ["blue"] * 8) == pytest.approx((8 * 2 / 3 + 2 * 1 / 3) / 10)
    assert vqa_accuracy("red", ["red"] * 4 + ["blue"] * 6) == 1.0
    assert vqa_accuracy("Two", ["2"]) == 1.0
    assert vqa_accuracy("3.5", ["3 5"]) == 0.0


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("10,000", "10000"),
        ("yes!", "yes"),
        ("t-shirt", "t shirt"),
        ("black - white", "black white"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("U.S.", "us"),
        ("3.50", "3.50"),
        ("50%", "50%"),
        ("$5", "$5"),
        ("one\nnone", "1 0"),
        ("The a cat", "cat"),
        ("man's", "man's"),
    ],
)
def test_vqa_normalisation_is_that_of_the_published_script(answer: str, wanted: str) -> None:
    assert normalise_vqa(answer) == wanted


def test_token_f1_counts_repeated_words_once_each() -> None:
    assert token_f1("red red cat", ["red cat"]) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert token_f1("", ["cat"]) == 0.0
    assert token_f1("dog", ["cat", "big dog"]) == pytest.approx(2 / 3)


def test_anls_cuts_below_half() -> None:
    assert anls("hallo", ["hello"]) == pytest.approx(0.8)
    assert anls("xyz", ["hello"]) == 0.0
    assert anls("", [""]) == 1.0
    assert anls("ab", ["ac"]) == 0.0  # a distance of the threshold itself is too far
    assert anls("ab", ["ac", "abc"]) == pytest.approx(2 / 3)


def test_choice_letter() -> None:
    assert choice_accuracy("(b) the dog", ["B"]) == 1.0
    assert choice_accuracy("B.", ["B. the dog"]) == 1.0
    assert choice_accuracy("Because", ["B"]) == 0.0
    assert choice_accuracy("", ["B"]) == 0.0
    assert choice_accuracy("A dog", ["A"]) == 0.0
    assert choice_accuracy("The answer is B.", ["B"]) == 1.0
    assert choice_accuracy("Answer: (c)", ["C. a cat"]) == 1.0
    assert choice_accuracy("b", ["B"]) == 1.0


def naive_distance(left: str, right: str) -> int:
    if not left or not right:
        return len(left) + len(right)
    return min(
        naive_distance(left[1:], right) + 1,
        naive_distance(left, right[1:]) + 1,
        naive_distance(left[1:], right[1:]) + (left[0] != right[0]),
    )


@given(st.text("ab", max_size=5), st.text("ab", max_size=5))
def test_edit_distance_equals_its_definition(left: str, right: str) -> None:
    assert edit_distance(left, right) == naive_distance(left, right)


@given(st.text(), st.lists(st.text(), min_size=1, max_size=12))
def test_every_score_is_a_share(answer: str, references: list[str]) -> None:
    for metric in METRICS.values():
        assert 0.0 <= metric(answer, references) <= 1.0


def test_perplexity_does_not_overflow() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(1e6) == math.inf
