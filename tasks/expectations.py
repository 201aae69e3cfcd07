"""The Great Expectations suite, in code: what the table as a whole must be like, and what its rows must.

GX has no polars engine, so it sees a pandas frame of scalar and boolean columns, one row for each row of the dataset,
rejected ones included (`tasks.tally` computes it): a million rows take seconds, and no text or image passes through.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import polars as pl
from great_expectations.checkpoint import UpdateDataDocsAction

from tasks.checks import CHECKS
from tasks.params import Gates

SITE = "validation"
# Ids of failing rows shown for each expectation; rejects.jsonl has them all.
SHOWN = 200


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit on the table as a whole, named as in params.yaml, and what was found."""

    name: str
    limit: float
    value: float
    passed: bool


def audit(frame: pl.DataFrame, gates: Gates, docs: Path) -> tuple[Gate, ...]:
    """Run the suite over `frame` (columns of `tasks.tally.FRAME`) and write Data Docs to the folder `docs`.

    Returns the gates in the order of params.yaml. A row that fails a check never fails the suite on its own: the share
    of such rows does, once it passes gates.maximum_reject_share.
    """
    shutil.rmtree(docs, ignore_errors=True)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    limits = list(_limits(gates, empty=frame.is_empty()))
    rows = [] if frame.is_empty() else list(_row_expectations(gates))
    suite = context.suites.add(gx.ExpectationSuite("rows", expectations=[*(one for _, _, one in limits), *rows]))
    results = _run(context, suite, frame, docs)
    values = {result.expectation_config.meta["gate"]: result for result in results if _gate_of(result)}
    return tuple(_gate(name, limit, values.get(name)) for name, limit in gates.model_dump().items())


def _limits(gates: Gates, empty: bool) -> Iterator[tuple[str, float, Any]]:
    """The gates: (name, limit, expectation). A share of no rows is no share, so an empty table has only the first."""
    yield (
        "minimum_rows",
        gates.minimum_rows,
        gxe.ExpectColumnSumToBeBetween(
            column="accepted", min_value=gates.minimum_rows, **_labels("minimum_rows", "Rows that passed every check")
        ),
    )
    if empty:
        return
    shares = {
        "maximum_reject_share": ("defective", "Share of rows with a defect (rejected, but not by a policy)"),
        "maximum_text_only_share": ("text_only", "Share of rows without an image"),
        "maximum_duplicate_share": ("duplicate", "Share of rows that repeat an earlier accepted row exactly"),
    }
    for name, (column, notes) in shares.items():
        limit = getattr(gates, name)
        yield name, limit, gxe.ExpectColumnMeanToBeBetween(column=column, max_value=limit, **_labels(name, notes))


def _labels(gate: str, notes: str) -> dict[str, Any]:
    return {"meta": {"gate": gate}, "notes": f"gates.{gate}: {notes}.", "severity": "critical"}


def _row_expectations(gates: Gates) -> Iterator[Any]:
    """One expectation for each check: the row was not rejected for any of its reasons."""
    mostly = 1 - gates.maximum_reject_share
    yield gxe.ExpectColumnValuesToBeUnique(column="row", notes="Every row of the dataset is counted once.")
    for check, reasons in CHECKS.items():
        given = ", ".join(f"`{reason}`" for reason in reasons) or "the reader's own reasons, such as `malformed_json`"
        yield gxe.ExpectColumnValuesToBeInSet(
            column=f"{check}_ok",
            value_set=[True],
            mostly=mostly,
            notes=f"Rows failing this check are rejected for {given}.",
            severity="warning",
        )


def _run(context: Any, suite: Any, frame: pl.DataFrame, docs: Path) -> list[Any]:
    batch = (
        context.data_sources.add_pandas("dataset")
        .add_dataframe_asset("rows")
        .add_batch_definition_whole_dataframe("all")
    )
    definition = context.validation_definitions.add(gx.ValidationDefinition(name="rows", data=batch, suite=suite))
    context.delete_data_docs_site("local_site")
    context.add_data_docs_site(
        SITE,
        {
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(docs.absolute()),
            },
        },
    )
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name="validation",
            validation_definitions=[definition],
            actions=[UpdateDataDocsAction(name="docs", site_names=[SITE])],
            result_format={
                "result_format": "SUMMARY",
                "unexpected_index_column_names": ["row"],
                "partial_unexpected_count": SHOWN,
            },
        )
    )
    outcome = checkpoint.run(batch_parameters={"dataframe": frame.to_pandas()})
    (validated,) = outcome.run_results.values()
    return list(validated.results)


def _gate_of(result: Any) -> str | None:
    name: str | None = (result.expectation_config.meta or {}).get("gate")
    return name


def _gate(name: str, limit: float, result: Any) -> Gate:
    # Nothing is observed of a column without values: an empty table holds none of anything.
    value = result.result.get("observed_value") if result else None
    found = 0.0 if value is None else value.item()
    return Gate(name, limit, found, passed=bool(result.success) if result else True)
