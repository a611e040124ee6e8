"""CSV and TSV: the delimiter is the one that gives all rows the same number of fields."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

from orchestra.documents.builder import DocumentBuilder, FileContent
from orchestra.documents.errors import DocumentError
from orchestra.documents.formats.plain_text import decode

DELIMITERS = (",", ";", "\t", "|")
"""Tried in this order."""
MAX_CELLS = 2_000_000
SNIFFED_ROWS = 100
"""Rows that decide about the delimiter."""


def read(path: Path, source: str) -> FileContent:
    """Reads a file as one table.

    Raises:
        DocumentError: D003 for a file that is no text, D005 for a file that is too large.
    """
    builder = DocumentBuilder(source)
    builder.add_sheet(parse_rows(decode(path, source), source), "")
    return builder.content(is_table=True)


def parse_rows(text: str, source: str) -> list[list[str]]:
    """Returns the fields of all rows.

    Raises:
        DocumentError: D005 if there are too many.
    """
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:
        delimiter, text = first.strip()[-1], rest  # written by Excel
    else:
        delimiter = find_delimiter(text)
    rows: list[list[str]] = []
    cells = 0
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            rows.append(row)
            cells += len(row)
            if cells > MAX_CELLS:
                raise DocumentError(
                    "D005", f"{source} has more than {MAX_CELLS:,} cells", hint="put it into a database: duckdb, sqlite"
                )
    except csv.Error as error:
        raise DocumentError("D003", f"{source} is not a readable table: {error}", hint="check its quotes") from error
    return rows


def find_delimiter(text: str) -> str:
    """Returns the delimiter with which most rows have the same number of fields, of which there are at least two; a
    comma if there is none.
    """
    sample = "\n".join(text.splitlines()[:SNIFFED_ROWS])
    best, best_score = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        try:
            widths = Counter(
                len(row) for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if any(row)
            )
        except csv.Error:
            continue
        if not widths:
            continue
        width, count = max(widths.items(), key=lambda item: (item[1], item[0]))
        score = (count / widths.total(), width) if width > 1 else (0.0, 0)
        if score > best_score:
            best, best_score = delimiter, score
    return best
