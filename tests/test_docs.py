"""Docs that cannot rot: every command, option and setting has help and is written about."""

import re
from pathlib import Path

import pytest
import typer.main
from pydantic import BaseModel

from flows.cli import app
from flows.settings import describe_settings
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
        if isinstance(field.default, BaseModel):
            yield from settings(type(field.default), f"{prefix}{key}.")


def test_every_setting_is_in_the_docs():
    assert [key for key in settings() if f"`{key}`" not in DOCS] == []


def test_the_settings_page_is_what_the_command_prints():
    """After a change of params.yaml: scalselect settings > docs/settings.md."""
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == describe_settings()


def test_links_between_docs_lead_somewhere():
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
