"""A document in the making: blocks of text with their locations, and the tables among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestra.documents.errors import DocumentError
from orchestra.documents.tables import column_letters, find_blocks, make_table, row_texts, sheet_place
from orchestra.schema.builtin_models import Document, Location, Table

MAX_CHARACTERS = 16_000_000
"""Maximum characters of a document."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """What a file contains: its text and its tables."""

    document: Document
    tables: tuple[Table, ...] = ()
    is_table: bool = False
    """Whether the file is nothing but tables, such as a workbook."""


@dataclass
class DocumentBuilder:
    """Collects the text and the tables of a file. Blocks are separated by an empty line."""

    source: str
    tables: list[Table] = field(default_factory=list)
    _parts: list[str] = field(default_factory=list)
    _length: int = 0
    _locations: list[Location] = field(default_factory=list)

    def add(self, text: str, location: str = "", *, joined: bool = False) -> None:
        """Appends a block of text. With `joined` it follows the last one on the next line.

        Raises:
            DocumentError: D005 if the document is too long.
        """
        text = text.replace("\x00", "").encode("utf-8", "replace").decode().strip()
        if not text:
            return
        separator = "" if not self._parts else "\n" if joined else "\n\n"
        self._mark(self._length + len(separator), location)
        self._parts += [separator, text]
        self._length += len(separator) + len(text)
        if self._length > MAX_CHARACTERS:
            raise DocumentError(
                "D005",
                f"{self.source} has more than {MAX_CHARACTERS // 1_000_000} million characters",
                hint="split it, or take the part that is needed",
            )

    def add_table(
        self,
        cells: Sequence[Sequence[str]],
        sheet: str,
        *,
        row: int = 1,
        column: int = 1,
        header_rows: int | None = None,
    ) -> None:
        """Appends a table with its rows as lines, unless all its cells are empty; arguments as of `make_table`."""
        if not any(text.strip() for line in cells for text in line):
            return
        name = f"{self.source} {sheet}".strip()
        copy_number, number = name, 2
        while any(table.name == copy_number for table in self.tables):
            copy_number, number = f"{name} ({number})", number + 1
        table = make_table(
            cells,
            name=copy_number,
            source=self.source,
            sheet=sheet,
            row=row,
            column=column,
            header_rows=header_rows,
        )
        self.tables.append(table)
        self._add_rows(table)

    def add_sheet(self, cells: Sequence[Sequence[str]], sheet: str) -> None:
        """Appends a sheet: its tables, and the single cells around them as text."""
        for start, end, left, right in find_blocks(cells):
            block = [list(line[left:right]) + [""] * (right - len(line[left:right])) for line in cells[start:end]]
            title = 0
            while title < len(block) - 1 and right - left > 1 and sum(bool(text.strip()) for text in block[title]) == 1:
                title += 1  # a caption above the header
            if len(block) - title < 2 and right - left > 1:
                title = len(block)  # a single row is no table
            for at, line in enumerate(block[:title] if right - left > 1 else block):
                for index, text in enumerate(line):
                    self.add(text, sheet_place(sheet, f"{column_letters(left + index + 1)}{start + at + 1}"))
            if title < len(block) and right - left > 1:
                self.add_table(block[title:], sheet, row=start + title + 1, column=left + 1)

    def content(self, *, is_table: bool = False) -> FileContent:
        """Returns the finished document."""
        document = Document(source=self.source, text="".join(self._parts), locations=self._locations)
        return FileContent(document, tuple(self.tables), is_table)

    def _add_rows(self, table: Table) -> None:
        last = column_letters(table.column + max(len(table.columns) - 1, 0))
        first = column_letters(table.column)
        if table.header_rows == len(table.cells):
            self.add(" | ".join(text for line in table.cells for text in line if text), table.sheet)
        for at, text in enumerate(row_texts(table)):
            number = table.row + table.header_rows + at
            self.add(text, sheet_place(table.sheet, f"{first}{number}:{last}{number}"), joined=at > 0)

    def _mark(self, start: int, name: str) -> None:
        if name and (not self._locations or self._locations[-1].name != name):
            self._locations.append(Location(start=start, name=name))
