"""Data Docs that read well without a network: Great Expectations' pages, minus what they would fetch.

As rendered they load scripts, styles and a logo from a dozen public servers, and the front page is drawn by one of
those scripts alone. Here scripts, links to styles and logos go, and with them the folder of fonts and pictures they
stand in; one small style sheet comes in, and the front page is written anew.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from html import escape
from pathlib import Path

from tasks.atomic import write_text

STYLE = Path(__file__).with_suffix(".css")
FOREIGN = re.compile(r"<(script|style|footer)\b.*?</\1>|<(?:link|img)\b[^>]*>", re.DOTALL | re.IGNORECASE)


def settle(docs: Path, passed: Mapping[str, bool], titles: Mapping[str, str]) -> None:
    """Make every page of the site stand alone. `passed` and `titles`: outcome and meaning of each suite, by name."""
    style = f"<style>{STYLE.read_text(encoding='utf-8')}</style>"
    for page in sorted(docs.rglob("*.html")):
        write_text(page, FOREIGN.sub("", page.read_text(encoding="utf-8")).replace("</head>", f"{style}</head>", 1))
    shutil.rmtree(docs / "static", ignore_errors=True)
    write_text(docs / "index.html", _front_page(docs, passed, titles, style))


def _front_page(docs: Path, passed: Mapping[str, bool], titles: Mapping[str, str], style: str) -> str:
    lines = "".join(
        f'<tr><td class="{"good" if good else "bad"}">{"passed" if good else "failed"}</td>'
        f'<td><a href="{_result_page(docs, name)}">{escape(name)}</a></td><td>{escape(titles[name])}</td>'
        f'<td><a href="expectations/{escape(name)}.html">expectations</a></td></tr>'
        for name, good in passed.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Data Docs</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{style}</head>'
        "<body><h1>Data Docs</h1><p>What validation found, as Great Expectations reports it.</p>"
        f"<table><tr><th>Outcome</th><th>Suite</th><th>What it asks</th><th></th></tr>{lines}</table></body></html>\n"
    )


def _result_page(docs: Path, suite: str) -> str:
    (page,) = (docs / "validations" / suite).rglob("*.html")
    return page.relative_to(docs).as_posix()
