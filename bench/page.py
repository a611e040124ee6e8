"""Writes the latest results into docs/evaluation/performance.md: `python -m bench.page`. All its figures are
generated.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from bench import machine
from bench.peers import run_all, tables

PAGE = machine.ROOT / "docs" / "evaluation" / "performance.md"
BLOCK = re.compile(r"(?P<head><!-- measured:(?P<name>[a-z]+) -->\n).*?(?P<tail><!-- end:(?P=name) -->)", re.DOTALL)


def printed(name: str) -> str:
    """Returns the last output of a benchmark; empty if there is none."""
    file = machine.folder() / f"{name}.txt"
    return file.read_text("utf-8") if file.exists() else ""


def fenced(text: str) -> str:
    """Returns a text as a code block."""
    return f"```text\n{text}```\n" if text else ""


def peers() -> str:
    """Returns the tables of the last `make bench-peers`; empty if there are none."""
    file = run_all.results()
    return f"{tables.report(tables.rows(file), machine.folder())}\n" if file.exists() else ""


def renewed(page: str, measured: dict[str, str]) -> str:
    """Returns the page with current results in its blocks; a block without results is kept."""

    def block(found: re.Match[str]) -> str:
        text = measured.get(found["name"], "")
        return f"{found['head']}\n{text}\n{found['tail']}" if text else found[0]

    return BLOCK.sub(block, page)


def main(page: Path = PAGE) -> int:
    """Writes the page."""
    before = page.read_text("utf-8")
    after = renewed(
        before,
        {
            "engine": fenced(printed("engine")),
            "ordering": printed("ordering"),
            "peers": peers(),
            "server": printed("server"),
            "throttling": printed("throttling"),
        },
    )
    if after != before:
        page.write_text(after, "utf-8")
        print(f"{page.name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
