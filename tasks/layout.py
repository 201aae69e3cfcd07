"""Where each stage's files lie: the one place that knows.

Two layouts of the same files: `workspace` is the DVC repository's data/ tree, `flat` is the single folder that
`scalselect select --out DIR` leaves behind. Stages take a Layout and never build a path of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of every file the stages read and write."""

    samples: Path  # validate: valid rows, Parquet
    rejects: Path  # validate: one JSON line per rejected row
    validation: Path  # validate: canonical report, no timestamps
    docs: Path  # validate: Great Expectations Data Docs (folder)
    store: Path  # extract: content-addressed feature store (folder, never a DVC out)
    features: Path  # extract: features/<signal>/*.parquet, features/extraction.json, features/rejects.jsonl
    scores: Path  # score: row, id, digest, score, rank (+ method columns), Parquet
    spectrum: Path  # score: component, singular value, energy; CSV
    score_curve: Path  # score: rank against score, thinned for plots; CSV
    score_metrics: Path  # score: scalars; JSON
    selection: Path  # select: every row in, with its status and reason, Parquet
    source_mix: Path  # select: share of each source, before and after; CSV
    selection_metrics: Path  # select: scalars; JSON
    subset: Path  # export: folder of the exported subset(s), card, ids, Croissant
    all_rejects: Path  # export: every rejected row of every stage
    manifest: Path  # export: the record of what was done
    report: Path  # export: the HTML report

    @classmethod
    def workspace(cls, root: Path = Path("data")) -> Layout:
        """The repository layout: one folder per stage under data/."""
        return cls(
            samples=root / "samples/samples.parquet",
            rejects=root / "samples/rejects.jsonl",
            validation=root / "samples/validation.json",
            docs=root / "reports/validation",
            store=root / "store",
            features=root / "features",
            scores=root / "scores/scores.parquet",
            spectrum=root / "scores/spectrum.csv",
            score_curve=root / "scores/score_curve.csv",
            score_metrics=root / "scores/metrics.json",
            selection=root / "selection/selection.parquet",
            source_mix=root / "selection/source_mix.csv",
            selection_metrics=root / "selection/metrics.json",
            subset=root / "subsets",
            all_rejects=root / "subsets/rejects.jsonl",
            manifest=root / "subsets/manifest.json",
            report=root / "reports/report.html",
        )

    @classmethod
    def flat(cls, out: Path) -> Layout:
        """One folder for one selection: `scalselect select --out DIR`."""
        return cls(
            samples=out / "samples.parquet",
            rejects=out / "rejects.jsonl",
            validation=out / "validation.json",
            docs=out / "reports/validation",
            store=out / "store",
            features=out / "features",
            scores=out / "scores.parquet",
            spectrum=out / "spectrum.csv",
            score_curve=out / "score_curve.csv",
            score_metrics=out / "score_metrics.json",
            selection=out / "selection.parquet",
            source_mix=out / "source_mix.csv",
            selection_metrics=out / "selection_metrics.json",
            subset=out,
            all_rejects=out / "rejects.jsonl",
            manifest=out / "manifest.json",
            report=out / "reports/report.html",
        )
