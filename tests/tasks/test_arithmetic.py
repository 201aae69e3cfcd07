import sys

import numpy as np
import pytest

from tasks import arithmetic
from tasks.arithmetic import TorchProducts, choose_products
from tasks.linalg.leverage import leverage
from tasks.linalg.matrix import ArrayMatrix
from tasks.linalg.moments import measure
from tasks.linalg.products import HOST
from tasks.linalg.spectrum import from_moments
from tasks.params import RunSettings


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_gives_the_same_scores(device, dtype, monkeypatch):
    monkeypatch.setattr("tasks.linalg.moments.EXACT_PRODUCTS", 0)
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(3000, 20)) * np.geomspace(5, 0.1, 20)).astype(dtype)
    data[:, :2] += 300
    matrix = ArrayMatrix(data)
    scores = []
    for products in (HOST, TorchProducts(device)):
        spectrum = from_moments(measure(matrix, products))
        scores.append(leverage(matrix, spectrum, spectrum.rank_for(0.99), products=products))
    np.testing.assert_allclose(scores[0], scores[1], rtol=2e-5 if dtype == np.float32 else 1e-10)


def test_small_work_stays_on_the_cpu_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert choose_products(RunSettings(), arithmetic.GPU_PAYS - 1) is HOST
    assert choose_products(RunSettings(device="cpu"), 1 << 60) is HOST


def test_large_work_goes_to_the_first_device_named():
    chosen = choose_products(RunSettings(device="cuda:1, cuda:0"), 1 << 60)
    assert isinstance(chosen, TorchProducts)
    assert chosen.device == "cuda:1"


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    import torch

    for there, expected in ((True, TorchProducts), (False, type(HOST))):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert type(choose_products(RunSettings(), 1 << 60)) is expected
