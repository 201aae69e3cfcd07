"""Statistics of response tokens: the golden formulas, and the chunked form against them."""

import numpy as np
import pytest
import torch

from tasks.linalg.tokens import mean_by_group, score_tokens
from tasks.vlm import vocabulary


@pytest.fixture(scope="module")
def tokens(golden):
    return np.load(golden / "methods/token_scores.npz")


@pytest.fixture(scope="module")
def scored(tokens):
    """Every scored token: its row, the place of its label, the logits before it, the label."""
    rows, places = np.nonzero(tokens["labels"][:, 1:] != tokens["ignore_index"])
    places = places + 1
    return rows, places, tokens["logits"][rows, places - 1], tokens["labels"][rows, places]


@pytest.mark.parametrize("name", ["nll", "el2n", "margin", "entropy"])
def test_token_values_equal_the_reference(tokens, scored, name):
    rows, places, logits, labels = scored
    expected = tokens[f"token_{name}"]
    np.testing.assert_allclose(score_tokens(logits, labels)[name], expected[rows, places], rtol=1e-10, atol=1e-10)
    assert np.isnan(np.delete(expected.reshape(-1), rows * expected.shape[1] + places)).all()


@pytest.mark.parametrize(
    ("name", "row"), [("nll", "mean_nll"), ("el2n", "el2n"), ("margin", "margin"), ("entropy", "mean_entropy")]
)
def test_row_values_equal_the_reference(tokens, scored, name, row):
    rows, _, logits, labels = scored
    means = mean_by_group(score_tokens(logits, labels)[name], rows, len(tokens["labels"]))
    np.testing.assert_allclose(means, tokens[row], rtol=1e-10, atol=1e-10)
    if name == "nll":
        np.testing.assert_allclose(np.exp(means), tokens["perplexity"], rtol=1e-10)


def test_values_equal_the_official_functions(tokens, scored):
    rows, places, logits, labels = scored
    scores = score_tokens(logits, labels)
    order = {(row, place): at for at, (row, place) in enumerate(zip(rows, places, strict=True))}
    chosen = [order[row, place] for row, place in map(tuple, tokens["positions"])]
    np.testing.assert_allclose(scores["el2n"][chosen], tokens["token_el2n_official"], atol=2e-6)
    np.testing.assert_allclose(-scores["margin"][chosen], tokens["token_neg_margin_official"], atol=2e-6)
    for name in ("el2n", "margin"):
        means = mean_by_group(scores[name], rows, len(tokens["labels"]))
        np.testing.assert_allclose(np.nan_to_num(means), tokens[f"{name}_official_fp16"], atol=2e-3)


@pytest.mark.parametrize("chunk", [1, 7, 50, 1 << 24])
@pytest.mark.parametrize("scale", [1.0, 40.0])
@pytest.mark.parametrize("bias", [False, True])
def test_chunks_of_the_vocabulary_give_the_same(chunk, scale, bias, monkeypatch):
    monkeypatch.setattr(vocabulary, "CHUNK_ELEMENTS", chunk * 9)
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 31, bias=bias, dtype=torch.float64)
    hidden, tokens = torch.randn(9, 6, dtype=torch.float64) * scale, torch.randint(31, (9,))
    found = vocabulary.score_tokens(hidden, tokens, head)
    expected = score_tokens(head(hidden).detach().numpy(), tokens.numpy())
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].numpy(), values, rtol=1e-9, atol=1e-12)


def test_a_sure_token_keeps_its_digits():
    scores = score_tokens(np.array([[30.0, 0.0, 0.0]]), np.array([0]))
    other = np.exp(-30.0)
    np.testing.assert_allclose(scores["el2n"], np.sqrt(6) * other, rtol=1e-12)


def test_a_group_without_values_has_no_mean():
    means = mean_by_group(np.array([1.0, 3.0]), np.array([2, 2]), 4)
    assert np.isnan(means[[0, 1, 3]]).all()
    assert means[2] == 2
