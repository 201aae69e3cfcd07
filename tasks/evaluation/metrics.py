"""How good an answer is: the field's standard scores, each in [0, 1] for one answer.

exact match and token F1 as in SQuAD (Rajpurkar et al. 2016), VQA accuracy as in VQA v2 (Antol et al. 2015: ten answers
a question, normalised the way its evaluation script describes), ANLS as in ST-VQA (Biten et al. 2019, threshold 0.5).
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
} | {"none": "0"}
# An apostrophe or a point between digits carries meaning; all other punctuation goes.
_PUNCTUATION = re.compile(r"(?<!\d)\.(?!\d)|[" + re.escape(string.punctuation.replace("'", "").replace(".", "")) + "]")
_CHOICE = re.compile(r"^\s*[\(\[]?([A-Za-z])[\)\].:,]?(?:\s|$)")


def normalise(text: str) -> str:
    """Lower case, no articles, no punctuation, one space between words: SQuAD's rule."""
    lowered = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", lowered).split())


def normalise_vqa(text: str) -> str:
    """VQA v2's rule: as `normalise`, but number words become digits and decimal points stay."""
    cleaned = _PUNCTUATION.sub(" ", text.lower().replace("\n", " "))
    words = (_NUMBERS.get(word, word) for word in cleaned.split())
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 when the normalised answer equals any normalised reference."""
    return float(any(normalise(answer) == normalise(reference) for reference in references))


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """min(matches / 3, 1), averaged over leaving each reference out; with one reference, plain equality."""
    given = normalise_vqa(answer)
    matches = [normalise_vqa(reference) == given for reference in references]
    if len(matches) < 4:
        return float(any(matches))
    total = sum(matches)
    return sum(min((total - own) / 3, 1.0) for own in matches) / len(matches)


def token_f1(answer: str, references: Sequence[str]) -> float:
    """Best harmonic mean of word precision and recall over the references."""
    return max((_f1(normalise(answer).split(), normalise(one).split()) for one in references), default=0.0)


def anls(answer: str, references: Sequence[str], threshold: float = 0.5) -> float:
    """Best 1 - normalised edit distance over the references; similarities below `threshold` count as 0."""
    best = 0.0
    for reference in references:
        left, right = " ".join(answer.lower().split()), " ".join(reference.lower().split())
        longest = max(len(left), len(right))
        similarity = 1.0 if longest == 0 else 1 - edit_distance(left, right) / longest
        best = max(best, similarity)
    return best if best >= threshold else 0.0


def choice_accuracy(answer: str, references: Sequence[str]) -> float:
    """1 when the option letter that the answer starts with is the reference's."""
    given = _CHOICE.match(answer)
    wanted = {found.group(1).upper() for one in references if (found := _CHOICE.match(one))}
    return float(given is not None and given.group(1).upper() in wanted)


def perplexity(mean_nll: float) -> float:
    """exp of a mean negative log-likelihood in nats; infinite rather than an overflow error."""
    return math.exp(mean_nll) if mean_nll < 700 else math.inf


def edit_distance(left: str, right: str) -> int:
    """Levenshtein distance in characters, O(len(left) * len(right)) time, one row of memory."""
    row = list(range(len(right) + 1))
    for above, letter in enumerate(left, 1):
        diagonal, row[0] = row[0], above
        for place, other in enumerate(right, 1):
            diagonal, row[place] = (
                row[place],
                min(row[place] + 1, row[place - 1] + 1, diagonal + (letter != other)),
            )
    return row[-1]


def _f1(given: list[str], wanted: list[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    if not common:
        return 0.0
    precision, recall = common / len(given), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "exact_match": exact_match,
    "vqa_accuracy": vqa_accuracy,
    "token_f1": token_f1,
    "anls": anls,
    "choice_accuracy": choice_accuracy,
}
