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
from tasks.manifest import STATUSES


def publish_validation(workspace: Path) -> None:
    """The table of row checks and gates, and a link to the Data Docs; nothing before the first validation."""
    layout = Layout.workspace(workspace / "data")
    if layout.validation.exists():
        report = json.loads(layout.validation.read_text(encoding="utf-8"))
        create_table_artifact(
            tabulate_validation(report), key="scalselect-validation", description="What validation found"
        )
    index = layout.docs / "index.html"
    if index.exists():
        create_link_artifact(index.as_uri(), "Validation report (Data Docs)", key="scalselect-data-docs")


def publish_results(workspace: Path, outcomes: Sequence[Outcome], record: Record) -> None:
    """The run summary, the accounting table and a link to the report."""
    layout = Layout.workspace(workspace / "data")
    accounting = json.loads(layout.manifest.read_text(encoding="utf-8"))["accounting"]
    create_markdown_artifact(summarise(outcomes, accounting, record), key="scalselect-run", description="Run summary")
    create_table_artifact(
        tabulate_accounting(accounting), key="scalselect-accounting", description="Where every row went"
    )
    create_link_artifact(layout.report.as_uri(), "Report", key="scalselect-report")


def summarise(outcomes: Sequence[Outcome], accounting: dict[str, Any], record: Record) -> str:
    """The run in Markdown: what each stage did, where the rows went, what was recorded."""
    stages = "\n".join(f"| {one.stage} | {one.how} | {one.seconds:.1f} |" for one in outcomes)
    rows = "\n".join(
        f"| {name.replace('_', ' ')} | {accounting[name]:,} |" for name in ("rows_in", *STATUSES, "exported")
    )
    published = {"pushed to": record.pushed, "git commit": record.commit, "git tag": record.tag}
    lines = "\n".join(f"- {what} `{value}`" for what, value in published.items() if value)
    return (
        f"# ScalSelect\n\n| stage | what happened | seconds |\n|---|---|---:|\n{stages}\n\n"
        f"| rows | |\n|---|---:|\n{rows}\n\n- manifest `{record.manifest}`, sha256 `{record.digest}`\n{lines}\n"
    )


def tabulate_validation(report: dict[str, Any]) -> list[dict[str, Any]]:
    """One line per gate, then one per reason that rows were rejected for, the most frequent first."""
    gates = [
        {
            "what": f"gate {gate['name']}",
            "found": gate["value"],
            "limit": gate["limit"],
            "outcome": "passed" if gate["passed"] else "FAILED",
        }
        for gate in report["gates"]
    ]
    by_count = sorted(report["reasons"].items(), key=lambda item: (-item[1], item[0]))
    return gates + [
        {"what": f"rejected: {reason}", "found": count, "limit": "", "outcome": ""} for reason, count in by_count
    ]


def tabulate_accounting(accounting: dict[str, Any]) -> list[dict[str, Any]]:
    """One line per status, followed by one for each of its reasons; the statuses add up to the rows in."""
    lines = [{"status": "rows in", "reason": "", "rows": accounting["rows_in"]}]
    for status in STATUSES:
        shown = status.replace("_", " ")
        lines.append({"status": shown, "reason": "", "rows": accounting[status]})
        reasons = sorted(accounting["reasons"].get(status, {}).items())
        lines += [{"status": shown, "reason": reason, "rows": count} for reason, count in reasons]
    return lines
