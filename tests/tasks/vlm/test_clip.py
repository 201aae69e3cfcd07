"""Embeddings equal those of transformers called row by row; batches and order change nothing."""

import pickle
from functools import lru_cache

import numpy as np
import pytest
import torch
import transformers as hf

from tasks.errors import ModelError, ParamsError
from tasks.models import Vlm
from tasks.params import parse
from tasks.vlm.clip import Extractor, describe, text_of
from tests.tasks.vlm import zoo
from tests.tasks.vlm.dual_zoo import ENCODERS, LENGTH
from tests.tasks.vlm.test_families import SAMPLES, pictures, sample_of


@pytest.fixture(scope="module", params=ENCODERS)
def folder(request, tmp_path_factory):
    made = tmp_path_factory.mktemp(request.param)
    ENCODERS[request.param](made)
    return made


def settings(folder, **clip):
    model = {"path": str(folder), "dtype": "float32", **clip.pop("model", {})}
    extract = {"signals": ["clip"], "clip": {"model": model, **clip}}
    return parse({"dataset": {"path": "x"}, "model": {"path": "x"}, "extract": extract})


def embedded(chosen, samples=SAMPLES):
    extractor = Extractor(chosen, "cpu")
    prepare = extractor.preparer()
    return extractor, [prepare(sample, pictures(sample)) for sample in samples]


@lru_cache(maxsize=2)
def whole(folder):
    model = hf.AutoModel.from_pretrained(folder, attn_implementation="eager").double().eval()
    return model, hf.AutoProcessor.from_pretrained(folder)


@torch.no_grad()
def naive(folder, sample, text):
    """(unit images (k, d), unit text (d,)) by transformers' own classes, one thing at a time, eager, in float64."""
    model, processor = whole(folder)
    spoken = processor.tokenizer(text, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    words = model.get_text_features(**spoken).pooler_output[0]
    images = []
    for picture in pictures(sample):
        pixels = processor.image_processor([picture], return_tensors="pt")
        pixels = {name: one.double() if one.is_floating_point() else one for name, one in pixels.items()}
        images.append(model.get_image_features(**pixels).pooler_output[0])
    return torch.stack([one / one.norm() for one in images]).numpy(), (words / words.norm()).numpy()


@pytest.mark.parametrize("how", ["mean", "max"])
def test_embeddings_equal_transformers_row_by_row(folder, how):
    extractor, prepared = embedded(settings(folder, images=how))
    found = extractor.measure(prepared)["clip"]
    for row, sample in enumerate(SAMPLES):
        images, text = naive(folder, sample, text_of(sample, "question"))
        mean = images.mean(0) / np.linalg.norm(images.mean(0))
        image = mean if how == "mean" else images[np.argmax(images @ text)]
        np.testing.assert_allclose(found["text"][row], text, atol=1e-5)
        np.testing.assert_allclose(found["image"][row], image, atol=1e-5)
        np.testing.assert_allclose(found["similarity"][row], image @ text, atol=1e-5)
        assert found["images"][row] == len(images)
    description = describe(settings(folder))
    assert {name: found[name].shape[1] for name in ("image", "text")} == description.matrices["clip"]
    assert {name for name, _ in description.statistics["clip"]} == set(found) - {"image", "text"}


def test_batches_and_their_order_change_nothing(folder):
    extractor, prepared = embedded(settings(folder))
    together = extractor.measure(prepared)["clip"]
    backwards = extractor.measure(prepared[::-1])["clip"]
    for row, one in enumerate(prepared):
        alone = extractor.measure([one])["clip"]
        for name, values in together.items():
            np.testing.assert_allclose(values[row], alone[name][0], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(values[row], backwards[name][-1 - row], rtol=1e-5, atol=1e-6)


def test_what_is_cut_off_is_counted(folder):
    extractor, prepared = embedded(settings(folder))
    found = extractor.measure(prepared)["clip"]
    # One byte one token, and a token at each end.
    lengths = np.array([2 + len(text_of(sample, "question")) for sample in SAMPLES])
    np.testing.assert_array_equal(found["truncated"], np.maximum(0, lengths - LENGTH))
    np.testing.assert_array_equal(found["text_tokens"], np.minimum(lengths, LENGTH))
    assert found["truncated"].any()
    shorter, cut = embedded(settings(folder, model={"max_length": 6}))
    assert shorter.measure(cut)["clip"]["text_tokens"].max() == 6


def test_question_answer_and_both():
    assert text_of(SAMPLES[1], "question") == "What is this?"
    assert text_of(SAMPLES[1], "answer") == "A cat"
    assert text_of(SAMPLES[1], "both") == "What is this?\nA cat"
    assert text_of(SAMPLES[2], "question") == "first and second"


def test_rows_without_text_or_image_are_named(folder):
    _, prepared = embedded(settings(folder), [sample_of(0, "<image>", "A red square.")])
    assert prepared[0].reason == "no_text"
    assert "extract.clip.text" in prepared[0].detail
    prepare = Extractor(settings(folder), "cpu").preparer()
    assert prepare(sample_of(0, "Why?", "So.", images=0), []).reason == "no_image"


def test_what_decides_an_embedding_is_in_the_fingerprint(folder):
    prints = {
        describe(settings(folder, **change)).fingerprints["clip"]
        for change in (
            {},
            {"text": "answer"},
            {"images": "max"},
            {"model": {"max_length": 6}},
            {"model": {"dtype": "bfloat16"}},
        )
    }
    assert len(prints) == 5
    assert describe(settings(folder)).fingerprints["clip"] in prints


def test_the_preparer_travels(folder):
    prepare = Extractor(settings(folder), "cpu").preparer()
    again = pickle.loads(pickle.dumps(prepare))
    one, other = (each(SAMPLES[0], pictures(SAMPLES[0])) for each in (prepare, again))
    assert torch.equal(one.images["pixel_values"], other.images["pixel_values"])
    assert one.n_tokens == LENGTH + 16


def test_clip_is_a_group_of_its_own(folder):
    chosen = settings(folder)
    assert Vlm().groups(chosen) == [("clip",)]
    assert Vlm().describe(chosen, ("clip",)) == describe(chosen)


def test_a_model_has_to_be_named():
    with pytest.raises(ParamsError, match=r"extract\.clip\.model\.path="):
        describe(parse({"dataset": {"path": "x"}, "model": {"path": "x"}, "extract": {"signals": ["clip"]}}))


def test_a_vlm_is_no_dual_encoder(tmp_path):
    zoo.llava(tmp_path)
    with pytest.raises(ModelError, match=r"llava.*name a CLIP"):
        describe(settings(tmp_path))


def test_pickled_weights_are_refused(tmp_path):
    ENCODERS["clip"](tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="allow_pickle"):
        describe(settings(tmp_path))
