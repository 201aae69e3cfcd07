"""Random projections: the same from any block layout and batch, and true to lengths."""

import numpy as np
import pytest
import torch

from tasks.vlm import projection
from tasks.vlm.projection import Projection

KINDS = ("rademacher", "gaussian")


def whole(made, size):
    step = made._step
    parts = [
        made.block(number, min(step, size - start), torch.device("cpu"))
        for number, start in enumerate(range(0, size, step))
    ]
    return torch.cat(parts).double()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [True, False])
def test_equals_its_matrix_across_blocks(monkeypatch, kind, kept):
    monkeypatch.setattr(projection, "BLOCK_ELEMENTS", 70 * 16)
    monkeypatch.setattr(projection, "KEPT_BYTES", 1 << 20 if kept else 0)
    made = Projection(100, 70, kind, seed=3)
    vectors = torch.randn(5, 100, generator=torch.manual_seed(0))
    matrix = whole(made, 100)
    expected = vectors.double() @ matrix / 70**0.5
    torch.testing.assert_close(made(vectors), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(made(vectors[2:3])[0], expected[2], rtol=1e-5, atol=1e-6)
    assert (len(made._drawn) > 0) is kept


def test_signs_are_fair_and_independent():
    signs = whole(Projection(4000, 100, "rademacher", seed=0), 4000)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.01
    products = signs.T @ signs / 4000
    assert (products - torch.eye(100)).abs().max() < 0.1


def test_streams_are_those_of_the_seed_alone():
    """The values themselves: features in stores were made with them."""
    assert projection.philox(5, 0, 2).random_raw(2).tolist() == [3430579453917391029, 4386087987739569091]
    row = Projection(4, 12, "rademacher", seed=5).block(0, 1, torch.device("cpu"))[0]
    assert row.tolist() == [1, -1, -1, -1, 1, -1, -1, 1, -1, -1, 1, 1]
    other = Projection(4, 12, "rademacher", seed=6).block(0, 1, torch.device("cpu"))[0]
    assert row.tolist() != other.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_and_inner_products_are_kept(kind):
    made = Projection(3000, 2048, kind, seed=1)
    vectors = torch.nn.functional.normalize(torch.randn(4, 3000, generator=torch.manual_seed(1)), dim=1)
    vectors[3] = (vectors[0] + vectors[1]) / 2
    got = made(vectors).numpy()
    np.testing.assert_allclose(got @ got.T, (vectors @ vectors.T).numpy(), atol=4 / 2048**0.5)
