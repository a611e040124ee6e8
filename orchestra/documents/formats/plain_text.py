"""Text and Markdown. Headings of Markdown are locations, and its tables become tables; the text stays as it is."""

from __future__ import annotations

import re
from pathlib import Path

from orchestra.documents.builder import MAX_CHARACTERS, FileContent
from orchestra.documents.errors import DocumentError
from orchestra.documents.tables import make_table
from orchestra.schema.builtin_models import Document, Location, Table

_HEADING = re.compile(r"^(?P<marks>#{1,6})[ \t]+(?P<title>.*?)[ \t]*#*[ \t]*$", re.MULTILINE)
_FENCE = re.compile(r"^(?P<mark>```+|~~~+).*?(?:^(?P=mark)[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(
    r"^[ \t]*\|?.+\|.*\n[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*(?:\n[ \t]*\|?.+\|.*)*",
    re.MULTILINE,
)
_CELL_BORDER = re.compile(r"(?<!\\)\|")


def read_text(path: Path, source: str) -> FileContent:
    """Reads a text."""
    return FileContent(Document(source=source, text=decode(path, source)))


def read_markdown(path: Path, source: str) -> FileContent:
    """Reads a text with the markup of Markdown."""
    text = decode(path, source)
    fence_spans = [match.span() for match in _FENCE.finditer(text)]

    def is_code(at: int) -> bool:
        return any(start <= at < end for start, end in fence_spans)

    headings = [match for match in _HEADING.finditer(text) if match["title"] and not is_code(match.start())]
    locations = [Location(start=match.start(), name=match["title"]) for match in headings]
    tables: list[Table] = []
    for match in _TABLE.finditer(text):
        if not is_code(match.start()):
            name = f"table {len(tables) + 1}"
            tables.append(make_table(_cells(match[0]), name=f"{source} {name}", source=source, sheet=name))
    return FileContent(Document(source=source, text=text, locations=locations), tuple(tables))


def decode(path: Path, source: str) -> str:
    """Returns the text of a file: UTF-8, or UTF-16 with a mark at its start, or the encoding of Western Windows if no
    byte speaks against it.

    Raises:
        DocumentError: D003 for bytes that are no text, D005 for a text that is too long.
    """
    with path.open("rb") as file:  # it may be a pipe
        data = file.read(MAX_CHARACTERS + 1)
    if len(data) > MAX_CHARACTERS:
        raise DocumentError("D005", f"{source} is larger than {MAX_CHARACTERS // 1_000_000} MB", hint="split it")
    encodings: tuple[str, ...] = ("utf-8-sig", "cp1252") if b"\x00" not in data else ()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ("utf-16",)
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DocumentError("D003", f"{source} is not a text", hint="convert it: iconv -t UTF-8")


def _cells(table: str) -> list[list[str]]:
    lines = [line.strip() for line in table.splitlines()]
    return [
        [cell.replace("\\|", "|").strip() for cell in _CELL_BORDER.split(line.removeprefix("|").removesuffix("|"))]
        for at, line in enumerate(lines)
        if at != 1
    ]
