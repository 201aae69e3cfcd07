import json

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_datasets import contents, picture, read

from tasks import cells, images
from tasks.errors import DatasetError
from tasks.formats import detect, open_dataset, parquet
from tasks.params import DatasetSettings

A, B = picture(0), picture(1, "PNG")
TURNS = [{"role": "user", "content": "<image>Q"}, {"role": "assistant", "content": "A"}]


def table(**columns):
    return pa.table(columns)


def saved(path, made, **options):
    pq.write_table(made, path, **options)
    return path


def shown(row):
    return [turn.content for turn in row.turns], [images.read_bytes(ref) for ref in row.images]


def features(**columns):
    message = {"role": datasets.Value("string"), "content": datasets.Value("string")}
    return datasets.Features({"messages": [message], **columns})


@pytest.fixture
def hub_like():
    """What Hugging Face tables look like: an image column with its feature, bytes inside, no images in one row."""
    rows = {
        "messages": [
            TURNS,
            [{"role": "user", "content": "<image><image>"}, TURNS[1]],
            [{"role": "user", "content": "t"}],
        ],
        "images": [[{"bytes": A, "path": "a.jpg"}], [{"bytes": A, "path": None}, {"bytes": B, "path": None}], []],
        "id": [1, 2, 3],
        "scores": [[0.5], None, [np.inf]],
    }
    shape = features(
        images=[datasets.Image()], id=datasets.Value("int16"), scores=datasets.List(datasets.Value("float16"))
    )
    return datasets.Dataset.from_dict(rows, features=shape)


EXPECTED = [
    (["<image>Q", "A"], [A]),
    (["<image><image>", "A"], [A, B]),
    (["t"], []),
]


def test_a_table_of_datasets(tmp_path, hub_like):
    hub_like.to_parquet(tmp_path / "train.parquet")
    rows = read(tmp_path / "train.parquet")
    assert [shown(row) for row in rows] == EXPECTED
    assert [row.id for row in rows] == ["1", "2", "3"]
    assert rows[0].images[0].member == "parquet:0:images:0"
    assert rows[0].images[0].name == "a.jpg"


def test_saved_datasets_and_splits(tmp_path, hub_like):
    hub_like.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict(test=hub_like.select([0]), train=hub_like).save_to_disk(tmp_path / "many")
    for path in (tmp_path / "one", tmp_path / "many"):
        assert detect(path) == "parquet"
        assert [shown(row) for row in read(path)] == EXPECTED
    assert [shown(row) for row in read(tmp_path / "many", split="test")] == EXPECTED[:1]
    with pytest.raises(DatasetError, match="split `dev`"):
        read(tmp_path / "many", split="dev")


def test_any_subset_keeps_schema_types_and_metadata(tmp_path, hub_like):
    hub_like.save_to_disk(tmp_path / "saved", num_shards=2)
    hub_like.to_parquet(tmp_path / "file.parquet", batch_size=1)
    for path in (tmp_path / "saved", tmp_path / "file.parquet"):
        dataset = open_dataset(DatasetSettings(path=str(path)))
        rows = list(dataset)
        dataset.write_native([rows[2], rows[0]], tmp_path / "out.parquet")
        schema = cells.schema(dataset.shards[0])
        written = pq.read_table(tmp_path / "out.parquet")
        assert written.schema.metadata == schema.metadata
        whole = pa.concat_tables(cells.read_row(row.original) for row in rows)
        assert written.cast(schema).equals(whole.take([2, 0]).cast(schema))
        again = datasets.load_dataset("parquet", data_files=str(tmp_path / "out.parquet"), cache_dir=tmp_path / "cache")
        assert again["train"].features == hub_like.features
        assert again["train"][1]["images"][0].size == (12, 8)


def test_folders_of_shards_go_by_split(tmp_path):
    for name, number in (("train-00001-of-2", 2), ("train-00000-of-2", 1), ("test-00000-of-1", 9)):
        saved(tmp_path / f"{name}.parquet", table(id=[number], messages=[TURNS]))
    assert [row.id for row in read(tmp_path)] == ["1", "2"]
    assert [row.row for row in read(tmp_path)] == [0, 1]
    assert [row.id for row in read(tmp_path / "*-00000-*.parquet")] == ["9", "1"]
    assert [row.id for row in read(tmp_path, split="test")] == ["9"]
    assert [row.id for row in read(tmp_path, split="none of these")] == ["9", "1", "2"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ({"image": [A]}, [A]),
        ({"image": [{"bytes": A, "path": None}]}, [A]),
        ({"image": [{"bytes": None, "path": "a.jpg"}]}, [A]),
        ({"image": ["a.jpg"]}, [A]),
        ({"images": [["a.jpg", "b.png"]]}, [A, B]),
        ({"images": [[A, B]]}, [A, B]),
        ({"first": [{"bytes": A, "path": ""}], "second": [[{"bytes": B, "path": ""}]]}, [A, B]),
        ({"image": pa.array([A], pa.large_binary())}, [A]),
        ({"images": pa.array([[A, B]], pa.list_(pa.binary(), 2))}, [A, B]),
        ({"images": pa.array([None], pa.list_(pa.string()))}, []),
        ({"image": pa.array([None], pa.binary())}, []),
    ],
)
def test_image_columns_of_every_kind(tmp_path, column, expected):
    (tmp_path / "a.jpg").write_bytes(A)
    (tmp_path / "b.png").write_bytes(B)
    turns = [[{"role": "user", "content": "<image>" * len(expected)}]]
    (row,) = read(saved(tmp_path / "t.parquet", table(messages=turns, **column)))
    assert row.problem is None
    assert shown(row)[1] == expected


@pytest.mark.parametrize("cell", [{"bytes": None, "path": None}, {"bytes": None, "path": ""}])
def test_an_image_that_is_nowhere_is_a_problem_of_the_row(tmp_path, cell):
    shape = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    made = table(messages=[TURNS], images=pa.array([[cell]], pa.list_(shape)))
    assert read(saved(tmp_path / "t.parquet", made))[0].problem.reason == "malformed_images"


def test_conversations_of_every_kind(tmp_path):
    def one(**columns):
        return contents(read(saved(tmp_path / "t.parquet", table(image=[A], **columns)))[0])[0]

    assert one(messages=[TURNS])[0].content == "<image>Q"
    assert one(conversations=[[{"from": "human", "value": "<image>Q"}]])[0].role == "user"
    assert one(conversations=[{"from": ["human", "gpt"], "value": ["<image>Q", "A"]}])[1].content == "A"
    assert one(messages=[[{"role": "user", "content": "Q"}]])[0].content == "<image>Q", "as TRL shows them"
    parts = [{"type": "text", "text": "Q", "index": None}, {"type": "image", "text": None, "index": 0}]
    assert one(messages=[[{"role": "user", "content": parts}]])[0].content == "Q<image>"
    texts = [{"user": "Q", "assistant": "A", "source": "vqa"}, {"user": "R", "assistant": "B", "source": "vqa"}]
    assert [turn.content for turn in one(texts=[texts])] == ["<image>Q", "A", "R", "B"]
    assert read(tmp_path / "t.parquet")[0].source == "vqa"


def test_cells_are_found_in_any_order_over_row_groups_and_replaced_files(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "REMEMBERED_BYTES", 2500)
    pictures = [picture(seed) for seed in range(23)]
    path = saved(tmp_path / "t.parquet", table(messages=[TURNS] * 23, image=pictures), row_group_size=5)
    rows = read(path)
    for index in np.random.default_rng(0).permutation(23):
        assert images.read_bytes(rows[index].images[0]) == pictures[index]
    assert len(cells._GROUPS) < 5
    saved(path, table(messages=[TURNS] * 23, image=pictures[::-1]), row_group_size=7)
    assert images.read_bytes(rows[0].images[0]) == pictures[22]


def test_broken_files_are_named(tmp_path):
    path = saved(tmp_path / "t.parquet", table(messages=[TURNS], image=[A]))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"t\.parquet: not a readable Parquet file"):
        read(path)


def test_shards_of_other_columns_are_refused_not_trimmed(tmp_path):
    saved(tmp_path / "0.parquet", table(messages=[TURNS], image=[A]))
    saved(tmp_path / "1.parquet", table(messages=[TURNS], image=[A], more=[1]))
    dataset = open_dataset(DatasetSettings(path=str(tmp_path)))
    with pytest.raises(DatasetError, match=r"1\.parquet: columns differ"):
        dataset.write_native(dataset, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_hub_dataset_that_is_not_there_is_the_users_error():
    with pytest.raises(
        DatasetError, match="`nobody/nothing` is no local file, and as a hub dataset it cannot be loaded"
    ):
        read("nobody/nothing")
    with pytest.raises(DatasetError, match="no such file"):
        read("nobody/nothing.parquet")


def test_a_hub_dataset_in_the_cache_is_read_without_network(tmp_path, hub_like, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    hub_like.to_parquet(source / "train.parquet")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    made = datasets.load_dataset(str(source), cache_dir=str(tmp_path / "cache"))["train"]
    version = tmp_path / "cache/me___pictures/default/0.0.0/0123456789abcdef"
    version.mkdir(parents=True)
    info = json.loads((next((tmp_path / "cache").rglob("dataset_info.json"))).read_text())
    (version / "dataset_info.json").write_text(
        json.dumps({**info, "builder_name": "parquet", "dataset_name": "pictures"})
    )
    table_ = made.data.table
    with (
        pa.OSFile(str(version / "pictures-train.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table_.schema) as writer,
    ):
        writer.write_table(table_)
    settings = DatasetSettings(path="me/pictures")
    dataset = open_dataset(settings)
    assert dataset.files == ()
    rows = list(dataset)
    assert [shown(row) for row in rows] == EXPECTED
    assert rows[0].images[0].member == "arrow:0:images:0"
    with pytest.raises(DatasetError, match="is a slice"):
        parquet.hub_shards(settings.model_copy(update={"split": "train[:2]"}))
