"""What is pickled comes back the same, and carries its own bytes."""

import pickle

import pytest
import torch

from tasks.vlm.batch import Prepared


def row(blind=None):
    mask = torch.tensor([True, False, True])
    inputs = {
        "input_ids": torch.tensor([[5, 6, 7]]),
        "pixel_values": torch.arange(12.0).bfloat16().reshape(1, 3, 2, 2).transpose(1, 2),
        "nothing": torch.zeros(0, 4),
    }
    return Prepared(inputs, mask, ~mask, mask & False, blind, ("ab", ""))


@pytest.mark.parametrize("blind", [None, row()])
def test_a_row_comes_back_as_it_left(blind):
    left = row(blind)
    came = pickle.loads(pickle.dumps(left))
    assert isinstance(came, Prepared)
    assert came.images == left.images
    for name, value in left.inputs.items():
        assert came.inputs[name].dtype == value.dtype
        assert torch.equal(came.inputs[name], value)
    assert torch.equal(came.visual, left.visual)
    assert (came.blind is None) == (blind is None)
    assert came.blind is None or torch.equal(came.blind.inputs["input_ids"], row().inputs["input_ids"])


def test_what_came_can_be_written_to():
    came = pickle.loads(pickle.dumps(row()))
    came.inputs["input_ids"][0, 0] = 9
    assert came.inputs["input_ids"].tolist() == [[9, 6, 7]]


def test_no_tensor_is_pickled_as_such():
    assert b"_rebuild_tensor" not in pickle.dumps(row(row()))
