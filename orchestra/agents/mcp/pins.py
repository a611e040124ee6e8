"""Pins: what the tools of an MCP server were when somebody looked at them. A tool that says otherwise today is refused.

A server may change what its tools say of themselves at any time, and what they say is read by models. So the project keeps, in
`mcp/SERVER.json`, the name, description and types of each tool that it uses; their digest is what the server is held to.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from orchestra.core.atomic_files import write_file
from orchestra.core.errors import InputError, Place
from orchestra.core.mcp_settings import McpServer
from orchestra.core.untrusted_text import keepable, visible
from orchestra.schema.strict_json import canonical, digest, unkept
from orchestra.schema.types import Schema, Validator, bundled

FOLDER = "mcp"
FORMAT = "orchestra/mcp/v1"
MAX_BYTES = 8 << 20
"""Bytes of a file of pins at most."""
MAX_SCHEMA = 100_000
"""Bytes of what one tool says of itself, at most."""
DESCRIPTION = 500
"""Characters of a description that anybody is shown; the digest is of the whole."""
TEXT: Schema = {"type": "string"}


class Pin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tool as it was: its types as the server states them, and the digest of all that it says."""

    name: str
    description: str
    input: dict[str, Any]
    output: dict[str, Any] | None
    digest: str

    @classmethod
    def of(cls, name: str, description: str, input: Mapping[str, Any], output: Mapping[str, Any] | None) -> Pin:
        """A tool as its server tells of it. Raises `InputError` T013 for one whose types cannot be used."""
        said = [name, description, dict(input), None if output is None else dict(output)]
        if why := unkept(said):
            raise _unusable(name, why)
        data = canonical(said)
        if len(data) > MAX_SCHEMA:
            raise _unusable(name, f"it says {len(data):,} bytes of itself; at most {MAX_SCHEMA:,}")
        made = cls(name, description, dict(input), None if output is None else dict(output), digest(data))
        _ = made.takes, made.gives
        return made

    @property
    def takes(self) -> Schema:
        """The type of its arguments: a record. Raises `InputError` T013."""
        if self.input.get("type") != "object":
            raise _unusable(self.name, "its arguments are no record")
        return _type(self.name, {"properties": {}, **self.input})

    @property
    def gives(self) -> Schema:
        """The type of its result: a text, where it states none. Raises `InputError` T013."""
        return TEXT if self.output is None else _type(self.name, self.output)

    @property
    def said(self) -> str:
        """Its description, in one line that is safe to show."""
        line = " ".join(visible(self.description, keep="").replace("\\x0a", " ").split())
        return keepable(line, DESCRIPTION)


class Pins(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `mcp/SERVER.json` holds."""

    format: str
    server: str
    tools: dict[str, Pin]


def path_of(project: Path | None, server: str) -> Path:
    """Where the pins of a server stand. Raises `InputError` T019 outside of a project."""
    if project is None:
        raise InputError("T019", "pins are kept in a project, and there is none here", hint="orchestra init")
    return project / FOLDER / f"{server}.json"


def read(project: Path | None, server: str, config: McpServer) -> dict[str, Pin]:
    """The pins of the tools that the configuration declares. Raises `InputError` T012 where one is missing or was tampered with."""
    found, place = _stored(project, server), Place(str(path_of(project, server)), 1)
    pins: dict[str, Pin] = {}
    for name in config.tools:
        pin = found.get(name)
        if pin is None:
            raise InputError("T012", f"the tool {server}.{name} is not pinned", place=place, hint=_pin(server))
        if not _whole(name, pin):
            raise InputError("T012", f"the pin of {server}.{name} is not what its digest says", place=place, hint=_pin(server))
        pins[name] = pin
    return pins


def known(project: Path | None, server: str) -> tuple[dict[str, Pin], frozenset[str]]:
    """What pins of a server there are, each by itself, whatever the others are: those that are whole, and the names of those that were
    tampered with. Raises `InputError` T012 for a file that cannot be read."""
    found = _stored(project, server)
    broken = frozenset(name for name, pin in found.items() if not _whole(name, pin))
    return {name: pin for name, pin in found.items() if name not in broken}, broken


def _whole(name: str, pin: Pin) -> bool:
    """Whether a pin is what its digest says."""
    try:
        return pin == Pin.of(name, pin.description, pin.input, pin.output)
    except InputError:
        return False


def _stored(project: Path | None, server: str) -> dict[str, Pin]:
    """All that the file of a server's pins holds, as it stands there. Raises `InputError` T012 for a file that cannot be read."""
    path = path_of(project, server)
    place = Place(str(path), 1)
    try:
        data = path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise InputError("T012", f"the pins of {server} cannot be read: {error.strerror}", place=place, hint=_pin(server)) from error
    if len(data) > MAX_BYTES:
        raise InputError("T012", f"the pins of {server} have more than {MAX_BYTES >> 20} MiB", place=place, hint=_pin(server))
    try:
        return msgspec.json.decode(data, type=Pins).tools if data else {}
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError("T012", f"the pins of {server} cannot be read: {error}", place=place, hint=_pin(server)) from error


def write(project: Path | None, server: str, pins: Mapping[str, Pin]) -> Path:
    """Keeps the pins of a server; gives the file. Raises `InputError` T019 where it cannot be written."""
    path = path_of(project, server)
    data = msgspec.json.format(msgspec.json.encode(Pins(FORMAT, server, dict(sorted(pins.items())))), indent=2) + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data)
    except OSError as error:
        raise InputError("T019", f"{path} cannot be written: {error.strerror}", hint="make the project's folder writable") from error
    return path


def _pin(server: str) -> str:
    return f"look at what it says, and keep it: orchestra tools pin {server}"


def _type(name: str, stated: Mapping[str, Any]) -> Schema:
    try:
        schema = bundled({key: value for key, value in stated.items() if key not in ("$schema", "$id")})
        Validator(schema)
    except (InputError, RecursionError, KeyError, TypeError, ValueError) as error:
        reason = error.message if isinstance(error, InputError) else type(error).__name__
        raise _unusable(name, reason) from error
    return schema


def _unusable(name: str, why: str) -> InputError:
    return InputError("T013", f"the types of the tool {keepable(visible(name, keep=''), 100)!r} cannot be used: {why}", hint="leave it out")
