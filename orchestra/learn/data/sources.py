"""Source files: rows of JSON lines or CSV as an agent's inputs and outputs; every error has a line and a column."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import shlex
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from orchestra.agents.card import Card
from orchestra.core.errors import InputError, InputErrors, SourceLocation
from orchestra.core.suggestions import closest_match
from orchestra.learn.data.dataset import DatasetRow
from orchestra.schema.strict_json import StrictJsonError, canonical, digest, parse_untrusted
from orchestra.schema.types import Schema, Validator, format_type, subschema, union_members

MAX_ERRORS = 20
"""Maximal number of different errors that are reported at once."""
MAX_BYTES = 1 << 30
"""Maximal size of a file in bytes."""
MISSING = object()
ANY_VALUE = "*"
"""The key of a value mapping for all values that have no entry of their own."""
SNIFFED_CHARACTERS = 1 << 20
"""Number of characters from which the separator is detected."""
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""Allowed column separators; spreadsheets write semicolons if a comma is the decimal mark."""
_ZIP_SIGNATURE = b"PK\x03\x04"
"""The first bytes of a spreadsheet file, as of every ZIP archive."""
_SEPARATOR_LINE = re.compile(r"sep=([,;\t])(?:\r\n|\r|\n)")
"""A first line that declares the separator to spreadsheets."""
_SAME_NAME_HINT = 'JSON lines tell them apart: {"id", "input": {...}, "output": {...}}'
"""Hint for an input and an output with the same name: a column cannot be mapped to only one of them."""
_LINE_END = re.compile(r"\r\n|\r|\n")


def is_table(path: Path) -> bool:
    """Returns whether the file name is that of a table. Cells of a table are texts, and are parsed by the types of the
    fields.
    """
    return path.suffix.lower() in (".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class TableFormat:
    """How a table is written."""

    separator: str
    byte_order_mark: str = ""
    """The mark at its start by which spreadsheets recognise UTF-8; empty without one."""


def read_table_format(path: Path) -> TableFormat:
    """Reads the format of a table that `read_lines` accepts, from its beginning. Raises `OSError`."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        text = file.read(SNIFFED_CHARACTERS)
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    return TableFormat(_find_separator(text.removeprefix(mark), path), mark)


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """The columns of a file with the fields of an agent; a column of JSON lines may be a path such as
    `expected.answers.0.text`.
    """

    columns: Mapping[str, str]
    """Columns by field name: of an input, of an output, or `output` for the complete output. For a number, `a-b` is the
    difference of two columns.
    """
    group: str = ""
    """The column with the group; empty for the agent's evidence, else each input is its own group."""
    id: str = "id"
    value_mapping: Mapping[str, Mapping[str, str]] | None = None
    """Replacements of values by field name; `*` applies to all values without an entry of their own."""

    @classmethod
    def parse(cls, given: Sequence[str], group: str = "", means: Sequence[str] = ()) -> ColumnMapping:
        """Parses texts such as `text=message` and `label:unsupported=not stated`.

        Raises:
            InputError: N011 if a text has another form.
        """
        pairs = [option.partition("=") for option in given]
        for field, sign, column in pairs:
            if not (field and sign and column):
                raise InputError("N011", f"{field}{sign}{column} is not FIELD=COLUMN", hint="--column text=message")
        values_by_column: dict[str, dict[str, str]] = {}
        for meaning in means:
            name, colon, rest = meaning.partition(":")
            value, sign, target = rest.partition("=")
            if not (name and colon and sign):
                raise InputError(
                    "N011",
                    f"{meaning} is not of the form FIELD:VALUE=VALUE",
                    hint="--means 'label:unsupported=not stated'",
                )
            values_by_column.setdefault(name, {})[value] = target
        return cls({field: column for field, _, column in pairs}, group, value_mapping=values_by_column)

    def mapped_value(self, name: str, value: Any) -> str | None:
        """Returns the replacement of a value of a field; None if it has none."""
        means = (self.value_mapping or {}).get(name)
        if not means or isinstance(value, Mapping | list):
            return None
        return means.get(value if isinstance(value, str) else canonical(value).decode(), means.get(ANY_VALUE))


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One record of a file, with its location."""

    number: int
    text: str
    values: Mapping[str, Any]
    is_json: bool
    """Whether the values are JSON; else they are texts of CSV cells."""


def read_source(path: Path, card: Card, columns: ColumnMapping, *, answered: bool = True) -> list[DatasetRow]:
    """Reads the rows of a file; if they are not `answered`, only their inputs, with null outputs.

    Raises:
        InputError: N010 if the file cannot be read; N011 if a column is missing; N012 if a value has another type.
        `InputErrors` if there are several errors.
    """
    return [row for _, row in read_numbered_rows(path, card, columns, answered=answered)]


def read_numbered_rows(
    path: Path, card: Card, columns: ColumnMapping, *, answered: bool = True
) -> list[tuple[int, DatasetRow]]:
    """Returns the rows of a file with their line numbers. Raises the errors of `read_source`."""
    reader = _RowReader(path, card, columns, answered)
    rows: list[tuple[int, DatasetRow]] = []
    faults = _ErrorCollector()
    for line in read_lines(path):
        try:
            rows.append((line.number, reader.read_row(line)))
        except InputError as error:
            faults.add(error)
            if error.code == "N011":
                break
    faults.raise_all()
    if not rows:
        raise InputError("N010", f"{path} has no rows", hint="one JSON object a line, or CSV with a line of names")
    return rows


class _ErrorCollector:
    """The errors of a file. Equal errors are counted as one, with the first location and the number of rows."""

    def __init__(self) -> None:
        self.first_errors: dict[str, InputError] = {}
        self.row_counts: Counter[str] = Counter()
        self.other_count = 0
        """Number of rows with errors beyond `MAX_ERRORS`."""

    def add(self, error: InputError) -> None:
        """Adds the error of a row."""
        if error.message not in self.first_errors and len(self.first_errors) >= MAX_ERRORS:
            self.other_count += 1
            return
        self.first_errors.setdefault(error.message, error)
        self.row_counts[error.message] += 1

    def raise_all(self) -> None:
        """Raises the collected errors, as `InputErrors` if there are several."""
        errors = [self._with_count(message, error) for message, error in self.first_errors.items()]
        if self.other_count:
            errors.append(
                InputError("N012", f"{self.other_count:,} more rows have other errors", hint="fix these first")
            )
        if errors:
            raise InputErrors(errors) if len(errors) > 1 else errors[0]

    def _with_count(self, message: str, error: InputError) -> InputError:
        rows = self.row_counts[message]
        reason = message if rows == 1 else f"{rows:,} rows: {message}; the first of them:"
        return InputError(error.code, reason, location=error.location, hint=error.hint)


class _RowReader:
    def __init__(self, path: Path, card: Card, columns: ColumnMapping, answered: bool) -> None:
        self.path, self.card, self.columns, self.answered = path, card, columns, answered
        self.inputs: Mapping[str, Any] = card.input_schema.get("properties", {})
        self.output_schema = card.output_form.schema
        """The output type without computed fields: rows do not contain those."""
        outputs: Mapping[str, Any] = self.output_schema.get("properties", {})
        self.outputs = outputs if outputs and "output" not in columns.columns else {}
        known_columns = {*self.inputs, *self.outputs, "output"}
        for name in (*columns.columns, *(columns.value_mapping or ())):
            if name not in known_columns:
                near = closest_match(name, known_columns)
                hint = f"did you mean {near!r}?" if near else f"fields: {', '.join(sorted(known_columns))}"
                raise InputError("N011", f"{card.name} has no field {name!r}", hint=hint)
        self.shared_names = self._find_shared_names() if answered else []
        self.validators: dict[str, Validator] = {}

    def _find_shared_names(self) -> list[str]:
        """Returns the names that an input and the output share; JSON lines can distinguish them.

        Raises:
            InputError: N011 if both are mapped to one column.
        """
        columns, shared_names = self.columns.columns, list[str]()
        names = {columns.get(name, name): name for name in self.inputs}
        for field in self.outputs or ("output",):
            input_name = names.get(column := columns.get(field, field))
            if input_name is None:
                continue
            if input_name == field and field not in columns:
                shared_names.append(field)
            else:
                raise _leaked_answer_error(
                    input_name,
                    field,
                    column,
                    f"--column {input_name}=NAME, of another column" if input_name != field else _SAME_NAME_HINT,
                )
        return shared_names

    def _check_not_shared(self, line: SourceLine) -> None:
        """Checks that an input and the output are not read from one column: the agent would see the answer.

        Raises:
            InputError: N011 if they are.
        """
        for name in self.shared_names:
            sides = ("input", "output") if self.outputs else ("input",)
            if name in line.values and all(_nested_value(line, side, name) is MISSING for side in sides):
                raise _leaked_answer_error(name, name, name, _SAME_NAME_HINT, self._location_of(line))

    def read_row(self, line: SourceLine) -> DatasetRow:
        """Returns the row of a line. Raises `InputError` if a field is missing or has a wrong type."""
        self._check_not_shared(line)
        required: Sequence[str] = self.card.input_schema.get("required", list(self.inputs))
        input_values = {
            name: self._field_value(line, name, schema, "input", name in required)
            for name, schema in self.inputs.items()
        }
        inputs = {name: value for name, value in input_values.items() if value is not MISSING}
        if not self.answered:
            output: Any = None
        elif self.outputs:
            output_values = {
                name: self._field_value(line, name, schema, "output", True) for name, schema in self.outputs.items()
            }
            output = {name: value for name, value in output_values.items() if value is not MISSING}
        else:
            output = self._field_value(line, "output", self.output_schema, "", True)
        return DatasetRow(self._row_id(line, inputs), inputs, output, self._row_group(line, inputs))

    def _field_value(self, line: SourceLine, name: str, schema: Schema, inside: str, is_required: bool) -> Any:
        column, value = self._find_column(line, name, inside)
        if value is MISSING and subschema(self.output_schema, schema).get("type") == "number":
            value = _difference(line, column)
        if value is MISSING:
            if not is_required:
                return MISSING
            names = _column_paths(line.values, "input" if inside != "input" else "output")
            near = closest_match(column, names)
            hint = f"orchestra learn data --column {name}={near or 'NAME'}; columns: {', '.join(names[:12])}"
            raise InputError(
                "N011",
                f"there is no column {column!r} for the {inside or 'agent’s'} field {name!r}",
                location=self._location_of(line),
                hint=hint,
            )
        record_schema = self.card.input_schema if inside == "input" else self.output_schema
        schema = subschema(record_schema, schema)
        if (mapped_value := self.columns.mapped_value(name, value)) is not None:
            value = parse_cell(mapped_value, schema)
        elif not line.is_json and isinstance(value, str):
            value = parse_cell(value, schema)
        if name not in self.validators:
            self.validators[name] = Validator(schema)
        if fault := self.validators[name].check(value):
            reason = (
                f"{column}: {fault}; {self.card.name} takes {format_type(schema)}"
                if inside == "input"
                else f"{column}: {fault}"
            )
            is_enum = (
                mapped_value is None
                and isinstance(value, str)
                and any("enum" in branch for branch in union_members(schema))
            )
            hint = f"--means {shlex.quote(f'{name}:{value}=ONE OF THESE')}" if is_enum else "orchestra explain N012"
            raise InputError("N012", reason, location=self._location_of(line, value), hint=hint)
        return value

    def _find_column(self, line: SourceLine, name: str, inside: str) -> tuple[str, Any]:
        """Returns the column of a field and its value: the mapped column, else the column with the field's name, else
        that key inside `input`, `output` or `expected`. If an input and an output share the name, the nested keys come
        first.
        """
        if (column := self.columns.columns.get(name)) is not None:
            return column, _value_at(line.values, column)
        within = _nested_value(line, inside, name)
        if name in line.values and (within is MISSING or name not in self.shared_names):
            return name, line.values[name]
        return name, within

    def _row_id(self, line: SourceLine, inputs: Mapping[str, Any]) -> str:
        row_id = line.values.get(self.columns.id)
        return (
            str(row_id)
            if isinstance(row_id, str | int) and row_id != ""
            else digest(canonical([line.number, inputs]))[:16]
        )

    def _row_group(self, line: SourceLine, inputs: Mapping[str, Any]) -> str:
        return group_of(self.card, inputs, self.columns.group, line.values, self._location_of(line))

    def _location_of(self, line: SourceLine, value: Any = MISSING) -> SourceLocation:
        """Returns the location of a value in its line; that of the line if the value is not written literally."""
        for spelt in () if value is MISSING else (json.dumps(value, ensure_ascii=False), json.dumps(value), str(value)):
            if (at := line.text.find(spelt)) >= 0:
                return SourceLocation(str(self.path), line.number, at + 1, line.text, len(spelt))
        return SourceLocation(str(self.path), line.number, text=line.text)


def _nested_value(line: SourceLine, side: str, name: str) -> Any:
    """Returns the value of a key inside `input` or `output` (`expected` in rows of evaluations)."""
    if not (side and line.is_json):
        return MISSING
    value = _value_at(line.values, f"{side}.{name}")
    return _value_at(line.values, f"expected.{name}") if value is MISSING and side == "output" else value


def _leaked_answer_error(
    name: str, field: str, column: str, hint: str, location: SourceLocation | None = None
) -> InputError:
    reason = (
        f"the input {name!r} and the output {field!r} are both mapped to the column {column!r}: "
        "the input would contain the answer"
    )
    return InputError("N011", reason, location=location, hint=hint)


def group_of(
    card: Card,
    inputs: Mapping[str, Any],
    column: str,
    values: Mapping[str, Any],
    location: SourceLocation | None = None,
) -> str:
    """Returns the group of a row: the value of the group column up to case and blanks; without a column, or with an
    empty cell, the agent's evidence, else its inputs.

    Raises:
        InputError: N011 if the column is missing.
    """
    value = _value_at(values, column) if column else None
    if value is None or (isinstance(value, str) and not value.strip()):
        return digest(canonical(inputs.get(card.evidence or "", inputs)))[:16]
    if value is MISSING:
        near = closest_match(column, list(values))
        raise InputError(
            "N011", f"there is no column {column!r} to group by", location=location, hint=f"--group {near or 'NAME'}"
        )
    return " ".join(value.split()).casefold() if isinstance(value, str) else canonical(value).decode()


def read_lines(
    path: Path, display_path: Path | None = None, on_header: Callable[[Sequence[str]], None] = lambda _: None
) -> Iterator[SourceLine]:
    """Yields the records of a file.

    Args:
        path: The file: a table (CSV or TSV by its suffix) or JSON lines.
        display_path: The path that locations in errors name; `path` if None.
        on_header: Called with the columns of a table before its rows.

    Raises:
        InputError: N010 if the file cannot be read.
    """
    display_path = display_path or path
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                "N010", f"{display_path} has more than {MAX_BYTES >> 30} GiB", hint="cut it into several files"
            )
        data = path.read_bytes() if path.suffix != ".gz" else gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(
            "N010", f"{display_path} cannot be read: {reason}", hint="one JSON object a line, or CSV, in UTF-8"
        ) from error
    if data.startswith(_ZIP_SIGNATURE):
        raise InputError(
            "N010",
            f"{display_path} is a spreadsheet or an archive, and not a text file",
            hint="save it as `CSV UTF-8`, and name that",
        )
    text = _decode(data, display_path)
    if (at := text.find("\0")) >= 0:
        number = len(_LINE_END.findall(text, 0, at)) + 1
        location = SourceLocation(str(display_path), number, text=_LINE_END.split(text)[number - 1])
        raise InputError(
            "N010",
            "a line has a NUL character",
            location=location,
            hint="remove it, or save the file as text again",
        )
    yield from _csv_lines(text, display_path, on_header) if is_table(path) else _json_lines(text, display_path)


def _decode(data: bytes, path: Path) -> str:
    """Decodes a file as UTF-8.

    Raises:
        InputError: N010 with the location of the first invalid byte.
    """
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        coding = "UTF-16" if wide else "WINDOWS-1252"
        before, end = data[: error.start], data.find(b"\n", error.start)
        begin = max(before.rfind(b"\n"), before.rfind(b"\r")) + 1
        good, rest = data[begin : error.start].decode(), data[error.start : end if end >= 0 else None]
        line = good + ("" if wide else rest.rstrip(b"\r").decode("cp1252", "replace"))
        number = len(_LINE_END.findall(before.decode())) + 1
        location = SourceLocation(str(path), number, len(good) + 1, line)
        raise InputError(
            "N010",
            f"{path} is not in UTF-8: the byte 0x{data[error.start]:02x}" + (", of UTF-16" if wide else ""),
            location=location,
            hint=f"save it as `CSV UTF-8`, or: iconv -f {coding} -t UTF-8 {path} > {path.stem}_utf8{path.suffix}",
        ) from error


def _json_lines(text: str, path: Path) -> Iterator[SourceLine]:
    if text.lstrip().startswith("["):
        number = text[: text.index("[")].count("\n") + 1
        location = SourceLocation(str(path), number, text=text.split("\n")[number - 1])
        hint = f"jq -c '.[]' {path} > {path.stem}.jsonl"
        raise InputError(
            "N010", "the file is one JSON array instead of one object a line", location=location, hint=hint
        )
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = parse_untrusted(line)
        except StrictJsonError as error:
            location = SourceLocation(str(path), number, text=line)
            raise InputError(
                "N010", f"a line is not JSON: {error.args[0]}", location=location, hint="one JSON object a line"
            ) from error
        if not isinstance(value, dict):
            raise InputError(
                "N010",
                "a line is not a JSON object",
                location=SourceLocation(str(path), number, text=line),
                hint='{"text": "...", ...}',
            )
        yield SourceLine(number, line, value, is_json=True)


def _csv_lines(text: str, path: Path, on_header: Callable[[Sequence[str]], None]) -> Iterator[SourceLine]:
    lines = _LINE_END.split(text)
    separator_line = _SEPARATOR_LINE.match(text)
    separator = _find_separator(text, path)
    text, over = (text[separator_line.end() :], 1) if separator_line else (text, 0)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    before = 1 + over
    try:
        twice = [name for name, count in Counter(reader.fieldnames or ()).items() if count > 1]
        if twice:
            location = SourceLocation(str(path), over + reader.line_num, text=lines[over + reader.line_num - 1])
            raise InputError(
                "N010",
                f"two columns have the name {twice[0]!r}",
                location=location,
                hint="give each column a name of its own",
            )
        if reader.fieldnames:
            on_header(reader.fieldnames)
        before = over + reader.line_num + 1
        for record in reader:
            number, before = before, over + reader.line_num + 1
            while not lines[number - 1].strip() and number < over + reader.line_num:  # skip blank lines
                number += 1
            line = lines[number - 1]
            if None in record or None in record.values():
                names = len(reader.fieldnames or ())
                location = SourceLocation(str(path), number, text=line)
                raise InputError(
                    "N010",
                    f"a record does not have the {names} columns of the first line",
                    location=location,
                    hint=f"quote cells with {SEPARATORS[separator]}",
                )
            yield SourceLine(number, line, record, is_json=False)
    except csv.Error as error:
        location = SourceLocation(str(path), before, text=lines[min(before, len(lines)) - 1])
        long = f"cells of CSV have at most {csv.field_size_limit():,} characters: write JSON lines"
        hint = long if "limit" in str(error) else "RFC 4180, in UTF-8"
        raise InputError("N010", f"{path} is not CSV: {error}", location=location, hint=hint) from error


def _find_separator(text: str, path: Path) -> str:
    """Returns the separator of a table: the declared one, that of its suffix, or the detected one."""
    if match := _SEPARATOR_LINE.match(text):
        return match[1]
    return "\t" if path.suffix.lower() == ".tsv" else _detect_separator(text)


def _detect_separator(text: str) -> str:
    """Returns the separator in the first line, outside of quotes, for which the next record has as many cells, a comma
    first; else the most frequent one.
    """
    counts, is_quoted = dict.fromkeys(SEPARATORS, 0), False
    for char in text:
        if char == '"':
            is_quoted = not is_quoted
        elif not is_quoted and char in "\r\n":
            break
        elif not is_quoted and char in counts:
            counts[char] += 1
    with suppress(csv.Error):  # reading the complete file reports the error
        for separator in (candidate for candidate, count in counts.items() if count):
            first = list(islice(csv.reader(io.StringIO(text[:SNIFFED_CHARACTERS]), delimiter=separator), 2))
            if len(first) == 2 and len(first[0]) == len(first[1]) and all(first[0]):
                return separator
    return max(counts, key=lambda separator: counts[separator])


def _value_at(values: Any, path: str) -> Any:
    """Returns the value at a path, or `MISSING`. An empty list gives null: it holds no answer."""
    if isinstance(values, Mapping) and path in values:
        return values[path]
    current_value: Any = values
    for step in path.split("."):
        if isinstance(current_value, Mapping) and step in current_value:
            current_value = current_value[step]
        elif isinstance(current_value, list) and step.isdigit():
            if int(step) >= len(current_value):
                return None
            current_value = current_value[int(step)]
        else:
            return MISSING
    return current_value


def _column_paths(values: Mapping[str, Any], unlike: str) -> list[str]:
    """Returns the columns of a line; for a row of evaluations, the paths to the nested values of one side."""
    return [
        path
        for name, value in values.items()
        if name != unlike or not isinstance(value, Mapping)
        for path in _leaf_paths(name, value)
    ]


def _leaf_paths(path: str, value: Any) -> Iterator[str]:
    match value:
        case Mapping() if value:
            for name, item in value.items():
                yield from _leaf_paths(f"{path}.{name}", item)
        case [Mapping() as first, *_]:
            yield from _leaf_paths(f"{path}.0", first)
        case _:
            yield path


def _difference(line: SourceLine, column: str) -> Any:
    """Returns a - b for a column `a-b` that does not exist, if both columns are numbers (true and false count as 1 and
    0); else `MISSING`.
    """
    at = [at for at, char in enumerate(column) if char == "-"]
    for difference_start in at:
        sides = [
            _value_at(line.values, side.strip()) for side in (column[:difference_start], column[difference_start + 1 :])
        ]
        side_values = [side if line.is_json or side is MISSING else parse_cell(side, {}) for side in sides]
        if all(isinstance(side, int | float) for side in side_values):
            return float(side_values[0]) - float(side_values[1])
    return MISSING


def parse_cell(text: str, schema: Schema) -> Any:
    """Parses a CSV cell by type: texts are kept, an empty cell is null if null is allowed, others are JSON."""
    enum_values = (value for branch in union_members(schema) for value in branch.get("enum", ()))
    kinds = {branch.get("type") for branch in union_members(schema)} | {
        "string" for value in enum_values if isinstance(value, str)
    }
    if text == "" and "null" in kinds:
        return None
    if "string" in kinds:
        return text
    try:
        return parse_untrusted(text)
    except StrictJsonError:
        return text
