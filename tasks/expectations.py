"""The Great Expectations suite, in code: what the table as a whole must be like, and what its rows must.

GX has no polars engine, so it sees a pandas frame of scalar and boolean columns, one row for each row of the dataset,
rejected ones included (`tasks.tally` computes it): a million rows take seconds, and no text or image passes through.
"""

from __future__ import annotations

import logging
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
from tasks.data_docs import settle
from tasks.params import Gates

# GX raises this logger to INFO on import, to speak of temporary folders.
logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)

SITE = "validation"
TITLES = {
    "gates": "Is the table as a whole fit to go on? A failure stops the run.",
    "rows": "Which rows failed which check? They are rejected; the run goes on.",
}


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit on the table as a whole, named as in params.yaml, and what was found."""

    name: str
    limit: float
    value: float
    passed: bool


def audit(frame: pl.DataFrame, gates: Gates, docs: Path) -> tuple[Gate, ...]:
    """Run both suites over `frame` (of `tasks.tally`) and write Data Docs to the folder `docs`, in place of any there.

    Returns the gates in the order of params.yaml. Suite `rows` names the rows that failed each check; suite `gates`
    alone says whether the run may go on.
    """
    shutil.rmtree(docs, ignore_errors=True)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    batch = context.data_sources.add_pandas("dataset").add_dataframe_asset("dataset")
    whole = batch.add_batch_definition_whole_dataframe("every row")
    # A share of no rows is no share: of an empty table only the number of rows is asked.
    suites = {"gates": list(_gate_expectations(gates))[: 1 if frame.is_empty() else None]}
    if not frame.is_empty():
        suites["rows"] = list(_row_expectations())
    definitions = [_define(context, whole, name, expectations) for name, expectations in suites.items()]
    validated = _run(context, definitions, frame, docs)
    settle(docs, {name: bool(result.success) for name, result in validated.items()}, TITLES)
    found = {result.expectation_config.meta["gate"]: result for result in validated["gates"].results}
    return tuple(_gate(name, limit, found.get(name)) for name, limit in gates.model_dump().items())


def _gate_expectations(gates: Gates) -> Iterator[Any]:
    """One for each gate, named in `meta`, the number of rows first."""
    yield gxe.ExpectColumnSumToBeBetween(
        column="accepted",
        min_value=gates.minimum_rows,
        description=f"minimum_rows: at least {gates.minimum_rows} rows pass every check",
        meta={"gate": "minimum_rows"},
    )
    shares = {
        "maximum_reject_share": ("defective", "rows with a defect: rejected, but not by a policy"),
        "maximum_text_only_share": ("text_only", "rows without an image"),
        "maximum_duplicate_share": ("duplicate", "rows that repeat an earlier accepted row exactly"),
    }
    for name, (column, which) in shares.items():
        limit = getattr(gates, name)
        description = f"{name}: at most a share of {limit:g} of {which}"
        yield gxe.ExpectColumnMeanToBeBetween(
            column=column, max_value=limit, description=description, meta={"gate": name}
        )


def _row_expectations() -> Iterator[Any]:
    """One for each check: the row was not rejected for any of its reasons. A row that was is a warning, not a stop."""
    yield gxe.ExpectColumnValuesToBeUnique(column="row", description="Every row is counted once", severity="warning")
    for check, reasons in CHECKS.items():
        given = ", ".join(reasons) or "the reader's own reasons, such as malformed_json"
        description = f"{check}: no row is rejected for {given}"
        yield gxe.ExpectColumnValuesToBeInSet(
            column=f"{check}_ok", value_set=[True], description=description, severity="warning"
        )


def _define(context: Any, batch: Any, name: str, expectations: list[Any]) -> Any:
    suite = context.suites.add(gx.ExpectationSuite(name, expectations=expectations))
    return context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))


def _run(context: Any, definitions: list[Any], frame: pl.DataFrame, docs: Path) -> dict[str, Any]:
    """Validate, render the site; results by suite name."""
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.absolute())}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    context.delete_data_docs_site("local_site")
    site = {"class_name": "SiteBuilder", "site_index_builder": index, "store_backend": store}
    context.add_data_docs_site(SITE, site)
    checkpoint = gx.Checkpoint(
        name="validation",
        validation_definitions=definitions,
        actions=[UpdateDataDocsAction(name="docs", site_names=[SITE])],
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["row", "reason"],
        },
    )
    outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": frame.to_pandas()})
    return {result.suite_name: result for result in outcome.run_results.values()}


def _gate(name: str, limit: float, result: Any) -> Gate:
    # Nothing is observed of a column without values: an empty table holds none of anything.
    value = result.result.get("observed_value") if result else None
    found = 0.0 if value is None else value.item()
    return Gate(name, limit, found, passed=bool(result.success) if result else True)
