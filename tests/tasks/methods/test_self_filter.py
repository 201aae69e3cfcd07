"""Self-Filter: the listed neighbours against comparing with every free row; the score net against its derivative."""

import numpy as np
import pytest

from tasks.linalg.matrix import ArrayMatrix
from tasks.linalg.neighbours import cosines
from tasks.methods.score_net import batch_loss, gradient_of, train
from tasks.methods.self_filter import filter_diverse


def naive(difficulty, x, budget, ranks, k, gamma, clamp):
    current, free, picks = difficulty.copy(), set(range(len(x))), []
    while len(picks) < budget:
        row = min(free, key=lambda one: (-current[one], ranks[one]))
        free.remove(row)
        picks.append(row)
        if clamp and current[row] <= 0:
            continue
        rows = np.array(sorted(free), dtype=int)
        cosine = cosines(np.repeat(x[row : row + 1], len(rows), axis=0).astype(float), x[rows].astype(float))
        nearest = np.lexsort((ranks[rows], -cosine))[:k]
        current[rows[nearest]] -= current[row] * cosine[nearest] ** 2 * gamma
    return picks


@pytest.mark.parametrize("clamp", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_listed_neighbours_give_the_same_picks(clamp, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(120, 5)).astype(np.float32)
    difficulty, ranks = rng.normal(size=120), rng.permutation(120)
    picks = filter_diverse(difficulty, ArrayMatrix(x), 120, ranks, 3, 1.0, clamp)
    assert picks.tolist() == naive(difficulty, x, 120, ranks, 3, 1.0, clamp)


def test_the_gradient_is_the_derivative_of_the_loss():
    rng = np.random.default_rng(0)
    features, losses, theta = rng.normal(size=(7, 4)), rng.normal(size=7), rng.normal(size=4)
    step = 1e-6
    slopes = [
        (batch_loss(theta + step * unit, features, losses) - batch_loss(theta - step * unit, features, losses))
        / (2 * step)
        for unit in np.eye(4)
    ]
    np.testing.assert_allclose(gradient_of(theta, features, losses), slopes, atol=1e-8)


def test_the_net_finds_what_is_hard():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(400, 6)).astype(np.float32)
    losses = features[:, 2].astype(float) + 3
    theta = train(features, losses, np.arange(400), epochs=5, batch=16, learning_rate=0.01, seed=0)
    assert np.corrcoef(-(features @ theta), losses)[0, 1] > 0.85
