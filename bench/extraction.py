"""Extraction of `attended` against the method's first code: a full eager forward keeping all attentions and states.

    python -m bench.extraction                                              # seconds: a smoke run on tiny shapes
    python -m bench.extraction --family llava --scale full                  # true 7B shape: 14 GB of disk
    python -m bench.extraction --family qwen3_vl --scale full --layers 4    # fewer layers, the rest extrapolated

Weights are random and attention is nearly uniform, so most visual tokens are kept: the least favourable case for us.
Both sides read the same samples, in processes of their own. With `--layers N` the full forward is timed on a model of N
decoder layers, layer by layer, and those that are missing are added at the median layer's time, which is said.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.checkpoints import FAMILIES, write_checkpoint
from bench.measure import MIB, measured
from tasks.params import Settings, parse
from tasks.sample import ImageRef, Sample, Turn, digest_bytes, digest_sample

QUESTION = "What is shown here, and which of the things in the picture would you move first?"
ANSWER = "A table."


@dataclass(frozen=True)
class Spent:
    """Seconds of the clock and of the processor, for one row."""

    wall: float
    cpu: float


def make_samples(folder: Path, images: int, per_image: int) -> list[Sample]:
    """Questions about noisy 640 x 480 JPEGs, `per_image` about each."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for number in range(images):
        path = folder / f"{number}.jpg"
        noise = np.random.default_rng(number).integers(0, 255, (60, 80, 3), np.uint8)
        Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
        ref = ImageRef(str(path), path.name, sha256=digest_bytes(path.read_bytes()), width=640, height=480)
        for ask in range(per_image):
            turns = (Turn("user", f"<image>\n({ask}) {QUESTION}"), Turn("assistant", ANSWER))
            digest = digest_sample(turns, [ref.sha256])
            samples.append(Sample(len(samples), None, "", turns, (ref,), digest))
    return samples


def settings(folder: Path, dtype: str, budget: int) -> Settings:
    """Settings that read the checkpoint in `folder`."""
    model = {"path": str(folder), "dtype": dtype}
    return parse({"dataset": {"path": "-"}, "model": model, "run": {"token_budget": budget, "device": "cpu"}})


def published(folder: Path, samples: list[Sample], dtype: str) -> tuple[list[Spent], list[Spent], np.ndarray[Any, Any]]:
    """The first code's way, a row at a time: what each row took, what each decoder layer of each, and the features."""
    import torch
    import transformers as hf

    from tasks.vlm.grouping import model_of
    from tasks.vlm.preparation import Preparer
    from tasks.vlm.pruning import decoder

    own = settings(folder, dtype, 1)
    preparer = Preparer(folder, model_of(own, "attended"), own.extract, ("attended",))
    kind = getattr(torch, dtype)
    hf.utils.logging.disable_progress_bar()
    model = hf.AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager", dtype=kind).eval()
    spent, features = [], []
    each: list[Spent] = []
    for layer in decoder(model).layers:
        time_layer(layer, each)
    for sample in samples:
        with stopwatch(spent):
            prepared = preparer(sample, [Image.open(sample.images[0].path).convert("RGB")])
            inputs = {name: one.to(kind) if one.is_floating_point() else one for name, one in prepared.inputs.items()}
            with torch.inference_mode():
                output = model(**inputs, output_attentions=True, output_hidden_states=True, use_cache=False)
            features.append(_attended(output, prepared))
        del output
    return spent, each, np.stack(features)


def time_layer(layer: Any, each: list[Spent]) -> None:
    """Append what every call of the layer takes."""
    marks: list[Spent] = []

    def begin(*_: Any) -> None:
        marks.append(Spent(time.perf_counter(), time.process_time()))

    def end(*_: Any) -> None:
        mark = marks.pop()
        each.append(Spent(time.perf_counter() - mark.wall, time.process_time() - mark.cpu))

    layer.register_forward_pre_hook(begin)
    layer.register_forward_hook(end)


def _attended(output: Any, prepared: Any) -> np.ndarray[Any, Any]:
    from tasks.vlm.signals.attended import leading

    weight = output.attentions[0][0][:, prepared.instruction].float().mean((0, 1)) * prepared.visual
    chosen = leading(weight[None], prepared.visual[None], 0.9)[0]
    found: np.ndarray[Any, Any] = output.hidden_states[1][0, chosen].float().mean(0).numpy()
    return found


def extracted(folder: Path, samples: list[Sample], dtype: str, budget: int, store: Path) -> dict[str, Any]:
    """Ours, as the stage does it: load, prepare beside the model, compute, write shards. One row first, then the rest.

    Gives seconds and bytes of loading (a trial row included, and what a second takes), the peak after the first row,
    what a row took, its parts, and the features.
    """
    from tasks.engines.work import Job
    from tasks.models import Loader, Vlm
    from tasks.store import Shelf
    from tasks.vlm import extractor as _imported  # noqa: F401

    own = settings(folder, dtype, budget)
    loading: list[Spent] = []
    read = disk_bytes()
    with stopwatch(loading):
        work: Any = Loader(Vlm(), own, ("attended",))("cpu")
    result: dict[str, Any] = {"load": loading[0].wall, "load_bytes": disk_bytes() - read}
    trying: list[Spent] = []
    with stopwatch(trying):
        work._extractor._try_out(work._extractor.preparer(), "")
    result["trial"] = trying[0].wall
    shelf = Shelf(store, "0" * 64)
    first = work(Job(0, tuple(samples[:1])))
    result |= {"first_bytes": disk_bytes() - read, "first_peak": peak()}
    shelf.write(first.digests, first.values["attended"], first.refusals, [samples[0].digest])
    spent: list[Spent] = []
    with stopwatch(spent):
        outcome = work(Job(1, tuple(samples)))
        shelf.write(outcome.digests, outcome.values["attended"], outcome.refusals, [one.digest for one in samples])
    assert not outcome.refusals, outcome.refusals
    rows = len(samples)
    result["row"] = Spent(spent[0].wall / rows, spent[0].cpu / rows)
    result["features"] = outcome.values["attended"]["feature"]
    result["last_peak"] = peak()
    result["parts"] = parts(work._extractor, samples, outcome, shelf, budget)
    named: list[Spent] = []
    for _ in range(2):
        with stopwatch(named):
            Vlm(store).describe(own, ("attended",))
    result["describe"], result["again"] = (one.wall for one in named)
    work.close()
    return result


def parts(extractor: Any, samples: list[Sample], outcome: Any, shelf: Any, budget: int) -> dict[str, Spent]:
    """What a row takes, each part alone and in line: decode, tokens and pixels, three forwards, store.

    plain: the first layer's output by the model's own code, a tower pass for every row. least: the same, sharing passes
    and leaving out what is not read. compute: with attention rows and features.
    """
    from tasks.engines.batching import plan_batches
    from tasks.images import decode, read_bytes
    from tasks.vlm.forward import run

    preparer = extractor.preparer()
    preparer(samples[0], [decode(read_bytes(samples[0].images[0]))])
    rows = len(samples)
    took: dict[str, Spent] = {}

    def forward(batch: list[Any], taps: Any) -> None:
        run(extractor._model, extractor._collate(batch), taps)

    with part(took, "decode", rows):
        pictures = [[decode(read_bytes(one)) for one in sample.images] for sample in samples]
    with part(took, "processor", rows):
        prepared = [preparer(sample, images) for sample, images in zip(samples, pictures, strict=True)]
    shown = [sample.images[0].sha256 for sample in samples]
    batches = [[prepared[row] for row in one] for one in plan_batches([p.n_tokens for p in prepared], shown, budget)]
    unshared = {id(one): replace(one, images=("",)) for one in prepared}
    least = replace(extractor._taps, rows=False)
    whole = replace(least, layers=least.visual)
    for name, act in (
        ("plain", lambda batch: forward([unshared[id(one)] for one in batch], whole)),
        ("least", lambda batch: forward(batch, least)),
        ("compute", extractor.compute),
    ):
        with part(took, name, rows):
            for batch in batches:
                act(batch)
    with part(took, "store", rows):
        shelf.write(outcome.digests, outcome.values["attended"], (), [one.digest for one in samples])
    return took


@contextmanager
def part(took: dict[str, Spent], name: str, rows: int) -> Iterator[None]:
    """Add what a part took, a row."""
    spent: list[Spent] = []
    with stopwatch(spent):
        yield
    took[name] = Spent(spent[0].wall / rows, spent[0].cpu / rows)


@contextmanager
def stopwatch(spent: list[Spent]) -> Iterator[None]:
    """Append what the block took."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    spent.append(Spent(time.perf_counter() - wall, time.process_time() - cpu))


def disk_bytes() -> int:
    """Bytes this process had read from the disk itself, not from the page cache."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


def peak() -> int:
    """Most bytes resident so far, mapped weights included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


def forget(folder: Path) -> None:
    """Drop the checkpoint's files from the page cache."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def report_ours(name: str, folder: Path, samples: list[Sample], args: argparse.Namespace) -> dict[str, Any]:
    """Load cold, extract, say what it took; returns what `extracted` found."""
    forget(folder)
    with tempfile.TemporaryDirectory(dir=args.disk) as store:
        cost = measured(extracted, folder, samples, args.dtype, args.budget, Path(store))
    found: dict[str, Any] = cost.value
    row, took = found["row"], found["parts"]
    images = len({one.images[0].sha256 for one in samples})
    print(f"{name}: {len(samples)} rows of {images} images, batches of {args.budget} tokens")
    print(f"  load      {found['load']:.2f} s, of which a trial row {found['trial']:.2f}; "
          f"{found['load_bytes'] / MIB:.0f} MiB read; after the first row "
          f"{found['first_bytes'] / MIB:.0f} MiB read, peak {found['first_peak'] / MIB:.0f} MiB; "
          f"after all {found['last_peak'] / MIB:.0f} MiB; "
          f"digests {found['describe']:.1f} s, remembered {found['again']:.2f} s")  # fmt: skip
    print(f"  a row     {row.wall:.3f} s ({row.cpu:.3f} s of CPU): {1 / row.wall:.2f} rows/s")
    print(
        "  alone     " + ", ".join(f"{key} {one.wall * 1e3:.1f} ({one.cpu * 1e3:.1f}) ms" for key, one in took.items())
    )
    least, plain = took["least"], took["plain"]
    print(f"  overhead  {1 - least.wall / row.wall:.1%} of a row is not the model's least work, "
          f"{1 - least.cpu / row.cpu:.1%} of its CPU time; "
          f"plain takes {plain.wall / least.wall:.2f} x least, {plain.cpu / least.cpu:.2f} x by CPU time")  # fmt: skip
    return found


def report_published(
    folder: Path, layers: int, depth: int, samples: list[Sample], mine: np.ndarray[Any, Any], dtype: str
) -> Spent:
    """Time the full forward of a model of so many layers, and give it at the true depth. `mine`: our features."""
    cost = measured(published, folder, samples, dtype)
    rows, each, theirs = cost.value
    error = np.linalg.norm(mine[: len(theirs)] - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
    row, layer = typical(rows[1:]), typical(each[layers:])
    print(f"full forward, {layers} layers: {row.wall:.3f} s a row ({row.cpu:.3f} s of CPU), of which {layer.wall:.3f} "
          f"({layer.cpu:.3f}) a layer; peak {cost.peak / MIB:.0f} MiB; "
          f"features differ by {error.max():.1e} of their length")  # fmt: skip
    if depth == layers:
        return row
    whole = Spent(row.wall + (depth - layers) * layer.wall, row.cpu + (depth - layers) * layer.cpu)
    print(f"full forward, {depth} layers: {whole.wall:.3f} s a row ({whole.cpu:.3f} s of CPU): EXTRAPOLATED, not run; "
          f"{depth - layers} more layers at the median one's time")  # fmt: skip
    return whole


def typical(spent: list[Spent]) -> Spent:
    """Medians."""
    return Spent(float(np.median([one.wall for one in spent])), float(np.median([one.cpu for one in spent])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, nargs="+", default=list(FAMILIES))
    parser.add_argument("--scale", choices=("tiny", "full"), default="tiny")
    parser.add_argument("--layers", type=int, help="decoder layers of the model; default: all")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2, help="rows of the full forward, after one to warm up")
    parser.add_argument("--budget", type=int, default=4096, help="tokens per batch of ours")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--disk", type=Path, default=None, help="where there is room for the checkpoint")
    args = parser.parse_args()
    for family in args.family:
        with tempfile.TemporaryDirectory(dir=args.disk) as folder:
            compare(family, Path(folder), args)


def compare(family: str, place: Path, args: argparse.Namespace) -> None:
    """Everything about one family."""
    shape = FAMILIES[family][1][args.scale]
    folder, layers = place / "model", args.layers or shape.layers
    size = write_checkpoint(folder, family, replace(shape, layers=layers), args.dtype)
    print(f"\n{family} {args.scale}, {layers} decoder layers: {size / 1e9:.2f} GB, {args.dtype}")
    single = make_samples(place / "one", max(args.images, 1 + args.repeats), 1)
    found = report_ours("one question an image", folder, single, args)
    forget(folder)
    full = report_published(folder, layers, shape.layers, single[: 1 + args.repeats], found["features"], args.dtype)
    row = found["row"]
    print(f"RATIO     {full.wall / row.wall:.1f} x by the clock, {full.cpu / row.cpu:.1f} x by CPU time")
    shared = report_ours("three questions an image", folder, make_samples(place / "three", args.images, 3), args)
    print(f"SHARED    {row.wall / shared['row'].wall:.2f} x one question an image by the clock, "
          f"{row.cpu / shared['row'].cpu:.2f} x by CPU time")  # fmt: skip
    shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
