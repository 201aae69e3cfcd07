"""Samples that share an image share the work on it, and their features stay what each has alone."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch

from tasks.params import parse
from tasks.vlm import sharing
from tasks.vlm.batch import collate
from tasks.vlm.extractor import Extractor
from tasks.vlm.forward import Taps
from tests.tasks.vlm import twin
from tests.tasks.vlm.test_families import sample_of
from tests.tasks.vlm.test_loading import pictures
from tests.tasks.vlm.zoo import FAMILIES

QUESTIONS = [
    "<image>\nIs it red? Yes or no",
    "<image>\nWhat is this, and what could one do with it?",
    "Tell me.\n<image>",
    "<image>\nIs it red? Yes or no",
]
PASSED_ONCE = ("llava", "llava_gqa", "llava_siglip", "llava_layers", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3")


def build(folder, name, **extract):
    FAMILIES[name](folder)
    tree = {"dataset": {"path": "x"}, "model": {"path": str(folder), "dtype": "float32"}, "extract": extract}
    return Extractor(parse(tree), tuple(extract.get("signals", ["attended"])), "cpu")


def prepare(extractor):
    """Four questions about one picture, one about another, one that shows both; each with the digests of its own."""
    asked = [(sample_of(0, question, "No"), ("a",)) for question in QUESTIONS]
    asked.append((sample_of(1, QUESTIONS[0], "No"), ("b",)))
    asked.append((sample_of(0, "<image> first and <image> second", "ok", images=2), ("a", "c")))
    samples = [
        replace(sample, images=tuple(replace(ref, sha256=key) for ref, key in zip(sample.images, keys, strict=True)))
        for sample, keys in asked
    ]
    shown = {"a": pictures(samples[0])[0], "b": pictures(samples[4])[0], "c": pictures(samples[5])[1]}
    return [extractor.preparer()(sample, [shown[ref.sha256] for ref in sample.images]) for sample in samples]


def passes(extractor, batch):
    """How many times each tower was entered, and how much went in: rows, patches or images."""
    seen = []
    name = "visual" if hasattr(extractor._model, "visual") else "vision_tower"
    tower = getattr(extractor._model, name)
    hook = tower.register_forward_pre_hook(
        lambda _, inputs, named: seen.append(len(inputs[0] if inputs else named["pixel_values"])), with_kwargs=True
    )
    values = extractor.compute(batch)
    hook.remove()
    return values, sum(seen)


@pytest.fixture(params=[name for name in FAMILIES if name != "smolvlm"])
def built(request, tmp_path):
    extractor = build(tmp_path, request.param)
    return request.param, tmp_path, extractor, prepare(extractor)


def test_features_equal_those_of_each_sample_alone(built):
    _, folder, extractor, prepared = built
    whole = twin.full_model(folder)
    together = extractor.compute(prepared)["attended"]
    for row, sample in enumerate(prepared):
        feature, kept = twin.attended(whole, sample)
        assert together["kept_tokens"][row] == kept
        assert np.linalg.norm(together["feature"][row] - feature) <= 1e-5 * np.linalg.norm(feature)


@pytest.mark.parametrize("name", PASSED_ONCE)
def test_the_tower_sees_each_distinct_image_once(name, tmp_path):
    extractor = build(tmp_path, name)
    if sharing.ENCODED not in inspect.signature(extractor._model.base_model.forward).parameters:
        pytest.skip("this transformers takes no output of the tower: every sample has a pass of its own")
    prepared = prepare(extractor)
    _, once = passes(extractor, [prepared[0], prepared[4], prepared[5]])
    alone = passes(extractor, [prepared[0]])[1]
    values, shared = passes(extractor, prepared)
    plain, separate = passes(extractor, [replace(one, images=("",) * len(one.images)) for one in prepared])
    assert shared == once
    assert separate == once + 4 * alone  # one picture stands in five of the samples
    np.testing.assert_allclose(values["attended"]["feature"], plain["attended"]["feature"], rtol=1e-5, atol=1e-6)


def test_deepstack_features_follow_their_images(tmp_path):
    extractor = build(tmp_path, "qwen3_vl", signals=["pooled"], pooled={"layers": [2], "parts": ["visual"]})
    prepared = prepare(extractor)
    together = extractor.compute(prepared)["pooled"]["feature"]
    alone = np.concatenate([extractor.compute([one])["pooled"]["feature"] for one in prepared])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_tokens_that_are_not_read_skip_the_mlp(tmp_path, monkeypatch):
    extractor = build(tmp_path, "llava")
    prepared = prepare(extractor)
    seen = []
    mlp = extractor._model.language_model.layers[0].mlp
    hook = mlp.gate_proj.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    whole = extractor.compute(prepared)["attended"]["feature"]
    # LLaVA's template puts the picture first, so four samples have one past.
    assert sum(seen) == sum(prepared[row].n_visual for row in (0, 4, 5))
    monkeypatch.setattr(sharing, "CHUNK_TOKENS", 7)
    np.testing.assert_allclose(extractor.compute(prepared)["attended"]["feature"], whole, rtol=1e-5, atol=1e-6)
    assert max(seen[1:]) == 7
    hook.remove()
    assert "forward" not in vars(mlp)


def test_a_layer_read_whole_is_computed_whole(tmp_path):
    extractor = build(tmp_path, "llava", signals=["attended", "pooled"])
    prepared = prepare(extractor)
    alone = np.concatenate([extractor.compute([one])["pooled"]["feature"] for one in prepared])
    np.testing.assert_allclose(extractor.compute(prepared)["pooled"]["feature"], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("taps", "lean"),
    [
        (Taps(rows=True, visual=frozenset({0})), True),
        (Taps(visual=frozenset({0}), layers=frozenset({0})), False),
        (Taps(visual=frozenset({2}), layers=frozenset({0})), True),
        (Taps(visual=frozenset({0}), layers=frozenset({1})), False),
        (Taps(attention=frozenset({1})), True),
        (Taps(final=True), False),
    ],
)
def test_only_the_deepest_layer_may_be_lean(taps, lean):
    assert taps.lean == lean
    assert (taps | Taps(final=True)).lean is False


def test_distinct_keys():
    assert sharing.distinct(["a", "b", "a", "c", "b"]) == ([0, 1, 3], [0, 1, 0, 2, 1])
    assert sharing.distinct(["", "", None]) == ([0, 1, 2], [0, 1, 2])
    assert sharing.distinct([]) == ([], [])


def test_images_laid_out_otherwise_are_not_picked_apart():
    pixels = torch.arange(6.0).view(6, 1)
    grids = torch.tensor([[1, 2, 1], [1, 2, 2]])
    assert sharing.select({"pixel_values": pixels}, [0], 5) is None
    assert sharing.select({"pixel_values": pixels, "image_sizes": grids}, [0], 6) is None
    assert sharing.select({"input_ids": pixels}, [0], 6) is None
    assert sharing.select({"pixel_values": pixels}, [4, 1], 6)["pixel_values"].tolist() == [[4], [1]]
    found = sharing.select({"pixel_values": pixels, "image_grid_thw": grids}, [1], 2)
    assert found["pixel_values"].flatten().tolist() == [2, 3, 4, 5]
    assert found["image_grid_thw"].tolist() == [[1, 2, 2]]


def test_a_past_is_shared_only_when_words_and_images_agree(tmp_path):
    prepared = prepare(build(tmp_path, "qwen2_vl"))
    keys = sharing.pasts(collate([*prepared, replace(prepared[0], images=("",))]))
    assert keys[0] == keys[1] == keys[3]
    assert len({keys[0], keys[2], keys[4], keys[5]}) == 4
    assert keys[6] is None
