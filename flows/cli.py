"""The `scalselect` command. Heavy imports stay inside the commands, so that help is instant.

Exit codes: 0 done; 2 the user's input or usage, with one message and no traceback; 1 a failure of ours.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows import compare_command, evaluate_command
from tasks.__main__ import log_progress
from tasks.errors import ScalSelectError
from tasks.storage import telling_storage_faults

app = typer.Typer(
    name="scalselect",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Assignments = Annotated[
    list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="any key of params.yaml; may be repeated")
]
Subset = Annotated[
    Path, typer.Argument(metavar="SUBSET", help="folder of an exported subset: what --out named, or data/subsets")
]


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(version("scalselect"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="say which version this is")
    ] = False,
) -> None:
    """Choose the training data of vision-language models, and prove where every row came from."""


@app.command()
def select(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="file, folder, pattern of shards, their URL, or a hub dataset id")
    ],
    model: Annotated[str, typer.Option(help="target VLM: local folder or hub id")],
    out: Annotated[Path, typer.Option(help="folder to write; a second run continues there")],
    image_root: Annotated[
        str | None,
        typer.Option(help="folder or URL that images may only lie under", show_default="the dataset's folder"),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="a count (5000) or a share of the scored rows (0.16)", show_default="0.16")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="selection method, see `scalselect methods`", show_default="scalselect")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="official: tokens and image sizes of the authors' code"),
    ] = None,
    format: Annotated[  # noqa: A002
        str | None,
        typer.Option(help="llava, messages, llamafactory, parquet or webdataset", show_default="told by what is there"),
    ] = None,
    text_only: Annotated[
        str | None,
        typer.Option(
            help="rows without images: exclude (set aside), keep (beside the budget) or drop", show_default="exclude"
        ),
    ] = None,
    assign: Assignments = [],  # noqa: B006
) -> None:
    """Select a subset of any dataset into one folder: no repository, no DVC, no Prefect."""
    from flows import direct, overview
    from tasks.params import parse_assignment

    named = {
        "dataset.path": dataset,
        "dataset.image_root": image_root,
        "dataset.format": format,
        "dataset.text_only": text_only,
        "model.path": model,
        "extract.preset": preset,
        "score.method": method,
        "select.budget": None if budget is None else direct.parse_budget(budget),
    }
    chosen = direct.settings_of(named, dict(map(parse_assignment, assign)))
    print(overview.describe(direct.select(chosen, out)))


@app.command()
def score(
    features: Annotated[
        Path, typer.Argument(metavar="FEATURES", help=".npy, Parquet file, or a folder of either: rows x d")
    ],
    out: Annotated[Path, typer.Option(help="Parquet file to write")],
    method: Annotated[str, typer.Option(help="selection method, see `scalselect methods`")] = "scalselect",
    file: Annotated[
        list[str], typer.Option(metavar="NAME=PATH", help="a further input, such as answers.nll=nll.npy")
    ] = [],  # noqa: B006
    assign: Annotated[list[str], typer.Option("--set", metavar="METHOD.OPTION=VALUE", help="of the method")] = [],  # noqa: B006
    budget: Annotated[
        str | None, typer.Option(help="also pick: a count, or a share such as 0.16; column `picked`")
    ] = None,
    seed: Annotated[int, typer.Option(help="of methods that draw lots")] = 0,
) -> None:
    """Score features you bring yourself; no model is loaded."""
    from flows.direct import parse_budget, parse_files
    from tasks.arrays import score_array
    from tasks.params import parse_assignment

    count = None if budget is None else parse_budget(budget)
    score_array(features, method, dict(map(parse_assignment, assign)), out, parse_files(file), count, seed)
    print(out)


@app.command()
def methods() -> None:
    """List the selection methods, the signals they need and their options."""
    import dataclasses

    from flows.direct import describe_signals
    from tasks.methods import METHODS

    for name, method in METHODS.items():
        options = ", ".join(f"{key}={value!r}" for key, value in dataclasses.asdict(method.options()).items())
        print(f"{name:<14}{describe_signals(method):<20}{options}")


@app.command()
def settings() -> None:
    """List every key of params.yaml with its default and meaning, as Markdown."""
    from flows.settings import describe_settings

    print(describe_settings(), end="")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="folder of the new workspace")],
    dataset: Annotated[str | None, typer.Option(help="path, URL or hub id", show_default="the embedded demo")] = None,
    model: Annotated[str | None, typer.Option(help="path or hub id", show_default="the embedded demo")] = None,
    image_root: Annotated[
        str | None,
        typer.Option(help="folder or URL that images may only lie under", show_default="the folder of a JSON dataset"),
    ] = None,
) -> None:
    """Make a workspace: dvc.yaml, params.yaml, prefect.yaml, git and DVC initialised."""
    from flows.scaffold import scaffold

    for note in scaffold(folder, dataset, model, image_root):
        _say(note)
    print(
        f"{folder} is ready: look through {folder / 'params.yaml'}, then `cd {folder} && dvc repro` or `scalselect run`"
    )


@app.command()
def demo() -> None:
    """Build the embedded demo and run the whole pipeline on it."""
    from flows import demo as embedded
    from flows import overview
    from tasks.layout import Layout

    workspace, outcomes = embedded.demo(Path.cwd(), print)
    print(f"\n{overview.describe_outcomes(outcomes)}\n")
    print(overview.describe(Layout.workspace(Path(os.path.relpath(workspace)) / "data")))


@app.command()
def run(assign: Assignments = []) -> None:  # noqa: B006
    """Run the flow here and now: every stage with something to do, then the record. --set is written to params.yaml."""
    from flows.workspace import find
    from tasks.layout import Layout
    from tasks.params import parse_assignment

    root, overrides = find(), dict(map(parse_assignment, assign))
    # Prefect's temporary server takes its time on a busy machine; by default it is given up after 20 seconds.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    from flows import overview
    from flows.curate import curate

    curate(overrides, str(root))
    print(overview.describe(Layout.workspace(Path(os.path.relpath(root)) / "data")))


@app.command()
def plan() -> None:
    """Say what a run would do: stages, rows in the store and to extract, estimated time."""
    from flows.plan import describe_plan
    from flows.workspace import find

    # Paths in params.yaml are relative to the workspace.
    os.chdir(find())
    print(describe_plan(Path()))


@app.command()
def record() -> None:
    """After `dvc repro`: complete the manifest with DVC's digests; push, commit and tag as params.yaml says."""
    from flows.record import record as write_record
    from flows.workspace import find, holding

    root = find()
    with holding(root, _say):
        print(write_record(root, _say).manifest)


@app.command()
def gc(
    shared: Annotated[
        bool, typer.Option("--shared", help="also from run.store, where other workspaces may keep what they need")
    ] = False,
) -> None:
    """Remove from the feature store what the present samples and settings do not use."""
    from flows.workspace import find, holding
    from tasks.extraction import prune
    from tasks.layout import Layout
    from tasks.params import load

    root = find()
    store = load(root / "params.yaml").run.store if shared else None
    with holding(root, _say):
        print(f"{prune(Layout.workspace(root / 'data'), store):,} bytes freed")


@app.command()
def trace(
    subset: Subset,
    row: Annotated[
        int | None, typer.Option(help="position in the dataset, from 0", show_default="the subset as a whole")
    ] = None,
    id: Annotated[str | None, typer.Option(help="the dataset's own id, where it is unique")] = None,  # noqa: A002
) -> None:
    """Walk a row back: rank and score, feature shard, sample, images, tensors, parameters."""
    from tasks import lineage

    print(lineage.trace(subset, row, id))


@app.command()
def verify(
    subset: Subset,
    recompute: Annotated[
        int, typer.Option(min=0, metavar="N", help="also extract this many rows again and compare")
    ] = 0,
) -> None:
    """Hash again everything that a subset's manifest names; exit code 2 when something is not as recorded."""
    from tasks import lineage

    found = lineage.verify(subset, recompute)
    print(found)
    if not found.ok:
        raise typer.Exit(2)


@app.command()
def doctor(fix: Annotated[bool, typer.Option("--fix", help="mend what needs no decision")] = False) -> None:
    """Check versions, GPU, disk, locks, remote and server; each problem comes with its fix."""
    from flows.doctor import examine
    from flows.workspace import find
    from tasks.errors import InputError

    try:
        workspace = find()
    except InputError:
        workspace = None
    findings = list(examine(workspace, fix))
    for one in findings:
        print(f"{one.level:<9}{one.what}" + (f"\n{'':<9}fix: {one.fix}" if one.fix else ""))
    if any(one.level == "problem" for one in findings):
        raise typer.Exit(2)


compare_command.register(app)
evaluate_command.register(app)


def main() -> None:
    """The console script: an error raised on purpose is one red message and its exit code."""
    log_progress()
    try:
        with telling_storage_faults():
            app()
    except ScalSelectError as error:
        typer.secho(f"{type(error).__name__}: {error}", fg=typer.colors.RED, err=True)
        sys.exit(error.exit_code)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
