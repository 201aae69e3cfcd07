"""A visual question-answering pool of known structure: skills x backgrounds, long-tailed, with every kind of waste.

Made for the evaluation proof. Each row's ground truth (group, duplicate-of, noise flag) goes to truth.jsonl, which no
selector ever sees; the report reads it afterwards to say what each selector kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tasks.atomic import write_text
from tasks.demo.pictures import digits, scenes

EDGE = 48
COLOURS = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 70, 210),
    "yellow": (240, 210, 40),
    "purple": (140, 50, 170),
    "white": (250, 250, 250),
}
SHAPES = ("circle", "square", "triangle", "cross")
QUARTERS = ("top left", "top right", "bottom left", "bottom right")
WORDS = ("CAT", "SUN", "BOX", "FISH", "TREE", "MOON", "KEY", "BIRD")
NUMBERS = ("one", "two", "three", "four", "five")
SKILLS = ("colour", "shape", "count", "position", "word", "digit", "photograph")
HELD_OUT_DIGITS = 1400
BACKGROUNDS = ("plain", "noise", "stripes", "picture")
# Where a row says it comes from: what a real dataset would know of it, and less than its group.
SOURCES = {"word": "signs", "digit": "scans", "photograph": "photos"}
PROMPTS = ("Describe the picture.", "What do you see?", "Say what is shown.")


@dataclass(frozen=True)
class View:
    """What a picture shows; the unused attributes of a skill are still drawn from the seed, so views differ."""

    skill: str
    background: str
    colour: str
    shape: str
    number: int
    quarter: int
    word: str
    digit: int
    scene: int
    seed: int


@dataclass(frozen=True)
class Question:
    """One row of the pool and its ground truth."""

    view: View
    text: str
    answer: str
    group: str
    duplicate_of: int | None = None
    noise: bool = False
    text_only: bool = False


def draw_view(rng: np.random.Generator, skill: str, background: str, held_out: bool = False) -> View:
    """A random view that exercises the skill before the background. Held-out views draw on other scanned digits."""
    scans = (HELD_OUT_DIGITS, len(digits()[1])) if held_out else (0, HELD_OUT_DIGITS)
    return View(
        skill=skill,
        background=background,
        colour=str(rng.choice(list(COLOURS))),
        shape=str(rng.choice(SHAPES)),
        number=int(rng.integers(1, 6)) if skill == "count" else 1,
        quarter=int(rng.integers(4)),
        word=str(rng.choice(WORDS)),
        digit=int(rng.integers(*scans)),
        scene=int(rng.integers(len(scenes()))),
        seed=int(rng.integers(2**31)),
    )


def answer(view: View) -> str:
    """The right answer to the view's question."""
    return {
        "colour": view.colour,
        "shape": view.shape,
        "count": NUMBERS[view.number - 1],
        "position": QUARTERS[view.quarter],
        "word": view.word.lower(),
        "digit": str(digits()[1][view.digit]),
        "photograph": scenes()[view.scene].name,
    }[view.skill]


def ask(view: View, rng: np.random.Generator) -> str:
    """One of two wordings of the skill's question."""
    return {
        "colour": ("What colour is the shape?", "Name the colour of the object."),
        "shape": ("What shape is shown?", "Name the shape of the object."),
        "count": ("How many objects are there?", "Count the shapes."),
        "position": ("Where is the object?", "In which corner is the shape?"),
        "word": ("What word is written?", "Read the text."),
        "digit": ("Which digit is written?", "Read the handwritten digit."),
        "photograph": ("What is in the photograph?", "Name the picture."),
    }[view.skill][int(rng.integers(2))]


def caption(view: View, rng: np.random.Generator) -> str:
    """All that the picture shows, in any order: whoever learns to say it must see all of it before the first word."""
    if view.skill == "word":
        return f"the word {view.word.lower()}"
    if view.skill == "digit":
        return f"the digit {answer(view)}"
    if view.skill == "photograph":
        return f"a photograph of {scenes()[view.scene].name}"
    facts = [NUMBERS[view.number - 1], view.colour, view.shape]
    if view.skill != "count":
        facts.append(QUARTERS[view.quarter])
    return ", ".join(facts[place] for place in rng.permutation(len(facts)))


def render(view: View) -> Image.Image:
    """The picture of a view, EDGE x EDGE pixels; the same view gives the same pixels."""
    rng = np.random.default_rng(view.seed)
    canvas = _background(view, rng)
    if view.skill == "digit":
        shades = digits()[0][view.digit] / 16
        mask = Image.fromarray((shades * 255).astype(np.uint8)).resize((34, 34), Image.Resampling.BICUBIC)
        left, top = (int(value) for value in rng.integers(3, 12, size=2))
        canvas.paste((10, 10, 10), (left, top), mask)
    elif view.skill == "word":
        pen = ImageDraw.Draw(canvas)
        at = (int(rng.integers(1, 5)), int(rng.integers(8, 26)))
        pen.text(at, view.word, fill=COLOURS[view.colour], font=ImageFont.load_default(16), stroke_width=0)
    elif view.skill != "photograph":
        _objects(canvas, view, rng)
    return canvas


def draw_pool(rows: int, seed: int, waste: bool = True) -> list[Question]:
    """The training pool: long-tailed groups; with `waste`, near-duplicates, wrong answers and text-only rows too."""
    rng = np.random.default_rng(seed)
    groups = [(skill, background) for skill in SKILLS for background in BACKGROUNDS]
    share = 1 / np.arange(1, len(groups) + 1)
    order = np.random.default_rng(7).permutation(len(groups))
    pool: list[Question] = []
    while len(pool) < rows:
        kind = rng.random() if waste else 1.0
        if kind < 0.25 and pool:
            pool.append(_again(pool, rng))
            continue
        skill, background = groups[order[rng.choice(len(groups), p=share / share.sum())]]
        question = _question(draw_view(rng, skill, background), rng)
        if kind < 0.33:
            question = _mistaken(question, rng)
        elif kind < 0.38:
            question = _arithmetic(question, rng)
        pool.append(question)
    return pool


def draw_questions(per_group: int, seed: int, shown: Collection[bytes] = ()) -> list[Question]:
    """Held-out questions: every group equally often, no waste. Use another seed than the pool's.

    shown: `pixels` of pictures that must not come again; a plain background leaves few enough to meet by chance.
    """
    rng = np.random.default_rng(seed)
    return [
        _fresh_question(skill, background, rng, shown)
        for skill in SKILLS
        for background in BACKGROUNDS
        for _ in range(per_group)
    ]


def pixels(question: Question) -> bytes:
    """The picture of a question, pixel by pixel."""
    return render(question.view).tobytes()


def draw_captions(rows: int, seed: int) -> list[Question]:
    """Captioned pictures of every group equally often, for teaching the demo model to see."""
    rng = np.random.default_rng(seed)
    views = [draw_view(rng, str(rng.choice(SKILLS)), str(rng.choice(BACKGROUNDS))) for _ in range(rows)]
    return [
        Question(view, str(rng.choice(PROMPTS)), caption(view, rng), f"{view.skill}/{view.background}")
        for view in views
    ]


def origin(question: Question) -> str:
    """Where the row would say it comes from."""
    return SOURCES.get(question.view.skill, "shapes")


def write_questions(questions: list[Question], root: Path, source: Callable[[Question], str] = origin) -> None:
    """Write `root`/data.json (LLaVA style), `root`/images/ and `root`/truth.jsonl (ground truth, by row)."""
    rows, truths = [], []
    for place, one in enumerate(questions):
        name = f"{source(one)}/{place:05d}.png"
        prompt = one.text if one.text_only else f"<image>\n{one.text}"
        row: dict[str, object] = {"id": f"{place:05d}"}
        if not one.text_only:
            path = root / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            render(one.view).save(path)
            row["image"] = name
        row["conversations"] = [{"from": "human", "value": prompt}, {"from": "gpt", "value": one.answer}]
        rows.append(json.dumps(row))
        truths.append(
            json.dumps({"row": place, "group": one.group, "duplicate_of": one.duplicate_of, "noise": one.noise})
        )
    write_text(root / "data.json", "[\n" + ",\n".join(rows) + "\n]\n")
    write_text(root / "truth.jsonl", "".join(f"{line}\n" for line in truths))


def _fresh_question(skill: str, background: str, rng: np.random.Generator, shown: Collection[bytes]) -> Question:
    while True:
        question = _question(draw_view(rng, skill, background, held_out=True), rng)
        if not shown or pixels(question) not in shown:
            return question


def _question(view: View, rng: np.random.Generator) -> Question:
    return Question(view, ask(view, rng), answer(view), f"{view.skill}/{view.background}")


def _again(pool: list[Question], rng: np.random.Generator) -> Question:
    """A near-duplicate of an earlier row: the same view with other noise and placement, the same words."""
    place = int(rng.integers(len(pool)))
    original = pool[place].duplicate_of
    twin = pool[place if original is None else original]
    return replace(
        twin,
        view=replace(twin.view, seed=twin.view.seed + 1 + int(rng.integers(4))),
        duplicate_of=place if original is None else original,
    )


def _mistaken(question: Question, rng: np.random.Generator) -> Question:
    wrong = answer(draw_view(rng, question.view.skill, question.view.background))
    return replace(question, answer=wrong, noise=wrong != question.answer)


def _arithmetic(question: Question, rng: np.random.Generator) -> Question:
    left, right = (int(value) for value in rng.integers(1, 5, size=2))
    text, total = f"What is {left} plus {right}?", str(left + right)
    return replace(question, text=text, answer=total, group="text", text_only=True)


def _background(view: View, rng: np.random.Generator) -> Image.Image:
    if view.skill == "photograph" or view.background == "picture":
        scene = scenes()[view.scene if view.skill == "photograph" else int(rng.integers(len(scenes())))].picture
        side = int(min(scene.size) * rng.uniform(0.5, 0.9))
        left, top = (int(rng.integers(0, edge - side + 1)) for edge in scene.size)
        piece = scene.crop((left, top, left + side, top + side)).resize((EDGE, EDGE), Image.Resampling.BICUBIC)
        if view.skill == "photograph":
            return _weathered(piece, view.background, rng)
        return Image.blend(piece.filter(ImageFilter.GaussianBlur(2)), Image.new("RGB", piece.size, "grey"), 0.5)
    return _weathered(Image.new("RGB", (EDGE, EDGE), (128, 128, 128)), view.background, rng)


def _weathered(picture: Image.Image, background: str, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(picture, dtype=np.float64).copy()
    if background == "noise":
        pixels += rng.normal(0, 25, size=pixels.shape)
    elif background == "stripes":
        pixels[:: int(rng.integers(5, 9))] *= 0.6
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _objects(canvas: Image.Image, view: View, rng: np.random.Generator) -> None:
    pen, colour = ImageDraw.Draw(canvas), COLOURS[view.colour]
    if view.skill == "count":
        cells = rng.permutation(9)[: view.number]
        for cell in cells:
            _shape(pen, view.shape, 8 + 16 * (cell % 3), 8 + 16 * (cell // 3), 5, colour)
        return
    radius = int(rng.integers(7, 11))
    across, down = view.quarter % 2, view.quarter // 2
    jitter = rng.integers(-2, 3, size=2)
    _shape(pen, view.shape, 12 + 24 * across + int(jitter[0]), 12 + 24 * down + int(jitter[1]), radius, colour)


def _shape(pen: ImageDraw.ImageDraw, shape: str, x: int, y: int, radius: int, colour: tuple[int, int, int]) -> None:
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    elif shape == "triangle":
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=colour)
    else:
        thin = max(1, radius // 3)
        pen.rectangle((x - radius, y - thin, x + radius, y + thin), fill=colour)
        pen.rectangle((x - thin, y - radius, x + thin, y + radius), fill=colour)


def texts(questions: list[Question]) -> Iterator[str]:
    """Every text of the questions, for a tokenizer."""
    for one in questions:
        yield one.text
        yield one.answer
