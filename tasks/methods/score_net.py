"""Self-Filter's score net: a linear map that learns to give hard rows little weight.

In a batch, w = softmax(theta . f) x batch size; the loss is the mean of w_i L_i, so theta learns to lower the weight of
rows with large loss L. Source: Self-Filter (arXiv 2402.12501), with the losses held fixed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def train(
    features: NDArray[np.float32],
    losses: Floats,
    order: NDArray[np.int64],
    epochs: int,
    batch: int,
    learning_rate: float,
    seed: int,
) -> Floats:
    """(d,) theta after `epochs` of Adam from zero, over batches drawn from `order`, a row order set by content."""
    rng = np.random.default_rng(seed)
    theta = np.zeros(features.shape[1])
    first, second = np.zeros_like(theta), np.zeros_like(theta)
    step = 0
    for _ in range(epochs):
        shuffled = order[rng.permutation(len(order))]
        for start in range(0, len(order), batch):
            rows = shuffled[start : start + batch]
            gradient = gradient_of(theta, features[rows].astype(np.float64), losses[rows])
            step += 1
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * np.square(gradient)
            scale = np.sqrt(second / (1 - 0.999**step)) + 1e-8
            theta = theta - learning_rate * first / (1 - 0.9**step) / scale
    return theta


def batch_loss(theta: Floats, features: Floats, losses: Floats) -> float:
    """sum_i softmax(theta . f)_i L_i over one batch."""
    return float(_weights(theta, features) @ losses)


def gradient_of(theta: Floats, features: Floats, losses: Floats) -> Floats:
    """(d,) gradient of `batch_loss`: sum_i w_i (L_i - mean_w L) f_i."""
    weights = _weights(theta, features)
    return np.asarray(((weights * (losses - weights @ losses))[:, None] * features).sum(axis=0))


def _weights(theta: Floats, features: Floats) -> Floats:
    logits = (features * theta).sum(axis=1)
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())
