"""The embedded demo: deterministic, complete, and with every awkward row it promises."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tasks.demo import build

ROWS = 120


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    build(root, rows=ROWS)
    return root


def digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_another_process_makes_the_same_bytes(demo: Path, tmp_path: Path) -> None:
    code = f"from pathlib import Path; from tasks.demo import build; build(Path({str(tmp_path)!r}), rows={ROWS})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], capture_output=True)
    assert digests(tmp_path) == digests(demo)


def test_row_count_is_exact_and_every_kind_occurs(demo: Path) -> None:
    rows = json.loads((demo / "data.json").read_text())
    assert len(rows) == ROWS
    images = [row.get("image") for row in rows]
    assert any(image is None for image in images)
    assert any(isinstance(image, list) and len(image) == 2 for image in images)
    assert any(len(row["conversations"]) >= 6 for row in rows)
    assert any("again" in str(image) for image in images)


def test_a_finished_demo_is_left_alone_and_an_unfinished_one_is_rebuilt(demo: Path) -> None:
    before = digests(demo)
    (demo / "data.json").write_text("[]")
    build(demo, rows=ROWS)
    assert (demo / "data.json").read_text() == "[]"
    (demo / "complete.txt").unlink()
    build(demo, rows=ROWS)
    assert digests(demo) == before


def test_the_small_clip_reads_text_at_its_end(demo: Path) -> None:
    config = json.loads((demo / "clip/config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(demo / "clip")
    ids = tokenizer("Which digit is written here?")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id == config["text_config"]["eos_token_id"] == max(ids)
    assert ids.count(ids[-1]) == 1
