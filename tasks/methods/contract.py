"""What a selection method is: arrays and its own options in; scores, then rows best first, out.

A method never sees files, paths, models or other methods' options. To add one: write tasks/methods/<name>.py with an
`Options` dataclass, `score` and `select`, add one line to METHODS and one block to params.yaml.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from tasks.errors import FeatureError, ParamsError
from tasks.linalg.finite import FiniteMatrix
from tasks.linalg.matrix import Matrix
from tasks.linalg.moments import Moments, measure
from tasks.linalg.products import HOST, Products

Columns = dict[str, NDArray[Any]]
"""Per-row arrays of length n. "score" (float64, higher is better) is always there; others are the method's own: plain
columns, or (n, k) matrices."""


@dataclass(frozen=True)
class Notes:
    """What a method learnt about the whole set while scoring it.

    facts: scalars for metrics.json. spectrum: (c,) singular values, largest first, where the method has a spectrum.
    """

    facts: Mapping[str, float | int | str] = field(default_factory=dict)
    spectrum: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Tables:
    """Everything a method may look at, for the n rows in play.

    digests: (n,) str, unique identity used to break ties (equal content gives equal digests).
    sources: (n,) str, where each row came from.
    matrices: named Matrix objects, each n rows: "attended", "pooled", "clip.image", "clip.text", "gradients"; and
        reference sets with their own number of rows, such as "gradients.anchor".
    columns: named (n,) float64 arrays: "answers.nll", "answers.el2n", "clip.similarity", ...
    moments: shorter ways to the moments of a matrix than reading all of it, by its name.
    products: what multiplies large blocks.
    """

    digests: NDArray[np.str_]
    sources: NDArray[np.str_]
    matrices: Mapping[str, Matrix] = field(default_factory=dict)
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    moments: Mapping[str, Callable[[Products], Moments]] = field(default_factory=dict)
    products: Products = HOST

    def __len__(self) -> int:
        return len(self.digests)

    def matrix(self, name: str) -> Matrix:
        """The named matrix of n rows, refusing NaN and infinity by name as it is read.

        Raises FeatureError saying which signal is missing, of another length, or not finite at which row and column.
        """
        matrix = self._named(name)
        if matrix.shape[0] != len(self):
            raise FeatureError(f"features `{name}`: {matrix.shape[0]} rows, the pool has {len(self)}")
        return FiniteMatrix(matrix, name, self.digests)

    def reference(self, name: str) -> Matrix:
        """The named reference set, rows of its own. Raises FeatureError as `matrix` does."""
        return FiniteMatrix(self._named(name), name)

    def measure(self, name: str) -> Moments:
        """Moments of the named matrix, from what was kept of earlier runs where there is such a thing."""
        shorter = self.moments.get(name)
        return shorter(self.products) if shorter else measure(self.matrix(name), self.products)

    def column(self, name: str) -> NDArray[np.float64]:
        """The named column. Raises FeatureError saying which signal is missing."""
        if name not in self.columns:
            raise FeatureError(f"no column `{name}`: add `{signal_of(name)}` to extract.signals, or pass --file")
        return self.columns[name]

    def _named(self, name: str) -> Matrix:
        if name not in self.matrices:
            raise FeatureError(f"no features `{name}`: add `{signal_of(name)}` to extract.signals, or pass --file")
        return self.matrices[name]


@dataclass(frozen=True)
class Method:
    """One row of METHODS.

    options: a frozen dataclass with a default for every field; its fields are the keys of `methods.<name>`.
    signals: signal names needed under given options.
    score(tables, options) -> Columns with "score".
    select(columns, tables, budget, rng, options) -> `budget` distinct row positions, best first.
    explain(tables, options) -> what `score` gives, and Notes; only where a method has something to note.
    """

    name: str
    options: type[Any]
    signals: Callable[[Any], tuple[str, ...]]
    score: Callable[[Tables, Any], Columns]
    select: Callable[[Columns, Tables, int, np.random.Generator, Any], NDArray[np.int64]]
    explain: Callable[[Tables, Any], tuple[Columns, Notes]] | None = None

    def parse(self, values: Mapping[str, Any]) -> Any:
        """Options from a params block. Raises ParamsError naming the unknown or ill-typed key."""
        known = [one.name for one in dataclasses.fields(self.options)]
        unknown = [key for key in values if key not in known]
        if unknown:
            raise ParamsError(f"methods.{self.name}: unknown key `{unknown[0]}`; known: {', '.join(known) or 'none'}")
        try:
            return TypeAdapter(self.options).validate_python(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise ParamsError(f"methods.{self.name}.{key}: {first['msg']} (got {first['input']!r})") from None


def signal_of(name: str) -> str:
    """The signal that a matrix or column belongs to: "clip" of "clip.image"."""
    return name.split(".", maxsplit=1)[0]


def best_first(score: NDArray[np.float64], digests: NDArray[np.str_]) -> NDArray[np.int64]:
    """All row positions by descending score, ties by digest, then by position. The product's one tie rule."""
    return np.lexsort((np.arange(len(score)), digests, -score)).astype(np.int64)


def digest_order(digests: NDArray[np.str_]) -> NDArray[np.int64]:
    """All row positions by digest, then by position: how rows stand where nothing else tells them apart."""
    return best_first(np.zeros(len(digests)), digests)


def take_best(
    columns: Columns, tables: Tables, budget: int, rng: np.random.Generator, options: Any
) -> NDArray[np.int64]:
    """The plain `select`: the `budget` best scores."""
    return best_first(columns["score"], tables.digests)[:budget]
