"""The locations of quoted words in the texts of a run. Pure.

The texts of a run are its inputs and the results of its tools; each has an address such as `input.documents[0].text` or
`passages[1].text`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from pydantic import ValidationError

from orchestra.core.outcomes import ValueOutcome
from orchestra.documents.passages import location_at
from orchestra.documents.tables import cell_location
from orchestra.journal.history import History
from orchestra.schema.builtin_models import Location, Table
from orchestra.schema.content import is_cell, is_citation

MAX_TEXTS = 20_000
"""Texts of a run that are searched, at most."""


class TextSpan(msgspec.Struct, frozen=True, tag_field="kind", tag="span"):
    """A span of a text: `text[start:end] == quote`, in characters, if the text is known."""

    quote: str
    source: str = ""
    """The name of the text; empty without one."""
    start: int | None = None
    end: int | None = None
    where: str = ""
    """The address of the text in the run; empty if no text has these words there."""
    location: str = ""
    """Where the words are in the file of the text, such as `p. 3`."""


class TableCell(msgspec.Struct, frozen=True, tag_field="kind", tag="cell"):
    """A cell of a table: its indices from 0, its text, and the headers of its row and column."""

    text: str
    row: int
    column: int
    row_heading: str = ""
    column_heading: str = ""
    where: str = ""
    location: str = ""
    """Where it is in a file, such as `sales.xlsx Q3!B7`."""


EvidenceLocation: TypeAlias = TextSpan | TableCell


class RunText(msgspec.Struct, frozen=True):
    """A text of a run."""

    where: str
    text: str
    name: str = ""
    offset: int | None = None
    """Where a passage begins in the text with that name."""
    cell: TableCell | None = None
    table: Sequence[Sequence[str]] = ()
    """The table of the cell."""
    locations: Sequence[Location] = ()
    """The locations of the text in its file."""


class RunTexts:
    """The texts of a run: inputs first, then nodes."""

    def __init__(self, texts: Sequence[RunText]) -> None:
        self._all = texts
        self._by_name: dict[str, list[RunText]] = {}
        self._by_address: dict[str, RunText] = {}
        self._cells: dict[tuple[int, int, str], TableCell] = {}
        for text in texts:
            if (cell := text.cell) is not None:
                self._cells.setdefault((cell.row, cell.column, cell.text.strip()), cell)
            self._by_name.setdefault(text.name, []).append(text)
            self._by_address.setdefault(text.where, text)

    @classmethod
    def of(cls, history: History) -> RunTexts:
        """Returns the texts in a run's inputs and in its nodes' values."""
        run_texts: list[RunText] = []
        for location, value in _run_values(history):
            for text in _texts_in(location, value):
                run_texts.append(text)
                if len(run_texts) >= MAX_TEXTS:
                    return cls(run_texts)
        return cls(run_texts)

    def get(self, where: str) -> RunText | None:
        """Returns the text at an address."""
        return self._by_address.get(where)

    def locate(
        self, quote: str, source: str = "", start: int | None = None, end: int | None = None
    ) -> EvidenceLocation:
        """Returns where words are; without an address if no text with that name has them there."""
        text_match = self._find(quote, source, start, end)
        if text_match is None:
            return TextSpan(quote, source, start, end)
        text, at = text_match
        if text.cell is not None:
            return text.cell
        begin = (text.offset or 0) + at
        if text.offset is not None and (source_text := self._source_text(text.name, begin, quote)) is not None:
            text, at = source_text, begin
        location = location_at(text.locations, begin)
        return TextSpan(quote, source or text.name, at, at + len(quote), text.where, location)

    def find_cell(self, row: int, column: int, text: str) -> TableCell | None:
        """Returns the first cell of a table of the run with these indices and this text."""
        return self._cells.get((row, column, text.strip()))

    def _find(self, quote: str, source: str, start: int | None, end: int | None) -> tuple[RunText, int] | None:
        candidates = self._by_name.get(source, []) if source else self._all
        if start is not None:
            for text in candidates:
                if start >= 0 and text.text[start:end] == quote and (text.cell is None or text.text == quote):
                    return text, start
        for text in candidates:
            if quote and (at := text.text.find(quote)) >= 0:
                return text, at
        return None

    def _source_text(self, name: str, begin: int, quote: str) -> RunText | None:
        """Returns the text from which a passage was cut."""
        return next(
            (
                run_text
                for run_text in self._by_name.get(name, [])
                if run_text.offset is None and run_text.text.startswith(quote, begin)
            ),
            None,
        )


def _run_values(history: History) -> Iterator[tuple[str, Any]]:
    yield "input", history.inputs
    for row in history.rows:
        if row.kind == "call" and isinstance(row.outcome, ValueOutcome):
            yield row.path, row.outcome.value


def _texts_in(location: str, value: Any) -> Iterator[RunText]:
    """Yields the texts in a value: strings, and records with a `text`, named by their `source`. A record that cites a
    text is not one.
    """
    line = [(location, value)]
    tables: dict[str, Table] = {}
    while line:
        path, subtree = line.pop()
        if isinstance(subtree, str):
            if subtree:
                yield RunText(path, subtree)
        elif isinstance(subtree, Mapping) and (table := _table(subtree)) is not None:
            tables[f"{path}.cells"] = table
            line.append((f"{path}.cells", table.cells))
        elif isinstance(subtree, Mapping):
            if is_citation(subtree) or is_cell(subtree):
                continue
            rest = subtree
            if isinstance(text := subtree.get("text"), str) and text:
                source, start = subtree.get("source"), subtree.get("start")
                begin = start if isinstance(start, int) and "end" in subtree else None
                name = source if isinstance(source, str) else ""
                yield RunText(f"{path}.text", text, name, begin, locations=_locations(subtree.get("locations")))
                rest = {key: part for key, part in subtree.items() if key not in ("text", "source", "locations")}
            line += [(f"{path}.{key}", part) for key, part in reversed(list(rest.items()))]
        elif isinstance(subtree, Sequence):
            if _is_table(subtree):
                yield from _table_cells(path, subtree, tables.get(path))
            else:
                line += [(f"{path}[{index}]", part) for index, part in reversed(list(enumerate(subtree)))]


def _is_table(value: Sequence[Any]) -> bool:
    """Whether a list has rows of texts with more than one column."""
    return (
        bool(value)
        and all(isinstance(row, list) and all(isinstance(cell, str) for cell in row) for row in value)
        and len(value[0]) > 1
    )


def _table(value: Mapping[str, Any]) -> Table | None:
    """Returns a record of type `Table` as it; None for another record."""
    if not {"cells", "columns", "sheet", "header_rows"} <= value.keys():
        return None
    try:
        return Table.model_validate(value)
    except ValidationError:
        return None


def _locations(value: Any) -> list[Location]:
    """Returns the locations beside a text; none if they are of another form."""
    try:
        return [Location.model_validate(item) for item in value] if isinstance(value, list) else []
    except ValidationError:
        return []


def _table_cells(table_location: str, table: Sequence[Sequence[str]], file: Table | None = None) -> Iterator[RunText]:
    for at, row in enumerate(table):
        for column, text in enumerate(row):
            if text.strip():
                label = next((left_cell.strip() for left_cell in row[:column] if left_cell.strip()), "")
                above = table[0][column].strip() if at and column < len(table[0]) else ""
                address = f"{table_location}[{at}][{column}]"
                location = cell_location(file, at, column) if file is not None else ""
                cell = TableCell(text.strip(), at, column, label, above, address, location)
                yield RunText(address, text, cell=cell, table=table)
