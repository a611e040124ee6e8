"""Strict YAML: the plain data of a file, and where each piece of it stands.

Read from libyaml's events, so that an alias, a tag or a second document is refused before anything is built from it.
Scalars are those of YAML 1.2's core schema that are JSON too; hexadecimal and octal spellings stay strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
import yaml

from orchestra.core.errors import InputError, Place
from orchestra.schema.strict_json import MAX_DIGITS

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_SCALAR = 64 << 10
"""Bytes of a file, nesting, and characters of one scalar, at most (RELIABILITY, hostile input)."""

Path: TypeAlias = tuple[str | int, ...]

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?P<point>\.[0-9]*)?)(?P<power>[eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_TYPE = re.compile(r"\b(?:list|dict|Literal)\[$")
_ENDED = re.compile(r"""(?P<quote>["'])\$\{[^"'}]*(?P=quote)\s*$""")
"""A text that ended within an expression, as far as the place of a fault."""
_FIRST = frozenset("0123456789+-.")
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u2028\u2029]|\r(?!\n)")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class Spot(msgspec.Struct, frozen=True, gc=False):
    """A 1-based line and column, with a width in characters."""

    line: int
    column: int
    width: int


@dataclass(frozen=True)
class Marked:
    """The data of a file; `place` says where a piece of it stands."""

    value: Any
    file: str
    lines: list[str] = field(repr=False)
    _root: Spot = field(repr=False)
    _spots: dict[int, dict[str | int, tuple[Spot, Spot]]] = field(repr=False)
    """By the `id` of a container of `value`: the spots of each entry's key and value."""

    def path(self, location: Iterable[Any], *, missing: bool = False) -> Path:
        """The keys of one of pydantic's locations, which has the names of union branches among them; `missing` says that the last key is
        wanted, and not there."""
        path: list[str | int] = []
        steps, here = list(location), self.value
        for number, step in enumerate(steps, start=1):
            if (isinstance(here, dict) and step in here) or (isinstance(here, list) and isinstance(step, int) and step < len(here)):
                path.append(step)
                here = here[step]
            elif missing and number == len(steps):
                path.append(step)
        return tuple(path)

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Where the value at `path` stands, or with `key` the key that leads to it; for a path that is not there, its nearest ancestor."""
        spot, here = self._root, self.value
        for depth, step in enumerate(path):
            entry = self._spots.get(id(here), {}).get(step)
            if entry is None:
                break
            spot = entry[0] if key and depth == len(path) - 1 else entry[1]
            here = here[step]
        return _placed(self.file, self.lines, spot)


def load(text: str | bytes, file: str) -> Marked:
    """Reads YAML strictly. Raises `InputError` (L001 to L013), with its place, for whatever the language does not allow."""
    source = _decoded(text, file)
    lines = source.split("\n")
    if bad := _FORBIDDEN.search(source):
        raise _refuse_character(bad[0], _spot_of(source, bad.start()), file, lines)
    reader = _Reader(file, [line.removesuffix("\r") for line in lines])
    try:
        return reader.read(source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        spot = Spot(mark.line + 1, mark.column + 1, 1) if mark else Spot(1, 1, 1)
        raise _syntax(error.problem or error.context or "", spot, reader) from error
    except yaml.YAMLError as error:
        raise _syntax(str(error).partition("\n")[0], Spot(1, 1, 1), reader) from error


def _decoded(text: str | bytes, file: str) -> str:
    if isinstance(text, str):
        source = text.removeprefix("\ufeff")
        size = len(source) if len(source) > MAX_BYTES else len(source.encode("utf-8", "surrogatepass"))
    else:
        size = len(text)
        source = "" if size > MAX_BYTES else _utf8(text, file)
    if size > MAX_BYTES:
        raise InputError("L001", f"{file} has more than 1 MiB", place=Place(file, 1), hint="split it, or pass data as inputs instead")
    return source


def _utf8(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        raise InputError("L002", f"{file} is not UTF-8", place=Place(file, line, column), hint="save it as UTF-8") from error


def _spot_of(source: str, offset: int) -> Spot:
    start = source.rfind("\n", 0, offset) + 1
    return Spot(source.count("\n", 0, offset) + 1, offset - start + 1, 1)


def _placed(file: str, lines: list[str], spot: Spot) -> Place:
    text = lines[spot.line - 1] if spot.line <= len(lines) else ""
    return Place(file, spot.line, spot.column, text, spot.width)


def _refuse_character(char: str, spot: Spot, file: str, lines: list[str]) -> InputError:
    name = f"U+{ord(char):04X}"
    text = _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", lines[spot.line - 1])
    what = "a carriage return without a line feed" if char == "\r" else f"the character {name}"
    hint = f'inside double quotes write "\\u{ord(char):04x}"' if char in "\u2028\u2029\ufffe\uffff" else "remove it"
    return InputError("L003", f"{what} is not allowed", place=Place(file, spot.line, spot.column, text), hint=hint)


def _syntax(problem: str, spot: Spot, reader: _Reader) -> InputError:
    text = reader.lines[spot.line - 1] if spot.line <= len(reader.lines) else ""
    if "nesting depth" in problem:
        return InputError(
            "L011",
            f"nested deeper than {MAX_DEPTH}",
            place=reader.place(spot),
            hint="move a part into a workflow of its own, and `call` it",
        )
    hint = 'quote a text that has ": " or " #" in it or begins with a sign; a key is written "key: value"'
    if quoted := _unquoted(text, spot.column - 1):
        hint = quoted
    elif "\t" in text:
        hint = "indent with spaces; a tab is not allowed there"
    elif "escape" in problem:
        hint = "write the character itself, or use single quotes"
    elif "end of stream" in problem or "expected ',' or" in problem:
        hint = "close the quote or bracket that is open"
    elif "simple key" in problem or "block mapping" in problem or "expected key" in problem:
        hint = 'check the indentation, and the ":" after the key'
    return InputError("L004", f"not YAML: {problem or 'it cannot be read'}", place=reader.place(spot), hint=hint)


def _unquoted(text: str, column: int) -> str:
    """What to do about a fault at a column where a type within brackets stands without quotes, or where a quote inside an expression
    ended the text around it; empty where it is neither."""
    if typed := _TYPE.search(text, 0, column + 1):
        whole = text[typed.start() :].partition("]")[0]
        whole += "]" * whole.count("[")
        quote = '"' if "'" in whole else "'"
        return f"put the type in quotes: {quote}{whole}{quote}"
    if (ended := _ENDED.search(text, 0, column)) is not None:
        outer = ended["quote"]
        inner = "'" if outer == '"' else '"'
        return f"the quote inside ${{…}} ends the text: use {inner} inside {outer}${{…}}{outer}"
    return ""


class _Container:
    """A list or mapping under construction."""

    __slots__ = ("is_map", "key", "key_spot", "spots", "value")

    def __init__(self, value: Any, is_map: bool) -> None:
        self.value, self.is_map = value, is_map
        self.key: str | None = None
        self.key_spot = Spot(1, 1, 1)
        self.spots: dict[str | int, tuple[Spot, Spot]] = {}


class _Reader:
    """Builds data from events; one use."""

    def __init__(self, file: str, lines: list[str]) -> None:
        self.file, self.lines = file, lines
        self.stack: list[_Container] = []
        self.spots: dict[int, dict[str | int, tuple[Spot, Spot]]] = {}
        self.root: Any = None
        self.root_spot = Spot(1, 1, 1)
        self.documents = 0

    def read(self, source: str) -> Marked:
        for event in _events(source):
            kind = type(event)
            if kind is yaml.ScalarEvent:
                self._scalar(event)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                self._open(event, kind is yaml.MappingStartEvent)
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                self.stack.pop()
            elif kind is yaml.AliasEvent:
                raise self._error("L005", f"an alias, `*{event.anchor}`, is not allowed", event, "write the value out")
            elif kind is yaml.DocumentStartEvent:
                self._document(event)
        return Marked(self.root, self.file, self.lines, self.root_spot, self.spots)

    def place(self, spot: Spot) -> Place:
        return _placed(self.file, self.lines, spot)

    def _error(self, code: str, message: str, event: Any, hint: str) -> InputError:
        return InputError(code, message, place=self.place(self._spot(event)), hint=hint)

    def _spot(self, event: Any) -> Spot:
        start, end = event.start_mark, event.end_mark
        if start.line == end.line and end.column > start.column:
            return Spot(start.line + 1, start.column + 1, end.column - start.column)
        text = self.lines[start.line] if start.line < len(self.lines) else ""
        return Spot(start.line + 1, start.column + 1, max(1, len(text.rstrip()) - start.column))

    def _document(self, event: Any) -> None:
        self.documents += 1
        if self.documents > 1:
            raise self._error("L008", "a second document begins here", event, "one file holds one document: remove `---`")
        if event.tags:
            raise self._error("L006", "a %TAG directive is not allowed", event, "remove it")

    def _plain_node(self, event: Any) -> None:
        if event.anchor is not None:
            raise self._error("L005", f"an anchor, `&{event.anchor}`, is not allowed", event, "write the value out where it is used")
        if event.tag is not None:
            raise self._error("L006", f"a tag, `{event.tag}`, is not allowed", event, "remove it: types come from the language")

    def _open(self, event: Any, is_map: bool) -> None:
        self._plain_node(event)
        if self.stack and self.stack[-1].is_map and self.stack[-1].key is None:
            raise self._error("L010", "a key must be a string", event, "write a name as the key")
        if len(self.stack) >= MAX_DEPTH:
            raise self._error("L011", f"nested deeper than {MAX_DEPTH}", event, "move a part into a workflow of its own, and `call` it")
        value: Any = {} if is_map else []
        self._put(value, self._spot(event))
        container = _Container(value, is_map)
        self.spots[id(value)] = container.spots
        self.stack.append(container)

    def _scalar(self, event: Any) -> None:
        self._plain_node(event)
        text: str = event.value
        if len(text) > MAX_SCALAR:
            raise self._error(
                "L012", f"a text of {len(text):,} characters; at most {MAX_SCALAR:,}", event, "pass it as an input, from a file"
            )
        if bad := _CONTROL.search(text):
            raise self._error("L003", f"the text has the character U+{ord(bad[0]):04X}, which is not allowed", event, "remove it")
        top = self.stack[-1] if self.stack else None
        if top is not None and top.is_map and top.key is None:
            self._key(event, text, top)
        else:
            self._put(self._value(event, text) if not event.style else text, self._spot(event))

    def _key(self, event: Any, text: str, top: _Container) -> None:
        if not event.style:
            if text == "<<":
                raise self._error("L007", "a merge key, `<<`, is not allowed", event, "write the keys out")
            if not isinstance(self._value(event, text), str):
                raise self._error("L010", f"a key must be a string, and {text or 'nothing'} is not", event, f'quote it: "{text}"')
        if text in top.value:
            first = top.spots[text][0].line
            raise self._error("L009", f"the key {text!r} stands twice; first in line {first}", event, "keep one of them")
        top.key, top.key_spot = text, self._spot(event)

    def _put(self, value: Any, spot: Spot) -> None:
        if not self.stack:
            self.root, self.root_spot = value, spot
            return
        top = self.stack[-1]
        if top.key is not None:
            top.value[top.key] = value
            top.spots[top.key] = (top.key_spot, spot)
            top.key = None
        else:
            top.spots[len(top.value)] = (spot, spot)
            top.value.append(value)

    def _value(self, event: Any, text: str) -> Any:
        """A plain scalar's value, by the core schema of YAML 1.2."""
        if text in _NULLS:
            return None
        if text in _BOOLS:
            return _BOOLS[text]
        if text[0] not in _FIRST:
            return text
        if number := _NUMBER.fullmatch(text):
            return self._number(event, text, number)
        if _NOT_FINITE.fullmatch(text):
            raise self._error("L013", f"{text} is not a finite number", event, f'quote it if it is a text: "{text}"')
        return text

    def _number(self, event: Any, text: str, number: re.Match[str]) -> int | float:
        if _LEADING_ZERO.match(text):
            sign, size = "-" * text.startswith("-"), text.lstrip("+-0")
            hint = f'write "{text}" for the text, or {sign}{size if size[:1].isdigit() else f"0{size}"} for the number'
            raise self._error("L013", f"{text} is ambiguous: an octal number, a decimal one, or a text", event, hint)
        if number["point"] is None and number["power"] is None and "." not in text:
            if (length := len(text.lstrip("+-"))) > MAX_DIGITS:
                raise self._error("L013", f"an integer of {length} digits; at most {MAX_DIGITS}", event, f'quote it: "{text[:12]}…"')
            return int(text)
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise self._error("L013", f"{text[:20]} is out of range", event, "write a number that a double can hold")
        return value


def _events(source: str) -> Iterator[Any]:
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    events: Iterator[Any] = yaml.parse(source, Loader=loader)
    return events
