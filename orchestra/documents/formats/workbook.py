"""XLSX: the values of all sheets, as tables with their cells' addresses."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from orchestra.documents.builder import DocumentBuilder, FileContent
from orchestra.documents.errors import DocumentError, damaged_file, missing_package
from orchestra.documents.formats.office_archive import check_archive

MAX_CELLS = 2_000_000
"""Maximum cells of a workbook, empty ones between others included."""
MAX_EMPTY_ROWS = 1_000
"""A sheet ends after so many empty rows: formats of empty cells may go on to the last row."""
MAX_COLUMNS = 2_000


def read(path: Path, source: str) -> FileContent:
    """Reads a workbook. A formula is the value that the program computed when the file was saved.

    Raises:
        DocumentError: D002 without openpyxl, D003 for a broken file, D004 for one with a password, D005 for one that is
            too large.
    """
    check_archive(path, source, "XLSX")
    try:
        import openpyxl
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        raise missing_package("openpyxl", "XLSX") from error
    builder = DocumentBuilder(source)
    cells = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about features such as data validation, which a reader of values ignores
        try:
            book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
            for sheet in book.worksheets:
                rows = list(_rows(sheet, source, MAX_CELLS - cells))
                cells += sum(map(len, rows))
                builder.add_sheet(rows, sheet.title)
            book.close()
        except DocumentError:
            raise
        except (InvalidFileException, SyntaxError, KeyError, ValueError, TypeError, AttributeError, OSError) as error:
            # openpyxl raises any of these for a part that is missing or not as specified; SyntaxError is of its XML.
            raise damaged_file(source, "XLSX", error) from error
    return builder.content(is_table=True)


def _rows(sheet: Any, source: str, room: int) -> Iterator[list[str]]:
    sheet.reset_dimensions()
    empty: list[list[str]] = []
    for row in sheet.iter_rows(max_col=MAX_COLUMNS):
        texts = [_cell_text(cell) for cell in row]
        while texts and not texts[-1]:
            texts.pop()
        room -= len(texts) + 1
        if room < 0:
            raise DocumentError(
                "D005", f"{source} has more than {MAX_CELLS:,} cells", hint="put it into a database: duckdb, sqlite"
            )
        if texts:
            yield from empty
            yield texts
            empty = []
        elif len(empty) >= MAX_EMPTY_ROWS:
            return
        else:
            empty.append([])


def _cell_text(cell: Any) -> str:
    """Returns the value of a cell as a text, with the sign of its format: `12.5%`, `EUR 1200`, `2024-05-01`."""
    value = cell.value
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case int() | float():
            return _number_text(value, str(cell.number_format or ""))
        case datetime():
            plain = value.replace(microsecond=0)
            return plain.date().isoformat() if plain.time() == time() else plain.isoformat(" ")
        case date() | time():
            return value.isoformat()
        case _:
            return str(value).strip()


_CURRENCIES = ("€", "$", "£", "¥", "₹", "EUR", "USD", "GBP", "CHF", "JPY", "SEK", "NOK", "DKK", "PLN", "CZK")


def _number_text(value: float, number_format: str) -> str:
    if "%" in number_format:
        return f"{_plain(value * 100)}%"
    first_format = number_format.split(";")[0]
    sign = next((currency for currency in _CURRENCIES if currency in first_format), "")
    if "[$" in first_format and not sign:
        sign = first_format.split("[$", 1)[1].split("]")[0].split("-")[0].strip()
    return f"{sign} {_plain(value)}" if sign and sign.isalpha() else f"{sign}{_plain(value)}"


def _plain(value: float) -> str:
    """Returns a number without the error of its binary form: 15 digits, as in a sheet."""
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return str(int(value))
    text = f"{value:.15g}"
    return f"{value:.10f}".rstrip("0") if "e-" in text and abs(value) >= 1e-10 else text
