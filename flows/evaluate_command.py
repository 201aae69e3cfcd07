"""`scalselect evaluate` and `scalselect evaluate-demo`. Heavy imports stay inside, so that help is instant."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tasks.errors import ParamsError
from tasks.params import Settings, parse, parse_assignment

Assignments = Annotated[
    list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="any key of params.yaml; may be repeated")
]


def register(app: typer.Typer) -> None:
    """Add the two commands."""
    app.command()(evaluate)
    app.command("evaluate-demo")(evaluate_demo)


def evaluate(
    methods: Annotated[str | None, typer.Option(help="methods or variants, with commas between them")] = None,
    budgets: Annotated[str | None, typer.Option(help="counts or shares, such as 0.05,0.16")] = None,
    seeds: Annotated[int | None, typer.Option(help="trainings of each method at each budget")] = None,
    assign: Assignments = [],  # noqa: B006
    out: Annotated[
        Path | None, typer.Option(help="work in this folder, without a workspace: name the rest by --set")
    ] = None,
    recipes: Annotated[
        Path | None, typer.Option(help="train nothing: write LLaMA-Factory and ms-swift recipes there")
    ] = None,
    results: Annotated[
        Path | None, typer.Option("--import", help="train nothing: the table of scores measured elsewhere")
    ] = None,
) -> None:
    """Fine-tune on each subset, ask held-out questions, write the table of relative performance."""
    overrides = read_overrides(methods, budgets, seeds, assign)
    if results is not None:
        _import(results, out or results.parent / "evaluation")
    elif recipes is not None:
        _write_recipes(overrides, out, recipes)
    elif out is not None:
        from flows import evaluate_direct

        _show(evaluate_direct.evaluate(_settings(overrides), out))
    else:
        _run_flow(overrides)


def evaluate_demo(
    out: Annotated[Path, typer.Option(help="folder of the proof; a second run goes on where the first stopped")] = Path(
        "scalselect-evaluation"
    ),
    size: Annotated[str, typer.Option(help="small: for two cores; large: for a GPU")] = "small",
) -> None:
    """The embedded proof: teach a small VLM to see, select, fine-tune on each subset, compare. Nothing is fetched."""
    import torch

    from flows import evaluate_direct
    from tasks.evaluation import proof

    scale = proof.SCALES.get(size)
    if scale is None:
        raise ParamsError(f"--size {size}: expected one of {', '.join(proof.SCALES)}")
    # Sums depend on the number of threads: two cores or sixty give the same table.
    torch.set_num_threads(min(2, torch.get_num_threads()))
    proof.build(out / "raw", scale)
    _show(evaluate_direct.evaluate(proof.settings_of(out / "raw", scale), out))


def read_overrides(
    methods: str | None, budgets: str | None, seeds: int | None, assign: Sequence[str]
) -> dict[str, Any]:
    """Dotted keys from the command line; --set wins. Raises ParamsError."""
    from flows.direct import parse_budget

    named = {
        "evaluate.methods": None if methods is None else [one.strip() for one in methods.split(",")],
        "evaluate.budgets": None if budgets is None else [parse_budget(one.strip()) for one in budgets.split(",")],
        "evaluate.seeds": seeds,
    }
    given = {key: value for key, value in named.items() if value is not None}
    return {**given, **dict(map(parse_assignment, assign))}


def _settings(overrides: Mapping[str, Any]) -> Settings:
    return parse({}, overrides, where="command line")


def _import(results: Path, out: Path) -> None:
    from tasks.evaluation.report import Report, write
    from tasks.evaluation.results import read_results
    from tasks.evaluation.table import tabulate

    write(Report(tabulate(read_results(results)), facts={"imported": str(results)}), out)
    _show(out)


def _write_recipes(overrides: Mapping[str, Any], out: Path | None, recipes: Path) -> None:
    """In a folder, validation and extraction are done first; in a workspace they must have been."""
    from flows.evaluate_direct import ready, with_needed_signals
    from flows.workspace import find
    from tasks.evaluation.evaluation import check_signals
    from tasks.evaluation.recipes import write_recipes
    from tasks.layout import Layout
    from tasks.params import load

    if out is not None:
        settings, layout = ready(_settings(overrides), out)
    else:
        # Paths in params.yaml are relative to the workspace.
        recipes = recipes.absolute()
        os.chdir(find())
        settings, layout = with_needed_signals(load(overrides=overrides)), Layout.workspace()
        if not layout.samples.exists():
            raise ParamsError(f"{layout.samples}: no such file; run `scalselect run` first")
        check_signals(settings, layout)
    folders = write_recipes(settings, layout, recipes)
    print(f"{len(folders)} recipes in {recipes}; {recipes / 'run.sh'} trains and tests them all")


def _run_flow(overrides: Mapping[str, Any]) -> None:
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    from flows import evaluate as evaluation
    from flows.workspace import find

    root = find()
    evaluation.evaluate(dict(overrides), str(root))
    _show(Path(os.path.relpath(root)) / evaluation.OUT)


def _show(folder: Path) -> None:
    """The table on the terminal, and where the rest is."""
    from rich.console import Console
    from rich.table import Table

    with (folder / "table.md").open(encoding="utf-8") as file:
        header, _, *rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in file]
    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(f"\nreport  {folder / 'evaluation.html'}\nfigures {folder / 'table.csv'}")
