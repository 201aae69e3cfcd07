"""Gradients equal plain autograd on the whole model, sample by sample; the projection equals its matrix."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.errors import ModelError
from tasks.methods.ost import exact_drop
from tasks.params import GradientsSettings
from tasks.vlm.extractor import Extractor, describe
from tasks.vlm.gradients import Gradients, projectors, response_loss
from tests.tasks.vlm import twin, zoo
from tests.tasks.vlm.test_deep_signals import ANSWERED, extracted, settings
from tests.tasks.vlm.test_families import SAMPLES, pictures
from tests.tasks.vlm.test_projection import whole


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl", "qwen3_vl", "idefics3"])
def folder(request, tmp_path_factory):
    made = tmp_path_factory.mktemp(request.param)
    zoo.FAMILIES[request.param](made)
    return made


PREFIXES = {
    "llava": ("model.multi_modal_projector.",),
    "qwen2_5_vl": ("model.visual.merger.",),
    "qwen3_vl": ("model.visual.merger.", "model.visual.deepstack_merger_list."),
    "idefics3": ("model.connector.",),
}


def naive(folder, sample, prefixes):
    """(loss, gradient) from the whole model's own logits, all of them, in float64."""
    model = twin.full_model(folder).double().requires_grad_(True)
    model.zero_grad()
    inputs = {name: one.double() if one.is_floating_point() else one for name, one in sample.inputs.items()}
    logits = model(**inputs).logits[0]
    losses = [
        -torch.log_softmax(logits[place - 1], -1)[inputs["input_ids"][0, place]]
        for place in sample.answer.nonzero().squeeze(1).tolist()
    ]
    loss = torch.stack(losses).mean()
    loss.backward()
    found = [one.grad for name, one in model.named_parameters() if name.startswith(tuple(prefixes))]
    model.float()
    return float(loss.detach()), torch.cat([one.reshape(-1) for one in found]).numpy()


@pytest.mark.parametrize("parameters", ["projector", "last_layer"])
def test_gradients_equal_plain_autograd(folder, request, parameters):
    family = request.node.callspec.params["folder"]
    chosen = settings(folder, signals=["gradients"], gradients={"parameters": parameters, "dimension": 100})
    extractor, prepared, found = extracted(chosen, ANSWERED, ("gradients",))
    layer = {"idefics3": "model.text_model.layers.2."}.get(family, "model.language_model.layers.2.")
    prefixes = PREFIXES[family] if parameters == "projector" else (layer,)
    table, projection = found["gradients"], extractor._gradients._projection
    matrix = whole(projection, projection.size) / projection._dimension**0.5
    for row, sample in enumerate(prepared):
        loss, gradient = naive(folder, sample, prefixes)
        assert gradient.shape == (projection.size,)
        np.testing.assert_allclose(table["nll"][row], loss, rtol=1e-4)
        # The zoo's sharp attention costs float32 four digits against float64.
        np.testing.assert_allclose(table["norm"][row], np.linalg.norm(gradient), rtol=1e-3)
        difference = np.linalg.norm(table["feature"][row] - gradient @ matrix.numpy())
        assert difference <= 1e-3 * np.linalg.norm(gradient)
        assert table["tokens"][row] == sample.answer.sum()
    described = describe(chosen, ("gradients",))
    assert described.matrices == {"gradients": {"feature": table["feature"].shape[1]}}
    assert {name for name, _ in described.statistics["gradients"]} == set(table) - {"feature"}


@pytest.mark.parametrize(("layers", "first"), [(1, 2), (None, 0)])
def test_adapters_see_the_layers_own_gradient_through_their_lower_half(folder, layers, first):
    lora = {"parameters": "lora", "rank": 2, "layers": layers}
    extractor, prepared, _ = extracted(settings(folder, gradients=lora), ANSWERED[:1], ("gradients",))
    gradients = extractor._gradients
    loss, found = gradients.differentiate(extractor.stage(prepared).whole)
    model = twin.full_model(folder).requires_grad_(True)
    linear = [
        one
        for layer in list(model.get_decoder().layers)[first:]
        for one in layer.modules()
        if isinstance(one, torch.nn.Linear)
    ]
    sample = prepared[0]
    places = sample.answer.nonzero().squeeze(1)
    logits = model(**sample.inputs).logits[0, places - 1]
    expected = torch.nn.functional.cross_entropy(logits, sample.inputs["input_ids"][0, places])
    every = torch.autograd.grad(expected, [one.weight for one in linear])
    parts = [grad @ one.down.T for grad, one in zip(every, gradients._adapters, strict=True)]
    expected_flat = torch.cat([one.reshape(-1) for one in parts])
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    assert torch.linalg.norm(found - expected_flat) <= 1e-4 * torch.linalg.norm(expected_flat)
    assert torch.linalg.norm(found) > 0


def test_batches_and_their_order_change_nothing(folder):
    chosen = settings(folder, gradients={"dimension": 64})
    extractor, prepared, found = extracted(chosen, ANSWERED, ("gradients",))
    backwards = extractor.compute(prepared[::-1])["gradients"]["feature"][::-1]
    alone = np.concatenate([extractor.compute([one])["gradients"]["feature"] for one in prepared])
    np.testing.assert_allclose(backwards, found["gradients"]["feature"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(alone, found["gradients"]["feature"], rtol=1e-5, atol=1e-7)


def test_gradients_share_the_model_with_other_signals(folder):
    chosen = settings(folder, signals=["attended", "answers", "gradients"], gradients={"parameters": "last_layer"})
    extractor, prepared, found = extracted(chosen, ANSWERED, ("attended", "answers", "gradients"))
    np.testing.assert_allclose(found["gradients"]["nll"], found["answers"]["nll"], rtol=1e-5)
    for name in found:
        alone = Extractor(chosen, (name,), "cpu").compute(prepared)[name]
        for column, values in alone.items():
            np.testing.assert_allclose(found[name][column], values, rtol=1e-5, atol=1e-6)
    assert not any(one.grad is not None for one in extractor._model.parameters())


def test_what_decides_a_gradient_is_in_the_fingerprint(folder):
    def fingerprint(**changes):
        return describe(settings(folder, gradients=changes), ("gradients",)).fingerprints["gradients"]

    anchors = {"anchor": {"path": "elsewhere.json"}}
    assert fingerprint() == fingerprint(anchors=anchors)
    changes = [{"parameters": "lora"}, {"seed": 1}, {"dimension": 8}, {"projection": "gaussian"}]
    assert len({fingerprint(), *(fingerprint(**one) for one in changes)}) == 5


def test_a_model_without_projector_is_refused(tmp_path):
    zoo.llava(tmp_path)
    model = twin.full_model(tmp_path)
    assert [type(one).__name__ for one in projectors(model)] == ["LlavaMultiModalProjector"]
    chosen = settings(tmp_path, gradients={"parameters": "projector"})
    extractor = Extractor(chosen, ("gradients",), "cpu")
    extractor._model.model.multi_modal_projector = torch.nn.Identity()
    with pytest.raises(ModelError, match="last_layer or lora"):
        Gradients(extractor._model, GradientsSettings())


def test_the_step_itself_lowers_the_anchors_loss_as_the_inner_product_says(tmp_path):
    """OST's simulated step on a real model: first order is its limit."""
    zoo.llava(tmp_path)
    chosen = settings(tmp_path, signals=["gradients"], gradients={"parameters": "last_layer"})
    extractor = Extractor(chosen, ("gradients",), "cpu")
    prepare = extractor.preparer()
    model = twin.full_model(tmp_path).double().requires_grad_(False)
    samples = [extractor.stage([prepare(one, pictures(one))]).whole.to(model.device, torch.float64) for one in SAMPLES]
    gradients = Gradients(model, chosen.extract.gradients)
    rows = np.stack([gradients.differentiate(one)[1].double().numpy() for one in samples])
    pool, anchors = [0, 2, 3], [1, 4]

    @torch.no_grad()
    def anchor_loss(theta):
        torch.nn.utils.vector_to_parameters(torch.from_numpy(theta), gradients.parameters)
        return float(np.mean([float(response_loss(model, samples[one])) for one in anchors]))

    theta = torch.nn.utils.parameters_to_vector(gradients.parameters).detach().numpy()
    predicted = rows[pool] @ rows[anchors].mean(axis=0)
    wrong = []
    for step in (1.0, 0.1, 0.01):
        drop = exact_drop(anchor_loss, theta, rows[pool] / np.linalg.norm(rows[pool], axis=1, keepdims=True), step)
        expected = predicted / np.linalg.norm(rows[pool], axis=1)
        wrong.append(np.abs(drop / step - expected).max() / np.abs(expected).max())
    assert 5 * wrong[2] < wrong[1] < wrong[0]
    # Below, RMSNorm, float32 in any model, drowns the difference of two losses.
    assert wrong[2] < 0.02


def write_anchors(folder):
    """Two trusted rows of a dataset, each with a picture of its own."""
    rows = []
    for number, (question, answer) in enumerate([("what colour is it?", "red"), ("how many?", "three of them")]):
        Image.new("RGB", (40, 30), (number * 200, 10, 99)).save(folder / f"{number}.png")
        said = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": said})
    (folder / "anchors.json").write_text(json.dumps(rows))
    return {"anchor": {"path": str(folder / "anchors.json"), "image_root": str(folder)}}


@pytest.mark.parametrize("parameters", ["last_layer", "lora"])
@pytest.mark.parametrize("along", ["unit", "sgd", "adam"])
def test_steps_are_taken_and_taken_back(tmp_path, parameters, along):
    zoo.llava(tmp_path)
    anchors = write_anchors(tmp_path)
    size = {"unit": 0.5, "sgd": 0.5, "adam": 0.01}[along]
    fields = {"parameters": parameters, "anchors": anchors, "dimension": 16}
    chosen = settings(tmp_path, signals=["gradients"], gradients={**fields, "step": size, "step_along": along})
    extractor, prepared, found = extracted(chosen, SAMPLES[:3], ("gradients",))
    gradients = extractor._gradients
    kept = [one.detach().clone() for one in gradients.parameters]
    trusted = extractor._anchors(extractor.preparer())
    assert len(trusted) == 2

    def anchor_loss(theta):
        with torch.no_grad(), gradients._adapted():
            torch.nn.utils.vector_to_parameters(torch.from_numpy(theta).float(), gradients.parameters)
            return float(np.mean([float(response_loss(extractor._model, one)) for one in trusted]))

    theta = torch.nn.utils.parameters_to_vector(gradients.parameters).detach().double().numpy()
    rows = np.stack([gradients.differentiate(extractor._collate([one]))[1].double().numpy() for one in prepared])
    if along == "adam":
        rows = rows / (np.abs(rows) + 1e-8)
    drop = exact_drop(anchor_loss, theta, rows, size, normalise=along == "unit")
    assert np.abs(drop).min() > 1e-5
    np.testing.assert_allclose(found["gradients"]["drop"], drop, rtol=0.02, atol=2e-6)
    torch.nn.utils.vector_to_parameters(torch.from_numpy(theta).float(), gradients.parameters)
    for one, before in zip(gradients.parameters, kept, strict=True):
        assert torch.equal(one, before)
    again = extractor.compute(prepared)["gradients"]["drop"]
    np.testing.assert_array_equal(again, found["gradients"]["drop"])


def test_steps_and_their_anchors_are_in_the_fingerprint(tmp_path):
    zoo.llava(tmp_path)
    anchors = write_anchors(tmp_path)

    def fingerprint(**changes):
        chosen = settings(tmp_path, gradients={"anchors": anchors, **changes})
        described = describe(chosen, ("gradients",))
        assert ("drop" in dict(described.statistics["gradients"])) == ("step" in changes)
        return described.fingerprints["gradients"]

    seen = {fingerprint(), fingerprint(step=0.1), fingerprint(step=0.2), fingerprint(step=0.1, step_along="adam")}
    Image.new("RGB", (40, 30), (1, 2, 3)).save(tmp_path / "0.png")
    seen.add(fingerprint(step=0.1))
    assert len(seen) == 5
    with pytest.raises(ValueError, match=r"extract\.gradients\.anchors\.anchor"):
        GradientsSettings(step=0.1)
