"""Reads the examples of the documentation: fenced blocks, with an optional mark `<!-- test: KIND -->` before them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BUILT = {DOCS / "contributing.md", DOCS / "changelog.md"}
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in DOCS.rglob("*.md") if page.parent != DOCS / "reference" / "api" and page not in BUILT),
]
"""The pages in version control. Each build writes those of the Python API and the copies of pages of the root."""

_BLOCK = re.compile(
    r"^(?:<!-- test: (?P<mark>[a-z ]+) -->\n)?```(?P<language>[a-z]*)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, its text, and what a test shall do with it."""

    page: Path
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in their order."""
    text = page.read_text("utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, match.start("language")) + 1,
            match["language"],
            match["mark"] or "",
            match["text"],
        )
        for match in _BLOCK.finditer(text)
    ]


def marked(mark: str) -> list[Block]:
    """The blocks of all pages that carry a mark."""
    return [block for page in PAGES for block in blocks(page) if block.mark == mark]


def followers(mark: str) -> list[tuple[Block, Block]]:
    """Each block that carries the mark, with the block that follows it on its page: what it prints."""
    found = []
    for page in PAGES:
        of_page = blocks(page)
        found += [(block, after) for block, after in pairwise(of_page) if block.mark == mark]
    return found


def following(block: Block) -> Block | None:
    """Returns the next block of the page if only empty lines separate the two."""
    of_page = blocks(block.page)
    after = of_page[of_page.index(block) + 1 :]
    end = block.line + block.text.count("\n") + 1
    return after[0] if after and after[0].line - end <= 2 else None
