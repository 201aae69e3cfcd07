"""Rendering a conversation with the model's chat template, knowing where every turn's text came to stand.

Each piece of text is rendered between two marks that occur nowhere else; taking the marks out again must give exactly
what the template renders without them, so a position is either proven or refused. Nothing is searched for by its text:
an answer that also stands in the question is no problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from tasks.errors import ModelError
from tasks.problem import Problem
from tasks.sample import IMAGE_PLACEHOLDER, Turn

# Private-use characters, planes 15 and 16: nobody's text, and no template's.
OPEN, CLOSE = "\U000f5ca1", "\U00105ca1"

IMAGE = None
"""The piece of content that is an image."""

Content = list[str | None]
"""A turn's pieces in order: texts and images."""


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of the rendered text that are a turn's own words, edge white space left out."""

    role: str
    start: int
    end: int


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model will read it, with one image placeholder per image, and where each turn's text is."""

    text: str
    spans: tuple[Span, ...]


def pieces(content: str) -> Content:
    """Text and images of a turn in order. A newline beside an image is the dataset's separator, not the turn's words:
    templates bring their own."""
    parts = content.split(IMAGE_PLACEHOLDER)
    result: Content = []
    for index, part in enumerate(parts):
        text = part.lstrip("\n") if index else part
        text = text.rstrip("\n") if index < len(parts) - 1 else text
        result += [IMAGE] if index else []
        result += [text] if text else []
    return result


def official_pieces(turns: Sequence[Turn], image_token: str, keep_empty: bool) -> list[tuple[str, Content]]:
    """Turns as the official ScalSelect code builds them: all images at the start of the first user turn.

    Placeholders and white space around that turn's text go; an empty turn is left out, unless `keep_empty`. Later turns
    keep their text, except a placeholder that this model would take for an image.
    """
    images = sum(turn.content.count(IMAGE_PLACEHOLDER) for turn in turns)
    built: list[tuple[str, Content]] = []
    for turn in turns:
        content: Content = []
        text = turn.content
        if turn.role == "user" and images:
            content, images = [IMAGE] * images, 0
            text = text.replace(IMAGE_PLACEHOLDER, "").replace("<img>", "").strip()
        elif image_token == IMAGE_PLACEHOLDER:
            text = text.replace(IMAGE_PLACEHOLDER, "")
        content += [text] if text else []
        if content or keep_empty:
            built.append((turn.role, content))
    return built


class Template:
    """A processor's chat template, used in the form of message content it understands.

    Some templates iterate over a list of typed parts, some expect a string in all turns or in all but the user's.
    The form is found once, by rendering a conversation whose right rendering is known.
    """

    def __init__(self, processor: Any, image_token: str) -> None:
        if not getattr(processor, "chat_template", None) and not getattr(processor.tokenizer, "chat_template", None):
            raise ModelError(
                "the checkpoint has no chat template, so turns cannot be rendered; add chat_template.jinja"
            )
        self._processor = processor
        self._image_token = image_token
        self._form = self._find_form()

    def render(self, conversation: Sequence[tuple[str, Content]]) -> Rendered | Problem:
        """Render, and place every piece of text. A Problem when the template refuses or alters what it is given."""
        try:
            return self._place(conversation, self._form)
        except TemplateError as error:
            return Problem("not_renderable", f"the chat template does not take this conversation: {error}")

    def text(self, conversation: Sequence[tuple[str, Content]]) -> str:
        """Only the rendered text. Raises jinja2.TemplateError where the template refuses."""
        return self._render(conversation, self._form, mark=False)

    def _find_form(self) -> tuple[str, str]:
        probe: list[tuple[str, Content]] = [("user", [IMAGE, "one"]), ("assistant", ["two"]), ("user", ["three"])]
        trouble = ""
        for form in (("list", "list"), ("list", "string"), ("string", "string")):
            try:
                placed = self._place(probe, form)
            except (TemplateError, TypeError, AttributeError, KeyError) as error:
                trouble = str(error)
                continue
            if isinstance(placed, Rendered):
                return form
            trouble = placed.detail
        raise ModelError(f"the chat template renders no content form that we know how to place: {trouble}")

    def _place(self, conversation: Sequence[tuple[str, Content]], form: tuple[str, str]) -> Rendered | Problem:
        images = sum(piece is IMAGE for _, content in conversation for piece in content)
        plain = self._render(conversation, form, mark=False)
        if plain.count(self._image_token) != images:
            return Problem(
                "image_token_in_text",
                f"rendered, the conversation holds {plain.count(self._image_token)} image tokens for {images} images",
            )
        if OPEN in plain or CLOSE in plain:
            return Problem("span_unplaced", "the text uses the private characters that mark spans")
        texts = [
            (role, core) for role, content in conversation for piece in content if piece and (core := piece.strip())
        ]
        return _spans(self._render(conversation, form, mark=True), plain, texts)

    def _render(self, conversation: Sequence[tuple[str, Content]], form: tuple[str, str], mark: bool) -> str:
        messages = []
        for role, content in conversation:
            marked = [_mark(piece) if mark and piece is not IMAGE else piece for piece in content]
            shape = form[0] if role == "user" else form[1]
            messages.append(
                {"role": role, "content": self._as_list(marked) if shape == "list" else self._as_text(marked)}
            )
        return str(self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=False))

    def _as_list(self, content: Content) -> list[dict[str, str]]:
        # A turn without words still is a turn, and templates index its parts.
        return [{"type": "image"} if one is IMAGE else {"type": "text", "text": one} for one in content or [""]]

    def _as_text(self, content: Content) -> str:
        return "".join(self._image_token if one is IMAGE else one for one in content)


def _mark(piece: str | None) -> str:
    """The piece with marks around its words, inside its edge white space: templates may strip that."""
    text = piece or ""
    core = text.strip()
    if not core:
        return text
    start = text.index(core)
    return f"{text[:start]}{OPEN}{core}{CLOSE}{text[start + len(core) :]}"


def _spans(marked: str, plain: str, texts: Sequence[tuple[str, str]]) -> Rendered | Problem:
    """Positions of the marked texts in `plain`, or the Problem that they cannot be trusted."""
    spans, offset, position = [], 0, 0
    for role, core in texts:
        start = marked.find(OPEN, position)
        end = marked.find(CLOSE, start + 1)
        if start < 0 or end < 0 or marked[start + 1 : end] != core:
            return Problem("span_unplaced", f"the chat template drops, moves or changes the {role}'s text")
        spans.append(Span(role, start - offset, end - offset - 1))
        offset += 2
        position = end + 1
    if marked.replace(OPEN, "").replace(CLOSE, "") != plain:
        return Problem("span_unplaced", "the chat template renders this text differently depending on what it says")
    return Rendered(plain, tuple(spans))
