"""Validation: rows a second and core, with images and without, first run and rerun, and its memory.

    python -m bench.validation                                        # seconds: a smoke run
    python -m bench.validation --images 4000 --text-rows 1000000

Images are 512 x 512 JPEGs of about 70 KB, each decoded; the rerun finds their digests by path, size and time. A rate by
core is rows over seconds of CPU, so that neighbours on the machine count little. Great Expectations, whose import
and rendering cost the same whatever the number of rows, is timed by itself.
"""

import argparse
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.measure import measured
from tasks.params import parse

KINDS = 64
"""Distinct pictures; more files are copies with a byte of their own, so that every digest is another."""


def make_images(folder: Path, count: int) -> Path:
    """A LLaVA file of `count` rows, each with a 512 x 512 JPEG of its own; images that do not compress all too well."""
    folder.mkdir(parents=True)
    made = []
    for number in range(min(KINDS, count)):
        noise = np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)
        picture = folder / "made.jpg"
        Image.fromarray(noise).resize((512, 512), Image.Resampling.BICUBIC).save(picture, quality=85)
        made.append(picture.read_bytes())
    rows = []
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(made[number % len(made)] + number.to_bytes(4, "little"))
        said = [{"from": "human", "value": "<image>\nWhat is shown?"}, {"from": "gpt", "value": f"Thing {number}."}]
        rows.append({"id": str(number), "image": f"{number}.jpg", "conversations": said})
    (folder / "data.json").write_text(json.dumps(rows))
    return folder / "data.json"


def make_text(folder: Path, count: int) -> Path:
    """A JSONL file of `count` rows without images, about 400 bytes each."""
    folder.mkdir(parents=True)
    with (folder / "data.jsonl").open("w") as file:
        for number in range(count):
            said = [
                {"from": "human", "value": f"Tell me about {number}. " + "Please say it in plain words. " * 5},
                {"from": "gpt", "value": f"{number} is a number. " * 6},
            ]
            file.write(json.dumps({"id": number, "conversations": said}) + "\n")
    return folder / "data.jsonl"


def validated(dataset: Path, out: Path, workers: int | None) -> dict[str, float]:
    """Run the stage; seconds of the clock and of CPU, of the rows and of the audit after them."""
    import pyarrow.parquet  # noqa: F401  the stage's own imports are no part of a rate

    from tasks import validation
    from tasks.layout import Layout

    marks: list[tuple[float, float]] = []
    audit = validation._audit

    def marked(*arguments: Any) -> Any:
        marks.append(now())
        return audit(*arguments)

    validation._audit = marked
    tree: dict[str, Any] = {"dataset": {"path": str(dataset)}, "run": {"workers": workers}}
    tree["model"] = {"path": "-", "over_length": "truncate"}
    marks.append(now())
    validation.validate(parse(tree), Layout.workspace(out))
    marks.append(now())
    names = ("rows", "rows_cpu", "audit", "audit_cpu")
    steps = [later - earlier for at in (0, 1) for later, earlier in zip(marks[at + 1], marks[at], strict=True)]
    return dict(zip(names, steps, strict=True))


def now() -> tuple[float, float]:
    """Clock and CPU."""
    return time.perf_counter(), time.process_time()


def decoder_rate(folder: Path, count: int) -> float:
    """Images a second that Pillow alone decodes whole, on one core: what a rate can be held against."""
    began = time.process_time()
    for number in range(count):
        Image.open(io.BytesIO((folder / f"{number}.jpg").read_bytes())).load()
    return count / (time.process_time() - began)


def report(name: str, dataset: Path, out: Path, rows: int, workers: int | None) -> None:
    """Validate, and say at what rate."""
    cost = measured(validated, dataset, out, workers)
    took = cost.value
    print(f"{name:<24}{rows:>8} rows: {rows / took['rows']:7.0f} rows/s, {rows / took['rows_cpu']:7.0f} rows/s/core; "
          f"audit {took['audit']:.1f} s ({took['audit_cpu']:.1f} s of CPU); "
          f"peak {cost.peak / 2**20:.0f} MiB")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--text-rows", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=None, help="decoding threads; default: one a core")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if args.images:
            dataset = make_images(place / "images", args.images)
            report("images, first run", dataset, place / "out", args.images, args.workers)
            rate = decoder_rate(dataset.parent, min(args.images, 500))
            print(f"  Pillow alone, every pixel: {rate:.0f} images/s/core")
            report("images, rerun", dataset, place / "out", args.images, args.workers)
        if args.text_rows:
            dataset = make_text(place / "text", args.text_rows)
            report("text only", dataset, place / "text-out", args.text_rows, args.workers)


if __name__ == "__main__":
    main()
