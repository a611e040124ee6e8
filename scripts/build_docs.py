"""Writes the generated pages of the documentation. `make docs` runs it.

.venv/bin/python scripts/build_docs.py           # writes them
.venv/bin/python scripts/build_docs.py --check   # exits 1 if one is out of date
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # finds `scripts.api_reference` when run by path

from orchestra.cli.main import build_app
from orchestra.core.error_help import CODE_AREAS, load_explanations
from orchestra.core.settings import ENVIRONMENT_PREFIX, SETTING_NAMES, Settings
from scripts import api_reference
from scripts.api_reference import escaped

ROOT = api_reference.ROOT
DOCS = ROOT / "docs"

COPIES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the repository's root that are pages of the site, too."""

ERRORS = """\
# Error codes

Every error of Orchestra has a code. This page lists all codes, with their cause and the remedy.
`orchestra explain CODE` prints the same text. The first letter of a code names the part of the system that reports it.

"""

COMMANDS = """\
# Command line

This page lists every command of `orchestra` with its arguments and options. It is generated from the commands.
`orchestra COMMAND --help` prints the same text. The exit codes are in the [glossary](glossary.md#how-a-command-ends).

"""

DECISIONS = """\
# Decisions

This page lists the decision records. Each record is half a page long: context, options with figures, choice and
consequences.

"""


def errors_page() -> str:
    """Returns all explanations, by area and code."""
    parts = [ERRORS]
    for letter, entries in groupby(load_explanations().values(), key=lambda entry: entry.code[0]):
        parts.append(f"## {letter}: {CODE_AREAS[letter]}\n\n")
        for entry in entries:
            parts.append(f"### {entry.code}: {escaped(entry.title)} {{ #{entry.code} }}\n\n{markdown(entry.text)}\n\n")
    return "".join(parts).rstrip() + "\n"


def markdown(text: str) -> str:
    """Returns an explanation as Markdown: indented text becomes a code block."""
    blocks = []
    for indented, lines in groupby(text.strip("\n").splitlines(), key=lambda line: line.startswith((" ", "\t"))):
        block = textwrap.dedent("\n".join(lines)).strip("\n")
        if block:
            blocks.append(f"```text\n{block}\n```" if indented else escaped(block))
    return "\n\n".join(blocks)


def escaped(text: str) -> str:
    """Escapes HTML outside of `code`."""
    parts = text.split("`")
    return "`".join(part.replace("<", "&lt;") if at % 2 == 0 else part for at, part in enumerate(parts))


def decisions_page() -> str:
    """Returns the list of the decision records by number."""
    lines = []
    for path in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        title = path.read_text("utf-8").splitlines()[0].removeprefix("#").strip()
        lines.append(f"- [{title}]({path.name})\n")
    return DECISIONS + "".join(lines)


def pages() -> dict[Path, str]:
    """Returns every generated page with its content."""
    return {DOCS / "errors.md": errors_page(), DOCS / "decisions" / "index.md": decisions_page()}


def main() -> int:
    """Writes or checks the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of the pages")
    given = parser.parse_args()
    wanted = pages(given.docs) | ({} if given.check else built_pages(given.docs))
    stale = [(path, text) for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    for path, text in stale:
        print(f"{path.relative_to(given.docs.parent)} {'is out of date: make docs' if given.check else 'written'}")
        if not given.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    return 1 if given.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
