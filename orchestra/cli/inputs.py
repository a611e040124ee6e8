"""Parses inputs of the command line: texts, files and folders become values of input types."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra.cli.files import (
    read_document,
    read_documents,
    read_file_text,
    read_table,
    read_table_records,
    read_tables,
)
from orchestra.cli.signals import interruptible
from orchestra.cli.text_files import read_limited, read_text
from orchestra.core.errors import InputError
from orchestra.core.suggestions import closest_match
from orchestra.core.untrusted_text import shorten
from orchestra.documents.readers import TABLE_SUFFIXES
from orchestra.documents.tables import is_records, records_to_cells
from orchestra.schema.json_schema import Schema, format_type, subschema, union_members
from orchestra.schema.strict_json import StrictJsonError, parse_untrusted

STDIN = ("-", "@-")


_EXAMPLE_BY_TYPE = {
    "integer": "3",
    "number": "0.5",
    "boolean": "true",
    "array": '["…"]',
    "object": '{"key": "…"}',
    "null": "null",
}


@dataclass(frozen=True)
class InputType:
    """The properties of an input type that the command line needs."""

    schema: Schema

    @property
    def json_types(self) -> list[str]:
        """The accepted JSON types, sorted; empty for any."""
        json_types: set[str] = set()
        for branch in union_members(self.schema):
            type_name = branch.get("type")
            json_types |= (
                {type_name} if isinstance(type_name, str) else {_json_type(value) for value in branch.get("enum", ())}
            )
            json_types |= {_json_type(branch["const"])} if "const" in branch else set()
        return sorted(json_types)

    @property
    def accepts_text(self) -> bool:
        """True if a bare text is a valid value."""
        return not self.json_types or "string" in self.json_types

    @property
    def allowed_texts(self) -> frozenset[str]:
        """The texts of an enumeration. Each is taken literally, also `-` or `@home`."""
        enum_values = [
            value for branch in union_members(self.schema) for value in (*branch.get("enum", ()), branch.get("const"))
        ]
        return frozenset(value for value in enum_values if isinstance(value, str))

    def normalize(self, text: str) -> str:
        """Removes the trailing line break that editors and `echo` add, if the type is an enumeration of texts."""
        free = any(
            branch.get("type") == "string" and "enum" not in branch and "const" not in branch
            for branch in union_members(self.schema)
        )
        return (
            text
            if free or not self.allowed_texts or text in self.allowed_texts
            else text.removesuffix("\n").removesuffix("\r")
        )

    @property
    def items(self) -> InputType | None:
        """The type of list elements; None if it is not a list."""
        lists = (branch for branch in union_members(self.schema) if branch.get("type") == "array")
        return next((InputType(subschema(branch, branch.get("items", True))) for branch in lists), None)

    @property
    def is_document(self) -> bool:
        """True for an object with exactly the required fields `source` and `text`."""
        return any({"source", "text"} == set(branch.get("required", ())) for branch in union_members(self.schema))

    @property
    def is_table(self) -> bool:
        """True for `Table`."""
        return any({"name", "cells"} == set(branch.get("required", ())) for branch in union_members(self.schema))

    @property
    def is_cells(self) -> bool:
        """True for rows of texts, as skills for one table take them."""
        row = self.items
        return row is not None and row.items is not None and row.items.json_types == ["string"]

    @property
    def is_records(self) -> bool:
        """True for a list of records that are no documents."""
        return self.items is not None and self.items.json_types == ["object"] and not self.items.is_document

    def __str__(self) -> str:
        return format_type(self.schema)

    @property
    def example(self) -> str:
        """An example value as JSON."""
        if self.items and self.items.is_document:
            return '[{"source": "a.txt", "text": "…"}]'
        return next((_EXAMPLE_BY_TYPE[kind] for kind in self.json_types if kind in _EXAMPLE_BY_TYPE), '"…"')


def read_inputs(
    options: Sequence[str], fields: Mapping[str, Schema], stdin: StdinReader | None = None
) -> dict[str, Any]:
    """Parses `-i` options.

    An option is `key=value`, `key=@file`, `key=@folder` (documents), `key=-` (text on stdin), `@file.json` or `-` (a
    JSON object); `@-` is stdin too. A value that starts with `@` is written `@@`. A list key may be repeated, once for
    each element.

    Args:
        options: The options.
        fields: The type of each input.

    Raises:
        InputError: C010 for another form or a second option that reads stdin, C011 for an unknown input, C012 for a
        wrong type, C013 for an invalid JSON object, C014 for an unreadable file.
    """
    stdin = stdin or StdinReader()
    objects: dict[str, Any] = {}
    texts: dict[str, list[str]] = {}
    for option in options:
        if _is_object_option(option):
            objects |= _read_object_option(option, "-i", stdin)
            continue
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise InputError(
                "C010",
                f"-i {option}: the name of the input is missing",
                hint="write -i key=value, -i key=@file, -i @inputs.json or -i -",
            )
        texts.setdefault(key.strip(), []).append(value)
    for key in (*objects, *texts):
        if key not in fields:
            raise unknown_input_error(key, fields)
    return objects | {key: _parse_input(key, values, InputType(fields[key]), stdin) for key, values in texts.items()}


def read_node_values(
    given: Sequence[str], type_of: Callable[[str], Schema], stdin: StdinReader | None = None
) -> dict[str, Any]:
    """Parses `--set` options: `node=value`, `node=@file`, `node=-` (stdin), or `@file.json` or `-` for a JSON object by
    node. A value is literal text if the node outputs text, otherwise JSON; `@@` means a leading `@`. Raises
    `InputError` C010, C012, C013 or C014, and the errors of `type_of` for unknown nodes.
    """
    stdin = stdin or StdinReader()
    node_values: dict[str, Any] = {}
    for option in given:
        if _is_object_option(option):
            values = _read_object_option(option, "--set", stdin)
        else:
            node, equals, text = option.partition("=")
            if not equals or not node:
                hint = "write --set node=value, --set node=@file, --set @values.json or --set -"
                raise InputError("C010", f"--set {option}: a node and its value are required", hint=hint)
            values = {node: _parse_node_value(node, text, InputType(type_of(node)), stdin)}
        for node, value in values.items():
            type_of(node)
            if node in node_values:
                raise InputError(
                    "C010",
                    f"--set gives {node} twice",
                    hint="set it once; for a node with elements, to the list of all",
                )
            node_values[node] = value
    return node_values


def _parse_node_value(node: str, text: str, type_: InputType, stdin: StdinReader) -> Any:
    text = resolve_text(text, f"--set {node}={text}", stdin, type_)
    try:
        return text if type_.accepts_text else parse_untrusted(text)
    except StrictJsonError as error:
        hint = f"write it as JSON: --set '{node}={type_.example}'"
        raise InputError("C012", f"{node} outputs {type_}, which {shorten(text, 40)!r} is not", hint=hint) from error


def resolve_text(text: str, option: str, stdin: StdinReader, type_: InputType) -> str:
    """Resolves a value to its text: literal text, also of an enumeration, a file (`@file`), stdin (`-` or `@-`), or
    `@@text` for `@text`. `option` is used in messages. Raises `InputError` C014.
    """
    if text in type_.allowed_texts:
        return text
    if text in STDIN:
        return type_.normalize(stdin.read(option))
    return (
        text[1:]
        if text.startswith("@@")
        else type_.normalize(read_file_text(Path(text[1:])))
        if text.startswith("@")
        else text
    )


def _is_object_option(option: str) -> bool:
    """True if an option is a whole JSON object, from a file or stdin, and not `key=value`."""
    return option in STDIN or (option.startswith("@") and "=" not in option)


def _read_object_option(option: str, flag: str, stdin: StdinReader) -> dict[str, Any]:
    if option in STDIN:
        return parse_json_object(stdin.read(f"{flag} {option}"), "stdin")
    hint = f"{flag} @FILE reads a JSON object; for one value, write its name first: {flag} NAME={option}"
    return parse_json_object(read_text(Path(option[1:]), hint), option[1:])


def parse_json_object(text: str, source: str) -> dict[str, Any]:
    """Parses a JSON object. `source` is used in messages. Raises `InputError` C013."""
    try:
        value = parse_untrusted(text)
    except StrictJsonError as error:
        raise InputError("C013", f"{source}: {error}", hint='expected a JSON object: {"key": value, …}') from error
    if not isinstance(value, dict):
        raise InputError(
            "C013",
            f"{source} has a JSON {_json_type(value)}, not an object",
            hint='expected a JSON object: {"key": value, …}',
        )
    return value


def unknown_input_error(key: str, fields: Mapping[str, Schema]) -> InputError:
    """The error for an unknown input."""
    near = closest_match(key, fields)
    hint = (
        f"did you mean {near!r}?"
        if near
        else f"the inputs are: {', '.join(fields)}"
        if fields
        else "it takes no inputs"
    )
    return InputError("C011", f"there is no input {key!r}", hint=hint)


class StdinReader:
    """Reads stdin, at most 1 MiB of UTF-8, for one option only."""

    def __init__(self) -> None:
        self._reader_option = ""

    def read(self, option: str) -> str:
        """Reads all of stdin for this option. Raises `InputError` C010 if another option has read it, and C014."""
        if self._reader_option:
            hint = "replace one - by a file: @FILE"
            raise InputError(
                "C010", f"{self._reader_option} has already read stdin; {option} cannot read it again", hint=hint
            )
        self._reader_option = option
        if sys.stdin is None:
            raise InputError("C014", f"stdin is closed, but {option} reads it")
        try:
            with interruptible():
                return read_limited(sys.stdin.buffer, "stdin")
        except OSError as error:
            raise InputError("C014", f"stdin cannot be read: {error.strerror}") from error


def _parse_input(key: str, texts: Sequence[str], type_: InputType, stdin: StdinReader) -> Any:
    items = type_.items
    if items is None:
        if len(texts) > 1:
            raise InputError("C010", f"the input {key!r} is given {len(texts)} times, but is not a list")
        return _parse_single(key, texts[0], type_, stdin)
    if len(texts) == 1 and texts[0].lstrip().startswith("["):
        return _parse_json(key, texts[0], type_)
    values: list[Any] = []
    for text in texts:
        path = Path(text[1:])
        if text in items.allowed_texts:
            values.append(text)
        elif text in STDIN and items.is_document:
            values += _read_stdin_documents(key, stdin)
        elif not text.startswith("@") or text.startswith("@@") or text in STDIN:
            values.append(_parse_single(key, text, items, stdin))
        elif items.is_document and path.suffix != ".json":
            values += read_documents(path)
        elif path.suffix != ".json" and (table := read_table_value(key, path, type_)) is not None:
            values += table
        elif path.suffix == ".json" or not items.accepts_text:
            content = _parse_json(key, read_text(path), type_)
            content = records_to_cells(content) if type_.is_cells and is_records(content) else content
            values += content if isinstance(content, list) else [content]
        else:
            values.append(items.normalize(read_file_text(path)))
    return values


def _parse_single(key: str, text: str, type_: InputType, stdin: StdinReader) -> Any:
    if text in STDIN and type_.is_document:
        documents = _read_stdin_documents(key, stdin)
        if len(documents) != 1:
            raise InputError("C012", f"the input {key!r} is one document, but stdin has {len(documents)}")
        return documents[0]
    path = Path(text[1:])
    if (
        text.startswith("@")
        and not text.startswith("@@")
        and type_.is_document
        and path.suffix != ".json"
        and text not in STDIN
    ):
        return read_document(path)
    if text.startswith("@") and not text.startswith("@@") and type_.is_table and path.suffix != ".json":
        return read_table(key, path).model_dump(mode="json")
    text = resolve_text(text, f"-i {key}={text}", stdin, type_)
    return text if type_.accepts_text else _parse_json(key, text, type_)


def read_table_value(key: str, path: Path, type_: InputType) -> list[Any] | None:
    """Reads a file of tables as a value of a type: rows of texts, records, or tables. None for another type or file."""
    if path.suffix.lower().partition("#")[0] not in TABLE_SUFFIXES:
        return None
    if type_.is_cells:
        return read_table(key, path).cells
    if type_.items is not None and type_.items.is_table:
        return [table.model_dump(mode="json") for table in read_tables(path)]
    return read_table_records(key, path) if type_.is_records else None


def _read_stdin_documents(key: str, stdin: StdinReader) -> list[Any]:
    """Reads documents from stdin: JSON of one or several, or the text of one."""
    text = stdin.read(f"-i {key}=-")
    if not text.strip():
        raise InputError(
            "C014",
            f"stdin is empty, but the input {key!r} is read from it",
            hint=f"cat notes.txt | orchestra run … -i {key}=-",
        )
    try:
        content = parse_untrusted(text)
    except StrictJsonError:
        content = None
    if isinstance(content, dict):
        return [content]
    return content if isinstance(content, list) else [{"source": "stdin", "text": text}]


def _parse_json(key: str, text: str, type_: InputType) -> Any:
    try:
        return parse_untrusted(text)
    except StrictJsonError as error:
        excerpt = shorten(text, 40)
        hint = f"write it as JSON: -i '{key}={type_.example}'"
        if type_.items and type_.items.is_document:
            hint += f", or pass a file or a folder: -i {key}=@folder"
        raise InputError("C012", f"the input {key!r} is {type_}, which {excerpt!r} is not", hint=hint) from error


def _json_type(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"
