"""Tables: headers, types of columns and values of cells, from the texts of the cells.

A column has a type other than text if all its cells that are not empty can be read so. Its cells are read together:
they decide whether `1.234` is more than a thousand and whether `1/2/2024` is in January.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeAlias

from orchestra.schema.builtin_models import Column, Table
from orchestra.text.numbers.currencies import PREFIX_PATTERN, SUFFIX_PATTERN, currency_code
from orchestra.text.numbers.iso_codes import CURRENCIES
from orchestra.text.numbers.numerals import (
    MINUS_SIGNS,
    NUMERAL,
    is_single_number,
    plain_decimal,
    to_ascii_digits,
    uses_decimal_comma,
)
from orchestra.text.numbers.times import MONTH_PATTERN, month_number

CellValue: TypeAlias = Decimal | date | datetime | bool | str | None
NULLS: Final = frozenset({"", "-", "–", "—", "n/a", "na", "n.a.", "null", "none", "nan", "#n/a"})
"""Texts of cells without a value, in lower case."""
MAX_HEADER_ROWS: Final = 3
MAX_DIGITS: Final = 15
"""Longer integers are identifiers, such as card numbers; so are integers with leading zeros."""

_SIGNS = rf"[{MINUS_SIGNS}+]"
_NUMBER = re.compile(
    rf"(?P<open>\()?\s*(?P<sign>{_SIGNS})?\s*(?P<before>{PREFIX_PATTERN})?\s*(?P<sign2>{_SIGNS})?\s*(?P<digits>{NUMERAL})"
    rf"\s*(?:(?P<percent>%)|(?P<after>{SUFFIX_PATTERN})"
    r"|(?P<unit>(?![xX×·])[^\W\d_]{1,6}[²³]?(?:/[^\W\d_]{1,4})?|°[CF]?))?"
    r"\s*(?P<close>\))?",
    re.IGNORECASE,
)
_IDENTIFIER = re.compile(r"0\d+")
_YEAR = re.compile(r"(?:19|20)\d\d")
_TIME = (
    r"[T ]\s*(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.\d{1,6})?)?"
    r"(?:\s?(?P<zone>Z|[+-]\d\d:?\d\d))?"
)
_DATES: Final = tuple(
    re.compile(rf"{form}(?:,?{_TIME})?", re.IGNORECASE)
    for form in (
        r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})",
        r"(?P<first>\d{1,2})(?P<mark>[./-])(?P<second_part>\d{1,2})(?P=mark)(?P<year>\d{4})",
        rf"(?:[^\W\d_]{{2,9}},? )?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\.?[ -](?P<name>{MONTH_PATTERN})\.?,?[ -]"
        r"(?P<year>\d{4})",
        rf"(?:[^\W\d_]{{2,9}},? )?(?P<name>{MONTH_PATTERN})\.? (?P<day>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<year>\d{{4}})",
    )
)
_TABLE_OF_TEXT = re.compile(r"(?:(?:p\.|slide) \d+ )?table \d+")
_UNIT_IN_HEADER = re.compile(r"[\[(](?:in )?(?P<unit>[^\[\]()]{1,12})[\])]|\bin (?P<bare>[€$£¥]|[A-Z]{3})\s*$")


def make_table(
    cells: Sequence[Sequence[str]],
    *,
    name: str = "table",
    source: str = "",
    sheet: str = "",
    row: int = 1,
    column: int = 1,
    header_rows: int | None = None,
) -> Table:
    """Returns cells as a table with the types of its columns.

    Args:
        cells: The rows, with the header first if there is one. Shorter rows are filled.
        name: The name of the table, unique in its request.
        source: The file.
        sheet: The sheet, or which table of the file.
        row: The row of the first cell in its sheet, from 1.
        column: The column of the first cell in its sheet, from 1.
        header_rows: How many rows are the header; None if they are to be found.
    """
    width = max(map(len, cells), default=0)
    full_rows = [[*line, *[""] * (width - len(line))] for line in cells]
    header = count_header_rows(full_rows) if header_rows is None else header_rows
    body = full_rows[header:]
    comma = uses_decimal_comma((text for line in body for text in line), sure=True)
    names = _column_names(full_rows[:header], width)
    columns = [
        detect_column(name, [line[index] for line in body], decimal_comma=comma) for index, name in enumerate(names)
    ]
    return Table(
        name=name,
        source=source,
        sheet=sheet,
        cells=full_rows,
        header_rows=header,
        row=row,
        column=column,
        columns=columns,
    )


def count_header_rows(cells: Sequence[Sequence[str]]) -> int:
    """Returns how many rows at the top of a table are its header: those before the first row with a figure, or the
    first row if there are only words. Years count as words.
    """
    figures = (index for index, line in enumerate(cells) if any(is_figure(text) for text in line))
    first = next(figures, None)
    if first is None:
        return 1 if len(cells) > 1 else 0
    if first <= MAX_HEADER_ROWS:
        # A row of words above numbers may also be the first row of data: only the topmost row is the header then,
        # unless the rows under it have empty cells, as second header rows do.
        return next((at for at in range(1, first) if all(text.strip() for text in cells[at])), first)
    return 1


def is_figure(text: str) -> bool:
    """Whether a cell is a number or a date, but not a year, which is often a header."""
    plain = text.strip()
    return _YEAR.fullmatch(plain) is None and (_match_number(plain) is not None or parse_date(plain) is not None)


def detect_column(name: str, texts: Sequence[str], *, decimal_comma: bool = False) -> Column:
    """Returns the type of a column from the texts of its cells.

    Args:
        name: The name of the column. A unit in it counts: `Price (EUR)`.
        texts: The cells, without the header.
        decimal_comma: Whether the other columns show that points separate thousands.
    """
    plain = [text.strip() for text in texts if text.strip().lower() not in NULLS]
    if not plain:
        return Column(name=name)
    if all(text.lower() in ("true", "false") for text in plain):
        return Column(name=name, type="boolean")
    for month_first in (False, True):
        dates = [parse_date(text, month_first=month_first) for text in plain]
        if all(parsed_date is not None for parsed_date in dates):
            has_times = any(isinstance(parsed_date, datetime) for parsed_date in dates)
            return Column(name=name, type="datetime" if has_times else "date", month_first=month_first)
    matches = [_match_number(text) for text in plain]
    numbers = [match for match in matches if match is not None]
    if len(numbers) < len(plain) or any(_is_code(match) for match in numbers):
        return Column(name=name)
    comma = decimal_comma or uses_decimal_comma(plain)
    if not all(is_single_number(match["digits"], decimal_comma=comma) for match in numbers):
        return Column(name=name)
    return _number_column(name, numbers, comma)


def parse_cell(text: str, column: Column) -> CellValue:
    """Returns the value of a cell; None for an empty one, or one that is not of the column's type. A percentage is a
    share: `12.5 %` is 0.125.
    """
    plain = text.strip()
    if plain.lower() in NULLS:
        return None
    match column.type:
        case "text":
            return plain
        case "boolean":
            return {"true": True, "false": False}.get(plain.lower())
        case "date" | "datetime":
            return parse_date(plain, month_first=column.month_first)
        case "integer" | "number" | "percent" | "money":
            match = _match_number(plain)
            return None if match is None else _number_value(match, decimal_comma=column.decimal_comma)


def typed_rows(table: Table) -> list[list[CellValue]]:
    """Returns the rows below the header with the values of their cells."""
    return [
        [parse_cell(text, column) for text, column in zip(line, table.columns, strict=True)]
        for line in table.cells[table.header_rows :]
    ]


def parse_date(text: str, *, month_first: bool = False) -> date | datetime | None:
    """Returns the date or the time in a text, which has nothing else; None if there is none. An offset is kept."""
    for form in _DATES:
        if (match := form.fullmatch(to_ascii_digits(text))) is None:
            continue
        parts = match.groupdict()
        if parts.get("first"):
            order = ("second_part", "first") if month_first else ("first", "second_part")
            day, month = int(parts[order[0]]), int(parts[order[1]])
        else:
            day = int(parts["day"])
            month = month_number(parts["name"]) if parts.get("name") else int(parts["month"])
        try:
            if parts["hour"] is None:
                return date(int(parts["year"]), month, day)
            clock = f"{int(parts['hour']):02}:{parts['minute']}:{parts['second'] or '00'}{parts['zone'] or ''}"
            return datetime.fromisoformat(f"{int(parts['year']):04}-{month:02}-{day:02}T{clock}")
        except ValueError:
            return None
    return None


def cell_location(table: Table, row: int, column: int) -> str:
    """Returns where a cell of `table.cells` stands, as a reader says it: `sales.xlsx Q3!B7`."""
    address = f"{column_letters(table.column + column)}{table.row + row}"
    return f"{table.source} {sheet_place(table.sheet, address)}".strip()


def sheet_place(sheet: str, address: str) -> str:
    """Returns an address in a sheet, `Q3!B7`, or in a table of a text, `table 2 B7`."""
    mark = " " if _TABLE_OF_TEXT.fullmatch(sheet) else "!"
    return f"{sheet}{mark}{address}" if sheet else address


def column_letters(number: int) -> str:
    """Returns the letters of a column, from 1: `A`, `Z`, `AA`."""
    letters = ""
    while number > 0:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def records_to_cells(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Returns records as rows of texts, with the names of all fields first. A list or a record in a field is JSON."""
    names = list(dict.fromkeys(name for record in records for name in record))
    return [names, *([_field_text(record.get(name)) for name in names] for record in records)]


def is_records(value: Any) -> bool:
    """Whether a value is a list of records, of which each field is a text, a number, a truth value or null."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(record, Mapping) and all(not isinstance(field, list | Mapping) for field in record.values())
            for record in value
        )
    )


def row_texts(table: Table) -> list[str]:
    """Returns each row below the header as a text in which each cell follows the name of its column."""
    names = [column.name for column in table.columns]
    return [row_text(names if table.header_rows else (), line) for line in table.cells[table.header_rows :]]


def row_text(names: Sequence[str], cells: Sequence[str]) -> str:
    """Returns a row as one line: `Region: North; Q3: 120`. Empty cells are left out."""
    texts = [" ".join(text.split()) for text in cells]
    if not names:
        return " | ".join(text for text in texts if text)
    return "; ".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True) if text)


def _column_names(header: Sequence[Sequence[str]], width: int) -> list[str]:
    """Returns a name for each column: the texts of its header, made unique. A text over several columns is repeated."""
    spread = [_spread(line) if at < len(header) - 1 else list(line) for at, line in enumerate(header)]
    names: list[str] = []
    used_names: set[str] = set()
    repeat_counts: dict[str, int] = {}
    for index in range(width):
        parts = dict.fromkeys(" ".join(line[index].split()) for line in spread)
        name = " ".join(part for part in parts if part) or f"column {index + 1}"
        base_name, number = name, repeat_counts.get(name, 1)
        while name in used_names:
            number += 1
            name = f"{base_name} {number}"
        repeat_counts[base_name] = number
        used_names.add(name)
        names.append(name)
    return names


def _spread(line: Sequence[str]) -> list[str]:
    """Fills the empty cells after a text in an upper header row, which stands over all of them."""
    texts, last = [], ""
    for index, text in enumerate(line):
        last = text if text.strip() or index == 0 else last
        texts.append(last)
    return texts


def _match_number(text: str) -> re.Match[str] | None:
    match = _NUMBER.fullmatch(to_ascii_digits(text)) if text and len(text) < 80 else None
    if match is None or bool(match["open"]) != bool(match["close"]) or (match["sign"] and match["sign2"]):
        return None
    return match


def _is_code(number: re.Match[str]) -> bool:
    """Whether digits are an identifier, which has no value to calculate with."""
    digits = number["digits"]
    return _IDENTIFIER.fullmatch(digits) is not None or (digits.isdigit() and len(digits) > MAX_DIGITS)


def _number_column(name: str, numbers: Sequence[re.Match[str]], decimal_comma: bool) -> Column:
    def column(type_: Any, unit: str = "") -> Column:
        return Column(name=name, type=type_, unit=unit, decimal_comma=decimal_comma)

    match = _UNIT_IN_HEADER.search(name)
    unit = (match["unit"] or match["bare"]).strip() if match else ""
    if all(number["percent"] for number in numbers):
        return column("percent", "%")
    currencies = {number["before"] or number["after"] or "" for number in numbers}
    codes = {_currency(currency) for currency in currencies if currency} or (
        {_currency(unit)} if _currency(unit) else set()
    )
    units = {number["unit"] or "" for number in numbers}
    if any(number["percent"] for number in numbers) or len(codes) > 1 or len(units) > 1 or (codes and units != {""}):
        return Column(name=name)  # different units cannot be added
    if codes:
        return column("money", codes.pop())
    are_whole = all(_is_whole(number, decimal_comma) for number in numbers)
    return column("integer" if are_whole else "number", units.pop() or unit)


def _currency(text: str) -> str:
    plain = text.strip()
    return currency_code(plain) or (plain if plain in CURRENCIES else "")


def _is_whole(number: re.Match[str], decimal_comma: bool) -> bool:
    value = _number_value(number, decimal_comma=decimal_comma)
    return value == value.to_integral_value() and "." not in plain_decimal(
        number["digits"], decimal_comma=decimal_comma
    )


def _number_value(number: re.Match[str], *, decimal_comma: bool) -> Decimal:
    value = Decimal(plain_decimal(number["digits"], decimal_comma=decimal_comma))
    sign = number["sign"] or number["sign2"] or "+"
    value = -value if sign != "+" or number["open"] else value
    return value / 100 if number["percent"] else value


def _field_text(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return str(value).lower()
        case _:
            return json.dumps(value, ensure_ascii=False)


class Block(NamedTuple):
    """A part of a sheet: its rows from `top` to before `bottom`, its columns from `left` to before `right`, from 0."""

    top: int
    bottom: int
    left: int
    right: int


def find_blocks(cells: Sequence[Sequence[str]]) -> list[Block]:
    """Returns the parts of a sheet between empty rows.

    A part after an empty row belongs to the table above it if it has the same columns and no header of its own.
    """
    blocks: list[Block] = []
    start: int | None = None
    for at, line in enumerate([*cells, []]):
        is_filled = any(text.strip() for text in line)
        if is_filled and start is None:
            start = at
        elif not is_filled and start is not None:
            blocks.append(_bounds(cells, start, at))
            start = None
    merged_blocks: list[Block] = []
    for block in blocks:
        if merged_blocks and _continues(cells, merged_blocks[-1], block):
            first = merged_blocks.pop()
            block = Block(first.top, block.bottom, first.left, first.right)
        merged_blocks.append(block)
    return merged_blocks


def _bounds(cells: Sequence[Sequence[str]], start: int, end: int) -> Block:
    used_columns = [index for line in cells[start:end] for index, text in enumerate(line) if text.strip()]
    return Block(start, end, min(used_columns), max(used_columns) + 1)


def _continues(cells: Sequence[Sequence[str]], above: Block, block: Block) -> bool:
    is_same_table = block.left >= above.left and block.right <= above.right and above.right - above.left > 1
    return is_same_table and above.bottom - above.top > 1 and any(is_figure(text) for text in cells[block.top])
