"""What a run shows in Prefect: a summary, the validation and accounting tables, links to the reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.dvc import Outcome
from flows.record import Record
from tasks.layout import Layout


def publish_validation(workspace: Path) -> None:
    """The table of row checks and gates, and a link to the Data Docs; nothing before the first validation."""
    layout = Layout.workspace(workspace / "data")
    if layout.validation.exists():
        report = json.loads(layout.validation.read_text(encoding="utf-8"))
        create_table_artifact(_flat(report), key="scalselect-validation", description="What validation found")
    index = layout.docs / "index.html"
    if index.exists():
        create_link_artifact(index.as_uri(), "Validation report (Data Docs)", key="scalselect-data-docs")


def publish_results(workspace: Path, outcomes: Sequence[Outcome], record: Record) -> None:
    """The run summary, the accounting table and a link to the report."""
    layout = Layout.workspace(workspace / "data")
    accounting = json.loads(layout.manifest.read_text(encoding="utf-8"))["accounting"]
    create_markdown_artifact(summarise(outcomes, accounting, record), key="scalselect-run", description="Run summary")
    create_table_artifact(_flat(accounting), key="scalselect-accounting", description="Where every row went")
    create_link_artifact(layout.report.as_uri(), "Report", key="scalselect-report")


def summarise(outcomes: Sequence[Outcome], accounting: dict[str, Any], record: Record) -> str:
    """The run in Markdown: what each stage did, where the rows went, what was recorded."""
    stages = "\n".join(f"| {one.stage} | {one.how} | {one.seconds:.1f} |" for one in outcomes)
    rows = "\n".join(f"| {name} | {count:,} |" for name, count in accounting.items() if isinstance(count, int))
    published = {"pushed to": record.pushed, "git commit": record.commit, "git tag": record.tag}
    lines = "\n".join(f"- {what} `{value}`" for what, value in published.items() if value)
    return (
        f"# ScalSelect\n\n| stage | what happened | seconds |\n|---|---|---:|\n{stages}\n\n"
        f"| rows | |\n|---|---:|\n{rows}\n\n- manifest `{record.manifest}`, sha256 `{record.digest}`\n{lines}\n"
    )


def _flat(tree: dict[str, Any], prefix: str = "") -> list[dict[str, Any]]:
    """A nested record as rows of (what, value); entries of a list go by their name, where they have one."""
    rows: list[dict[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and all(isinstance(one, dict) and "name" in one for one in value):
            rows += [row for one in value for row in _flat({one["name"]: _nameless(one)}, f"{prefix}{key}.")]
        else:
            rows.append({"what": f"{prefix}{key}", "value": value})
    return rows


def _nameless(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "name"}
