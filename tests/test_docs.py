"""Docs that cannot rot: every command, option and setting has help and is written about."""

import re
from pathlib import Path

import pytest
import typer.main
from pydantic import BaseModel

from flows.cli import app
from tasks.params import Settings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCS = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_help_and_is_in_the_docs(name):
    assert COMMANDS[name].help
    assert f"scalselect {name}" in DOCS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(name):
    assert [one.name for one in COMMANDS[name].params if one.name != "help" and not getattr(one, "help", None)] == []


def settings(section=Settings, prefix=""):
    for name, field in section.model_fields.items():
        key = field.alias or name
        yield prefix + key
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__name__ != "ModelSettings":
                yield from settings(kind, f"{prefix}{key}.")


def test_every_setting_is_in_the_docs():
    missing = [key for key in settings() if f"`{key}`" not in DOCS]
    assert missing == []


def test_links_between_docs_lead_somewhere():
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
