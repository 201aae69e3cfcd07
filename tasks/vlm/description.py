"""What is known of a model before its weights are loaded: what features depend on, and what the manifest says."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class Description:
    """What a group of signals depends on and yields, known without loading weights.

    fingerprints: signal -> digest of everything that decides its features.
    record: what the manifest says about the model.
    matrices: signal -> {column: width}; statistics: signal -> [(column, Arrow type)].
    """

    fingerprints: dict[str, str]
    record: dict[str, Any]
    matrices: dict[str, dict[str, int]]
    statistics: dict[str, list[tuple[str, pa.DataType]]]

    def to_json(self) -> str:
        """As text that `from_json` reads."""
        named = {signal: [(name, str(kind)) for name, kind in held] for signal, held in self.statistics.items()}
        return json.dumps({**asdict(self), "statistics": named})

    @classmethod
    def from_json(cls, text: str) -> Description:
        """What `to_json` wrote. Raises ValueError, KeyError or TypeError for anything else."""
        tree = json.loads(text)
        statistics = {
            signal: [(name, pa.type_for_alias(kind)) for name, kind in held]
            for signal, held in tree.pop("statistics").items()
        }
        return cls(**tree, statistics=statistics)
