"""CSV for spreadsheets: no cell is a formula.

A CSV cell that starts with = + - @, a tab or a line break is a formula for spreadsheets, and may start programs or send
data (OWASP, "CSV Injection", https://owasp.org/www-community/attacks/CSV_Injection). Such a text gets a leading single
quote, which spreadsheets do not display. Numbers stay numbers, also as texts.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from io import StringIO

FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Prefixes of formulas; spreadsheets accept the full-width characters too."""
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def to_csv(rows: Iterable[Iterable[object]], separator: str = ",") -> str:
    """Formats rows as CSV; each row ends with a line break."""
    return "".join(f"{_format_row([escape_formula(cell) for cell in row], separator)}\n" for row in rows)


def _format_row(cells: list[object], separator: str) -> str:
    """Formats one row. The CSV writer quotes the characters of its line terminator, and a carriage return must be
    quoted too.
    """
    text = StringIO()
    csv.writer(text, lineterminator="\r\n", delimiter=separator).writerow(cells)
    return text.getvalue().removesuffix("\r\n")


def escape_formula(cell: object) -> object:
    """Adds a leading single quote to a text that a spreadsheet would compute; returns other cells unchanged."""
    return (
        f"'{cell}"
        if isinstance(cell, str) and cell.startswith(FORMULA_PREFIXES) and not NUMBER.fullmatch(cell)
        else cell
    )
