"""A comparison on the terminal, and as tables for Prefect: a line for each method, a table for each budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tasks.comparison import PAGE, read_comparison
from tasks.comparison.page import COLUMNS, figure

Costs = Mapping[str, Mapping[str, float]]
Json = Mapping[str, Any]


def show(folder: Path) -> None:
    """Print the comparison that lies in `folder`."""
    console = Console(highlight=False)
    if not console.is_terminal:
        # In a pipe or a log there is no width to keep to.
        console.width = 200
    record, costs = read_comparison(folder)
    for table in _tables(record, costs):
        console.print(table)
        console.print()
    console.print(f"{record['rows']:,} rows, measured in {record['features']} ({record['columns']:,} columns)")
    console.print(f"no subset captures more than {record['held']:.3f}")
    console.print(f"page: {folder / PAGE}")


def tabulate(record: Json, costs: Costs, at: Json) -> list[dict[str, str]]:
    """One line for each method: its measures at one budget, its costs, and its overlap with every other method."""
    lines = []
    for method, shared in zip(record["methods"], at["overlap"], strict=True):
        measures = {title: figure(at["measures"][method][name]) for name, title in COLUMNS.items()}
        seconds = costs[method]["score_seconds"] + costs[method]["select_seconds"]
        cost = {"Seconds": f"{seconds:.2f}", "MiB": f"{costs[method]['peak_bytes'] / 2**20:.0f}"}
        jaccard = {other: f"{value:.2f}" for other, value in zip(record["methods"], shared, strict=True)}
        lines.append({"Method": method, **measures, **cost, **jaccard})
    return lines


def _tables(record: Json, costs: Costs) -> Iterator[Table]:
    for at in record["budgets"]:
        lines = tabulate(record, costs, at)
        share = at["rows"] / max(1, record["rows"])
        own = [name for name in lines[0] if name not in record["methods"]]
        yield _table(f"{at['rows']:,} rows ({share:.1%})", own, lines)
        yield _overlap(f"Overlap at {at['rows']:,} rows (Jaccard)", record["methods"], lines)


def _table(title: str, columns: list[str], lines: list[dict[str, str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name == "Method" else "right", overflow="fold")
    for line in lines:
        table.add_row(*(line[name] for name in columns))
    return table


def _overlap(title: str, methods: list[str], lines: list[dict[str, str]]) -> Table:
    """Methods across by number: nineteen names do not fit side by side."""
    table = Table(title=title, title_justify="left")
    table.add_column("Method")
    for number, _ in enumerate(methods, 1):
        table.add_column(str(number), justify="right", no_wrap=True)
    for number, line in enumerate(lines, 1):
        table.add_row(f"{number} {line['Method']}", *(line[name] for name in methods))
    return table
