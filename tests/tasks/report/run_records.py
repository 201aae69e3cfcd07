"""The records of a finished run of a few dozen rows, written straight to files, for the report to read."""

import io
import json

import numpy as np
import polars as pl
from PIL import Image

from tasks.layout import Layout
from tasks.params import parse
from tasks.sample import ImageRef, Sample, Turn, digest_bytes, digest_sample
from tasks.tables import write_samples

ROWS, SELECTED, ASIDE, REJECTED = 60, 30, 4, 6
SCORED = ROWS - ASIDE - REJECTED


def encoded(row):
    shade = np.full((40, 60, 3), (row * 4, 90, 160), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(shade).save(buffer, "PNG")
    return buffer.getvalue()


def make_settings(folder):
    return parse(
        {
            "dataset": {"path": str(folder / "data.json")},
            "model": {"path": "models/tiny"},
            "select": {"budget": SELECTED},
        }
    )


def status_of(row):
    if row < REJECTED:
        return "rejected"
    if row < REJECTED + ASIDE:
        return "set_aside"
    return "selected" if row < REJECTED + ASIDE + SELECTED else "not_selected"


def make_sample(folder, row):
    """Scored rows have an image; their questions try to break out of the page."""
    images = ()
    if status_of(row) != "set_aside":
        (folder / f"{row}.png").write_bytes(encoded(row))
        images = (
            ImageRef(str(folder / f"{row}.png"), f"{row}.png", sha256=digest_bytes(encoded(row)), width=60, height=40),
        )
    said = (
        Turn("user", f"<image>\nWhat is </p><script>alert({row})</script>?"),
        Turn("assistant", f"Colour & shade {row}"),
    )
    return Sample(
        row, f"id-{row}", f"source {row % 3}", said, images, digest_sample(said, [ref.sha256 for ref in images])
    )


def write_records(folder):
    """Everything but the manifest; returns the layout. Row 10 scores highest, row 59 lowest."""
    layout = Layout.flat(folder / "out")
    samples = [make_sample(folder, row) for row in range(REJECTED, ROWS)]
    write_samples(layout.samples, samples)
    write_scores(layout)
    reasons = {"rejected": "image_missing", "set_aside": "text_only"}
    pl.DataFrame(
        {
            "row": range(ROWS),
            "status": [status_of(row) for row in range(ROWS)],
            "reason": ["span_not_found" if row == 0 else reasons.get(status_of(row), "") for row in range(ROWS)],
        }
    ).write_parquet(layout.selection)
    gates = [{"name": "minimum_rows", "limit": 1, "value": 54, "passed": True}]
    files = [{"name": "data.json", "bytes": 1234, "sha256": "d" * 64}]
    layout.validation.write_text(json.dumps({"gates": gates, "dataset": {"format": "llava", "files": files}}))
    layout.source_mix.write_text(
        'source,pool,selected,pool_share,selected_share\n007,30,30,0.6,1.0\n"a,""b""",20,0,0.4,0.0\n'
    )
    layout.docs.mkdir(parents=True)
    (layout.docs / "index.html").write_text("<title>docs</title>")
    return layout


def write_scores(layout):
    rows = list(range(REJECTED + ASIDE, ROWS))
    score = [1.0 / (place + 1) for place in range(SCORED)]
    frame = pl.DataFrame({"row": rows, "score": score, "rank": range(SCORED)})
    frame.write_parquet(layout.scores)
    curve = "".join(f"{place},{value}\n" for place, value in enumerate(score))
    layout.score_curve.write_text(f"rank,score\n{curve}")
    spectrum = "".join(f"{one},{9 - one},0.125,{one / 8}\n" for one in range(1, 9))
    layout.spectrum.write_text(f"component,singular_value,energy,cumulative\n{spectrum}")
    layout.score_metrics.write_text(json.dumps({"k": 7, "energy": 0.875}))
