"""MCP tools: contracts like those of other tools, implemented by a configured server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestra.agents.contract import Contract
from orchestra.agents.mcp import pins
from orchestra.agents.mcp.server import McpClient
from orchestra.agents.tools import ToolError, ToolFunction
from orchestra.core.labels import CURRENT_LABEL, Label
from orchestra.core.settings import Settings
from orchestra.core.untrusted_text import escape_invisible, to_storable
from orchestra.schema.strict_json import MAX_BYTES, canonical, storage_error
from orchestra.schema.types import Validator

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from mcp_types import CallToolResult

MAX_ERROR_CHARACTERS = 500
"""Maximum characters of a tool's own error message that are shown."""


class McpTool(ToolFunction):
    """A tool of a server, named `SERVER.TOOL`. Its types are those of the pin. The configuration sets its effect."""

    def __init__(self, client: McpClient, pin: pins.ToolPin) -> None:
        name, effect = f"{client.name}.{pin.name}", client.config.tools[pin.name]
        contract = Contract(
            name,
            "tool",
            pin.input_schema,
            pin.output_schema,
            pin.summary,
            effect,
            label=client.config.label,
            version=pin.digest,
        )
        self.client, self.pin = client, pin
        super().__init__(contract, self._call_remote, pin.digest)

    async def _call_remote(self, **arguments: Any) -> Any:
        return await self.call(arguments, CURRENT_LABEL.get())

    @property
    def label_setting(self) -> str:
        """The place where the tool's label is set, for hints."""
        return f"`label` of [mcp.{self.client.name}]"

    @cached_property
    def _schema_validators(self) -> tuple[Validator, Validator]:
        return Validator(self.contract.input), Validator(self.contract.output)

    async def call(self, inputs: Mapping[str, Any], label: Label, key: str = "", pool: Executor | None = None) -> Any:
        """Calls the tool. Returns the structured result if the tool states a type, otherwise its text.

        Raises:
            ToolError: F202, T002, and T010 to T018.
        """
        self.check_label(label)
        if fault := self._schema_validators[0].check(dict(inputs)):
            raise ToolError("T002", f"{self.name}: {fault}", "compare with `orchestra tools list`")
        return self._result_value(await self.client.call(self.pin.name, inputs))

    def _result_value(self, result: CallToolResult) -> Any:
        texts = [block.text for block in result.content if block.type == "text"]
        if result.is_error:
            storable = to_storable(escape_invisible(" ".join(" ".join(texts).split()), keep=""), MAX_ERROR_CHARACTERS)
            raise ToolError(
                "T018",
                f"{self.name} refused the call: {storable or 'no reason given'}",
                "the reason is the server's text",
            )
        value: Any = "\n".join(texts) if self.pin.output is None else result.structured_content
        if self.pin.output is None and not texts:
            raise ToolError("T016", f"{self.name} returned no text", "only texts and structured results can be used")
        reason = storage_error(value)
        if not reason and (size := len(canonical(value))) > MAX_BYTES:
            reason = f"it has {size:,} bytes; at most {MAX_BYTES:,}"
        if reason:
            raise ToolError("T015", f"{self.name} returned a value that cannot be stored: {reason}", "request less")
        if fault := self._schema_validators[1].check(value):
            raise ToolError("T016", f"{self.name} returned another type than it declares: {fault}", "fix the server")
        return value


class McpToolset:
    """The servers of a project. A server starts at the first call of one of its tools; `close` stops them."""

    def __init__(self, settings: Settings, on_stderr: Callable[[str, str], None] | None = None) -> None:
        """Reads the pins.

        Raises:
            InputError: T012, T013 or T019.
        """
        self.clients = {
            name: McpClient(name, config, pins.read(settings.project, name, config), settings.project, on_stderr)
            for name, config in settings.mcp.items()
        }

    @property
    def tools(self) -> Iterable[McpTool]:
        """The tools that the configuration declares."""
        return [McpTool(server, pin) for server in self.clients.values() for pin in server.pins.values()]

    async def close(self) -> None:
        """Stops all servers concurrently."""
        await asyncio.gather(*(server.close() for server in self.clients.values()))
