"""A few dozen extracted rows on disk, in the flat layout: samples, `attended` vectors, `answers` statistics."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks import params
from tasks.layout import Layout
from tasks.sample import ImageRef, Sample, Turn, digest_sample
from tasks.tables import features_schema, write_samples

ROWS, ASIDE = 60, (4, 5)
SCORED = [row for row in range(ROWS) if row not in ASIDE]
SOURCES = ("<b>big</b>", "middle", "")


def make_sample(row):
    turns = (Turn("user", f"what is {row}?"), Turn("assistant", "yes " * (row % 17 + 1))) * (1 + row % 3)
    images = () if row in ASIDE else (ImageRef(f"{row}.png", f"{row}.png", sha256=f"{row:064x}"),)
    source = SOURCES[min(row % 5, 2)]
    return Sample(row, f"id-{row}", source, turns, images, digest_sample(turns, [one.sha256 for one in images]))


def write_rows(folder):
    layout = Layout.flat(folder)
    samples = [make_sample(row) for row in range(ROWS)]
    write_samples(layout.samples, samples)
    layout.rejects.write_text("")
    layout.validation.write_text(f'{{"rows": {ROWS}}}')
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(SCORED), 6)) * [5, 3, 2, 1, 1, 0.5] + 2
    identity = {"row": SCORED, "id": [f"id-{row}" for row in SCORED], "digest": [samples[row].digest for row in SCORED]}
    attended = pa.table({**identity, "feature": vectors.astype(np.float32).tolist()}, schema=features_schema(6))
    answers = pa.table({**identity, **{name: rng.random(len(SCORED)) for name in ("nll", "el2n", "margin")}})
    for name, table in (("attended", attended), ("answers", answers)):
        (layout.features / name).mkdir(parents=True)
        pq.write_table(table, layout.features / name / "part-00000.parquet")
    return layout


def settings(**overrides):
    tree = {"dataset": {"path": "d.json"}, "model": {"path": "m"}}
    return params.parse(tree, {key.replace("__", "."): value for key, value in overrides.items()})
