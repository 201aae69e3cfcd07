"""Attention rows against the whole matrix, and the choice of leading tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ModelError
from tasks.vlm import capture
from tasks.vlm.batch import Prepared, collate, stack
from tasks.vlm.signals.attended import leading


def rows_of(length, *places):
    """(B, L) boolean, true at the places."""
    return torch.stack([torch.isin(torch.arange(length), torch.tensor(one)) for one in places])


def naive(query, key, asking, mask, scaling):
    """Every head's L x L probabilities in float64, then the rows; zeros where there are none."""
    heads, _, _ = query.shape
    group = heads // len(key)
    blocks = []
    for head in range(heads):
        logits = query[head].double() @ key[head // group].double().T * scaling
        blocks.append(logits.masked_fill(~mask, -torch.inf).softmax(-1)[asking])
    return torch.stack(blocks).mean((0, 1)) if asking.any() else torch.zeros(key.shape[1]).double()


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("chunk", [1, 1 << 24])
@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("masks", [1, 3])
def test_rows_equal_the_matrix(kv_heads, window, chunk, additive, masks, monkeypatch):
    monkeypatch.setattr(capture, "CHUNK_ELEMENTS", chunk)
    torch.manual_seed(0)
    query, key = torch.randn(3, 4, 17, 8) * 3, torch.randn(3, kv_heads, 17, 8)
    asking = rows_of(17, [8, 11, 16], [], [0, 3])
    positions = torch.arange(17)
    mask = positions[None] <= positions[:, None]
    if window:
        mask &= positions[None] > positions[:, None] - window
    given_mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min) if additive else mask
    expected = [naive(*one, mask, 0.3) for one in zip(query, key, asking, strict=True)]
    given = given_mask.expand(masks, 1, 17, 17)
    found = capture.mean_attention(query, key, given, asking, 0.3, causal=True)
    torch.testing.assert_close(found.double(), torch.stack(expected), rtol=1e-5, atol=1e-8)


def test_no_mask_means_causal_only_where_the_layer_is():
    query, key = torch.randn(2, 1, 2, 6, 4)
    asking = rows_of(6, [2])
    causal = capture.mean_attention(query, key, None, asking, 0.5, causal=True)
    both = capture.mean_attention(query, key, None, asking, 0.5, causal=False)
    assert (causal[0, 3:] == 0).all()
    assert (both > 0).all()


def test_no_instruction_gives_zeros():
    query, key = torch.randn(2, 1, 2, 6, 4)
    assert (capture.mean_attention(query, key, None, rows_of(6, []), 0.5, causal=True) == 0).all()


def test_rows_that_pad_the_table_may_see_nothing():
    query, key = torch.randn(2, 2, 2, 6, 4)
    asking = rows_of(6, [4, 5], [5])
    mask = torch.ones(6, 6, dtype=torch.bool).tril().expand(2, 1, 6, 6).clone()
    mask[1, :, :5] = False
    found = capture.mean_attention(query, key, mask, asking, 0.5, causal=True)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(1), torch.ones(2))


@pytest.mark.parametrize("option", capture.UNREADABLE)
def test_a_softmax_that_sdpa_does_not_know_is_refused_by_name(option):
    states = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ModelError, match=capture.UNREADABLE[option]):
        capture.attend(torch.nn.Identity(), states, states, states, None, **{option: torch.ones(1)})


def kept(values, threshold):
    """Leading tokens of one sample, in a row with tokens that are not visual before and after."""
    attention = torch.tensor([[0.0, *values, 0.0]])
    visual = torch.ones_like(attention).bool()
    visual[0, [0, -1]] = False
    return [place - 1 for place in leading(attention, visual, threshold)[0].nonzero().squeeze(1).tolist()]


def test_leading_tokens_at_the_edges():
    def chosen(values, threshold=0.9):
        return sorted(kept(values, threshold))

    assert chosen([5.0]) == [0]
    assert chosen([0.0, 0.0, 0.0, 0.0], 0.5) == [0, 1, 2]  # uniform; half is reached, not exceeded, by two
    assert chosen([1.0, 1.0, 1.0, 1.0], 0.5) == [0, 1, 2]  # ties keep their order
    assert chosen([1.0, 3.0], 0.5) == [1]
    assert chosen([0.1, 0.2, 0.7], 1.0) == [0, 1, 2]  # never exceeded: all


def test_leading_tokens_of_a_batch_are_those_of_its_samples():
    attention = torch.tensor([[0.0, 0.5, 0.0, 0.1], [0.2, 0.0, 0.2, 0.2], [0.0, 0.0, 0.0, 0.0]])
    visual = torch.tensor([[0, 1, 1, 1], [1, 0, 1, 1], [1, 0, 0, 1]]).bool()
    found = leading(attention, visual, 0.6)
    assert found.tolist() == [[0, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]]


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40), st.floats(0.05, 1.0))
def test_leading_tokens_are_the_shortest_prefix_above_the_threshold(values, threshold):
    attention = torch.tensor(values)
    order = sorted(kept(values, threshold), key=lambda place: -values[place])
    share = attention / attention.sum() if attention.sum() > 0 else torch.full_like(attention, 1 / len(values))
    ranked = np.sort(share.numpy())[::-1]
    mass = np.cumsum(ranked, dtype=np.float32)
    over = np.flatnonzero(mass > np.float32(threshold) + 1e-6)
    under = np.flatnonzero(mass > np.float32(threshold) - 1e-6)
    assert len(set(order)) == len(order)
    assert np.array_equal(share[order].numpy(), ranked[: len(order)])
    assert len(order) <= (over[0] + 1 if len(over) else len(values))
    assert len(order) >= (under[0] + 1 if len(under) else len(values))


def prepared(length, **inputs):
    mask = torch.zeros(length, dtype=torch.bool)
    ids = torch.arange(length)[None] + 100
    ones = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return Prepared({**ones, **inputs}, ~mask, mask, mask)


@pytest.mark.parametrize("side", ["left", "right"])
def test_collate_pads_tokens_and_no_mask(side):
    batch = collate([prepared(2), prepared(4)], pad_id=7, side=side)
    pad = [7, 7]
    assert batch.inputs["input_ids"][0].tolist() == ([*pad, 100, 101] if side == "left" else [100, 101, *pad])
    assert batch.visual.sum(1).tolist() == [2, 4]
    assert (batch.visual == batch.inputs["attention_mask"].bool()).all()
    assert not batch.answer.any()


def test_pixels_of_unequal_shape_are_stacked_with_zeros():
    joined = stack([torch.ones(1, 2, 3), torch.ones(2, 4, 1)])
    assert joined.shape == (3, 4, 3)
    assert joined.sum() == 6 + 8
    with pytest.raises(ValueError, match="zip"):
        stack([torch.ones(1, 2), torch.ones(1, 2, 3)])


def test_samples_without_images_may_stand_beside_samples_with():
    batch = collate([prepared(2), prepared(3, pixel_values=torch.ones(1, 3, 2, 2))])
    assert batch.inputs["pixel_values"].shape == (1, 3, 2, 2)
