"""Every family's features equal those of the whole, unmodified model; batches, order and padding change nothing."""

import pickle
import warnings
from functools import partial

import numpy as np
import PIL.Image
import pytest

from tasks.params import parse
from tasks.sample import ImageRef, Sample, Turn
from tasks.vlm.batch import collate
from tasks.vlm.extractor import Extractor, describe, token_counter
from tests.tasks.vlm import twin
from tests.tasks.vlm.zoo import FAMILIES

SIZES = [(60, 40), (40, 90), (56, 56), (120, 30), (33, 70)]


def sample_of(row: int, *contents: str, images: int = 1) -> Sample:
    roles = ["user", "assistant"] * len(contents)
    turns = tuple(Turn(role, content) for role, content in zip(roles, contents, strict=False))
    sizes = [SIZES[(row + index) % len(SIZES)] for index in range(images)]
    refs = tuple(ImageRef("", str(index), width=width, height=height) for index, (width, height) in enumerate(sizes))
    return Sample(row, None, "", turns, refs, "")


SAMPLES = [
    sample_of(0, "<image>\nIs it red? Yes or no", "Yes"),
    sample_of(1, "What is this?\n<image>", "A cat", "and now?", "still a cat", "why?", "it is"),
    sample_of(2, "<image>\nfirst <image> and second", "no", images=2),
    sample_of(3, "<image>\nempty answer", "", "more  spaces ", "ok"),
    sample_of(4, "<image>long " + "word " * 30, "word"),
]


def pictures(sample: Sample) -> list[PIL.Image.Image]:
    random = np.random.default_rng(sample.row)
    return [
        PIL.Image.fromarray(random.integers(0, 256, (ref.height, ref.width, 3), dtype=np.uint8))
        for ref in sample.images
    ]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    if request.param == "smolvlm":
        pytest.importorskip("num2words")
    folder = tmp_path_factory.mktemp(request.param)
    FAMILIES[request.param](folder)
    settings = parse({"dataset": {"path": "x"}, "model": {"path": str(folder), "dtype": "float32"}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor = Extractor(settings, ("attended",), "cpu")
    prepare = extractor.preparer()
    prepared = [prepare(sample, pictures(sample)) for sample in SAMPLES]
    return folder, settings, extractor, prepared


def test_features_equal_the_whole_model(family):
    folder, _, extractor, prepared = family
    whole = twin.full_model(folder)
    for sample in prepared:
        feature, kept = twin.attended(whole, sample)
        found = extractor.compute([sample])["attended"]
        assert found["kept_tokens"][0] == kept
        assert np.linalg.norm(found["feature"][0] - feature) <= 1e-5 * np.linalg.norm(feature)


def test_batch_and_order_change_nothing(family):
    *_, extractor, prepared = family
    alone = np.concatenate([extractor.compute([sample])["attended"]["feature"] for sample in prepared])
    together = extractor.compute(prepared)["attended"]["feature"]
    turned = extractor.compute(prepared[::-1])["attended"]["feature"][::-1]
    scale = np.linalg.norm(alone, axis=1)
    assert (np.linalg.norm(together - alone, axis=1) <= 1e-5 * scale).all()
    assert (np.linalg.norm(turned - alone, axis=1) <= 1e-5 * scale).all()


def test_padding_side_changes_nothing(family, monkeypatch):
    *_, extractor, prepared = family
    right = extractor.compute(prepared)["attended"]["feature"]
    monkeypatch.setattr("tasks.vlm.extractor.collate", partial(collate, side="left"))
    left = extractor.compute(prepared)["attended"]["feature"]
    assert (np.linalg.norm(left - right, axis=1) <= 1e-5 * np.linalg.norm(right, axis=1)).all()


def test_the_counter_knows_lengths_without_images(family):
    _, settings, _, prepared = family
    count = token_counter(settings)
    assert [count(sample) for sample in SAMPLES] == [one.n_tokens for one in prepared]


def test_masks_are_disjoint_and_say_what_was_written(family):
    *_, extractor, prepared = family
    tokenizer = extractor.preparer().processor.tokenizer
    for sample, one in zip(SAMPLES, prepared, strict=True):
        assert not (one.visual & one.instruction).any()
        assert not (one.visual & one.answer).any()
        assert not (one.instruction & one.answer).any()
        said = tokenizer.decode(one.inputs["input_ids"][0][one.answer])
        assert said == "".join(turn.content.strip() for turn in sample.turns if turn.role == "assistant")
        asked = tokenizer.decode(one.inputs["input_ids"][0][one.instruction])
        parts = [part.strip() for turn in sample.turns if turn.role == "user" for part in turn.content.split("<image>")]
        assert asked == "".join(parts)


def test_only_one_decoder_layer_is_there_and_read(family):
    *_, extractor, _ = family
    names = [name for name, _ in extractor._model.named_parameters()]
    assert not [name for name in names if ".layers.1." in name and "vision" not in name and "visual" not in name]
    assert not [name for name in names if "lm_head" in name]


def test_the_preparer_travels_to_a_worker(family):
    *_, extractor, prepared = family
    again = pickle.loads(pickle.dumps(extractor.preparer()))(SAMPLES[2], pictures(SAMPLES[2]))
    assert (again.visual == prepared[2].visual).all()
    assert all((value == prepared[2].inputs[name]).all() for name, value in again.inputs.items())


def test_the_description_is_stable_and_names_files(family):
    _, settings, *_ = family
    first, second = describe(settings, ("attended",)), describe(settings, ("attended",))
    assert first.fingerprints == second.fingerprints
    assert len(first.fingerprints["attended"]) == 64
    assert first.record["files"]["model.safetensors"]
