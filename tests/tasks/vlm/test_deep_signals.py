"""`pooled` and `answers` against the whole model, alone and sharing one forward with `attended`."""

import numpy as np
import pytest
import torch

from tasks.errors import ModelError
from tasks.linalg.tokens import score_tokens
from tasks.params import parse
from tasks.vlm.extractor import Extractor, describe
from tasks.vlm.grouping import groups
from tasks.vlm.pruning import decoder
from tests.tasks.vlm import twin, zoo
from tests.tasks.vlm.test_families import SAMPLES, pictures

ANSWERED = [SAMPLES[0], SAMPLES[1], SAMPLES[4]]


@pytest.fixture(scope="module", params=["llava", "qwen3_vl", "idefics3"])
def folder(request, tmp_path_factory):
    made = tmp_path_factory.mktemp(request.param)
    zoo.FAMILIES[request.param](made)
    return made


def settings(folder, **extract):
    return parse({"dataset": {"path": "x"}, "model": {"path": str(folder), "dtype": "float32"}, "extract": extract})


def extracted(chosen, samples, signals):
    extractor = Extractor(chosen, signals, "cpu")
    prepare = extractor.preparer()
    prepared = [prepare(sample, pictures(sample)) for sample in samples]
    return extractor, prepared, extractor.compute(prepared)


@torch.no_grad()
def states(folder, sample, depth, tap):
    """Every layer's states of one sample, from the whole model, by hooks."""
    model, seen = twin.full_model(folder), []
    hooks = [
        (layer if tap == "residual" else layer.self_attn).register_forward_hook(
            lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out)
        )
        for layer in list(decoder(model).layers)[:depth]
    ]
    model(**sample.inputs)
    for hook in hooks:
        hook.remove()
    return [one[0].double() for one in seen]


@pytest.mark.parametrize(
    ("tap", "tanh"), [("residual", "none"), ("residual", "before"), ("attention", "none"), ("attention", "after")]
)
def test_pooled_equals_the_whole_model(folder, tap, tanh):
    pooled = {"layers": [0, 1], "tap": tap, "tanh": tanh, "normalise": tanh != "none"}
    chosen = settings(folder, signals=["pooled"], pooled=pooled)
    extractor, prepared, found = extracted(chosen, SAMPLES, ("pooled",))
    assert len(decoder(extractor._model).layers) == 2
    for row, sample in enumerate(prepared):
        halves = []
        for values in states(folder, sample, 2, tap):
            for mask in (sample.visual, sample.instruction | sample.answer):
                one = values[mask]
                one = one.tanh().mean(0) if tanh == "before" else one.mean(0)
                one = one.tanh() if tanh == "after" else one
                halves.append(one / one.norm() if pooled["normalise"] else one)
        expected = torch.cat(halves).numpy() / (len(halves) ** 0.5 if pooled["normalise"] else 1)
        difference = np.linalg.norm(found["pooled"]["feature"][row] - expected)
        assert difference <= 1e-5 * np.linalg.norm(expected)


def test_pooled_takes_parts_in_the_order_asked_for(folder):
    both = extracted(settings(folder, pooled={"parts": ["language", "visual"]}), SAMPLES, ("pooled",))[2]["pooled"]
    visual = extracted(settings(folder, pooled={"parts": ["visual"]}), SAMPLES, ("pooled",))[2]["pooled"]
    width = visual["feature"].shape[1]
    np.testing.assert_array_equal(both["feature"][:, width:], visual["feature"])
    description = describe(settings(folder, pooled={"parts": ["visual"], "layers": [0, 2]}), ("pooled",))
    assert description.matrices == {"pooled": {"feature": 2 * width}}


def test_a_layer_that_is_not_there_is_refused(folder):
    with pytest.raises(ModelError, match="layer 7"):
        describe(settings(folder, pooled={"layers": [7]}), ("pooled",))


@torch.no_grad()
def losses(model, sample):
    """Each answer token's scores from the full logits, shifted by one."""
    logits = model(**sample.inputs).logits[0].double()
    places = sample.answer.nonzero().squeeze(1)
    return places, score_tokens(logits[places - 1].numpy(), sample.inputs["input_ids"][0, places].numpy())


def test_answers_equal_the_whole_model(folder):
    chosen = settings(folder, signals=["answers"])
    _, prepared, found = extracted(chosen, ANSWERED, ("answers",))
    model, table = twin.full_model(folder), found["answers"]
    for row, sample in enumerate(prepared):
        places, expected = losses(model, sample)
        turns = np.split(np.arange(len(places)), np.flatnonzero(np.diff(places.numpy()) > 1) + 1)
        for name, values in expected.items():
            np.testing.assert_allclose(table[name][row], values.mean(), rtol=1e-5, atol=1e-6)
            by_turn = np.mean([values[turn].mean() for turn in turns])
            np.testing.assert_allclose(table[f"{name}_per_turn"][row], by_turn, rtol=1e-5, atol=1e-6)
        assert (table["tokens"][row], table["turns"][row]) == (len(places), len(turns))
        places, without = losses(model, sample.blind)
        np.testing.assert_allclose(table["nll_without_image"][row], without["nll"].mean(), rtol=1e-5)
    assert set(table) == {name for name, _ in describe(chosen, ("answers",)).statistics["answers"]}


def test_signals_of_one_model_share_a_forward(folder, monkeypatch):
    chosen = settings(folder, signals=["attended", "pooled", "answers"], answers={"without_image": False})
    assert groups(chosen) == [("attended", "pooled", "answers")]
    together, prepared, found = extracted(chosen, ANSWERED, groups(chosen)[0])
    for name in chosen.extract.signals:
        alone = extracted(chosen, ANSWERED, (name,))[2][name]
        for column, values in alone.items():
            np.testing.assert_allclose(found[name][column], values, rtol=1e-5, atol=1e-6)
    calls = []
    decoder(together._model).layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    together.compute(prepared)
    assert len(calls) == 1


def test_a_signals_fingerprint_does_not_depend_on_its_company(folder):
    chosen = settings(folder, signals=["attended", "pooled", "answers"])
    together = describe(chosen, ("attended", "pooled", "answers")).fingerprints
    for name, fingerprint in together.items():
        assert describe(chosen, (name,)).fingerprints[name] == fingerprint


def test_a_signal_may_name_its_own_model(folder, tmp_path):
    zoo.llava_siglip(tmp_path)
    chosen = settings(folder, signals=["attended", "pooled", "answers"], pooled={"model": {"path": str(tmp_path)}})
    assert groups(chosen) == [("attended", "answers"), ("pooled",)]
    assert describe(chosen, ("pooled",)).record["model"] == str(tmp_path)


def test_an_answer_cut_short_is_scored_as_far_as_it_goes_without_image_too(folder):
    whole = extracted(settings(folder, signals=["answers"]), [SAMPLES[1]], ("answers",))[1][0]
    limit = whole.n_tokens - 6
    tree = {"path": str(folder), "dtype": "float32", "max_length": limit, "over_length": "truncate"}
    chosen = parse({"dataset": {"path": "x"}, "model": tree, "extract": {"signals": ["answers"]}})
    prepared = extracted(chosen, [SAMPLES[1]], ("answers",))[1][0]
    assert 0 < prepared.answer.sum() < whole.answer.sum()
    assert prepared.blind.answer.sum() == prepared.answer.sum()


def test_a_row_without_answer_is_named(folder):
    extractor = Extractor(settings(folder, signals=["answers"]), ("answers",), "cpu")
    assert extractor.preparer()(SAMPLES[3], pictures(SAMPLES[3])).answer.any()
    only = SAMPLES[3].__class__(0, None, "", SAMPLES[3].turns[:2], SAMPLES[3].images, "")
    assert extractor.preparer()(only, pictures(only)).reason == "no_answer"
