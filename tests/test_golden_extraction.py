"""Features, token counts and leverage equal the official code's, on every case found under golden/extraction."""

import json
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tasks.linalg.matrix import ArrayMatrix
from tasks.methods import METHODS
from tasks.methods.contract import Tables, best_first
from tasks.params import parse
from tasks.sample import ImageRef, Sample, Turn
from tasks.vlm.extractor import Extractor, describe, token_counter
from tasks.vlm.grouping import groups

GOLDEN = Path(os.environ.get("SCALSELECT_GOLDEN", Path(__file__).parent / "golden")) / "extraction"
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/expected.npz"))


def settings_of(case: Path):
    return parse(
        {
            "dataset": {"path": str(case / "data.json")},
            "model": {"path": str(case / "model"), "dtype": "float32"},
            "extract": {"preset": "official"},
        }
    )


def samples_of(case: Path) -> list[Sample]:
    samples = []
    for row, record in enumerate(json.loads((case / "data.json").read_text())):
        turns = tuple(Turn(message["role"], message["content"]) for message in record["messages"])
        images = []
        for name in record.get("images", []):
            width, height = PIL.Image.open(case / name).size
            images.append(ImageRef(str(case / name), name, width=width, height=height))
        samples.append(Sample(row, str(record["id"]), "", turns, tuple(images), ""))
    return samples


@pytest.fixture(scope="module", params=CASES)
def extracted(request, golden):
    case = golden / "extraction" / request.param
    settings = settings_of(case)
    (signals,) = groups(settings)
    extractor = Extractor(settings, signals, "cpu")
    prepare = extractor.preparer()
    samples = samples_of(case)
    prepared = [
        prepare(sample, [PIL.Image.open(ref.path).convert("RGB") for ref in sample.images]) for sample in samples
    ]
    columns = [extractor.compute(prepared[at : at + 8])["attended"] for at in range(0, len(prepared), 8)]
    table = {name: np.concatenate([part[name] for part in columns]) for name in columns[0]}
    return settings, samples, prepared, table, np.load(case / "expected.npz")


def test_there_are_cases():
    assert CASES


@pytest.mark.parametrize("count", ["visual_tokens", "instruction_tokens", "kept_tokens"])
def test_counts_equal_the_official_code(extracted, count):
    *_, table, expected = extracted
    np.testing.assert_array_equal(table[count], expected[count])


def test_features_equal_the_official_code(extracted):
    *_, table, expected = extracted
    difference = np.linalg.norm(table["feature"] - expected["features"], axis=1)
    assert (difference <= 1e-5 * np.linalg.norm(expected["features"], axis=1)).all()


def test_leverage_rank_and_ranking_equal_the_official_code(extracted):
    *_, table, expected = extracted
    method = METHODS["scalselect"]
    digests = np.array([f"{row:08d}" for row in range(len(table["feature"]))])
    tables = Tables(digests, np.full(len(digests), ""), {"attended": ArrayMatrix(table["feature"])})
    columns = method.score(tables, method.parse({}))
    leverage = expected["leverage"]
    np.testing.assert_allclose(columns["score"], leverage, rtol=0, atol=1e-4 * leverage.max())
    assert round(columns["score"].sum()) == expected["k"]
    np.testing.assert_array_equal(best_first(columns["score"], digests), expected["ranking"])


def test_lengths_are_known_without_decoding(extracted):
    settings, samples, prepared, *_ = extracted
    count = token_counter(settings)
    assert [count(sample) for sample in samples] == [one.n_tokens for one in prepared]


def test_the_description_agrees_with_what_is_computed(extracted):
    settings, *_, table, expected = extracted
    description = describe(settings, ("attended",))
    assert description.matrices["attended"] == {"feature": expected["features"].shape[1]}
    assert set(table) == {"feature", *(name for name, _ in description.statistics["attended"])}
