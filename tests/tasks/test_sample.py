"""Sample identity: content and image bytes, in order; nothing else."""

from pathlib import Path

from tasks.sample import ImageRef, Sample, Turn, digest_sample
from tasks.tables import read_samples, write_samples

TURNS = (Turn("user", "<image>\nWhat?"), Turn("assistant", "Grün."))


def test_the_digest_is_fixed_for_all_time() -> None:
    assert digest_sample(TURNS, ["ab"]) == "a52e2a823b8592af5bfe953e2edbfbe84304cfd398e5b0f17731fcbd5423843d"


def test_each_part_of_the_content_counts() -> None:
    base = digest_sample(TURNS, ["a", "b"])
    assert digest_sample(TURNS[::-1], ["a", "b"]) != base
    assert digest_sample(TURNS, ["b", "a"]) != base
    assert digest_sample((Turn("system", TURNS[0].content), TURNS[1]), ["a", "b"]) != base
    # Text cannot pass for structure.
    assert digest_sample((Turn("user", 'x"],["assistant","y'),), []) != digest_sample(
        (Turn("user", "x"), Turn("assistant", "y")), []
    )


def test_samples_come_back_as_written_and_bytes_repeat(tmp_path: Path) -> None:
    samples = [
        Sample(0, "1", "coco", TURNS, (ImageRef("a/b.jpg", "b.jpg", "", "ab", 3, 4),), "d0"),
        Sample(5, None, "", (Turn("user", "Hi"), Turn("assistant", "")), (), "d5"),
    ]
    for name in ("one", "two"):
        assert write_samples(tmp_path / name, iter(samples), batch_rows=1) == 2
    assert list(read_samples(tmp_path / "one")) == samples
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert [sample.text_only for sample in samples] == [False, True]


def test_no_samples_is_a_table_of_none(tmp_path: Path) -> None:
    assert write_samples(tmp_path / "none", []) == 0
    assert list(read_samples(tmp_path / "none")) == []
