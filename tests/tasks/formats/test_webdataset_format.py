import io
import json
import tarfile

import pytest
import webdataset
from small_datasets import picture, read

from tasks import images
from tasks.errors import DatasetError
from tasks.formats import detect, open_dataset
from tasks.formats.webdataset import expand_braces
from tasks.params import DatasetSettings

A, B = picture(0), picture(1, "PNG")


def talk(text, **more):
    return json.dumps({"messages": [{"role": "user", "content": text}], **more}).encode()


def shard(path, members, **options):
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname = len(data), 1234567, "someone"
            tar.addfile(info, io.BytesIO(data))
    return path


def shown(row):
    return [turn.content for turn in row.turns], [images.read_bytes(ref) for ref in row.images]


MEMBERS = [
    ("000.jpg", A),
    ("000.json", talk("<image>", id=5, source="web")),
    ("sub.dir/001.0.jpg", A),
    ("sub.dir/001.1.png", B),
    ("sub.dir/001.json", talk("<image><image>")),
    ("002.json", talk("text only")),
    ("003.JPG", A),
    ("003.txt", "Un café".encode()),
    ("003.cls", b"7"),
]


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_rows_are_grouped_by_key(tmp_path, layout):
    path = shard(tmp_path / "a.tar", MEMBERS, format=layout)
    assert detect(path) == "webdataset"
    rows = read(path)
    assert [shown(row) for row in rows] == [
        (["<image>"], [A]),
        (["<image><image>"], [A, B]),
        (["text only"], []),
        (["<image>", "Un café"], [A]),
    ]
    assert [(row.row, row.id, row.source) for row in rows] == [
        (0, "5", "web"),
        (1, "sub.dir/001", ""),
        (2, "002", ""),
        (3, "003", ""),
    ]


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_rows_together_give_the_shard_again(tmp_path, layout):
    members = [*MEMBERS, ("n" * 90 + "/" + "ö" * 40 + ".jpg", A)]
    path = shard(tmp_path / "a.tar", members, format=layout)
    dataset = open_dataset(DatasetSettings(path=str(path)))
    dataset.write_native(dataset, tmp_path / "out.tar")
    assert (tmp_path / "out.tar").read_bytes() == path.read_bytes()


def test_a_subset_as_webdataset_itself_reads_it(tmp_path):
    path = shard(tmp_path / "a.tar", MEMBERS)
    dataset = open_dataset(DatasetSettings(path=str(path)))
    rows = list(dataset)
    dataset.write_native([rows[3], rows[0]], tmp_path / "out.tar")
    found = list(webdataset.WebDataset(str(tmp_path / "out.tar"), shardshuffle=False))
    assert [one["__key__"] for one in found] == ["003", "000"]
    assert found[0]["txt"] == "Un café".encode()
    assert found[1]["jpg"] == A
    assert found[1]["json"] == MEMBERS[1][1]


def test_equal_keys_of_different_shards_stay_two_rows(tmp_path):
    for name, text in (("a0", "first"), ("a1", "second"), ("a2", "third")):
        shard(tmp_path / f"{name}.tar", [("0.json", talk(text))])
    dataset = open_dataset(DatasetSettings(path=str(tmp_path / "a{0..2}.tar")))
    assert len(dataset.files) == 3
    dataset.write_native(dataset, tmp_path / "out.tar")
    assert [row.turns[0].content for row in read(tmp_path / "out.tar")] == ["first", "second", "third"]
    assert len(list(webdataset.WebDataset(str(tmp_path / "out.tar"), shardshuffle=False))) == 3


def test_shards_by_folder_glob_and_braces(tmp_path):
    for number in range(3):
        shard(tmp_path / f"s-{number:02d}.tar", [(f"{number}.json", talk(str(number)))])
    for spelled in (tmp_path, tmp_path / "s-*.tar", tmp_path / "s-{00..02}.tar"):
        assert [row.turns[0].content for row in read(spelled)] == ["0", "1", "2"]
    assert expand_braces("a{8..10}b{0..1}") == ["a8b0", "a8b1", "a9b0", "a9b1", "a10b0", "a10b1"]


def test_the_json_decides_the_order_of_images_when_it_names_them(tmp_path):
    listed = ["1.png", "0.jpg"]
    members = [("k.0.jpg", A), ("k.1.png", B), ("k.json", talk("<image><image>", images=listed))]
    assert shown(read(shard(tmp_path / "a.tar", members))[0])[1] == [B, A]
    members[2] = ("k.json", talk("<image><image>", images=["elsewhere.jpg"]))
    assert shown(read(shard(tmp_path / "a.tar", members))[0])[1] == [A, B]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("0.jpg", A)], "no_turns"),
        ([("0.jpg", A), ("0.json", b"{")], "malformed_json"),
        ([("0.json", b"[]")], "not_an_object"),
        ([("0.json", b"{}")], "no_turns"),
        ([("0.jpg", A), ("0.txt", b"\xff")], "malformed_text"),
        ([("\udcff.jpg", A)], "no_turns"),
    ],
)
def test_rows_that_make_no_conversation(tmp_path, members, reason):
    rows = read(shard(tmp_path / "a.tar", [*members, ("1.json", talk("good"))]))
    assert [row.problem.reason if row.problem else None for row in rows] == [reason, None]
    rows[0].problem.detail.encode()


def test_files_that_belong_to_no_row_are_passed_over(tmp_path):
    path = shard(tmp_path / "a.tar", [("README", b"x"), (".hidden", b"x"), ("0.json", talk("good"))])
    assert len(read(path)) == 1


def test_compressed_truncated_and_missing_shards_are_named(tmp_path):
    with tarfile.open(tmp_path / "z.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("0.json"))
    with pytest.raises(DatasetError, match=r"z\.tar: not a readable, uncompressed tar"):
        read(tmp_path / "z.tar")
    path = shard(tmp_path / "t.tar", MEMBERS)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DatasetError, match=r"t\.tar: not a readable"):
        read(path)
    with pytest.raises(DatasetError, match=r"no \.tar shards"):
        read(tmp_path / "none-*.tar", format="webdataset")
