"""Held-out data is read whole, and is held out."""

import io
import json
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_evaluation import make_settings

from tasks.errors import DatasetError, InputError, ParamsError
from tasks.evaluation.held_out import check_apart, read_tasks


def rows_of(path):
    return json.loads(path.read_text())


def test_tasks_hold_samples_references_and_sources(small):
    folder, layout = small
    colour, digit = read_tasks(make_settings(folder).evaluate)
    assert (colour.name, colour.metric, len(colour.samples)) == ("colour", "exact_match", 4)
    assert [sample.source for sample in colour.samples] == ["plain", "noise", "stripes", "picture"]
    assert digit.references[0] == tuple("0123456789")
    check_apart(layout.samples, [colour, digit])


def test_without_a_list_of_answers_the_last_turn_is_the_reference(small):
    folder, _ = small
    path = folder / "colour/data.json"
    path.write_text(json.dumps([{key: row[key] for key in row if key != "answers"} for row in rows_of(path)]))
    colour, _ = read_tasks(make_settings(folder).evaluate)
    assert colour.references == tuple((sample.turns[-1].content,) for sample in colour.samples)


def test_answers_of_every_annotator_are_read_from_any_format(small):
    folder, _ = small
    rows = rows_of(folder / "colour/data.json")
    annotated = [{**row, "answers": [{"answer": text, "answer_id": 1} for text in row["answers"]]} for row in rows]
    (folder / "dicts.json").write_text(json.dumps(annotated))
    shown = [(folder / "colour/images" / row["image"]).read_bytes() for row in rows]
    columns = {"conversations": [row["conversations"] for row in rows], "answers": [row["answers"] for row in rows]}
    pq.write_table(
        pa.table({**columns, "images": [[{"bytes": one, "path": None}] for one in shown]}), folder / "t.parquet"
    )
    with tarfile.open(folder / "t.tar", "w") as tar:
        for number, (row, image) in enumerate(zip(rows, shown, strict=True)):
            plain = {"conversations": row["conversations"], "answers": row["answers"]}
            for name, data in ((f"{number}.png", image), (f"{number}.json", json.dumps(plain).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    wanted = read_tasks(make_settings(folder).evaluate)[0].references
    assert len(wanted[0]) > 1
    for path in (folder / "dicts.json", folder / "t.parquet", folder / "t.tar"):
        named = {"path": str(path), "image_root": str(folder / "colour/images"), "metric": "vqa_accuracy"}
        (task,) = read_tasks(make_settings(folder, tasks={"colour": named}).evaluate)
        assert task.references == wanted, path


def test_an_image_of_the_pool_under_another_name_is_found_and_named(small):
    folder, layout = small
    pool = rows_of(folder / "pool/data.json")
    place, row = next((place, row) for place, row in enumerate(pool) if "image" in row)
    shown = rows_of(folder / "digit/data.json")[2]["image"]
    shutil.copy(folder / "pool/images" / row["image"], folder / "digit/images" / shown)
    with pytest.raises(InputError, match=rf"1 held-out rows.*\n.*digit: row 2 shows {shown}, an image of row {place}"):
        check_apart(layout.samples, read_tasks(make_settings(folder).evaluate))


def test_a_text_only_row_of_the_pool_is_found_by_its_words(small):
    folder, layout = small
    pool = rows_of(folder / "pool/data.json")
    place = next(place for place, row in enumerate(pool) if "image" not in row)
    path = folder / "colour/data.json"
    path.write_text(json.dumps([*rows_of(path), {**pool[place], "id": "new"}]))
    with pytest.raises(InputError, match=f"colour: row 4 is row {place} of the dataset"):
        check_apart(layout.samples, read_tasks(make_settings(folder).evaluate))


def test_only_the_first_overlaps_are_listed(small):
    folder, layout = small
    pool = rows_of(folder / "pool/data.json")
    shutil.copytree(folder / "pool/images", folder / "colour/images", dirs_exist_ok=True)
    (folder / "colour/data.json").write_text(json.dumps(pool))
    with pytest.raises(InputError, match=rf"{len(pool)} held-out rows(.*\n){{6}}  and {len(pool) - 5} more"):
        check_apart(layout.samples, read_tasks(make_settings(folder).evaluate))


def test_a_row_with_a_problem_is_refused_by_name_not_skipped(small):
    folder, _ = small
    (folder / "digit/images" / rows_of(folder / "digit/data.json")[1]["image"]).unlink()
    with pytest.raises(DatasetError, match=r"evaluate\.tasks\.digit: row 1 .*image_missing"):
        read_tasks(make_settings(folder).evaluate)


def test_no_tasks_and_empty_tasks_are_refused(small):
    folder, _ = small
    with pytest.raises(ParamsError, match="name at least one"):
        read_tasks(make_settings(folder, tasks={}).evaluate)
    (folder / "colour/data.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"colour/data\.json"):
        read_tasks(make_settings(folder).evaluate)


def test_identity_changes_with_the_metric_and_the_references(small):
    folder, _ = small
    before = read_tasks(make_settings(folder).evaluate)[0].digest
    path = folder / "colour/data.json"
    path.write_text(json.dumps([{**row, "answers": ["red"]} for row in rows_of(path)]))
    assert read_tasks(make_settings(folder).evaluate)[0].digest != before
