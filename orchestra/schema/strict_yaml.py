"""Strict YAML: the plain data of a file, and the position of each part.

Parsed from libyaml's events, so that aliases, tags and further documents are refused before anything is built from
them. Scalars are those of YAML 1.2's core schema that are also JSON; hexadecimal and octal spellings stay strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
import yaml

from orchestra.core.errors import InputError, SourceLocation
from orchestra.schema.strict_json import MAX_DIGITS

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_SCALAR = 64 << 10
"""Limits of a file in bytes, of nesting, and of one scalar in characters (RELIABILITY, hostile input)."""

ValuePath: TypeAlias = tuple[str | int, ...]

_NULL_WORDS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?P<point>\.[0-9]*)?)(?P<power>[eE][-+]?[0-9]+)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_UNQUOTED_TYPE = re.compile(r"\b(?:list|dict|Literal)\[$")
_ENDED_EXPRESSION = re.compile(r"""(?P<quote>["'])\$\{[^"'}]*(?P=quote)\s*$""")
"""A string that ended inside an expression, up to the position of an error."""
_PLAIN_SCALAR_IN_FLOW = re.compile(r"[^\s,\[\]{}:'\"][^,\[\]{}:'\"]*$")
"""The start of an unquoted string in `{…}` or `[…]`, up to the position of an error."""
_NUMBER_START = frozenset("0123456789+-.")
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u2028\u2029]|\r(?!\n)")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class YamlPosition(msgspec.Struct, frozen=True, gc=False):
    """A 1-based line and column, with a width in characters."""

    line: int
    column: int
    width: int


@dataclass(frozen=True)
class YamlDocument:
    """The data of a file; `location` returns the position of a part."""

    value: Any
    file: str
    lines: list[str] = field(repr=False)
    _root_position: YamlPosition = field(repr=False)
    _positions: dict[int, dict[str | int, tuple[YamlPosition, YamlPosition]]] = field(repr=False)
    """By `id` of a container in `value`: positions of each entry's key and value."""

    def path(self, location: Iterable[Any], *, missing: bool = False) -> ValuePath:
        """Returns the keys of one of pydantic's locations, which also contain names of union branches. `missing` means
        that the last key is required and absent.
        """
        path: list[str | int] = []
        steps, current_value = list(location), self.value
        for number, step in enumerate(steps, start=1):
            if (isinstance(current_value, dict) and step in current_value) or (
                isinstance(current_value, list) and isinstance(step, int) and step < len(current_value)
            ):
                path.append(step)
                current_value = current_value[step]
            elif missing and number == len(steps):
                path.append(step)
        return tuple(path)

    def location(self, path: ValuePath, *, key: bool = False) -> SourceLocation:
        """Returns the location of the value at `path`, or with `key` of its key. For an absent path, it is that of the
        nearest ancestor.
        """
        position, current_value = self._root_position, self.value
        for depth, step in enumerate(path):
            entry = self._positions.get(id(current_value), {}).get(step)
            if entry is None:
                break
            position = entry[0] if key and depth == len(path) - 1 else entry[1]
            current_value = current_value[step]
        return _location_at(self.file, self.lines, position)

    def locate(self, *path: str | int) -> SourceLocation:
        """Returns the location of the value at a path, as `location` does: a callable for checks in other modules."""
        return self.location(path)


def load_yaml(text: str | bytes, file: str) -> YamlDocument:
    """Parses YAML strictly. Raises `InputError` L001 to L013 with the location of the error."""
    source = _decode(text, file)
    lines = source.split("\n")
    if bad := _FORBIDDEN.search(source):
        raise _character_error(bad[0], _position_at(source, bad.start()), file, lines)
    reader = _Reader(file, [line.removesuffix("\r") for line in lines])
    try:
        return reader.read(source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = YamlPosition(mark.line + 1, mark.column + 1, 1) if mark else YamlPosition(1, 1, 1)
        raise _syntax_error(error.problem or error.context or "", position, reader) from error
    except yaml.YAMLError as error:
        raise _syntax_error(str(error).partition("\n")[0], YamlPosition(1, 1, 1), reader) from error


def _decode(text: str | bytes, file: str) -> str:
    if isinstance(text, str):
        source = text.removeprefix("\ufeff")
        size = len(source) if len(source) > MAX_BYTES else len(source.encode("utf-8", "surrogatepass"))
    else:
        size = len(text)
        source = "" if size > MAX_BYTES else _decode_utf8(text, file)
    if size > MAX_BYTES:
        raise InputError(
            "L001",
            f"{file} has more than 1 MiB",
            location=SourceLocation(file, 1),
            hint="split it, or pass data as inputs instead",
        )
    return source


def _decode_utf8(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        raise InputError(
            "L002", f"{file} is not UTF-8", location=SourceLocation(file, line, column), hint="save it as UTF-8"
        ) from error


def _position_at(source: str, offset: int) -> YamlPosition:
    start = source.rfind("\n", 0, offset) + 1
    return YamlPosition(source.count("\n", 0, offset) + 1, offset - start + 1, 1)


def _location_at(file: str, lines: list[str], position: YamlPosition) -> SourceLocation:
    text = lines[position.line - 1] if position.line <= len(lines) else ""
    return SourceLocation(file, position.line, position.column, text, position.width)


def _character_error(char: str, position: YamlPosition, file: str, lines: list[str]) -> InputError:
    name = f"U+{ord(char):04X}"
    text = _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", lines[position.line - 1])
    character_text = "a carriage return without a line feed" if char == "\r" else f"the character {name}"
    hint = f'inside double quotes write "\\u{ord(char):04x}"' if char in "\u2028\u2029\ufffe\uffff" else "remove it"
    return InputError(
        "L003",
        f"{character_text} is not allowed",
        location=SourceLocation(file, position.line, position.column, text),
        hint=hint,
    )


def _syntax_error(problem: str, position: YamlPosition, reader: _Reader) -> InputError:
    text = reader.lines[position.line - 1] if position.line <= len(reader.lines) else ""
    if "nesting depth" in problem:
        return InputError(
            "L011",
            f"nested deeper than {MAX_DEPTH}",
            location=reader.location(position),
            hint="move a part into a workflow of its own, and `call` it",
        )
    hint = 'quote a string that contains ": " or " #" or starts with a sign; a key is written "key: value"'
    if quoting_hint := _quoting_hint(text, position.column - 1):
        hint = quoting_hint
    elif "\t" in text:
        hint = "indent with spaces; a tab is not allowed there"
    elif "escape" in problem:
        hint = "write the character itself, or use single quotes"
    elif "end of stream" in problem or "expected ',' or" in problem:
        hint = "close the quote or bracket that is open"
    elif "simple key" in problem or "block mapping" in problem or "expected key" in problem:
        hint = 'check the indentation, and the ":" after the key'
    return InputError(
        "L004", f"not YAML: {problem or 'it cannot be read'}", location=reader.location(position), hint=hint
    )


def _quoting_hint(text: str, column: int) -> str:
    """Returns a hint for an error at a column where a bracketed type or an expression lacks quotes, or where a quote
    inside an expression ended the string; otherwise empty.
    """
    if type_match := _UNQUOTED_TYPE.search(text, 0, column + 1):
        typed_text = text[type_match.start() :].partition("]")[0]
        typed_text += "]" * typed_text.count("[")
        quote = '"' if "'" in typed_text else "'"
        return f"put the type in quotes: {quote}{typed_text}{quote}"
    if (match := _ENDED_EXPRESSION.search(text, 0, column)) is not None:
        outer = match["quote"]
        inner = "'" if outer == '"' else '"'
        return f"the quote inside ${{…}} ends the text: use {inner} inside {outer}${{…}}{outer}"
    if text.startswith("${", column - 1) and (start := _PLAIN_SCALAR_IN_FLOW.search(text, 0, column)) is not None:
        typed_text = text[start.start() : _end_of_template(text, column - 1)].rstrip()
        quote = "'" if '"' in typed_text else '"'
        example = "${…}" if quote in typed_text or typed_text.count("{") != typed_text.count("}") else typed_text
        return f"inside {{…}} and […], a text with ${{…}} needs quotes: {quote}{example}{quote}"
    return ""


def _end_of_template(text: str, start: int) -> int:
    """Returns the end of an unquoted text with expressions, the first of them at `start`: the comma, colon or
    bracket of the YAML around it, or the end of the line.
    """
    depth, quote = 0, ""
    for position in range(start, len(text)):
        char = text[position]
        if quote:
            quote = "" if char == quote else quote
        elif depth and char in "\"'":
            quote = char
        elif char == "{":
            depth += 1
        elif depth and char == "}":
            depth -= 1
        elif not depth and (char in ",[]}" or text.startswith(": ", position)):
            return position
    return len(text)


class _Container:
    """A list or mapping under construction."""

    __slots__ = ("is_map", "key", "key_position", "positions", "value")

    def __init__(self, value: Any, is_map: bool) -> None:
        self.value, self.is_map = value, is_map
        self.key: str | None = None
        self.key_position = YamlPosition(1, 1, 1)
        self.positions: dict[str | int, tuple[YamlPosition, YamlPosition]] = {}


class _Reader:
    """Builds data from events. Used once."""

    def __init__(self, file: str, lines: list[str]) -> None:
        self.file, self.lines = file, lines
        self.stack: list[_Container] = []
        self.positions: dict[int, dict[str | int, tuple[YamlPosition, YamlPosition]]] = {}
        self.root: Any = None
        self.root_position = YamlPosition(1, 1, 1)
        self.documents = 0

    def read(self, source: str) -> YamlDocument:
        """Parses a text to a document."""
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
        return YamlDocument(self.root, self.file, self.lines, self.root_position, self.positions)

    def location(self, position: YamlPosition) -> SourceLocation:
        """Returns the location of a position in the file."""
        return _location_at(self.file, self.lines, position)

    def _error(self, code: str, message: str, event: Any, hint: str) -> InputError:
        return InputError(code, message, location=self.location(self._position(event)), hint=hint)

    def _position(self, event: Any) -> YamlPosition:
        start, end = event.start_mark, event.end_mark
        if start.line == end.line and end.column > start.column:
            return YamlPosition(start.line + 1, start.column + 1, end.column - start.column)
        text = self.lines[start.line] if start.line < len(self.lines) else ""
        return YamlPosition(start.line + 1, start.column + 1, max(1, len(text.rstrip()) - start.column))

    def _document(self, event: Any) -> None:
        self.documents += 1
        if self.documents > 1:
            raise self._error(
                "L008", "a second document starts here", event, "write one document per file: remove `---`"
            )
        if event.tags:
            raise self._error("L006", "a %TAG directive is not allowed", event, "remove it")

    def _check_node(self, event: Any) -> None:
        if event.anchor is not None:
            raise self._error(
                "L005", f"an anchor, `&{event.anchor}`, is not allowed", event, "write the value out where it is used"
            )
        if event.tag is not None:
            raise self._error(
                "L006", f"a tag, `{event.tag}`, is not allowed", event, "remove it: types come from the language"
            )

    def _open(self, event: Any, is_map: bool) -> None:
        self._check_node(event)
        if self.stack and self.stack[-1].is_map and self.stack[-1].key is None:
            raise self._error("L010", "a key must be a string", event, "write a name as the key")
        if len(self.stack) >= MAX_DEPTH:
            raise self._error(
                "L011",
                f"nested deeper than {MAX_DEPTH}",
                event,
                "move a part into a workflow of its own, and `call` it",
            )
        value: Any = {} if is_map else []
        self._put(value, self._position(event))
        container = _Container(value, is_map)
        self.positions[id(value)] = container.positions
        self.stack.append(container)

    def _scalar(self, event: Any) -> None:
        self._check_node(event)
        text: str = event.value
        if len(text) > MAX_SCALAR:
            raise self._error(
                "L012",
                f"a string of {len(text):,} characters; at most {MAX_SCALAR:,}",
                event,
                "pass it as an input, from a file",
            )
        if bad := _CONTROL.search(text):
            raise self._error(
                "L003", f"the text has the character U+{ord(bad[0]):04X}, which is not allowed", event, "remove it"
            )
        top = self.stack[-1] if self.stack else None
        if top is not None and top.is_map and top.key is None:
            self._key(event, text, top)
        else:
            self._put(self._value(event, text) if not event.style else text, self._position(event))

    def _key(self, event: Any, text: str, top: _Container) -> None:
        if not event.style:
            if text == "<<":
                raise self._error("L007", "a merge key, `<<`, is not allowed", event, "write the keys out")
            if not isinstance(self._value(event, text), str):
                raise self._error(
                    "L010", f"a key must be a string, not {text or 'empty'}", event, f'quote it: "{text}"'
                )
        if text in top.value:
            first = top.positions[text][0].line
            raise self._error(
                "L009", f"the key {text!r} occurs twice; first in line {first}", event, "keep one of them"
            )
        top.key, top.key_position = text, self._position(event)

    def _put(self, value: Any, position: YamlPosition) -> None:
        if not self.stack:
            self.root, self.root_position = value, position
            return
        top = self.stack[-1]
        if top.key is not None:
            top.value[top.key] = value
            top.positions[top.key] = (top.key_position, position)
            top.key = None
        else:
            top.positions[len(top.value)] = (position, position)
            top.value.append(value)

    def _value(self, event: Any, text: str) -> Any:
        """Returns the value of a plain scalar by the core schema of YAML 1.2."""
        if text in _NULL_WORDS:
            return None
        if text in _BOOLEAN_WORDS:
            return _BOOLEAN_WORDS[text]
        if text[0] not in _NUMBER_START:
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
                raise self._error(
                    "L013", f"an integer of {length} digits; at most {MAX_DIGITS}", event, f'quote it: "{text[:12]}…"'
                )
            return int(text)
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise self._error("L013", f"{text[:20]} is out of range", event, "write a number that a double can hold")
        return value


def _events(source: str) -> Iterator[Any]:
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    events: Iterator[Any] = yaml.parse(source, Loader=loader)
    return events
