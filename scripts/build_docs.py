"""Writes the generated pages of the documentation: `docs/errors.md` and `docs/decisions/index.md`. `make docs` runs it.

.venv/bin/python scripts/build_docs.py           # writes them
.venv/bin/python scripts/build_docs.py --check   # exits 1 if one is out of date
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from itertools import groupby
from pathlib import Path

from orchestra.core.error_help import CODE_AREAS, load_explanations

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

ERRORS = """\
# Error codes

An error has a code, the place where the fault stands, and what to write instead; `orchestra explain CODE` prints \
what this page says of it.
The letter tells the room it comes from.

"""

DECISIONS = """\
# Decisions

Half a page each: the context, the options with figures, the choice, and what follows from it.

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
    check = parser.parse_args().check
    stale = [(path, text) for path, text in pages().items() if not path.exists() or path.read_text("utf-8") != text]
    for path, text in stale:
        print(f"{path.relative_to(ROOT)} {'is out of date: make docs' if check else 'written'}")
        if not check:
            path.write_text(text, "utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
