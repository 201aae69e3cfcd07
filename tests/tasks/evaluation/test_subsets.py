"""Subsets are those the selection stage would choose, over shared features."""

import numpy as np
import pytest
from small_evaluation import FINGERPRINT, make_settings

from tasks.errors import FeatureError
from tasks.evaluation.evaluation import check_signals
from tasks.evaluation.planning import Run, settings_for
from tasks.evaluation.subsets import Chooser, extraction_seconds, read_rows
from tasks.params import parse
from tasks.pool import read_pool
from tasks.rates import record_rate
from tasks.scoring import score
from tasks.selection import select


def test_a_subset_is_what_the_stages_would_select(small):
    folder, layout = small
    settings = make_settings(folder)
    layout.rejects.write_text("")
    layout.validation.write_text('{"rows": 40}')
    (layout.features / "rejects.jsonl").write_text("")
    for run in (Run("scalselect", 0.3, 0), Run("random", 7, 2)):
        chosen = settings_for(settings, run)
        score(chosen, layout)
        select(chosen, layout)
        import polars as pl

        table = pl.read_parquet(layout.selection).filter(pl.col("status") == "selected")
        assert sorted(Chooser(settings, layout).choose(run).rows) == table["row"].to_list()


def test_seeds_change_random_and_nothing_else(small):
    folder, layout = small
    chooser = Chooser(make_settings(folder), layout)
    assert chooser.choose(Run("scalselect", 0.3, 0)).rows == chooser.choose(Run("scalselect", 0.3, 1)).rows
    assert chooser.choose(Run("random", 0.3, 0)).rows != chooser.choose(Run("random", 0.3, 1)).rows


def test_full_is_every_scored_row_and_text_only_rows_join_when_kept(small):
    folder, layout = small
    settings = make_settings(folder)
    shown = read_pool(layout).rows.tolist()
    assert sorted(Chooser(settings, layout).choose(Run("full", 1.0, 0)).rows) == shown
    kept = parse(settings.model_dump(by_alias=True), {"dataset.text_only": "keep"})
    assert sorted(Chooser(kept, layout).choose(Run("full", 1.0, 0)).rows) == list(range(40))
    joined = Chooser(kept, layout).choose(Run("random", 5, 0)).rows
    assert len(joined) == 5 + 40 - len(shown)


def test_rows_stand_by_content_whatever_their_order(small):
    folder, layout = small
    chooser = Chooser(make_settings(folder), layout)
    digests = chooser.digests(chooser.choose(Run("full", 1.0, 0)))
    assert digests == sorted(digests)
    assert [one.row for one in read_rows(layout.samples, (7, 3, 5))] == [7, 3, 5]


def test_selection_time_is_extraction_and_choosing(small):
    folder, layout = small
    rows = len(read_pool(layout))
    assert extraction_seconds(layout, ["attended"], rows) == pytest.approx(rows / 100)
    assert extraction_seconds(layout, [], rows) == 0.0
    seconds = Chooser(make_settings(folder), layout).choose(Run("scalselect", 0.3, 0)).seconds
    assert seconds is not None
    assert seconds > rows / 100
    # A pass that was shared with another signal counts whole, but a pass of its own goes before it.
    record_rate(layout.store, f"local:cpu:{FINGERPRINT[:16]}+{'0' * 16}", 10.0)
    assert extraction_seconds(layout, ["attended"], rows) == pytest.approx(rows / 100)
    (layout.store / "rates.json").unlink()
    assert extraction_seconds(layout, ["attended"], rows) is None
    assert Chooser(make_settings(folder), layout).choose(Run("scalselect", 0.3, 0)).seconds is None


def test_a_missing_signal_is_named_before_anything_is_trained(small):
    folder, layout = small
    with pytest.raises(FeatureError, match="no `pooled`"):
        check_signals(make_settings(folder, methods=["prism"]), layout)


def test_a_variant_without_near_duplicates_keeps_its_rows_apart(small):
    folder, layout = small
    apart = {"apart": {"method": "random", "select": {"near_duplicates": 0.5}}}
    settings = make_settings(folder, methods=["apart"], variants=apart)
    rows = Chooser(settings, layout).choose(Run("apart", 4, 0)).rows
    pool = read_pool(layout, ("attended",))
    features = pool.tables.matrix("attended").take(np.searchsorted(pool.rows, np.array(sorted(rows))))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert np.triu(unit @ unit.T, 1).max() <= 0.5
