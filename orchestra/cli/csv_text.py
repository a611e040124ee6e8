"""CSV that spreadsheets open: a text that would be a formula there is written as a text.

A cell that begins with = + - @, a tab or a line break is a formula for spreadsheets, and may start programs or send data (OWASP, "CSV
Injection", https://owasp.org/www-community/attacks/CSV_Injection). Such a text gets a single quote in front, by which spreadsheets show it
as it is. Numbers stay numbers, also those that are texts.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from io import StringIO

FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""How formulas begin; spreadsheets take the full-width signs too."""
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def to_csv(rows: Iterable[Iterable[object]]) -> str:
    """The rows as CSV, each ended by a line break."""
    return "".join(f"{_format_row([escape_formula(cell) for cell in row])}\n" for row in rows)


def _format_row(cells: list[object]) -> str:
    """One row. The writer quotes the characters of its own line end, and a carriage return has to be quoted too."""
    text = StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n")


def escape_formula(cell: object) -> object:
    """A cell that no spreadsheet computes: a text that begins as a formula does, with a single quote in front; all others as they are."""
    return (
        f"'{cell}"
        if isinstance(cell, str) and cell.startswith(FORMULA_PREFIXES) and not NUMBER.fullmatch(cell)
        else cell
    )
