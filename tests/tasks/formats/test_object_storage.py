"""The same dataset on a disk and in object storage: the same rows, digests, rejects and exports."""

import json
import os
import subprocess
import sys

import pytest
from buckets import put, upload
from small_datasets import ROWS, as_samples, contents, picture, read

from tasks import image_index, images, places
from tasks.errors import DatasetError, ParamsError
from tasks.formats import WRITERS, PathPolicy, detect, open_dataset
from tasks.layout import Layout
from tasks.params import DatasetSettings, parse
from tasks.sample import digest_bytes
from tasks.tables import read_samples
from tasks.validation import validate

# What each writer leaves behind, as `dataset.path` may name it, and the format that is detected.
NAMED = {
    "llava": ("subset.json", "llava"),
    "messages": ("subset.json", "messages"),
    "ms_swift": ("subset.jsonl", "messages"),
    "llamafactory": ("", "llamafactory"),
    "parquet": ("", "parquet"),
    "parquet file": ("subset-00000.parquet", "parquet"),
    "parquet pattern": ("subset-*.parquet", "parquet"),
    "webdataset": ("", "webdataset"),
    "webdataset file": ("subset-000000.tar", "webdataset"),
    "webdataset braces": ("subset-{000000..000000}.tar", "webdataset"),
    "saved": ("saved", "parquet"),
}


@pytest.fixture
def made(folder, tmp_path_factory, request):
    """(folder, name in it, format): the small dataset in one of the formats, images beside or inside."""
    key = request.param
    name, told = NAMED[key]
    out = tmp_path_factory.mktemp("made") / "data"
    samples = list(as_samples(read(folder / "data.json")))
    if key == "saved":
        import datasets

        files = WRITERS["parquet"](samples, out, PathPolicy())
        datasets.Dataset.from_parquet(str(files[0])).save_to_disk(out / "saved")
        return out, name, told
    for one in ("coco/a.jpg", "vg/b.png"):
        (out / one).parent.mkdir(parents=True, exist_ok=True)
        (out / one).write_bytes((folder / one).read_bytes())
    refs = [(s, original) for s, original in samples]
    WRITERS[key.split()[0]](refs, out, PathPolicy("media_dir", folder))
    return out, name, told


def told_by(row):
    return row.row, row.id, row.source, contents(row), [ref.name for ref in row.images]


def validated(out, **dataset):
    layout = Layout.flat(out)
    tree = {"dataset": dataset, "model": {"path": "none", "over_length": "truncate"}}
    validate(parse(tree, {"validate.gates.maximum_reject_share": 1.0}), layout)
    return layout


@pytest.mark.parametrize("made", NAMED, indirect=True)
def test_rows_and_digests_are_those_of_a_disk(made, bucket, tmp_path):
    folder, name, told = made
    url = upload(folder, f"{bucket}/some folder")
    path = f"{url}/{name}".rstrip("/")
    assert detect(path) == told
    rows = read(path)
    assert list(map(told_by, rows)) == list(map(told_by, read(folder / name)))
    assert {ref.path.startswith(url) for row in rows for ref in row.images} == {True}
    here, there = validated(tmp_path / "a", path=str(folder / name)), validated(tmp_path / "b", path=path)
    digests = [[sample.digest for sample in read_samples(one.samples)] for one in (here, there)]
    assert digests[0] == digests[1]
    assert len(digests[0]) == len(ROWS)
    assert here.validation.read_bytes() == there.validation.read_bytes()


@pytest.mark.parametrize("made", ["llava", "ms_swift", "llamafactory", "parquet", "webdataset", "saved"], indirect=True)
def test_exports_are_those_of_a_disk(made, bucket, tmp_path):
    folder, name, _ = made
    url = upload(folder, f"{bucket}/data")
    written = []
    for number, path in enumerate((folder / name, f"{url}/{name}".rstrip("/"))):
        out = tmp_path / str(number)
        dataset = open_dataset(DatasetSettings(path=str(path)))
        dataset.write_native(dataset, out / f"subset{dataset.extension}")
        for kind in ("parquet", "webdataset"):
            WRITERS[kind](as_samples(dataset), out / kind, PathPolicy())
        written.append({one.relative_to(out): one.read_bytes() for one in out.rglob("*") if one.is_file()})
    assert written[0] == written[1]
    assert len(written[0]) == 3


@pytest.mark.parametrize("made", ["llava"], indirect=True)
def test_json_exports_name_images_by_url(made, bucket, tmp_path):
    url = upload(made[0], f"{bucket}/data")
    samples = list(as_samples(read(f"{url}/subset.json")))

    def named(*policy):
        data = WRITERS["messages"](samples, tmp_path / "out", PathPolicy(*policy))[0]
        return json.loads(data.read_text())[1]["images"]

    whole = [f"{url}/coco/a.jpg", f"{url}/vg/b.png"]
    assert named("relative") == named("absolute") == named("media_dir", tmp_path) == whole
    assert named("media_dir", places.place(url)) == ["coco/a.jpg", "vg/b.png"]


@pytest.mark.parametrize("root", ["memory://team/images", "memory://team/images/"])
@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.jpg", "memory://team/images/a.jpg"),
        ("x/./y//a.jpg", "memory://team/images/x/y/a.jpg"),
        ("x/../a.jpg", "memory://team/images/a.jpg"),
        ("memory://team/images/x/a b#?%.jpg", "memory://team/images/x/a b#?%.jpg"),
        ("memory://team/images/../images2/a.jpg", "image_outside_root"),
        ("memory://team/images2/a.jpg", "image_outside_root"),
        ("memory://other/images/a.jpg", "image_outside_root"),
        ("s3://team/images/a.jpg", "image_outside_root"),
        ("../a.jpg", "image_outside_root"),
        ("x/../../a.jpg", "image_outside_root"),
        ("/etc/passwd", "image_outside_root"),
        ("file:///etc/passwd", "image_outside_root"),
        ("https://example.org/a.jpg", "image_url_not_allowed"),
        ("data:image/png;base64,AA", "image_url_not_allowed"),
    ],
)
def test_names_are_held_to_a_root_that_is_a_url(root, name, found):
    ref = images.locate(name, places.place(root))
    assert (ref.path if isinstance(ref, images.ImageRef) else ref.reason) == found


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("../images/a.jpg", "memory://team/images/a.jpg"),
        ("../images/../a.jpg", "image_outside_root"),
        ("../../team2/images/a.jpg", "image_outside_root"),
    ],
)
def test_a_name_may_lead_into_the_root_from_the_file_that_holds_it(name, found):
    root, beside = places.place("memory://team/images"), places.place("memory://team/out")
    ref = images.locate(name, root, beside)
    assert (ref.path if isinstance(ref, images.ImageRef) else ref.reason) == found
    assert images.locate(name, root, places.place("/team/out")).reason == "image_outside_root"


def test_a_local_dataset_may_show_images_of_a_bucket(folder, bucket, tmp_path):
    url = upload(folder, f"{bucket}/pictures")
    rows = [{**ROWS[0], "image": f"{url}/coco/a.jpg"}, {**ROWS[1], "image": ["coco/a.jpg", f"{url}/vg/b.png"]}]
    rows += [{**ROWS[0], "image": name} for name in (f"{bucket}/a.jpg", "../a.jpg", "gone.jpg", "https://h/a.jpg")]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    layout = validated(tmp_path / "out", path=str(tmp_path / "rows.json"), image_root=url)
    assert [contents(row) for row in read(folder / "data.json")[:2]] == [
        (sample.turns, [ref.sha256 for ref in sample.images]) for sample in read_samples(layout.samples)
    ]
    rejects = [json.loads(line)["reason"] for line in layout.rejects.read_text().splitlines()]
    assert rejects == ["image_outside_root", "image_outside_root", "image_missing", "image_url_not_allowed"]


@pytest.fixture
def reads(monkeypatch):
    """Paths whose bytes were read, by the real reader."""
    seen, fetch = [], image_index.fetch
    monkeypatch.setattr(image_index, "fetch", lambda ref: seen.append(ref.path) or fetch(ref))
    return seen


def test_images_are_read_again_only_when_the_object_changed(folder, bucket, tmp_path, reads):
    url = upload(folder, f"{bucket}/data")
    first = list(read_samples(validated(tmp_path, path=f"{url}/data.json").samples))
    assert sorted(reads) == [f"{url}/coco/a.jpg", f"{url}/vg/b.png"]
    assert list(read_samples(validated(tmp_path, path=f"{url}/data.json").samples)) == first
    assert len(reads) == 2
    other = bytearray(picture(0))
    other[-10] ^= 1  # as many bytes, one of them another
    put(f"{url}/coco/a.jpg", bytes(other))
    changed = list(read_samples(validated(tmp_path, path=f"{url}/data.json").samples))
    assert reads[2:] == [f"{url}/coco/a.jpg"]
    assert [one.digest for one in changed][2] == first[2].digest
    assert changed[0].images[0].sha256 == digest_bytes(bytes(other))


def test_what_is_not_there_is_named(folder, bucket, tmp_path):
    url = upload(folder, f"{bucket}/data")
    missing = f"{bucket}x"
    with pytest.raises(DatasetError, match=rf"dataset.path: {url}/Data.json: the bucket is there.*'data/Data.json'"):
        read(f"{url}/Data.json")
    with pytest.raises(DatasetError, match=rf"dataset.path: {missing}/data.json: there is no bucket {missing}"):
        read(f"{missing}/data.json")
    with pytest.raises(DatasetError, match=rf"dataset.image_root: {url}/pictures: the bucket is there"):
        read(f"{url}/data.json", image_root=f"{url}/pictures")
    with pytest.raises(DatasetError, match=r"no \.tar shards there"):
        read(f"{url}/*.tar", format="webdataset")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("https://example.org/data.json", "no storage; download it"),
        ("nonesuch://team/data.json", "no kind of storage is called nonesuch://"),
        ("gs://team/data.json", "the package for gs:// is not installed"),
    ],
)
def test_what_cannot_be_opened_at_all_is_named(path, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ParamsError, match=said):
        read(path)


def test_without_s3fs_the_extra_is_named():
    code = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from tasks.formats import open_dataset; from tasks.params import DatasetSettings\n"
        "open_dataset(DatasetSettings(path='s3://team/data.json'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith(
        "s3://team/data.json: the package for s3:// is not installed; pip install 'scalselect[s3]'"
    )


def test_a_server_that_is_away_stops_the_run_and_rejects_no_row(folder, tmp_path, monkeypatch):
    """Read by the real client, from a port where nobody listens."""
    code = (
        "from tasks import places\n"
        "from tasks.errors import AwayError\n"
        "try: places.read_bytes('s3://team/a.jpg')\n"
        "except AwayError as error: print(error)"
    )
    environment = {**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a"}
    environment |= {"AWS_SECRET_ACCESS_KEY": "b", "AWS_MAX_ATTEMPTS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("s3://team/a.jpg: EndpointConnectionError")
    assert "AWS_ENDPOINT_URL" in done.stdout
