"""Stage 1 end to end: real files, real reader, the real model's tokenizer where length matters."""

import io
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.errors import DatasetError, GateError
from tasks.layout import Layout
from tasks.params import parse
from tasks.sample import digest_sample
from tasks.tables import read_samples
from tasks.validation import WINDOW, validate

ROOT = Path(__file__).parents[2]


def encoded(value, size=(32, 24), kind="JPEG"):
    buffer = io.BytesIO()
    noise = np.random.default_rng(value).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


def record(identity, image="0.jpg", question="<image>\nWhat?", answer="That.", **fields):
    said = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    shown = {} if image is None else {"image": image}
    return {"id": identity, **shown, "conversations": said, **fields}


def settings_of(folder, **overrides):
    tree = {
        "dataset": {"path": str(folder / "data.json")},
        "model": {"path": "no-model", "over_length": "truncate"},
        "validate": {"gates": {"maximum_reject_share": 1.0}},
    }
    return parse(tree, overrides)


def run(folder, rows, **overrides):
    """Validate `rows`; returns (samples, rejects, validation.json)."""
    (folder / "data.json").write_text(json.dumps(rows))
    layout = Layout.flat(folder / "out")
    validate(settings_of(folder, **overrides), layout)
    return outputs(layout)


def outputs(layout):
    rejects = [json.loads(line) for line in layout.rejects.read_text().splitlines()]
    return list(read_samples(layout.samples)), rejects, json.loads(layout.validation.read_text())


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "0.jpg").write_bytes(encoded(0))
    (tmp_path / "1.jpg").write_bytes(encoded(1))
    (tmp_path / "cut.jpg").write_bytes(encoded(2)[:-200])
    (tmp_path / "noise.jpg").write_bytes(b"no picture")
    (tmp_path / "big.png").write_bytes(encoded(3, size=(300, 300), kind="PNG"))
    return tmp_path


BAD = {
    "no_turns": record("a", conversations=[]),
    "first_turn_not_user": record("b", conversations=[{"from": "gpt", "value": "x"}, {"from": "human", "value": "y"}]),
    "roles_not_alternating": record("c", conversations=[{"from": "human", "value": "<image>"}] * 2),
    "no_answer": record("d", conversations=[{"from": "human", "value": "<image>"}]),
    "empty_text": record("e", answer=""),
    "placeholder_mismatch": record("f", question="<image><image> What?"),
    "image_missing": record("g", image="gone.jpg"),
    "image_unreadable": record("h", image="noise.jpg"),
    "image_truncated": record("i", image="cut.jpg"),
    "image_too_large": record("j", image="big.png"),
    "image_outside_root": record("k", image="../elsewhere.jpg"),
    "image_url_not_allowed": record("l", image="https://example.org/a.jpg"),
    "non_string_content": record("m", question=17),
}


def test_every_reason_reaches_rejects_and_nothing_vanishes(folder):
    rows = [record("first"), *BAD.values(), record("last", image="1.jpg")]
    samples, rejects, report = run(folder, rows, **{"validate.maximum_pixels": 50_000})
    assert [(one["row"], one["id"], one["reason"]) for one in rejects] == [
        (number, row["id"], reason) for number, (reason, row) in enumerate(BAD.items(), start=1)
    ]
    assert [sample.row for sample in samples] == [0, len(rows) - 1]
    assert (report["rows"], report["accepted"], report["rejected"]) == (len(rows), 2, len(BAD))
    assert report["reasons"] == dict.fromkeys(BAD, 1)
    assert all(rows[one["row"]]["image"] in one["detail"] for one in rejects if one["reason"].startswith("image_"))


def test_samples_hold_what_the_images_are(folder):
    (sample,), _, _ = run(folder, [record(7)])
    (image,) = sample.images
    assert (image.width, image.height, image.name) == (32, 24, "0.jpg")
    assert sample.digest == digest_sample(sample.turns, [image.sha256])
    assert sample.id == "7"


def test_the_first_bad_image_names_the_reason(folder):
    pair = record("x", image=["cut.jpg", "gone.jpg"], question="<image><image>?")
    assert run(folder, [record("good"), pair])[1][0]["reason"] == "image_truncated"


@pytest.mark.parametrize(("policy", "accepted"), [("exclude", 2), ("keep", 2), ("drop", 1)])
def test_text_only(folder, policy, accepted):
    rows = [record("with"), record("without", image=None, question="What?")]
    samples, rejects, report = run(
        folder, rows, **{"dataset.text_only": policy, "validate.gates.maximum_reject_share": 0}
    )
    assert len(samples) == accepted
    assert [one["reason"] for one in rejects] == ["text_only_dropped"] * (2 - accepted)
    assert report["text_only"] == {"policy": policy, "rows": 1}


@pytest.mark.parametrize("policy", ["keep", "reject"])
def test_duplicates_are_told_by_content_not_by_name(folder, policy):
    (folder / "copy.jpg").write_bytes((folder / "0.jpg").read_bytes())
    rows = [record("a", answer=""), record("b"), record("c", image="1.jpg"), record("d", image="copy.jpg"), record("e")]
    samples, rejects, report = run(folder, rows, **{"validate.duplicates": policy})
    assert report["duplicates"] == {"policy": policy, "rows": 2}
    if policy == "keep":
        assert [sample.id for sample in samples] == ["b", "c", "d", "e"]
    else:
        assert [sample.id for sample in samples] == ["b", "c"]
        assert [one["detail"] for one in rejects[1:]] == ["same content as row 1"] * 2


def test_length_is_that_of_the_rendered_conversation(folder, golden):
    model = golden / "extraction/llava/model"
    longer = record("long", answer="seven " * 40)
    overrides = {"model.path": str(model), "model.over_length": "reject"}
    samples, rejects, _ = run(folder, [record("short"), longer], **overrides)
    assert (len(samples), rejects) == (2, [])
    from tasks.vlm.extractor import token_counter

    count = token_counter(settings_of(folder, **overrides))
    short, long = map(count, samples)
    assert short < long
    samples, rejects, _ = run(folder, [record("short"), longer], **overrides, **{"model.max_length": long - 1})
    assert [sample.id for sample in samples] == ["short"]
    assert rejects == [
        {
            "row": 1,
            "id": "long",
            "reason": "over_max_length",
            "detail": f"{long} tokens; model.max_length is {long - 1}",
        }
    ]
    assert len(run(folder, [record("short"), longer], **overrides, **{"model.max_length": long})[0]) == 2


def test_known_rows_are_judged_again_without_torch_and_to_the_same_bytes(folder, golden):
    overrides = {"model.path": str(golden / "extraction/llava/model"), "model.over_length": "reject"}
    rows = [record("short"), record("long", answer="seven " * 40)]
    run(folder, rows, **overrides)
    layout = Layout.flat(folder / "out")
    files = (layout.samples, layout.rejects, layout.validation)
    before = [path.read_bytes() for path in files]
    code = f"""
import sys
from pathlib import Path
from tests.tasks.test_validation import Layout, settings_of, validate
validate(settings_of(Path({str(folder)!r}), **{overrides!r}), Layout.flat(Path({str(folder / "out")!r})))
print([one for one in ("torch", "transformers") if one in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert [path.read_bytes() for path in files] == before


def test_a_failed_gate_stops_the_run_after_everything_is_written(folder):
    rows = [record("a"), record("b", image="gone.jpg"), record("c", image="gone.jpg"), record("d", answer="")]
    with pytest.raises(GateError) as caught:
        run(folder, rows, **{"validate.gates.maximum_reject_share": 0.5})
    layout = Layout.flat(folder / "out")
    samples, rejects, report = outputs(layout)
    assert (len(samples), len(rejects), report["passed"]) == (1, 3, False)
    message = str(caught.value)
    assert "validate.gates.maximum_reject_share is 0.5, found 0.75" in message
    assert "image_missing (2), empty_text (1)" in message
    assert str(layout.docs / "index.html") in message
    assert (layout.docs / "index.html").is_file()


def test_a_dataset_without_rows_is_refused(folder):
    with pytest.raises((GateError, DatasetError)):
        run(folder, [])


def test_same_bytes_whatever_the_threads_the_cache_and_the_folder(tmp_path, folder):
    rng = random.Random(3)
    pool = ["0.jpg", "1.jpg", "cut.jpg", "gone.jpg"]
    rows = [record(n, image=rng.choice(pool), answer=f"{rng.randrange(40)}") for n in range(2 * WINDOW + 5)]
    found = []
    for workers, out in ((1, "x"), (8, "y"), (2, "x")):
        (folder / "data.json").write_text(json.dumps(rows))
        layout = Layout.flat(tmp_path / out)
        validate(settings_of(folder, **{"run.workers": workers}), layout)
        found.append([path.read_bytes() for path in (layout.samples, layout.rejects, layout.validation)])
    assert found[0] == found[1] == found[2]
    assert [sample.row for sample in read_samples(layout.samples)] == sorted(
        n for n, row in enumerate(rows) if row["image"] in pool[:2]
    )


def test_the_report_knows_no_absolute_path(folder):
    rows = [record("a"), record("b", source="other"), *BAD.values()]
    _, _, report = run(folder, rows)
    assert str(folder) not in json.dumps(report)
    assert report["dataset"]["format"] == "llava"
    (file,) = report["dataset"]["files"]
    assert (file["name"], file["bytes"]) == ("data.json", (folder / "data.json").stat().st_size)
    assert report["sources"]["other"] == {"rows": 1, "accepted": 1, "rejected": 0}
    assert sum(one["rows"] for one in report["sources"].values()) == report["rows"]


def test_the_golden_datasets_pass_whole(tmp_path, golden):
    for case in sorted(Path(golden / "extraction").iterdir()):
        if not case.is_dir():
            continue
        settings = parse({"dataset": {"path": str(case / "data.json")}, "model": {"path": str(case / "model")}})
        layout = Layout.flat(tmp_path / case.name)
        validate(settings, layout)
        samples, rejects, _ = outputs(layout)
        assert (len(samples), rejects) == (len(json.loads((case / "data.json").read_text())), [])


def test_an_image_root_that_is_not_there_is_said_before_rows_are_read(folder):
    with pytest.raises(DatasetError, match=r"dataset\.image_root: nowhere: no such folder"):
        run(folder, [record(1)], **{"dataset.image_root": "nowhere"})
