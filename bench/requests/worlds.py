"""The worlds of documents and tables, and the requests over them."""

from __future__ import annotations

import html.parser
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.requests.facts import NO, YES
from orchestra.schema.strict_yaml import load_yaml

FOLDER = Path(__file__).resolve().parent
SPLITS = ("dev", "validation", "test", "control", "holdout", "second")
KINDS = (
    "document",
    "table",
    "list",
    "summary",
    "draft",
    "claim",
    "compare",
    "extract",
    "classify",
    "action",
)
SKILLS = (
    "read",
    "table",
    "calculate",
    "compare",
    "list",
    "summarise",
    "draft",
    "check",
    "extract",
    "classify",
    "act",
)
"""The skills that a request needs. `act` is an effect outside of the documents, such as sending a message."""
_KEYS = {
    "id": str,
    "request": str,
    "language": str,
    "kind": str,
    "words": str,
    "needs": list,
    "answerable": bool,
    "expected": list,
    "at_least": int,
    "longest": int,
    "forbidden": list,
    "from": list,
    "sql": str,
    "because": str,
    "why": str,
}


@dataclass(frozen=True)
class Request:
    """A request, and what makes its answer right or wrong."""

    id: str
    world: str
    request: str
    kind: str
    words: str
    """`same` words as the documents, or `other`."""
    needs: tuple[str, ...]
    answerable: bool
    """Whether the documents and tables have an answer and the request can be carried out without effects."""
    expected: tuple[tuple[str, ...], ...]
    """Facts of a right answer, each with its alternatives."""
    forbidden: tuple[str, ...]
    """Facts that make an answer wrong."""
    language: str
    at_least: int
    """The number of expected facts that an answer must have; all, except for summaries."""
    longest: int
    """The maximum number of words of an answer; 0 for no limit."""
    sources: tuple[str, ...]
    """The files with the answer."""
    sql: str
    """A query over the tables of the world that computes what the answer must have."""
    because: str
    """The words of a source that decide a claim or a class."""
    why: str
    """Why there is no answer."""


@dataclass(frozen=True)
class World:
    """The files of an office, and the requests over them."""

    name: str
    trade: str
    split: str
    folder: Path
    requests: tuple[Request, ...]

    @property
    def files(self) -> list[Path]:
        """The documents and tables, by path."""
        return sorted(file for part in ("documents", "tables") for file in (self.folder / part).iterdir())


def read_worlds(split: str, names: Sequence[str] = ()) -> list[World]:
    """Reads the worlds of a split, or those with these names. Raises `ValueError` for an unknown name or a wrong
    entry.
    """
    folders = sorted(path.parent for path in (FOLDER / split).glob("*/requests.yaml"))
    if unknown := set(names) - {folder.name for folder in folders}:
        raise ValueError(f"no world {', '.join(sorted(unknown))} in {split}: {', '.join(one.name for one in folders)}")
    return [_world(folder, split) for folder in folders if not names or folder.name in names]


def _world(folder: Path, split: str) -> World:
    file = folder / "requests.yaml"
    content: dict[str, Any] = load_yaml(file.read_bytes(), str(file)).value
    if content["world"] != folder.name:
        raise ValueError(f"{file}: the world is {content['world']!r}")
    requests = tuple(_request(entry, folder.name, content["language"]) for entry in content["requests"])
    return World(folder.name, content["trade"], split, folder, requests)


def _request(entry: Mapping[str, Any], world: str, language: str) -> Request:
    name = entry.get("id", "?")
    for key, value in entry.items():
        if not isinstance(value, _KEYS.get(key, ())):
            raise ValueError(f"{name}: {key} is unknown or has a wrong type")
    answerable = entry.get("answerable", True)
    expected = tuple(tuple(fact) for fact in entry.get("expected", ()))
    if entry["kind"] not in KINDS or entry["words"] not in ("same", "other") or set(entry["needs"]) - set(SKILLS):
        raise ValueError(f"{name}: unknown kind, words or needs")
    if answerable != bool(expected) or answerable == ("why" in entry):
        raise ValueError(f"{name}: an answer needs expected facts, no answer a reason")
    if not all(isinstance(one, str) for fact in (*expected, entry["forbidden"]) for one in fact):
        raise ValueError(f"{name}: facts are strings")
    implied = [
        other for this, other in ((YES, NO), (NO, YES)) for fact in expected if this in fact if other not in fact
    ]
    return Request(
        name,
        world,
        entry["request"],
        entry["kind"],
        entry["words"],
        tuple(entry["needs"]),
        answerable,
        expected,
        (*entry["forbidden"], *implied),
        entry.get("language", language),
        entry.get("at_least", len(expected)),
        entry.get("longest", 0),
        tuple(entry.get("from", ())),
        entry.get("sql", ""),
        entry.get("because", ""),
        entry.get("why", ""),
    )


class _Text(html.parser.HTMLParser):
    """The text of a page, a line for each block."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(re.sub(r"\s+", " ", data))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("p", "li", "h1", "h2", "h3", "tr", "title"):
            self.parts.append("\n\n")
        elif tag in ("td", "th"):
            self.parts.append(" | ")


def text_of(file: Path) -> str:
    """Returns the text of a document or table: of a page without its tags."""
    text = file.read_text("utf-8")
    if file.suffix != ".html":
        return text
    parser = _Text()
    parser.feed(text)
    return "".join(parser.parts).strip()
