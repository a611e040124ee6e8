"""PDF: the text of each page, and tables whose columns are aligned."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra.documents.builder import DocumentBuilder, FileContent
from orchestra.documents.errors import DocumentError, damaged_file, missing_package
from orchestra.documents.tables import is_figure

MAX_PAGES = 5_000
MAX_CELL = 24
"""Mean number of characters of a cell of a table without numbers, at most; a column of text has more."""
MIN_TABLE_ROWS = 3
"""Fewer lines with aligned parts may be a letter's head."""
_HYPHEN = re.compile(r"(?<=[^\W\d_])(?:\ufffe|\u00ad|\x02|-)\r?\n(?=[^\W\d_A-Z])")
"""A word that goes on in the next line. pdfium marks the hyphen with U+FFFE or U+0002."""


def read(path: Path, source: str) -> FileContent:
    """Reads a document page by page, in the order in which the page draws its text.

    Raises:
        DocumentError: D002 without pypdfium2, D003 for a broken file, D004 for one with a password, D005 for one with
            too many pages, D006 for one without a text, such as a scan.
    """
    try:
        import pypdfium2 as pdfium
    except ImportError as error:
        raise missing_package("pypdfium2", "PDF") from error
    builder = DocumentBuilder(source)
    try:
        document = pdfium.PdfDocument(path)
        if len(document) > MAX_PAGES:
            raise DocumentError("D005", f"{source} has more than {MAX_PAGES} pages", hint="split it")
        for number in range(len(document)):
            page = document[number]
            _add_page(builder, page.get_textpage(), f"p. {number + 1}")
            page.close()
        document.close()
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            raise DocumentError("D004", f"{source} has a password", hint="save it without a password") from error
        raise damaged_file(source, "PDF", error) from error
    content = builder.content()
    if not content.document.text:
        raise DocumentError(
            "D006", f"{source} has no text: its pages are pictures", hint="recognise its text first: ocrmypdf IN OUT"
        )
    return content


@dataclass(frozen=True, slots=True)
class _Segment:
    """A piece of a line: its box in points, and its text."""

    left: float
    right: float
    bottom: float
    top: float
    text: str


def _add_page(builder: DocumentBuilder, page: Any, place: str) -> None:
    builder.add(clean_text(page.get_text_bounded()), place)
    for number, cells in enumerate(find_tables(_segments(page)), 1):
        builder.add_table(cells, f"{place} table {number}")


def clean_text(text: str) -> str:
    """Returns the text of a page with words joined that a line's end divides."""
    joined_text = (
        _HYPHEN.sub("", text).replace("\r\n", "\n").replace("\ufffe", "-").replace("\x02", "-").replace("\x00", "")
    )
    return "\n".join(line.rstrip() for line in joined_text.splitlines()).strip()


def _segments(page: Any) -> list[_Segment]:
    segments = []
    for index in range(page.count_rects()):
        left, bottom, right, top = page.get_rect(index)
        text = " ".join(page.get_text_bounded(left, bottom, right, top).split())
        if text:
            segments.append(_Segment(left, right, bottom, top, text))
    return segments


def find_tables(segments: Sequence[_Segment]) -> Iterator[list[list[str]]]:
    """Yields tables: lines one below the other, each of several parts, with the parts in the same columns."""
    block: list[list[_Segment]] = []
    for line in _lines(segments):
        if len(line) > 1 and (not block or _fits(block, line)):
            block.append(line)
            continue
        if (table := _table(block)) is not None:
            yield table
        block = [line] if len(line) > 1 else []
    if (table := _table(block)) is not None:
        yield table


def _lines(segments: Sequence[_Segment]) -> Iterator[list[_Segment]]:
    """Yields the parts of each line from left to right, the lines from top to bottom. Parts that touch are joined."""
    line: list[_Segment] = []
    for segment in sorted(
        segments, key=lambda other_segment: (-(other_segment.bottom + other_segment.top) / 2, other_segment.left)
    ):
        if line and abs((segment.bottom + segment.top) - (line[0].bottom + line[0].top)) > _height(line[0]):
            yield _join(line)
            line = []
        line.append(segment)
    if line:
        yield _join(line)


def _height(segment: _Segment) -> float:
    return max(segment.top - segment.bottom, 1.0)


def _join(line: list[_Segment]) -> list[_Segment]:
    segments: list[_Segment] = []
    for segment in sorted(line, key=lambda other_segment: other_segment.left):
        if segments and segment.left - segments[-1].right < 0.9 * _height(segment):
            last = segments.pop()
            glue = "" if segment.left - last.right < 0.1 * _height(segment) else " "
            segment = _Segment(
                last.left,
                max(last.right, segment.right),
                min(last.bottom, segment.bottom),
                max(last.top, segment.top),
                f"{last.text}{glue}{segment.text}",
            )
        segments.append(segment)
    return segments


def _fits(block: Sequence[Sequence[_Segment]], line: Sequence[_Segment]) -> bool:
    """Whether a line continues a table: near enough to the line above it, with parts in its columns."""
    above = block[-1]
    if above[0].bottom - line[0].top > 3 * _height(line[0]):
        return False
    columns = _columns([*block, line])
    return len(columns) > 1 and len(columns) >= max(len(segments) for segments in (*block, line))


def _columns(lines: Sequence[Sequence[_Segment]]) -> list[tuple[float, float]]:
    """Returns the ranges of the page's width in which parts of the lines overlap."""
    ranges: list[tuple[float, float]] = []
    for left, right in sorted((segment.left, segment.right) for line in lines for segment in line):
        if ranges and left < ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(right, ranges[-1][1]))
        else:
            ranges.append((left, right))
    return ranges


def _table(block: Sequence[Sequence[_Segment]]) -> list[list[str]] | None:
    columns = _columns(block)
    if len(block) < MIN_TABLE_ROWS or len(columns) < 2:
        return None
    cells = []
    for line in block:
        row = [""] * len(columns)
        for segment in line:
            at = next(index for index, (left, right) in enumerate(columns) if left <= segment.left <= right)
            row[at] = f"{row[at]} {segment.text}".strip()
        cells.append(row)
    return cells if _holds_data(cells) else None


def _holds_data(cells: Sequence[Sequence[str]]) -> bool:
    """Whether aligned parts are a table, and not the lines of two columns of text: they are short, or a column has
    numbers.
    """
    texts = [text for row in cells for text in row if text]
    if sum(map(len, texts)) <= MAX_CELL * len(texts):
        return True
    columns = zip(*cells[1:], strict=True)
    return any(sum(is_figure(text) for text in column) > len(cells) // 2 for column in columns)
