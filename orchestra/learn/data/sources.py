"""Sources: rows of a file of JSON lines or CSV, as an agent's inputs and outputs; every fault with its line and column."""

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
from orchestra.core.errors import InputError, InputErrors, Place
from orchestra.core.suggestions import nearest
from orchestra.learn.data.dataset import Row
from orchestra.schema.strict_json import NotStrictJSON, canonical, digest, parse_untrusted
from orchestra.schema.types import Schema, Validator, branches, show, under

MOST_FAULTS = 20
"""Different faults of a file that are told at once."""
MOST_BYTES = 1 << 30
"""Bytes of a file at most."""
ABSENT = object()
OTHERS = "*"
"""All values of a field of which nothing else is said what they mean."""
SAMPLE = 1 << 20
"""Characters by which it is guessed what separates cells."""
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""What may stand between the columns of a CSV; spreadsheets write semicolons where a comma is the decimal mark."""
_ZIP = b"PK\x03\x04"
"""What a spreadsheet begins with, as every archive."""
_SEPARATES = re.compile(r"sep=([,;\t])(?:\r\n|\r|\n)")
"""A first line by which spreadsheets are told what stands between columns."""
_APART = 'JSON lines tell them apart: {"id", "input": {...}, "output": {...}}'
"""What is to be done where an input and an output have one name: a column can be mapped to both alone."""
_LINE_END = re.compile(r"\r\n|\r|\n")


def is_table(path: Path) -> bool:
    """Whether a file is called as a table is: its cells are texts, and become values by the types of the fields."""
    return path.suffix.lower() in (".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a file hold the fields of an agent; a column of JSON lines may be a path such as `expected.answers.0.text`."""

    named: Mapping[str, str]
    """By the field's name: an input's, an output's, or `output` for all of it. Of a number, `a-b` is the difference of two columns."""
    group: str = ""
    """The column whose values tell what belongs together; empty for the agent's evidence, else for each input by itself."""
    id: str = "id"
    means: Mapping[str, Mapping[str, str]] | None = None
    """By the field's name: what is read for values of the rows; `*` says it of all that have nothing of their own."""

    @classmethod
    def of(cls, given: Sequence[str], group: str = "", means: Sequence[str] = ()) -> Columns:
        """From texts such as `text=message`, and `label:unsupported=not stated`. Raises `InputError` N011 for another form."""
        pairs = [one.partition("=") for one in given]
        for field, sign, column in pairs:
            if not (field and sign and column):
                raise InputError("N011", f"{field}{sign}{column} is no pair FIELD=COLUMN", hint="--column text=message")
        meant: dict[str, dict[str, str]] = {}
        for one in means:
            name, colon, rest = one.partition(":")
            value, sign, wanted = rest.partition("=")
            if not (name and colon and sign):
                raise InputError("N011", f"{one} is not of the form FIELD:VALUE=VALUE", hint="--means 'label:unsupported=not stated'")
            meant.setdefault(name, {})[value] = wanted
        return cls({field: column for field, _, column in pairs}, group, means=meant)

    def meant(self, name: str, value: Any) -> str | None:
        """What is read for a value of a field; None where it stays as it is."""
        means = (self.means or {}).get(name)
        if not means or isinstance(value, Mapping | list):
            return None
        return means.get(value if isinstance(value, str) else canonical(value).decode(), means.get(OTHERS))


@dataclass(frozen=True, slots=True)
class Line:
    """One record of a file, with where it stands."""

    number: int
    text: str
    values: Mapping[str, Any]
    typed: bool
    """Whether the values are JSON, or texts of CSV."""


def read(path: Path, card: Card, columns: Columns, *, answered: bool = True) -> list[Row]:
    """The rows of a file; where they are not `answered`, their inputs alone, and null for every output.

    Raises `InputError`, or `InputErrors`: N010 (unreadable), N011 (a column that is not there), N012 (a value of another type).
    """
    return [row for _, row in numbered(path, card, columns, answered=answered)]


def numbered(path: Path, card: Card, columns: Columns, *, answered: bool = True) -> list[tuple[int, Row]]:
    """The rows of a file with the numbers of their lines. Raises as `read`."""
    reader = _Reader(path, card, columns, answered)
    rows: list[tuple[int, Row]] = []
    faults = _Faults()
    for line in lines(path):
        try:
            rows.append((line.number, reader.row(line)))
        except InputError as error:
            faults.add(error)
            if error.code == "N011":
                break
    faults.told()
    if not rows:
        raise InputError("N010", f"{path} has no rows", hint="one JSON object a line, or CSV with a line of names")
    return rows


class _Faults:
    """The faults of a file: equal ones are one, at the first place, with how many rows have it."""

    def __init__(self) -> None:
        self.first: dict[str, InputError] = {}
        self.rows: Counter[str] = Counter()
        self.others = 0
        """Rows with faults that are not among the first ones."""

    def add(self, error: InputError) -> None:
        if error.message not in self.first and len(self.first) >= MOST_FAULTS:
            self.others += 1
            return
        self.first.setdefault(error.message, error)
        self.rows[error.message] += 1

    def told(self) -> None:
        """Raises what there is, `InputErrors` where it is more than one."""
        errors = [self._counted(message, error) for message, error in self.first.items()]
        if self.others:
            errors.append(InputError("N012", f"{self.others:,} more rows have other faults", hint="mend these first"))
        if errors:
            raise InputErrors(errors) if len(errors) > 1 else errors[0]

    def _counted(self, message: str, error: InputError) -> InputError:
        rows = self.rows[message]
        said = message if rows == 1 else f"{rows:,} rows: {message}; the first of them:"
        return InputError(error.code, said, place=error.place, hint=error.hint)


class _Reader:
    def __init__(self, path: Path, card: Card, columns: Columns, answered: bool) -> None:
        self.path, self.card, self.columns, self.answered = path, card, columns, answered
        self.inputs: Mapping[str, Any] = card.input_schema.get("properties", {})
        self.written = card.form.schema
        """The type of what a row holds: what code computes is in no row."""
        outputs: Mapping[str, Any] = self.written.get("properties", {})
        self.outputs = outputs if outputs and "output" not in columns.named else {}
        known = {*self.inputs, *self.outputs, "output"}
        for name in (*columns.named, *(columns.means or ())):
            if name not in known:
                near = nearest(name, known)
                hint = f"did you mean {near!r}?" if near else f"fields: {', '.join(sorted(known))}"
                raise InputError("N011", f"{card.name} has no field {name!r}", hint=hint)
        self.shared = self._shared() if answered else []
        self.validators: dict[str, Validator] = {}

    def _shared(self) -> list[str]:
        """The names that an input and the output have both, which JSON lines may tell apart. Raises `InputError` N011 where both were
        mapped to one column."""
        named, shared = self.columns.named, list[str]()
        read = {named.get(name, name): name for name in self.inputs}
        for field in self.outputs or ("output",):
            given = read.get(column := named.get(field, field))
            if given is None:
                continue
            if given == field and field not in named:
                shared.append(field)
            else:
                raise _known_answer(given, field, column, f"--column {given}=NAME, of another column" if given != field else _APART)
        return shared

    def _apart(self, line: Line) -> None:
        """Refuses one column for an input and for the output: the agent would read what it should tell. Raises `InputError` N011."""
        for name in self.shared:
            sides = ("input", "output") if self.outputs else ("input",)
            if name in line.values and all(_inside(line, side, name) is ABSENT for side in sides):
                raise _known_answer(name, name, name, _APART, self._at(line))

    def row(self, line: Line) -> Row:
        self._apart(line)
        required: Sequence[str] = self.card.input_schema.get("required", list(self.inputs))
        given = {name: self._value(line, name, schema, "input", name in required) for name, schema in self.inputs.items()}
        inputs = {name: value for name, value in given.items() if value is not ABSENT}
        if not self.answered:
            output: Any = None
        elif self.outputs:
            wanted = {name: self._value(line, name, schema, "output", True) for name, schema in self.outputs.items()}
            output = {name: value for name, value in wanted.items() if value is not ABSENT}
        else:
            output = self._value(line, "output", self.written, "", True)
        return Row(self._id(line, inputs), inputs, output, self._group(line, inputs))

    def _value(self, line: Line, name: str, schema: Schema, inside: str, needed: bool) -> Any:
        column, value = self._found(line, name, inside)
        if value is ABSENT and under(self.written, schema).get("type") == "number":
            value = _difference(line, column)
        if value is ABSENT:
            if not needed:
                return ABSENT
            names = _paths(line.values, "input" if inside != "input" else "output")
            near = nearest(column, names)
            hint = f"orchestra learn data --column {name}={near or 'NAME'}; columns: {', '.join(names[:12])}"
            raise InputError(
                "N011", f"there is no column {column!r} for the {inside or 'agent’s'} field {name!r}", place=self._at(line), hint=hint
            )
        whole = self.card.input_schema if inside == "input" else self.written
        schema = under(whole, schema)
        if (meant := self.columns.meant(name, value)) is not None:
            value = from_text(meant, schema)
        elif not line.typed and isinstance(value, str):
            value = from_text(value, schema)
        if name not in self.validators:
            self.validators[name] = Validator(schema)
        if fault := self.validators[name].check(value):
            reason = f"{column}: {fault}; {self.card.name} takes {show(schema)}" if inside == "input" else f"{column}: {fault}"
            listed = meant is None and isinstance(value, str) and any("enum" in branch for branch in branches(schema))
            hint = f"--means {shlex.quote(f'{name}:{value}=ONE OF THESE')}" if listed else "orchestra explain N012"
            raise InputError("N012", reason, place=self._at(line, value), hint=hint)
        return value

    def _found(self, line: Line, name: str, inside: str) -> tuple[str, Any]:
        """The column of a field and its value: as it was mapped, else of that name, else of that name inside `input`, or inside `output` or
        `expected`; there first, where an input and an output share the name."""
        if (column := self.columns.named.get(name)) is not None:
            return column, _along(line.values, column)
        within = _inside(line, inside, name)
        if name in line.values and (within is ABSENT or name not in self.shared):
            return name, line.values[name]
        return name, within

    def _id(self, line: Line, inputs: Mapping[str, Any]) -> str:
        found = line.values.get(self.columns.id)
        return str(found) if isinstance(found, str | int) and found != "" else digest(canonical([line.number, inputs]))[:16]

    def _group(self, line: Line, inputs: Mapping[str, Any]) -> str:
        return group_of(self.card, inputs, self.columns.group, line.values, self._at(line))

    def _at(self, line: Line, value: Any = ABSENT) -> Place:
        """The place of a value in its line; of the line where it is not found as it is written."""
        for spelt in () if value is ABSENT else (json.dumps(value, ensure_ascii=False), json.dumps(value), str(value)):
            if (at := line.text.find(spelt)) >= 0:
                return Place(str(self.path), line.number, at + 1, line.text, len(spelt))
        return Place(str(self.path), line.number, text=line.text)


def _inside(line: Line, side: str, name: str) -> Any:
    """What a line of JSON has of this name inside `input` or `output`, which the rows of evaluations call `expected`."""
    if not (side and line.typed):
        return ABSENT
    found = _along(line.values, f"{side}.{name}")
    return _along(line.values, f"expected.{name}") if found is ABSENT and side == "output" else found


def _known_answer(given: str, field: str, column: str, hint: str, place: Place | None = None) -> InputError:
    said = f"the input {given!r} and the output {field!r} are both of the column {column!r}: the question would have the answer"
    return InputError("N011", said, place=place, hint=hint)


def group_of(card: Card, inputs: Mapping[str, Any], column: str, values: Mapping[str, Any], place: Place | None = None) -> str:
    """What a row belongs to: the value of a column, whatever its case and its blanks; without one, and of an empty cell, the agent's
    evidence, else its inputs. Raises `InputError` N011."""
    value = _along(values, column) if column else None
    if value is None or (isinstance(value, str) and not value.strip()):
        return digest(canonical(inputs.get(card.evidence or "", inputs)))[:16]
    if value is ABSENT:
        near = nearest(column, list(values))
        raise InputError("N011", f"there is no column {column!r} to group by", place=place, hint=f"--group {near or 'NAME'}")
    return " ".join(value.split()).casefold() if isinstance(value, str) else canonical(value).decode()


def lines(path: Path, called: Path | None = None, head: Callable[[Sequence[str]], None] = lambda _: None) -> Iterator[Line]:
    """The records of a file, of a table where it is called so; places say how it is `called`, where that is not its path, and `head` hears
    of a table's columns before its rows. Raises `InputError` N010."""
    called = called or path
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError("N010", f"{called} has more than {MOST_BYTES >> 30} GiB", hint="cut it into several files")
        data = path.read_bytes() if path.suffix != ".gz" else gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError("N010", f"{called} cannot be read: {reason}", hint="one JSON object a line, or CSV, in UTF-8") from error
    if data.startswith(_ZIP):
        raise InputError("N010", f"{called} is a spreadsheet or an archive, and no text", hint="save it as `CSV UTF-8`, and name that")
    text = _decoded(data, called)
    if (at := text.find("\0")) >= 0:
        number = len(_LINE_END.findall(text, 0, at)) + 1
        place = Place(str(called), number, text=_LINE_END.split(text)[number - 1])
        raise InputError("N010", "a line has a NUL, which no text has", place=place, hint="take it out, or save the file as text anew")
    yield from _of_csv(text, called, head) if is_table(path) else _of_json(text, called)


def _decoded(data: bytes, path: Path) -> str:
    """The text of a file. Raises `InputError` N010 with the place of the first byte that is not UTF-8."""
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
        place = Place(str(path), number, len(good) + 1, line)
        raise InputError(
            "N010",
            f"{path} is not in UTF-8: the byte 0x{data[error.start]:02x}" + (", of UTF-16" if wide else ""),
            place=place,
            hint=f"save it as `CSV UTF-8`, or: iconv -f {coding} -t UTF-8 {path} > {path.stem}_utf8{path.suffix}",
        ) from error


def _of_json(text: str, path: Path) -> Iterator[Line]:
    if text.lstrip().startswith("["):
        number = text[: text.index("[")].count("\n") + 1
        place = Place(str(path), number, text=text.split("\n")[number - 1])
        hint = f"jq -c '.[]' {path} > {path.stem}.jsonl"
        raise InputError("N010", "one array is no JSON lines, which are one object a line", place=place, hint=hint)
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = parse_untrusted(line)
        except NotStrictJSON as error:
            place = Place(str(path), number, text=line)
            raise InputError("N010", f"a line is no JSON: {error.args[0]}", place=place, hint="one JSON object a line") from error
        if not isinstance(value, dict):
            raise InputError("N010", "a line is no JSON object", place=Place(str(path), number, text=line), hint='{"text": "...", ...}')
        yield Line(number, line, value, typed=True)


def _of_csv(text: str, path: Path, head: Callable[[Sequence[str]], None]) -> Iterator[Line]:
    lines = _LINE_END.split(text)
    said = _SEPARATES.match(text)
    text, over = (text[said.end() :], 1) if said else (text, 0)
    separator = said[1] if said else "\t" if path.suffix.lower() == ".tsv" else _separator(text)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    before = 1 + over
    try:
        twice = [name for name, count in Counter(reader.fieldnames or ()).items() if count > 1]
        if twice:
            place = Place(str(path), over + reader.line_num, text=lines[over + reader.line_num - 1])
            raise InputError("N010", f"two columns have the name {twice[0]!r}", place=place, hint="give each column a name of its own")
        if reader.fieldnames:
            head(reader.fieldnames)
        before = over + reader.line_num + 1
        for record in reader:
            number, before = before, over + reader.line_num + 1
            while not lines[number - 1].strip() and number < over + reader.line_num:  # blank lines are passed over
                number += 1
            line = lines[number - 1]
            if None in record or None in record.values():
                names = len(reader.fieldnames or ())
                place = Place(str(path), number, text=line)
                raise InputError(
                    "N010",
                    f"a record has not the {names} columns of the first line",
                    place=place,
                    hint=f"quote cells with {SEPARATORS[separator]}",
                )
            yield Line(number, line, record, typed=False)
    except csv.Error as error:
        place = Place(str(path), before, text=lines[min(before, len(lines)) - 1])
        long = f"cells of CSV have at most {csv.field_size_limit():,} characters: write JSON lines"
        hint = long if "limit" in str(error) else "RFC 4180, in UTF-8"
        raise InputError("N010", f"{path} is no CSV: {error}", place=place, hint=hint) from error


def _separator(text: str) -> str:
    """Of what stands in the first line outside of quotes: that under which the next record has as many cells, a comma before others; else
    what the first line has most of."""
    counts, quoted = dict.fromkeys(SEPARATORS, 0), False
    for char in text:
        if char == '"':
            quoted = not quoted
        elif not quoted and char in "\r\n":
            break
        elif not quoted and char in counts:
            counts[char] += 1
    with suppress(csv.Error):  # whoever reads all of it is told
        for one in (one for one, count in counts.items() if count):
            first = list(islice(csv.reader(io.StringIO(text[:SAMPLE]), delimiter=one), 2))
            if len(first) == 2 and len(first[0]) == len(first[1]) and all(first[0]):
                return one
    return max(counts, key=lambda one: counts[one])


def _along(values: Any, path: str) -> Any:
    """The value at a path, or `ABSENT`. A list that is empty gives null: it holds no answer."""
    if isinstance(values, Mapping) and path in values:
        return values[path]
    here: Any = values
    for step in path.split("."):
        if isinstance(here, Mapping) and step in here:
            here = here[step]
        elif isinstance(here, list) and step.isdigit():
            if int(step) >= len(here):
                return None
            here = here[int(step)]
        else:
            return ABSENT
    return here


def _paths(values: Mapping[str, Any], unlike: str) -> list[str]:
    """The columns of a line; of a row of evaluations, whose values stand in records, the paths to them, without those of the other side."""
    return [path for name, value in values.items() if name != unlike or not isinstance(value, Mapping) for path in _leaves(name, value)]


def _leaves(path: str, value: Any) -> Iterator[str]:
    match value:
        case Mapping() if value:
            for name, one in value.items():
                yield from _leaves(f"{path}.{name}", one)
        case [Mapping() as first, *_]:
            yield from _leaves(f"{path}.0", first)
        case _:
            yield path


def _difference(line: Line, column: str) -> Any:
    """Of a column `a-b` that is no column, a less b, where both are numbers, or true and false as 1 and 0; else `ABSENT`."""
    at = [at for at, char in enumerate(column) if char == "-"]
    for cut in at:
        sides = [_along(line.values, side.strip()) for side in (column[:cut], column[cut + 1 :])]
        read = [side if line.typed or side is ABSENT else from_text(side, {}) for side in sides]
        if all(isinstance(side, int | float) for side in read):
            return float(read[0]) - float(read[1])
    return ABSENT


def from_text(text: str, schema: Schema) -> Any:
    """A cell of CSV as a value of its type: texts as they are, an empty cell as null where null may stand, the rest as JSON."""
    listed = (one for branch in branches(schema) for one in branch.get("enum", ()))
    kinds = {branch.get("type") for branch in branches(schema)} | {"string" for one in listed if isinstance(one, str)}
    if text == "" and "null" in kinds:
        return None
    if "string" in kinds:
        return text
    try:
        return parse_untrusted(text)
    except NotStrictJSON:
        return text
