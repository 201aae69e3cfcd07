"""How good an answer is: the field's standard scores, each in [0, 1] for one answer.

exact match and token F1 as in SQuAD (Rajpurkar et al. 2016), VQA accuracy as in VQA v2 (Antol et al. 2015: ten answers
a question, normalised as its evaluation script does), ANLS as in ST-VQA (Biten et al. 2019, threshold 0.5).
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
# Marks that VQA v2's script takes out; all others, such as % and $, carry meaning there. Points: see normalise_vqa.
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_THOUSANDS = re.compile(r"\d,\d")
_POINT = re.compile(r"\.(?!\d)")
_CONTRACTIONS = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's isn't it'd it'd've it'll let's ma'am mightn't mightn't've might've mustn't "
    "must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've "
    "somebody'd somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd "
    "something'd've something'll that'd that's there'd there'd've there're there's they'd they'd've they'll "
    "they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's "
    "where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all "
    "y'all'll y'all'd've you'd you'd've you'll you're you've"
)
# One apostrophe left out: "dont" and "couldn'tve" are spelt as they should be.
_SPELT = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTIONS.split()
    for place, letter in enumerate(word)
    if letter == "'"
}
_OPTION = re.compile(r"\W*([A-Za-z])(?:\W*$|[).:,\]])")
_STATED = re.compile(r"\banswer(?: is|:)\W*([A-Za-z])\b", re.IGNORECASE)


def normalise(text: str) -> str:
    """Lower case, no articles, no punctuation, one space between words: SQuAD's rule."""
    lowered = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", lowered).split())


def normalise_vqa(text: str) -> str:
    """VQA v2's rule: no articles, number words as digits, apostrophes where they belong, decimal points kept.

    A mark becomes a space, or nothing where it stands beside a space or where the text has a number such as 10,000.
    """
    flat = re.sub(r"[\n\t]", " ", text).strip()
    joined = _THOUSANDS.search(flat) is not None
    cleaned = flat
    for mark in _MARKS:
        apart = f"{mark} " not in flat and f" {mark}" not in flat
        cleaned = cleaned.replace(mark, " " if apart and not joined else "")
    words = (_NUMBERS.get(word, word) for word in _POINT.sub("", cleaned).lower().split())
    return " ".join(_SPELT.get(word, word) for word in words if word not in ("a", "an", "the"))


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
    """Best 1 - normalised edit distance over the references; 0 where the distance is `threshold` or more."""
    nearest = min((_distance(answer, one) for one in references), default=1.0)
    return 1 - nearest if nearest < threshold else 0.0


def choice_accuracy(answer: str, references: Sequence[str]) -> float:
    """1 when the option that the answer names is the reference's.

    An answer names an option by its letter alone, by the letter and a mark ("B.", "(b) the dog"), or by "answer is B".
    """
    given = option(answer)
    return float(given is not None and given in {option(one) for one in references})


def option(text: str) -> str | None:
    """The letter of the option that a text names, upper case; None where it names none ("A dog" does not)."""
    found = _OPTION.match(text) or _STATED.search(text)
    return found.group(1).upper() if found else None


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


def _distance(answer: str, reference: str) -> float:
    """Edit distance over the longer length, of texts in lower case with single spaces; 0 for two empty ones."""
    left, right = " ".join(answer.lower().split()), " ".join(reference.lower().split())
    return edit_distance(left, right) / max(len(left), len(right), 1)


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
