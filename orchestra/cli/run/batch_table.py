"""A table with the inputs and results of a batch, for spreadsheets.

The record of a batch is a file of JSON lines, from which an interrupted batch continues. The table is made from it and
from the rows of the input, and is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra.cli.csv_writer import to_csv
from orchestra.cli.run.batch_rows import BatchRow, ResultFile, RowResult, unwritable_error
from orchestra.core.atomic_files import open_private_file
from orchestra.core.errors import InputError
from orchestra.learn.data.sources import TableFormat, is_table, read_table_format
from orchestra.schema.strict_json import canonical
from orchestra.schema.types import Schema, union_members

STATUS_COLUMNS = ("status", "score", "error")
"""The last columns of each row."""
RECORD_SUFFIX = ".jsonl"
"""Added to the name of a table: the name of its record."""


def record_path(target: Path) -> Path:
    """Returns the file of JSON lines for an output: the output itself, or the record beside a table."""
    return target.with_name(target.name + RECORD_SUFFIX) if is_table(target) else target


def check_table(source: Path, target: Path) -> None:
    """Checks before anything starts that a table may be written. Raises `InputError` C022 for an existing file that no
    batch has written, such as the input.
    """
    if target.exists() and (not record_path(target).exists() or (source.exists() and target.samefile(source))):
        raise InputError(
            "C022",
            f"{target} exists, and {record_path(target)} does not record it as the output of a batch",
            hint="choose another file with --output, or move this one away",
        )


@dataclass(frozen=True, slots=True)
class ResultTable:
    """The table of a batch."""

    path: Path
    source: Path
    fields: Sequence[str]
    """The names of the inputs; the columns of rows that are JSON lines."""
    outputs: Sequence[str]
    """The fields of the output; empty for an output that is no record."""
    outdated: bool
    """Whether the table is absent or older than its record. A current table is not replaced: a user may have edited
    it.
    """

    @classmethod
    def of(cls, target: Path, source: Path, fields: Sequence[str], output: Schema) -> ResultTable:
        """Creates a table for an output of this type. The record must not be open yet."""
        record = record_path(target)
        is_outdated = not (target.exists() and record.exists()) or target.stat().st_mtime_ns < record.stat().st_mtime_ns
        return cls(target, source, fields, _field_names(output), is_outdated)

    def write(self, rows: Callable[[], Iterator[BatchRow]], results: ResultFile) -> None:
        """Writes the rows that have a result, in the order of the input. Raises `OrchestraError` C023."""
        try:
            with open_private_file(self.path) as file:
                for text in self._lines(rows(), results):
                    file.write(text.encode())
        except OSError as error:
            raise unwritable_error(self.path, error) from error

    def _lines(self, rows: Iterator[BatchRow], results: ResultFile) -> Iterator[str]:
        form = read_table_format(self.source) if is_table(self.source) else TableFormat(",")
        separator = "\t" if self.path.suffix.lower() == ".tsv" else "," if form.separator == "\t" else form.separator
        header: str | None = form.byte_order_mark
        read_result = results.index()
        for row in rows:
            inputs = {"id": row.id, **{name: row.input.get(name) for name in self.fields}}
            cells = inputs if row.cells is None else row.cells
            if header is not None:
                yield header + to_csv([_unique_names(cells, self.outputs or ("output",))], separator)
                header = None
            if (result := read_result(row.id)) is not None:
                yield to_csv([[*map(_to_cell, cells.values()), *self._result_cells(result)]], separator)

    def _result_cells(self, result: RowResult) -> Iterator[object]:
        if self.outputs:
            record = result.output if isinstance(result.output, Mapping) else {}
            yield from (_to_cell(record.get(name)) for name in self.outputs)
        else:
            yield _to_cell(result.output)
        yield result.status
        yield _to_cell(result.score)
        yield "" if result.error is None else f"{result.error['code']}: {result.error['message']}"


def _unique_names(inputs: Mapping[str, Any], outputs: Sequence[str]) -> list[str]:
    """Returns the names of all columns. An output with the name of an input is called `output.NAME`."""
    names = list(inputs)
    for name in (*outputs, *STATUS_COLUMNS):
        while name in names:
            name = f"output.{name}"
        names.append(name)
    return names


def _field_names(output: Schema) -> tuple[str, ...]:
    """Returns the fields of a record, or of null or a record; empty for another type."""
    members = [member for member in union_members(output) if member.get("type") != "null"]
    if len(members) != 1 or members[0].get("additionalProperties", False) is not False:
        return ()
    return tuple(members[0].get("properties", ()))


def _to_cell(value: Any) -> object:
    """Returns a value as a cell: a text as it is, an empty cell for null, other values as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else canonical(value).decode()
