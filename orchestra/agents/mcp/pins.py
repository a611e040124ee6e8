"""Pins: the descriptions and types of MCP tools as they were reviewed. A tool that differs from its pin is refused.

A server may change the descriptions of its tools at any time, and models read these descriptions. So the project keeps
the name, description and types of each tool that it uses in `mcp/SERVER.json`. A tool must match the digest in its pin.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from orchestra.core.atomic_files import write_file
from orchestra.core.errors import InputError, SourceLocation
from orchestra.core.settings import McpServer
from orchestra.core.untrusted_text import escape_invisible, to_storable
from orchestra.schema.strict_json import canonical, digest, storage_error
from orchestra.schema.types import Schema, Validator, bundle_definitions

FOLDER = "mcp"
FORMAT = "orchestra/mcp/v1"
MAX_BYTES = 8 << 20
"""Maximum size of a file of pins, in bytes."""
MAX_SCHEMA = 100_000
"""Maximum size of one tool's description and types, in bytes."""
MAX_DESCRIPTION = 500
"""Maximum characters of a description that are shown. The digest covers the whole description."""
TEXT_SCHEMA: Schema = {"type": "string"}


class ToolPin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool as it was pinned: its types as the server states them, and a digest of name, description and types."""

    name: str
    description: str
    input: dict[str, Any]
    output: dict[str, Any] | None
    digest: str

    @classmethod
    def from_tool(
        cls, name: str, description: str, input: Mapping[str, Any], output: Mapping[str, Any] | None
    ) -> ToolPin:
        """Creates the pin of a tool that a server lists.

        Raises:
            InputError: T013 if its types cannot be used.
        """
        content = [name, description, dict(input), None if output is None else dict(output)]
        if reason := storage_error(content):
            raise _unusable_types(name, reason)
        data = canonical(content)
        if len(data) > MAX_SCHEMA:
            raise _unusable_types(name, f"its description and types have {len(data):,} bytes; at most {MAX_SCHEMA:,}")
        pin = cls(name, description, dict(input), None if output is None else dict(output), digest(data))
        _ = pin.input_schema, pin.output_schema
        return pin

    @property
    def input_schema(self) -> Schema:
        """The type of the arguments, a record. Raises `InputError` T013 if it is not one."""
        if self.input.get("type") != "object":
            raise _unusable_types(self.name, "its arguments are not a record")
        return _tool_schema(self.name, {"properties": {}, **self.input})

    @property
    def output_schema(self) -> Schema:
        """The type of the result; a text if the server states none. Raises `InputError` T013 if it cannot be used."""
        return TEXT_SCHEMA if self.output is None else _tool_schema(self.name, self.output)

    @property
    def summary(self) -> str:
        """The description in one line, without invisible characters."""
        line = " ".join(escape_invisible(self.description, keep="").replace("\\x0a", " ").split())
        return to_storable(line, MAX_DESCRIPTION)


class PinFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of `mcp/SERVER.json`."""

    format: str
    server: str
    tools: dict[str, ToolPin]


def pin_path(project: Path | None, server: str) -> Path:
    """Returns the path of a server's pins.

    Raises:
        InputError: T019 outside of a project.
    """
    if project is None:
        raise InputError("T019", "pins are stored in a project, and there is none here", hint="orchestra init")
    return project / FOLDER / f"{server}.json"


def read(project: Path | None, server: str, config: McpServer) -> dict[str, ToolPin]:
    """Returns the pins of the tools that the configuration declares.

    Raises:
        InputError: T012 if one is missing or was modified.
    """
    tool_pins, location = _read_file(project, server), SourceLocation(str(pin_path(project, server)), 1)
    pins: dict[str, ToolPin] = {}
    for name in config.tools:
        pin = tool_pins.get(name)
        if pin is None:
            raise InputError(
                "T012", f"the tool {server}.{name} is not pinned", location=location, hint=_pin_hint(server)
            )
        if not _is_intact(name, pin):
            raise InputError(
                "T012",
                f"the pin of {server}.{name} does not match its digest",
                location=location,
                hint=_pin_hint(server),
            )
        pins[name] = pin
    return pins


def read_valid(project: Path | None, server: str) -> tuple[dict[str, ToolPin], frozenset[str]]:
    """Returns the valid pins of a server and the names of the modified ones.

    Raises:
        InputError: T012 if the file cannot be read.
    """
    tool_pins = _read_file(project, server)
    broken_names = frozenset(name for name, pin in tool_pins.items() if not _is_intact(name, pin))
    return {name: pin for name, pin in tool_pins.items() if name not in broken_names}, broken_names


def _is_intact(name: str, pin: ToolPin) -> bool:
    """Whether a pin matches its digest."""
    try:
        return pin == ToolPin.from_tool(name, pin.description, pin.input, pin.output)
    except InputError:
        return False


def _read_file(project: Path | None, server: str) -> dict[str, ToolPin]:
    """Returns the contents of the file of a server's pins.

    Raises:
        InputError: T012 if the file cannot be read.
    """
    path = pin_path(project, server)
    location = SourceLocation(str(path), 1)
    try:
        data = path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise InputError(
            "T012", f"the pins of {server} cannot be read: {error.strerror}", location=location, hint=_pin_hint(server)
        ) from error
    if len(data) > MAX_BYTES:
        raise InputError(
            "T012",
            f"the pins of {server} have more than {MAX_BYTES >> 20} MiB",
            location=location,
            hint=_pin_hint(server),
        )
    try:
        return msgspec.json.decode(data, type=PinFile).tools if data else {}
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(
            "T012", f"the pins of {server} cannot be read: {error}", location=location, hint=_pin_hint(server)
        ) from error


def write(project: Path | None, server: str, pins: Mapping[str, ToolPin]) -> Path:
    """Writes the pins of a server and returns the path.

    Raises:
        InputError: T019 if the file cannot be written.
    """
    path = pin_path(project, server)
    data = (
        msgspec.json.format(msgspec.json.encode(PinFile(FORMAT, server, dict(sorted(pins.items())))), indent=2) + b"\n"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data)
    except OSError as error:
        raise InputError(
            "T019", f"{path} cannot be written: {error.strerror}", hint="make the project's folder writable"
        ) from error
    return path


def _pin_hint(server: str) -> str:
    return f"review it and pin it: orchestra tools pin {server}"


def _tool_schema(name: str, output: Mapping[str, Any]) -> Schema:
    try:
        schema = bundle_definitions({key: value for key, value in output.items() if key not in ("$schema", "$id")})
        Validator(schema)
    except (InputError, RecursionError, KeyError, TypeError, ValueError) as error:
        reason = error.message if isinstance(error, InputError) else type(error).__name__
        raise _unusable_types(name, reason) from error
    return schema


def _unusable_types(name: str, reason: str) -> InputError:
    return InputError(
        "T013",
        f"the types of the tool {to_storable(escape_invisible(name, keep=''), 100)!r} cannot be used: {reason}",
        hint="leave it out",
    )
