"""MCP tools: a contract like that of any other tool, kept by a server of the configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestra.agents.contract import Contract
from orchestra.agents.mcp import pins
from orchestra.agents.mcp.server import Server
from orchestra.agents.tools import ToolFault, ToolFunction
from orchestra.core.labels import WITHIN, Label
from orchestra.core.settings import Settings
from orchestra.core.untrusted_text import keepable, visible
from orchestra.schema.strict_json import MAX_BYTES, canonical, unkept
from orchestra.schema.types import Validator

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from mcp_types import CallToolResult

SAID = 500
"""Characters of a tool's own complaint that are shown."""


class McpTool(ToolFunction):
    """A tool of a server: it is called `SERVER.TOOL`, its types are those that were pinned, its effect is the configuration's word."""

    def __init__(self, server: Server, pin: pins.Pin) -> None:
        name, effect = f"{server.name}.{pin.name}", server.config.tools[pin.name]
        contract = Contract(name, "tool", pin.takes, pin.gives, pin.said, effect, label=server.config.label, version=pin.digest)
        self.server, self.pin = server, pin
        super().__init__(contract, self._remote, pin.digest)

    async def _remote(self, **arguments: Any) -> Any:
        return await self.call(arguments, WITHIN.get())

    @property
    def setting(self) -> str:
        """Where its label is set, for hints."""
        return f"`label` of [mcp.{self.server.name}]"

    @cached_property
    def _checks(self) -> tuple[Validator, Validator]:
        return Validator(self.contract.input), Validator(self.contract.output)

    async def call(self, inputs: Mapping[str, Any], label: Label, key: str = "", pool: Executor | None = None) -> Any:
        """The value of a call: the structured result, where the tool states a type, else its text.

        Raises `ToolFault`: F202, T002, and T010 to T018.
        """
        self.admit(label)
        if fault := self._checks[0].check(dict(inputs)):
            raise ToolFault("T002", f"{self.name}: {fault}", "compare with `orchestra tools list`")
        return self._value(await self.server.call(self.pin.name, inputs))

    def _value(self, result: CallToolResult) -> Any:
        texts = [block.text for block in result.content if block.type == "text"]
        if result.is_error:
            said = keepable(visible(" ".join(" ".join(texts).split()), keep=""), SAID)
            raise ToolFault("T018", f"{self.name} refused the call: {said or 'it does not say why'}", "what it says is the server's word")
        value: Any = "\n".join(texts) if self.pin.output is None else result.structured_content
        if self.pin.output is None and not texts:
            raise ToolFault("T016", f"{self.name} gave no text", "only texts and structured results can be used")
        why = unkept(value)
        if not why and (size := len(canonical(value))) > MAX_BYTES:
            why = f"it has {size:,} bytes; at most {MAX_BYTES:,}"
        if why:
            raise ToolFault("T015", f"{self.name} gave what cannot be kept: {why}", "ask it for less")
        if fault := self._checks[1].check(value):
            raise ToolFault("T016", f"{self.name} gave another type than it states: {fault}", "mend the server")
        return value


class Toolbox:
    """The servers of a project, none of which runs before one of its tools is called; `close` ends those that do."""

    def __init__(self, settings: Settings, heard: Callable[[str, str], None] | None = None) -> None:
        """Reads the pins. Raises `InputError` T012, T013 or T019."""
        self.servers = {
            name: Server(name, config, pins.read(settings.project, name, config), settings.project, heard)
            for name, config in settings.mcp.items()
        }

    @property
    def tools(self) -> Iterable[McpTool]:
        """Those that the configuration declares."""
        return [McpTool(server, pin) for server in self.servers.values() for pin in server.pins.values()]

    async def close(self) -> None:
        """Ends all servers, at the same time."""
        await asyncio.gather(*(server.close() for server in self.servers.values()))
