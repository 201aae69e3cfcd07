"""Stage 4: from scores to a subset of exactly the size asked for, with the fate of every row written down."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.accounting import Intake, account, count_statuses, read_intake, write_selection
from tasks.atomic import write_json, write_text
from tasks.composition import Candidates, Composition, Constraints, budget_count, compose, source_counts
from tasks.errors import FeatureError, ParamsError
from tasks.layout import Layout
from tasks.methods import METHODS
from tasks.methods.contract import Columns, Method, Tables, best_first
from tasks.params import SelectSettings, Settings
from tasks.pool import PoolRows, read_pool

log = logging.getLogger(__name__)

Rows = NDArray[np.int64]

_MATRICES = {"attended": "attended", "pooled": "pooled", "clip": "clip.image", "gradients": "gradients"}


def select(settings: Settings, layout: Layout) -> None:
    """Choose the rows and write the selection, the source mix and the metrics.

    Raises BudgetError where the budget cannot be met exactly, ParamsError for a pin or method that does not exist,
    FeatureError where scores, features and samples do not belong together.
    """
    pool = read_candidates(settings, layout)
    columns = read_scores(layout.scores, pool.rows)
    composed = choose(settings, pool, columns)
    intake = read_intake(layout)
    table = _account(settings, intake, pool, composed)
    write_selection(layout.selection, table)
    write_text(layout.source_mix, mix_sources(pool.tables.sources, composed.picks))
    metrics = measure(settings.score.method, pool, columns["score"], composed, table, intake)
    write_json(layout.selection_metrics, metrics)
    if not len(composed.picks) and settings.select.budget:
        log.warning("select.budget: %s of %d scored rows is no row at all", settings.select.budget, len(pool))
    log.info("selected %d of %d scored rows by %s", len(composed.picks), len(pool), settings.score.method)


def read_candidates(settings: Settings, layout: Layout) -> PoolRows:
    """The rows in play, with all that the method and `near_duplicates` look at. Raises FeatureError, ParamsError."""
    method, options = _method(settings)
    signals = dict.fromkeys([*method.signals(options), *_likeness(settings)])
    return read_pool(layout, tuple(signals), settings.extract.pooled)


def choose(settings: Settings, pool: PoolRows, columns: Columns) -> Composition:
    """The method's subset of exactly the budget, under the constraints. Raises BudgetError and ParamsError."""
    likeness = _likeness(settings)
    method, options = _method(settings)
    budget = budget_count(settings.select.budget, len(pool))
    order = prefer(method, columns, pool.tables, budget, settings.select.seed, options)
    features = pool.tables.matrix(_MATRICES[likeness[0]]) if likeness else None
    candidates = Candidates(pool.tables.digests, pool.tables.sources, pool.images, features)
    return compose(order, candidates, budget, constrain(settings.select, pool, budget))


def prefer(method: Method, columns: Columns, tables: Tables, budget: int, seed: int, options: Any) -> Rows:
    """Every row position, most preferred first: the method's picks at this budget, then the others by score."""
    picks = method.select(columns, tables, budget, np.random.default_rng(seed), options)
    if len(picks) != budget or len(np.unique(picks)) != budget:
        raise FeatureError(f"method `{method.name}` returned {len(np.unique(picks))} distinct rows for {budget}")
    order = best_first(columns["score"], tables.digests)
    return np.concatenate([picks, order[~np.isin(order, picks)]]).astype(np.int64)


def read_scores(path: Path, rows: Rows) -> Columns:
    """The columns of scores.parquet, row by row of the pool. Raises FeatureError where its rows are not the pool's."""
    if not path.exists():
        raise FeatureError(f"{path}: no such file; run the score stage")
    table = pq.read_table(path)
    if not np.array_equal(table["row"].to_numpy(), rows):
        raise FeatureError(f"{path}: its rows are not those that were extracted: run score again")
    own = [name for name in table.column_names if name not in {"row", "id", "digest", "rank"}]
    return {name: _as_array(table[name]) for name in own}


def find_rows(pins: Sequence[str], key: str, pool: PoolRows, digests: NDArray[np.str_]) -> Rows:
    """Positions of the rows whose digest or id is pinned, all that share it. Raises ParamsError for an unknown pin."""
    by_name: dict[str, list[int]] = {}
    for position, names in enumerate(zip(digests.tolist(), pool.ids, strict=True)):
        for name in dict.fromkeys(names):
            if name is not None:
                by_name.setdefault(name, []).append(position)
    unknown = [pin for pin in pins if pin not in by_name]
    if unknown:
        raise ParamsError(
            f"select.{key}: `{unknown[0]}` is neither the digest nor the id of a scored row "
            "(a rejected or text-only row has no score)"
        )
    return np.array(sorted({position for pin in pins for position in by_name[pin]}), dtype=np.int64)


def mix_sources(sources: NDArray[np.str_], picks: Rows) -> str:
    """source_mix.csv: each source's rows and share, before and after; largest first."""
    before, after = Counter(sources.tolist()), Counter(sources[picks].tolist())
    lines = ["source,pool,selected,pool_share,selected_share"]
    for source, count in sorted(before.items(), key=lambda item: (-item[1], item[0])):
        name = '"' + source.replace('"', '""') + '"' if any(mark in source for mark in ',"\r\n') else source
        shares = count / len(sources), after[source] / max(1, len(picks))
        lines.append(f"{name},{count},{after[source]},{shares[0]:.6f},{shares[1]:.6f}")
    return "\n".join(lines) + "\n"


def measure(
    method: str, pool: PoolRows, score: NDArray[np.float64], composed: Composition, table: pa.Table, intake: Intake
) -> dict[str, Any]:
    """The scalars of a selection: the accounting, the score at the cut, lengths, images and duplicates selected."""
    picks = composed.picks
    images = [image for row in picks.tolist() for image in pool.images[row]]
    metrics: dict[str, Any] = {
        **count_statuses(table),
        "scored": len(pool),
        "budget": len(picks),
        "method": method,
        "sources_selected": len(set(pool.tables.sources[picks].tolist())),
        "images_selected": len(set(images)),
        "images_in_pool": len({image for images in pool.images for image in images}),
        "duplicates_selected": len(picks) - len(set(pool.tables.digests[picks].tolist())),
        "refused": dict(sorted(Counter(composed.refused.values()).items())),
    }
    samples = intake.samples.filter(np.isin(intake.samples["row"].to_numpy(), pool.rows))
    for name, column in (("characters", "characters"), ("turns", "n_turns")):
        values = samples[column].to_numpy()
        metrics[f"mean_{name}_pool"] = _mean(values)
        metrics[f"mean_{name}_selected"] = _mean(values[picks])
    metrics["score_cut"] = float(score[picks].min()) if len(picks) else None
    metrics["mean_score_pool"] = _mean(score)
    metrics["mean_score_selected"] = _mean(score[picks])
    return metrics


def _mean(values: NDArray[Any]) -> float | None:
    return float(np.mean(values, dtype=np.float64)) if len(values) else None


def _as_array(column: pa.ChunkedArray) -> NDArray[Any]:
    """(n,) array, or (n, k) of a column of fixed-size lists."""
    whole = column.combine_chunks()
    if not pa.types.is_nested(whole.type):
        return np.array(whole)
    return np.array(whole.flatten()).reshape(len(whole), getattr(whole.type, "list_size", 0))


def _method(settings: Settings) -> tuple[Method, Any]:
    name = settings.score.method
    if name not in METHODS:
        raise ParamsError(f"score.method: no method `{name}`; known: {', '.join(METHODS)}")
    return METHODS[name], METHODS[name].parse(settings.methods.get(name, {}))


def _likeness(settings: Settings) -> tuple[str, ...]:
    """The signal whose features tell near duplicates, when they are asked for: the first that has a matrix."""
    if settings.select.near_duplicates is None:
        return ()
    found = [signal for signal in settings.extract.signals if signal in _MATRICES]
    if not found:
        raise ParamsError("select.near_duplicates needs features to compare: add `attended` to extract.signals")
    return (found[0],)


def _account(settings: Settings, intake: Intake, pool: PoolRows, composed: Composition) -> pa.Table:
    refused = {int(pool.rows[place]): reason for place, reason in composed.refused.items()}
    aside = settings.dataset.text_only == "keep"
    return account(intake, pool.rows, pool.rows[composed.picks], refused, export_aside=aside)


def constrain(select: SelectSettings, pool: PoolRows, budget: int) -> Constraints:
    """The constraints of params.yaml as counts and row positions. Raises BudgetError and ParamsError."""
    tables = pool.tables
    return Constraints(
        deduplicate=select.deduplicate,
        near_duplicates=select.near_duplicates,
        per_image=select.per_image,
        quotas=source_counts(select.quotas, budget, tables.sources, "quotas"),
        floors=source_counts(select.floors, budget, tables.sources, "floors"),
        keep=find_rows(select.keep, "keep", pool, tables.digests),
        drop=find_rows(select.drop, "drop", pool, tables.digests),
    )
