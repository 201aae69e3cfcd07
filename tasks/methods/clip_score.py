"""CLIP-Score: cosine of the image's and the text's CLIP embedding; keep the highest.

Source: DICS, appendix B.3 (clip-vit-large-patch14, image against question); Self-Filter's extractor. Which text is
embedded (question, answer or both), and how several images are joined, is measured once: `extract.clip.text` and
`extract.clip.images`. Long texts are cut at the model's length and score lower: a length confound of the method.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.linalg.matrix import Matrix
from tasks.linalg.neighbours import cosines
from tasks.methods.contract import Columns, Tables, signal_of
from tasks.methods.windows import Window, finite_column, window_score

_ROWS = 4096


@dataclass(frozen=True)
class Options:
    """features, text: the two embeddings. window: which part of the ascending order to keep; published: top."""

    features: str = "clip.image"
    text: str = "clip.text"
    window: Window = "top"


def signals(options: Options) -> tuple[str, ...]:
    """CLIP or SigLIP embeddings of image and text."""
    return tuple(dict.fromkeys([signal_of(options.features), signal_of(options.text)]))


def score(tables: Tables, options: Options) -> Columns:
    """`score` by window, and `similarity` in [-1, 1]: the column `clip.similarity`, else from both embeddings."""
    known = "clip.similarity" in tables.columns
    values = (
        finite_column(tables, "clip.similarity")
        if known
        else similarity(tables.matrix(options.features), tables.matrix(options.text))
    )
    return {"score": window_score(values, tables.digests, options.window), "similarity": values}


def similarity(images: Matrix, texts: Matrix) -> NDArray[np.float64]:
    """(n,) cosine of each row of (n, d) images with the same row of texts, in float64; 0 where either is zero."""
    n = images.shape[0]
    values = np.empty(n)
    for start in range(0, n, _ROWS):
        rows = np.arange(start, min(start + _ROWS, n))
        values[rows] = cosines(images.take(rows).astype(np.float64), texts.take(rows).astype(np.float64))
    return values
