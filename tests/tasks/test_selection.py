"""Stage 4 on files: every row accounted for, the budget exact, the same bytes twice."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tasks import params
from tasks.errors import BudgetError, FeatureError, ParamsError
from tasks.layout import Layout
from tasks.sample import ImageRef, Sample, Turn, digest_sample
from tasks.scoring import score
from tasks.selection import select
from tasks.tables import SELECTION, features_schema, write_samples

ROWS = 40
REJECTED, UNREADABLE, TEXT_ONLY = (3, 9), (17,), (5, 6)
TWINS = {30: 2, 31: 2}
SCORED = [row for row in range(ROWS) if row not in (*REJECTED, *UNREADABLE, *TEXT_ONLY)]


def make_sample(row):
    said = TWINS.get(row, row)
    turns = (Turn("user", f"what is {said}?"), Turn("assistant", "yes" * (said + 1)))
    images = () if row in TEXT_ONLY else (ImageRef(f"{row}.png", f"{row}.png", sha256=f"{said // 2:064x}"),)
    digest = digest_sample(turns, [image.sha256 for image in images])
    return Sample(row, None if row == 7 else f"id-{row % 30}", "a,b" if row % 3 else "c", turns, images, digest)


def write_lines(path, rows, reason):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"row": row, "id": f"id-{row}", "reason": reason, "detail": "why"} for row in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def layout(tmp_path):
    layout = Layout.flat(tmp_path / "run")
    samples = {row: make_sample(row) for row in range(ROWS) if row not in REJECTED}
    write_samples(layout.samples, samples.values())
    write_lines(layout.rejects, REJECTED, "image_missing")
    write_lines(layout.features / "rejects.jsonl", UNREADABLE, "image_truncated")
    layout.validation.write_text(json.dumps({"rows": ROWS}))
    features = np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)
    for row, other in TWINS.items():
        features[row] = features[other]
    folder = layout.features / "attended"
    folder.mkdir()
    columns = {
        "row": SCORED,
        "id": [samples[row].id for row in SCORED],
        "digest": [samples[row].digest for row in SCORED],
        "feature": features[SCORED].tolist(),
    }
    table = features_schema(6).empty_table().from_pydict(columns, schema=features_schema(6))
    pq.write_table(table, folder / "part-00000.parquet")
    score(settings(), layout)
    return layout


def settings(**overrides):
    tree = {"dataset": {"path": "d.json"}, "model": {"path": "m"}}
    return params.parse(tree, {key.replace("__", "."): value for key, value in overrides.items()})


def lines_of(layout):
    return pq.read_table(layout.selection).to_pylist()


def selected(layout):
    lines = [line for line in lines_of(layout) if line["status"] == "selected"]
    return [line["row"] for line in sorted(lines, key=lambda line: line["position"])]


@pytest.mark.parametrize("budget", [0, 1, 7, len(SCORED), 0.16, 1.0])
def test_every_row_is_accounted_for(layout, budget):
    select(settings(select__budget=budget), layout)
    assert pq.read_schema(layout.selection).equals(SELECTION)
    lines = lines_of(layout)
    assert [line["row"] for line in lines] == list(range(ROWS))
    count = budget if isinstance(budget, int) else int(budget * len(SCORED))
    metrics = json.loads(layout.selection_metrics.read_text())
    assert (
        metrics["rows_in"] == ROWS == sum(metrics[key] for key in ("selected", "not_selected", "set_aside", "rejected"))
    )
    assert metrics["selected"] == count == len(selected(layout))
    assert metrics["not_selected"] == len(SCORED) - count
    assert (metrics["set_aside"], metrics["rejected"]) == (2, 3)
    assert sorted(line["position"] for line in lines if line["position"] is not None) == list(range(count))
    assert [line["reason"] for line in lines if line["status"] == "rejected"] == [
        "image_missing",
        "image_missing",
        "image_truncated",
    ]
    assert lines[17]["digest"] == make_sample(17).digest
    assert lines[3] == {
        "row": 3, "id": "id-3", "digest": None, "source": None, "status": "rejected", "reason": "image_missing",
        "position": None, "exported": False,
    }  # fmt: skip


def test_the_best_scores_are_selected_best_first(layout):
    select(settings(select__budget=9), layout)
    table = pq.read_table(layout.scores).to_pydict()
    ranked = [row for _, row in sorted(zip(table["rank"], table["row"], strict=True))]
    assert selected(layout) == ranked[:9]
    metrics = json.loads(layout.selection_metrics.read_text())
    assert metrics["score_cut"] == sorted(table["score"], reverse=True)[8]
    texts = [sum(len(turn.content) for turn in make_sample(row).turns) for row in ranked]
    assert metrics["mean_characters_selected"] == pytest.approx(np.mean(texts[:9]))
    assert metrics["mean_characters_pool"] == pytest.approx(np.mean(texts))
    assert metrics["images_selected"] == len({make_sample(row).images[0].sha256 for row in ranked[:9]})


@pytest.mark.parametrize(("policy", "exported"), [("exclude", False), ("keep", True)])
def test_text_only_rows_are_set_aside_and_exported_as_told(layout, policy, exported):
    select(settings(select__budget=3, dataset__text_only=policy), layout)
    aside = [line for line in lines_of(layout) if line["status"] == "set_aside"]
    assert [(line["row"], line["reason"], line["exported"]) for line in aside] == [
        (5, "text_only", exported),
        (6, "text_only", exported),
    ]


def test_source_mix(layout):
    select(settings(select__budget=10), layout)
    lines = list(csv.DictReader(layout.source_mix.open()))
    assert [line["source"] for line in lines] == ["a,b", "c"]
    assert sum(int(line["selected"]) for line in lines) == 10
    assert [int(line["pool"]) for line in lines] == [
        sum(row % 3 > 0 for row in SCORED),
        sum(row % 3 == 0 for row in SCORED),
    ]
    assert sum(float(line["selected_share"]) for line in lines) == pytest.approx(1)


def test_the_same_bytes_twice(layout):
    chosen = settings(select__budget=0.5, select__deduplicate=True)
    paths = (layout.selection, layout.source_mix, layout.selection_metrics)
    select(chosen, layout)
    first = [path.read_bytes() for path in paths]
    select(chosen, layout)
    assert [path.read_bytes() for path in paths] == first


def test_twins_are_selected_once_and_the_refused_say_why(layout):
    distinct = len(SCORED) - len(TWINS)
    select(settings(select__budget=distinct, select__deduplicate=True), layout)
    reasons = [line["reason"] for line in lines_of(layout) if line["status"] == "not_selected"]
    assert reasons == ["duplicate", "duplicate"]
    assert json.loads(layout.selection_metrics.read_text())["duplicates_selected"] == 0
    with pytest.raises(BudgetError, match=f"`duplicate` refused 2: the largest budget is {distinct}"):
        select(settings(select__budget=distinct + 1, select__deduplicate=True), layout)


def test_near_duplicates_and_images(layout):
    select(settings(select__budget=12, select__near_duplicates=0.9999, select__per_image=1), layout)
    chosen = selected(layout)
    assert len({make_sample(row).images[0].sha256 for row in chosen}) == 12


def test_quotas_pins_and_drops(layout):
    pinned = make_sample(20)
    chosen = settings(
        select__budget=8, select__quotas={"c": 0.25}, select__keep=[pinned.digest], select__drop=["id-1", "id-8"]
    )
    select(chosen, layout)
    rows = selected(layout)
    assert sum(row % 3 == 0 for row in rows) == 2
    assert 20 in rows
    dropped = [line["row"] for line in lines_of(layout) if line["reason"] == "dropped"]
    assert dropped == [1, 8, 31, 38]


@pytest.mark.parametrize(
    ("overrides", "kind", "message"),
    [
        ({"select__keep": ["nobody"]}, ParamsError, "select.keep: `nobody` is neither"),
        ({"select__drop": ["id-3x"]}, ParamsError, "select.drop: `id-3x`"),
        ({"select__quotas": {"zz": 1}}, BudgetError, "select.quotas: no scored row has source `zz`"),
        ({"select__budget": 99}, BudgetError, f"99 rows asked for, {len(SCORED)} rows were scored"),
        ({"score__method": "magic"}, ParamsError, "score.method: no method `magic`"),
        (
            {"select__near_duplicates": 0.9, "extract__signals": ["answers"]},
            ParamsError,
            "near_duplicates needs features",
        ),
    ],
)
def test_what_cannot_be_is_said(layout, overrides, kind, message):
    with pytest.raises(kind, match=message):
        select(settings(**{"select__budget": 5, **overrides}), layout)


def test_stale_scores_are_refused(layout):
    table = pq.read_table(layout.scores)
    pq.write_table(table.slice(1), layout.scores)
    with pytest.raises(FeatureError, match="run score again"):
        select(settings(select__budget=5), layout)


def test_a_row_nobody_accounts_for_is_named(layout):
    layout.validation.write_text(json.dumps({"rows": ROWS + 1}))
    with pytest.raises(FeatureError, match=f"row {ROWS} was neither rejected nor set aside"):
        select(settings(select__budget=5), layout)


@pytest.mark.parametrize("method", ["random", "stratified"])
def test_random_selections_follow_the_seed(layout, method):
    score(settings(score__method=method), layout)
    found = []
    for seed in (0, 0, 1):
        select(settings(score__method=method, select__budget=12, select__seed=seed), layout)
        found.append(selected(layout))
    assert found[0] == found[1] != found[2]


def test_a_method_with_picks_of_its_own_goes_through_the_files(layout):
    options = {"score__method": "semdedup", "methods__semdedup": {"features": "attended", "clusters": 4}}
    score(settings(**options), layout)
    select(settings(**options, select__budget=11), layout)
    assert len(selected(layout)) == 11


@pytest.mark.parametrize("method", ["random", "stratified"])
def test_a_method_that_looks_at_nothing_needs_no_features(layout, method):
    for path in layout.features.rglob("*.parquet"):
        path.unlink()
    given = settings(score__method=method, select__budget=9)
    with pytest.raises(FeatureError, match="run the extract stage"):
        score(given, layout)
    (layout.features / "extraction.json").write_text('{"signals": {}}')
    # The row that extraction would have refused.
    (layout.features / "rejects.jsonl").write_text("")
    score(given, layout)
    select(given, layout)
    metrics = json.loads(layout.selection_metrics.read_text())
    assert (metrics["scored"], metrics["selected"], metrics["set_aside"]) == (len(SCORED) + 1, 9, len(TEXT_ONLY))
