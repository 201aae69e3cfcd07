"""A comparison as one JSON record: every measure of every subset, over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.comparison.measures import Rows, Space, captured, clusters_hit, near_duplicates, overlap, radius
from tasks.comparison.mix import Trait
from tasks.comparison.trials import Trial

Json = dict[str, Any]


def describe_space(space: Space, features: str) -> Json:
    """The whole set, and how it is measured."""
    rows, columns = space.matrix.shape
    return {
        "features": features,
        "rows": rows,
        "columns": columns,
        "rank": space.rank,
        "held": rounded(space.held),
        "clusters": space.clusters,
        "measured_at": space.queries.shape[0],
    }


def describe_budget(
    space: Space, traits: Sequence[Trait], trials: Sequence[Trial], count: int, near_duplicate: float
) -> Json:
    """All that is known of the subsets of `count` rows: measures and mix of each method, overlap of every two."""
    measured = {
        one.method: _over_seeds([_measure(space, traits, picks, near_duplicate) for picks in one.picks[count]])
        for one in trials
    }
    shared = [[rounded(value) for value in line] for line in overlap([one.picks[count] for one in trials])]
    mix = {trait.name: _describe_mix(trait, trials, count) for trait in traits}
    return {"rows": count, "measures": measured, "overlap": shared, "mix": mix}


def describe_curve(space: Space, trials: Sequence[Trial]) -> dict[str, list[Json]]:
    """Energy captured by each method's first subset of each size."""
    rows = max(1, space.matrix.shape[0])
    return {
        one.method: [
            {"rows": count, "share": rounded(count / rows), "captured": rounded(captured(space, subsets[0]))}
            for count, subsets in one.picks.items()
        ]
        for one in trials
    }


def rounded(value: float) -> float | None:
    """Six digits: what lies beyond depends on the number of threads. None where there is no number."""
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _measure(space: Space, traits: Sequence[Trait], picks: Rows, near_duplicate: float) -> dict[str, float]:
    largest, mean = radius(space, picks)
    return {
        "captured": captured(space, picks),
        "radius": largest,
        "distance": mean,
        "clusters": clusters_hit(space, picks),
        "near_duplicates": near_duplicates(space, picks, near_duplicate),
        **{f"{trait.name}_shift": trait.shift(picks) for trait in traits},
    }


def _over_seeds(found: Sequence[Mapping[str, float]]) -> dict[str, Json]:
    return {name: _spread([one[name] for one in found]) for name in found[0]}


def _spread(values: Sequence[float]) -> Json:
    """Mean over the seeds, and their standard deviation where there are several."""
    deviation = rounded(float(np.std(values, ddof=1))) if len(values) > 1 else None
    return {"mean": rounded(float(np.mean(values))), "sd": deviation}


def _describe_mix(trait: Trait, trials: Sequence[Trial], count: int) -> Json:
    means = {one.method: np.mean([trait.shares(picks) for picks in one.picks[count]], axis=0) for one in trials}
    return {
        "kinds": list(trait.kinds),
        "whole": [rounded(share) for share in trait.shares()],
        "methods": {method: [rounded(share) for share in shares] for method, shares in means.items()},
    }
