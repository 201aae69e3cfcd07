"""Questions and answers about the pictures, and the awkward rows every real dataset has.

Shares are those of the field's own pools in miniature: mostly one image and a short answer, some conversations, some
text-only rows, near-duplicates in plenty, and a few rows that must be rejected, each for a different reason.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.atomic import write_text
from tasks.demo.pictures import augment, crop, digits, dominant_colour, montage, scenes

Row = dict[str, Any]
Turns = list[tuple[str, str]]
Picture = tuple[str, bytes]


def write_dataset(root: Path, rows: int, seed: int) -> list[str]:
    """Write `root`/data.json (LLaVA style) and `root`/images/; returns every text, for the tokenizer."""
    rng = np.random.default_rng(seed)
    made: list[Row] = []
    kinds = [_photograph, _digit, _digit_page, _conversation, _two_views, _arithmetic]
    shares = [0.40, 0.16, 0.12, 0.14, 0.08, 0.10]
    while len(made) < rows - len(_AWKWARD):
        name = f"{len(made):06d}"
        kind = kinds[rng.choice(len(kinds), p=shares)]
        turns, pictures = kind(name, rng)
        made.append(_row(root, name, turns, pictures))
        if pictures and rng.random() < 0.15 and len(made) < rows - len(_AWKWARD):
            made.append(_near_duplicate(root, f"{len(made):06d}", made[-1], rng))
    made += [awkward(root, f"{len(made) + place:06d}", made[place]) for place, awkward in enumerate(_AWKWARD)]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in made)
    write_text(root / "data.json", f"[\n{lines}\n]\n")
    return [turn["value"] for row in made for turn in row["conversations"] if isinstance(turn["value"], str)]


def _photograph(name: str, rng: np.random.Generator) -> tuple[Turns, list[Picture]]:
    scene = scenes()[rng.choice(len(scenes()), p=[0.3, 0.25, 0.18, 0.12, 0.07, 0.05, 0.03])]
    view, quarter = crop(scene, rng)
    view, change = augment(view, rng)
    question, answer = [
        ("What does this picture show?", f"It shows part of {scene.subject}."),
        ("Which colour stands out in the picture? Answer with one word.", dominant_colour(view)),
        (f"From which quarter of the {scene.name} picture was this view taken?", f"The {quarter} quarter."),
        ("How was the picture altered? Answer 'none' if it was not.", change),
    ][rng.integers(4)]
    return [(f"<image>\n{question}", answer)], [(f"photos/{scene.name}/{name}.jpg", _jpeg(view))]


def _digit(name: str, rng: np.random.Generator) -> tuple[Turns, list[Picture]]:
    shades, labels = digits()
    place = rng.integers(len(labels))
    question = str(rng.choice(["Which digit is written here?", "Read the handwritten digit. Answer with one digit."]))
    picture = montage([shades[place]], columns=1, scale=12)
    return [(f"<image>\n{question}", str(labels[place]))], [(f"digits/{name}.png", _png(picture))]


def _digit_page(name: str, rng: np.random.Generator) -> tuple[Turns, list[Picture]]:
    shades, labels = digits()
    places = rng.integers(len(labels), size=int(rng.integers(3, 9)))
    values = [int(labels[place]) for place in places]
    wanted = int(rng.choice(values))
    question, answer = [
        ("Read all digits from left to right, line by line.", " ".join(str(value) for value in values)),
        (f"How many times does the digit {wanted} occur?", str(values.count(wanted))),
        ("Which is the largest digit on the page?", str(max(values))),
        ("What do the digits add up to?", str(sum(values))),
    ][rng.integers(4)]
    page = montage([shades[place] for place in places], columns=4)
    return [(f"{question}\n<image>", answer)], [(f"pages/{name}.png", _png(page))]


def _conversation(name: str, rng: np.random.Generator) -> tuple[Turns, list[Picture]]:
    scene = scenes()[rng.integers(len(scenes()))]
    view, quarter = crop(scene, rng)
    turns = [
        ("<image>\nDescribe the picture.", f"The picture shows {scene.subject}, seen from close by."),
        ("Which part of it is visible?", f"Mostly the {quarter} part."),
        ("Name the colour that stands out.", dominant_colour(view)),
        (f"Is this {scenes()[rng.integers(len(scenes()))].subject}?", f"It is {scene.subject}."),
    ]
    return turns[: int(rng.integers(2, 5))], [(f"photos/{scene.name}/{name}.jpg", _jpeg(view))]


def _two_views(name: str, rng: np.random.Generator) -> tuple[Turns, list[Picture]]:
    first, second = (scenes()[place] for place in rng.integers(len(scenes()), size=2))
    pictures = [
        (f"pairs/{name}-{place}.jpg", _jpeg(crop(scene, rng, edge=112)[0]))
        for place, scene in enumerate((first, second))
    ]
    same = "yes" if first is second else "no"
    question = "Here is one view: <image>\nand here another: <image>\nDo both come from the same picture?"
    turns = [(question, same), ("What does the second view show?", f"It shows {second.subject}.")]
    return turns[: int(rng.integers(1, 3))], pictures


def _arithmetic(name: str, rng: np.random.Generator) -> tuple[Turns, list[Picture]]:
    left, right = (int(value) for value in rng.integers(2, 60, size=2))
    return [(f"What is {left} plus {right}?", str(left + right))], []


def _row(root: Path, name: str, turns: Turns, pictures: list[Picture]) -> Row:
    for path, data in pictures:
        _write(root, path, data)
    row: Row = {"id": name}
    if pictures:
        row["image"] = pictures[0][0] if len(pictures) == 1 else [path for path, _ in pictures]
    row["conversations"] = [
        {"from": speaker, "value": text} for turn in turns for speaker, text in zip(("human", "gpt"), turn, strict=True)
    ]
    return row


def _near_duplicate(root: Path, name: str, twin: Row, rng: np.random.Generator) -> Row:
    """The same conversation over the same picture, saved again: other bytes, hardly other pixels."""
    images = [twin["image"]] if isinstance(twin["image"], str) else twin["image"]
    copies = []
    for image in images:
        with Image.open(root / "images" / image) as picture:
            again = picture.convert("RGB").transform(
                picture.size, Image.Transform.AFFINE, (1, 0, int(rng.integers(-2, 3)), 0, 1, int(rng.integers(-2, 3)))
            )
        path = str(Path(image).with_name(f"{Path(image).stem}-again{name}.jpg"))
        _write(root, path, _jpeg(again, quality=int(rng.integers(60, 90))))
        copies.append(path)
    return {"id": name, "image": copies[0] if len(copies) == 1 else copies, "conversations": twin["conversations"]}


def _truncated(root: Path, name: str, twin: Row) -> Row:
    whole = _jpeg(scenes()[0].picture.resize((160, 160)))
    _write(root, f"broken/{name}.jpg", whole[: len(whole) // 2])
    return _broken(name, f"broken/{name}.jpg")


def _unreadable(root: Path, name: str, twin: Row) -> Row:
    _write(root, f"broken/{name}.jpg", b"this was meant to be a picture")
    return _broken(name, f"broken/{name}.jpg")


def _empty_file(root: Path, name: str, twin: Row) -> Row:
    _write(root, f"broken/{name}.png", b"")
    return _broken(name, f"broken/{name}.png")


def _missing(root: Path, name: str, twin: Row) -> Row:
    return _broken(name, f"broken/{name}-never-downloaded.jpg")


def _outside(root: Path, name: str, twin: Row) -> Row:
    return _broken(name, "../../elsewhere/private.jpg")


def _linked(root: Path, name: str, twin: Row) -> Row:
    return _broken(name, "https://example.org/picture.jpg")


def _no_placeholder_for_second(root: Path, name: str, twin: Row) -> Row:
    _write(root, f"broken/{name}.png", _png(scenes()[1].picture.resize((64, 64))))
    row = _broken(name, f"broken/{name}.png")
    return row | {"image": [row["image"], row["image"]]}


def _answer_first(root: Path, name: str, twin: Row) -> Row:
    return {"id": name, "conversations": [{"from": "gpt", "value": "Hello."}, {"from": "human", "value": "Hello?"}]}


def _no_turns(root: Path, name: str, twin: Row) -> Row:
    return {"id": name, "conversations": []}


def _number_as_text(root: Path, name: str, twin: Row) -> Row:
    return {"id": name, "conversations": [{"from": "human", "value": "Two?"}, {"from": "gpt", "value": 2}]}


def _exact_duplicate(root: Path, name: str, twin: Row) -> Row:
    return dict(twin)


def _broken(name: str, image: str) -> Row:
    turns = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "Nobody knows."}]
    return {"id": name, "image": image, "conversations": turns}


_AWKWARD: tuple[Callable[[Path, str, Row], Row], ...] = (
    _truncated,
    _unreadable,
    _empty_file,
    _missing,
    _outside,
    _linked,
    _no_placeholder_for_second,
    _answer_first,
    _no_turns,
    _number_as_text,
    _exact_duplicate,
    _exact_duplicate,
)


def _write(root: Path, name: str, data: bytes) -> None:
    path = root / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
