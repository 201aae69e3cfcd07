"""What a judge is asked, the shape its reply must have, and the numbers read from it.

`judge`: the common open rubric (accuracy, grammar, informativeness, coherence, 1 to 5; mean / 5): that of the OST
baseline is unpublished. `deita`: complexity and quality of every turn, 1 to 6 (arXiv 2312.15685, whose trained scorers
it stands in for); evol = sum over turns of complexity x quality.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.sample import Sample

Json = dict[str, Any]

_FENCE = re.compile(r"```(?:json)?\n(.*)\n?```", re.DOTALL)


@dataclass(frozen=True)
class Rubric:
    """instruction: the system message. fields: of the reply. columns: what `read` gives, NaN when it cannot be read."""

    name: str
    instruction: str
    fields: Mapping[str, Json]
    columns: tuple[str, ...]
    read: Callable[[Json, Sample], dict[str, float]]

    def schema(self) -> Json:
        """The reply as a strict JSON schema."""
        return {
            "type": "object",
            "properties": dict(self.fields),
            "required": list(self.fields),
            "additionalProperties": False,
        }

    def parse(self, text: str, sample: Sample) -> dict[str, float] | None:
        """The columns of one reply, or None when it is not what was asked for.

        A code fence around the JSON is taken off: endpoints that do not enforce the schema like to add one.
        """
        fenced = _FENCE.fullmatch(text.strip())
        try:
            return self.read(json.loads(fenced.group(1) if fenced else text), sample)
        except (ValueError, TypeError, KeyError):
            return None

    def unread(self) -> dict[str, float]:
        """The columns of a reply that could not be read."""
        return dict.fromkeys(self.columns, math.nan)


_ASPECTS = ("accuracy", "grammar", "informativeness", "coherence")


def _grade(low: int, high: int) -> Json:
    return {"type": "integer", "minimum": low, "maximum": high}


def _checked(value: Any, low: int, high: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{value!r} is not a grade from {low} to {high}")
    return float(value)


def _read_judge(reply: Json, sample: Sample) -> dict[str, float]:
    grades = {aspect: _checked(reply[aspect], 1, 5) for aspect in _ASPECTS}
    return {"score": sum(grades.values()) / (5 * len(_ASPECTS)), **grades}


def _read_deita(reply: Json, sample: Sample) -> dict[str, float]:
    turns = sum(turn.role == "assistant" for turn in sample.turns)
    complexity = [_checked(value, 1, 6) for value in reply["complexity"]]
    quality = [_checked(value, 1, 6) for value in reply["quality"]]
    if not len(complexity) == len(quality) == turns:
        raise ValueError(f"{len(complexity)} and {len(quality)} grades for {turns} turns")
    evol = sum(one * other for one, other in zip(complexity, quality, strict=True))
    return {"complexity": sum(complexity) / turns, "quality": sum(quality) / turns, "evol": evol}


RUBRICS = {
    rubric.name: rubric
    for rubric in (
        Rubric(
            "judge",
            "Rate the assistant's answers in this conversation about images, as training data. Give whole numbers from "
            "1 (bad) to 5 (excellent) for accuracy (true to the images and the question), grammar, informativeness and "
            "coherence. Judge neither length nor style. Reply in JSON only.",
            {aspect: _grade(1, 5) for aspect in _ASPECTS},
            ("score", *_ASPECTS),
            _read_judge,
        ),
        Rubric(
            "deita",
            "For each exchange of this conversation, in order, give two whole numbers from 1 to 6: complexity, how "
            "hard the user's instruction is to fulfil, and quality, how good the answer is. Reply in JSON only.",
            {name: {"type": "array", "items": _grade(1, 6)} for name in ("complexity", "quality")},
            ("complexity", "quality", "evol"),
            _read_deita,
        ),
    )
}
