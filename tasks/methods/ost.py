"""OST (One-Step-Train): how much one training step on the row lowers the loss on trusted anchor rows.

First-order form: drop_i = eta <v, g_i> + O(eta^2), with g_i the row's gradient and v the mean gradient of the anchors;
the score is <v, g_i>, which ranks as the drop does for small steps (Spearman 0.8 at step 0.5 and 0.9996 at 0.001 on a
logistic model). Exact form: the step itself, taken while gradients are extracted (`extract.gradients.step`), or by
`exact_drop` for a loss of your own. Rows of negative score raise the anchors' loss: "toxic".
Source: arXiv 2605.07488. Its step size, optimiser and parameters are not published, so they are options.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tasks.errors import FeatureError
from tasks.linalg.matrix import Matrix, buffer_rows, rebatched
from tasks.linalg.rounding import settle
from tasks.methods.anchors import draw, hold_out
from tasks.methods.contract import Columns, Notes, Tables, signal_of
from tasks.methods.windows import finite_column

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """How gradients become a score.

    step: first_order; exact: the column `<features>.drop`, what a step on the row took off the anchors' loss.
    features: the gradients; their anchors are `<features>.anchor` where given, else `anchors` rows (at most a tenth)
        drawn from the pool, stratified by source, by `seed`, and held out: they rank last.
    normalise: none; sample (by the row's gradient norm: no preference for short answers of high loss); cosine.
    optimiser: sgd, or adam: gradients divided by the root mean square of each coordinate over the pool.
    """

    step: Literal["first_order", "exact"] = "first_order"
    features: str = "gradients"
    anchors: Annotated[int, Field(gt=0)] = 100
    seed: int = 0
    normalise: Literal["none", "sample", "cosine"] = "sample"
    optimiser: Literal["sgd", "adam"] = "sgd"


def signals(options: Options) -> tuple[str, ...]:
    """The signal of the gradients."""
    return (signal_of(options.features),)


def score(tables: Tables, options: Options) -> Columns:
    """`score`; `utility`, the same before held-out anchors are put last; `error`, its standard error over the anchors
    (first order); `toxic`, 1.0 where the utility is negative; `anchor`, 1.0 for held-out rows."""
    return explain(tables, options)[0]


def explain(tables: Tables, options: Options) -> tuple[Columns, Notes]:
    """What `score` gives, and how many rows are toxic and how many anchors were used.

    For the exact step, where gradients of the anchors are at hand, also how far first order ranks rows alike.
    """
    return _exact(tables, options) if options.step == "exact" else _first_order(tables, options)


def _exact(tables: Tables, options: Options) -> tuple[Columns, Notes]:
    name = f"{options.features}.drop"
    if name not in tables.columns:
        raise FeatureError(f"no column `{name}`: set extract.gradients.step to the size of the step, or pass --file")
    drop = finite_column(tables, name)
    toxic = drop < 0
    columns = {"score": drop, "utility": drop, "toxic": toxic.astype(np.float64), "anchor": np.zeros(len(drop))}
    facts: dict[str, float | int | str] = {"toxic_rows": int(toxic.sum())}
    if f"{options.features}.anchor" in tables.matrices and len(drop) and np.ptp(drop):
        from scipy.stats import spearmanr  # half a second that only this needs

        cheap = _first_order(tables, options)[0]["utility"]
        if np.ptp(cheap):
            facts["rank_agreement_with_first_order"] = float(spearmanr(drop, cheap).statistic)
    return columns, Notes(facts)


def _first_order(tables: Tables, options: Options) -> tuple[Columns, Notes]:
    gradients = tables.matrix(options.features)
    anchors, held = _anchors(tables, gradients, options)
    scale = preconditioner(gradients) if options.optimiser == "adam" else None
    utility, error = first_order(gradients, anchors, options.normalise, scale)
    toxic = utility < 0
    columns = {
        "score": hold_out(utility, held),
        "utility": utility,
        "error": error,
        "toxic": toxic.astype(np.float64),
        "anchor": np.isin(np.arange(len(tables)), held).astype(np.float64),
    }
    return columns, Notes({"toxic_rows": int(toxic.sum()), "anchors": len(anchors), "held_out": len(held)})


def first_order(
    gradients: Matrix, anchors: Floats, normalise: str = "none", scale: Floats | None = None
) -> tuple[Floats, Floats]:
    """(n,) utilities <v, scale * g_i> and their (n,) standard errors over the (m, d) anchors; zero gradients score 0.

    normalise: "sample" divides by the length of the step scale * g_i, "cosine" by |v| too.
    """
    n, d = gradients.shape
    anchors = np.asarray(anchors, dtype=np.float64)
    mean = anchors.mean(axis=0) if len(anchors) else np.zeros(d)
    utility, error = np.empty(n), np.empty(n)
    for start, block in rebatched(gradients, min(buffer_rows(n, d), 8192)):
        steps = block.astype(np.float64) * (1.0 if scale is None else scale)
        length = _lengths(steps, mean, normalise)
        rows = slice(start, start + len(block))
        utility[rows] = (steps * mean).sum(axis=1) / length
        spread = (steps @ anchors.T).std(axis=1, ddof=1) if len(anchors) > 1 else np.zeros(len(block))
        error[rows] = spread / np.sqrt(max(1, len(anchors))) / length
    return settle(utility), settle(error)


def preconditioner(gradients: Matrix, epsilon: float = 1e-8) -> Floats:
    """(d,) 1 / (root mean square over the rows + epsilon): Adam's step at the start, with the pool as its history."""
    n, d = gradients.shape
    total = np.zeros(d)
    for _, block in rebatched(gradients, min(buffer_rows(n, d), 8192)):
        total += np.square(block.astype(np.float64)).sum(axis=0)
    return np.asarray(1.0 / (np.sqrt(total / max(1, n)) + epsilon))


def exact_drop(
    anchor_loss: Callable[[Floats], float], theta: Floats, gradients: Floats, eta: float, normalise: bool = False
) -> Floats:
    """(n,) L_V(theta) - L_V(theta - eta g_i), each row's step taken from the same theta; g_i / |g_i| if `normalise`."""
    before = anchor_loss(theta)
    lengths = np.linalg.norm(gradients, axis=1, keepdims=True)
    steps = gradients / np.where(lengths > 0, lengths, 1.0) if normalise else gradients
    return np.array([before - anchor_loss(theta - eta * step) for step in steps])


def _lengths(steps: Floats, mean: Floats, normalise: str) -> Floats | float:
    if normalise == "none":
        return 1.0
    lengths = np.sqrt(np.square(steps).sum(axis=1))
    if normalise == "cosine":
        lengths = lengths * np.sqrt(np.square(mean).sum())
    return np.asarray(np.where(lengths > 0, lengths, 1.0))


def _anchors(tables: Tables, gradients: Matrix, options: Options) -> tuple[Floats, NDArray[np.int64]]:
    """Anchor gradients (m, d), and the rows of the pool that were held out for them."""
    name = f"{options.features}.anchor"
    if name in tables.matrices:
        given = tables.reference(name)
        return given.take(np.arange(given.shape[0])).astype(np.float64), np.empty(0, dtype=np.int64)
    rows = draw(tables, min(options.anchors, max(1, len(tables) // 10)), options.seed)
    return gradients.take(rows).astype(np.float64), rows
