"""`scalselect compare`. Heavy imports stay inside, so that help is instant."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tasks.errors import InputError, ParamsError
from tasks.layout import Layout
from tasks.params import Settings, parse, parse_assignment

Assignments = Annotated[
    list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="any key of params.yaml; may be repeated")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(compare)


def compare(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="FOLDER or DATASET",
            help="folder that `scalselect select --out` wrote, or with --model a dataset",
            show_default="the workspace",
        ),
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="with commas between them", show_default="all whose signals are there")
    ] = None,
    budgets: Annotated[str | None, typer.Option(help="counts or shares, such as 0.05,0.16,0.3")] = None,
    seeds: Annotated[int | None, typer.Option(help="subsets of each method that draws lots")] = None,
    model: Annotated[str | None, typer.Option(help="target VLM to extract a dataset with")] = None,
    image_root: Annotated[str | None, typer.Option(help="of a dataset: images may only lie under here")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="folder to write; for a dataset, of its features too", show_default="FOLDER/comparison"),
    ] = None,
    assign: Assignments = [],  # noqa: B006
) -> None:
    """Compare selection methods: what their subsets share, cover, repeat and cost, beside random controls."""
    overrides = read_overrides(methods, budgets, seeds, assign)
    if model is not None:
        given = {"dataset.path": source, "dataset.image_root": image_root, "model.path": model}
        written = _compare_dataset({key: one for key, one in given.items() if one is not None} | overrides, out)
    elif source is not None:
        written = _compare_folder(Path(source), overrides, out)
    else:
        if out is not None:
            raise ParamsError("--out: in a workspace the comparison goes to data/comparison; or name a FOLDER")
        written = _run_flow(overrides)
    from flows.contrast import show

    show(written)


def read_overrides(
    methods: str | None, budgets: str | None, seeds: int | None, assign: Sequence[str]
) -> dict[str, Any]:
    """Dotted keys from the command line; --set wins. Raises ParamsError."""
    from flows.direct import parse_budget

    named = {
        "compare.methods": None if methods is None else [one.strip() for one in methods.split(",")],
        "compare.budgets": None if budgets is None else [parse_budget(one.strip()) for one in budgets.split(",")],
        "compare.seeds": seeds,
    }
    given = {key: value for key, value in named.items() if value is not None}
    return {**given, **dict(map(parse_assignment, assign))}


def _compare_folder(folder: Path, overrides: Mapping[str, Any], out: Path | None) -> Path:
    """On the features of a finished selection, with the settings it was made with."""
    from tasks import comparison
    from tasks.manifest import read_json

    layout = Layout.flat(folder)
    if not layout.manifest.exists():
        raise InputError(
            f"{folder}: no manifest.json, so not what `scalselect select --out` wrote; a dataset needs --model"
        )
    settings = parse(read_json(layout.manifest)["settings"], overrides, where=str(layout.manifest))
    written = out or folder / "comparison"
    comparison.compare(settings, layout, written)
    return written


def _compare_dataset(overrides: Mapping[str, Any], out: Path | None) -> Path:
    """Validate and extract every signal the methods need, then compare; a second run goes on in the same folder."""
    from tasks import comparison
    from tasks.extraction import extract
    from tasks.validation import validate

    if out is None:
        raise ParamsError("--out: name the folder for the features of the dataset and for the comparison")
    settings, layout = _with_signals(parse({}, overrides, where="command line"), overrides), Layout.flat(out)
    validate(settings, layout)
    extract(settings, layout)
    comparison.compare(settings, layout, out / "comparison")
    return out / "comparison"


def _with_signals(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """extract.signals follows the methods unless --set says otherwise; attended is what distances are measured in."""
    from flows.direct import signals_of

    if "extract.signals" in overrides:
        return settings
    needed = [signal for name in settings.compare.methods or () for signal in signals_of(settings, name)]
    return parse({}, {**overrides, "extract.signals": list(dict.fromkeys(["attended", *needed]))}, where="command line")


def _run_flow(overrides: Mapping[str, Any]) -> Path:
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    from flows import compare as comparison
    from flows.workspace import find

    root = find()
    comparison.compare(dict(overrides), str(root))
    return Path(os.path.relpath(root)) / comparison.OUT
