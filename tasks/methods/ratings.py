"""Ratings by somebody outside, who does not always reply in a way that can be read."""

from __future__ import annotations

import numpy as np

from tasks.methods.contract import Columns, Tables

# Below every rating: none is negative.
UNREAD = -1.0


def ranked_ratings(tables: Tables, column: str) -> Columns:
    """`score`, the rating or -1 where it is not finite; `unread`, 1.0 there. Raises FeatureError without the column."""
    ratings = np.asarray(tables.column(column), dtype=np.float64)
    unread = ~np.isfinite(ratings)
    return {"score": np.where(unread, UNREAD, ratings), "unread": unread.astype(np.float64)}
