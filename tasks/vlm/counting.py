"""How long a sample will be, without decoding its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import PIL.Image

from tasks.sample import Sample
from tasks.vlm.preparation import Preparer
from tasks.vlm.template import IMAGE

Sizes = tuple[tuple[int, int], ...]  # (height, width) of each image

# Sizes on which a processor's own arithmetic must agree with what it does before it is believed.
TRIALS = ((48, 64), (336, 336), (600, 200), (90, 777))


def counter(preparer: Preparer) -> Callable[[Sample], int]:
    """A function giving a sample's exact number of tokens, from its text and its images' recorded sizes.

    The function raises jinja2.TemplateError for a conversation that the template refuses.
    """
    lengths = expansions(preparer)

    def count(sample: Sample) -> int:
        conversation = preparer.conversation(sample)
        shown = sum(piece is IMAGE for _, content in conversation for piece in content)
        sizes = tuple((ref.height, ref.width) for ref in sample.images)
        text = preparer.processor.count(preparer.template.text(conversation))
        return text - shown + (lengths(sizes) if sizes else 0)

    return count


def expansions(preparer: Preparer) -> Callable[[Sizes], int]:
    """A function giving how many tokens images of these sizes become together, markers and tile rows included.

    One image goes by the processor's own arithmetic where it has one that proves right on TRIALS; otherwise blank
    images of those sizes are processed, once per distinct combination: exact for every family.
    """

    @lru_cache(maxsize=1 << 16)
    def blank(sizes: Sizes) -> int:
        return _process_blank(preparer, sizes)

    if not _arithmetic_holds(preparer, blank):
        return blank
    arithmetic = lru_cache(maxsize=1 << 16)(lambda size: _arithmetic(preparer, [size])[0])
    return lambda sizes: arithmetic(sizes[0]) if len(sizes) == 1 else blank(sizes)


def _process_blank(preparer: Preparer, sizes: Sizes) -> int:
    processor = preparer.processor
    text = processor.image_token * len(sizes)
    tokens = processor(text, [PIL.Image.new("RGB", (width, height)) for height, width in sizes])
    return tokens.inputs["input_ids"].shape[1] - processor.count(text) + len(sizes)


def _arithmetic_holds(preparer: Preparer, blank: Callable[[Sizes], int]) -> bool:
    try:
        claimed = _arithmetic(preparer, TRIALS)
    except (AttributeError, NotImplementedError, TypeError, KeyError, ValueError):
        return False
    return claimed == [blank((size,)) for size in TRIALS]


def _arithmetic(preparer: Preparer, sizes: Sequence[tuple[int, int]]) -> list[int]:
    found = preparer.processor.inner._get_num_multimodal_tokens(image_sizes=[list(size) for size in sizes])
    return [int(one) for one in found.num_image_tokens]
