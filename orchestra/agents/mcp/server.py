"""MCP servers: each is started at the first call of its tools, checked against its pins, and stopped with its owner.

The session is that of the official SDK (package `mcp`, MIT). One task runs a server from start to stop, because the
SDK's scopes must be exited by the task that entered them. Other tasks send calls to it and wait for the answers. Output
of a server is untrusted data: the client uses tools only, and the SDK's defaults refuse requests of the server
(sampling, elicitation, roots).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestra.agents.mcp.pins import ToolPin
from orchestra.agents.tools import ToolError
from orchestra.core.errors import InputError
from orchestra.core.settings import McpServer
from orchestra.core.untrusted_text import escape_invisible, exception_text, to_storable

if TYPE_CHECKING:
    from mcp import ClientSession
    from mcp.client.session import IncomingMessage
    from mcp_types import CallToolResult

    from orchestra.agents.mcp.stdio_transport import StdioConnection

START_TIMEOUT = 30.0
"""Seconds in which a server must be ready."""
PING_TIMEOUT = 5.0
"""Seconds in which a server must answer a ping after a timeout. Otherwise it is stopped, and the next call starts it
anew.
"""
MAX_TOOLS = 1_000
INHERITED_ENVIRONMENT = ("PATH", "HOME", "LANG")
"""Environment variables that every server inherits, in addition to those in `environment`."""


class McpClient:
    """The client of one configured server."""

    def __init__(
        self,
        name: str,
        config: McpServer,
        pins: Mapping[str, ToolPin],
        folder: Path | None = None,
        on_stderr: Callable[[str, str], None] | None = None,
    ) -> None:
        """Creates the client. `on_stderr` is called with the server's name and each line of its standard error."""
        self.name, self.config, self.pins = name, config, dict(pins)
        self._folder, self._on_stderr = folder, on_stderr
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[tuple[ClientSession, StdioConnection]] | None = None
        self._stop = asyncio.Event()
        self._starting = asyncio.Lock()
        self._start_timeout: asyncio.Timeout | None = None
        """Set while the server starts."""
        self._checking = asyncio.Lock()
        self._pin_errors: dict[str, str] = {}
        self._change_count = 0
        """Number of notifications that the tools have changed."""
        self._checked_count = -1
        """Value of `_change_count` at the last check of the pins; -1 if they were not checked since the server
        started.
        """

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> CallToolResult:
        """Calls a tool and returns its answer.

        Raises:
            ToolError: T010 without the package `mcp`, T011 if the server cannot be started, T012 if the tool differs
            from its
                pin, T014 if the server ended, T015 if its output exceeded a limit, T016 for an invalid answer, T017 on
                a timeout, T018 if it refused the call.
        """
        session, pipe = await self._session()
        pipe.invalid_lines = pipe.messages = pipe.stderr_lines = 0
        try:
            async with asyncio.timeout(self.config.timeout):
                if self._checked_count != self._change_count:
                    await self._recheck_pins(session, pipe, tool)
                if (reason := self._pin_errors.get(tool)) is not None:
                    raise ToolError(
                        "T012",
                        f"{self.name}.{tool} {reason}",
                        f"orchestra tools pin {self.name}, if the change is acceptable",
                    )
                return await _call_tool(session, tool, arguments)
        except TimeoutError:
            await self._ping_or_stop(session)
            hint = f"raise `timeout` of [mcp.{self.name}], or check the server"
            raise ToolError(
                "T017", f"{self.name}.{tool} gave no answer within {self.config.timeout:g} s", hint
            ) from None
        except ToolError:
            raise
        except (ValidationError, ValueError) as error:
            raise ToolError(
                "T016", f"{self.name}.{tool} sent an invalid result: {_first_line(error)}", "fix the server"
            ) from None
        except _protocol_errors() as error:
            raise await self._call_error(tool, pipe, error) from None

    async def list_tools(self) -> dict[str, ToolPin | InputError]:
        """Returns all tools of the server; for a tool whose types cannot be used, the error.

        Raises:
            ToolError: As `call`.
        """
        session, pipe = await self._session()
        try:
            async with asyncio.timeout(self.config.timeout):
                return await _list_tools(session)
        except TimeoutError:
            raise ToolError(
                "T017", f"{self.name} did not list its tools within {self.config.timeout:g} s", "check the server"
            ) from None
        except _protocol_errors() as error:
            raise await self._call_error("tools/list", pipe, error) from None

    async def close(self) -> None:
        """Stops the server if it runs."""
        self._stop.set()
        if self._start_timeout is not None:
            self._start_timeout.reschedule(asyncio.get_running_loop().time())
        if self._task is not None:
            await asyncio.wait([self._task])

    # Lifecycle

    async def _session(self) -> tuple[ClientSession, StdioConnection]:
        """Returns the session of the server, which is started if it does not run. Concurrent callers share one start
        and its result.
        """
        async with self._starting:
            ready = await self._start()
        return await asyncio.shield(ready)

    async def _start(self) -> asyncio.Future[tuple[ClientSession, StdioConnection]]:
        if self._task is not None and not self._task.done() and self._is_ending:
            await asyncio.wait([self._task])  # a server that is ending accepts no calls
        if self._task is None or self._task.done() or self._ready is None:
            if find_spec("mcp") is None:
                raise ToolError(
                    "T010",
                    f"{self.name} is an MCP server, but the package mcp is not installed",
                    "pip install 'orchestra-slm[mcp]'",
                )
            self._stop = asyncio.Event()
            self._ready = asyncio.get_running_loop().create_future()
            self._ready.add_done_callback(_consume_exception)
            self._task = asyncio.create_task(self._run(self._ready, self._stop))
        return self._ready

    @property
    def _is_ending(self) -> bool:
        """Whether the server is ending or has ended."""
        ready = self._ready
        has_started = ready is not None and ready.done() and not ready.cancelled() and ready.exception() is None
        return self._stop.is_set() or (ready is not None and has_started and ready.result()[1].closed.is_set())

    async def _run(self, ready: asyncio.Future[tuple[ClientSession, StdioConnection]], stop: asyncio.Event) -> None:
        from mcp import ClientSession

        from orchestra.agents.mcp.stdio_transport import connect

        fault = ToolError(
            "T011", f"the MCP server {self.name} did not start", f"run it by hand: {' '.join(self.config.command)}"
        )
        try:
            async with (
                connect(self._launch_spec(), self._on_stderr_line) as pipe,
                ClientSession(pipe.read, pipe.write, message_handler=self._on_message) as session,
            ):
                try:
                    async with self._start_deadline(stop):
                        await session.initialize()
                        self._checked_count = -1
                        await self._check_pins(session)
                except TimeoutError:
                    late = (
                        "was closed before it was ready"
                        if stop.is_set()
                        else f"was not ready within {START_TIMEOUT:g} s"
                    )
                    fault.reason = f"the MCP server {self.name} {late}"
                except _protocol_errors() as error:
                    await asyncio.wait([asyncio.ensure_future(pipe.closed.wait())], timeout=0.5)
                    reason = pipe.limit_error or (pipe.exit_status if pipe.closed.is_set() else _first_line(error))
                    fault.reason = f"the MCP server {self.name} did not open an MCP session: {reason}"
                else:
                    ready.set_result((session, pipe))
                    tasks = [asyncio.ensure_future(event.wait()) for event in (stop, pipe.closed)]
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in tasks:
                        task.cancel()
        except (OSError, ExceptionGroup, RuntimeError, InputError) as error:
            fault.reason = f"the MCP server {self.name} cannot be run: {_first_line(error)}"
        finally:
            if not ready.done():
                ready.set_exception(fault)

    @asynccontextmanager
    async def _start_deadline(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """Limits the time in which a server must be ready. It expires at once if the client is closed meanwhile."""
        async with asyncio.timeout(0 if stop.is_set() else START_TIMEOUT) as self._start_timeout:
            try:
                yield
            finally:
                self._start_timeout = None

    def _launch_spec(self) -> Any:
        from orchestra.agents.mcp.stdio_transport import McpLaunchSpec

        program, *arguments = self.config.command
        program_path = self._find_program(program)
        if program_path is None:
            raise InputError("T011", f"there is no program {program!r}", hint=f"command = [...] of [mcp.{self.name}]")
        names = (*INHERITED_ENVIRONMENT, *self.config.environment)
        environment = {name: os.environ[name] for name in names if name in os.environ}
        return McpLaunchSpec((program_path, *arguments), environment, str(self._folder) if self._folder else None)

    def _find_program(self, program: str) -> str | None:
        """Returns the program's absolute path: a path relative to the project's folder, or a name in the absolute
        folders of PATH.
        """
        if os.path.dirname(program):
            return shutil.which(str((self._folder or Path()).absolute() / program))
        return shutil.which(
            program, path=os.pathsep.join(folder for folder in os.get_exec_path() if os.path.isabs(folder))
        )

    async def _check_pins(self, session: ClientSession) -> None:
        """Checks the server's tools against their pins, unless it was already done. No tool is called before it
        succeeded.
        """
        async with self._checking:
            if self._checked_count != (news := self._change_count):
                self._pin_errors = self._differences(await _list_tools(session) if self.pins else {})
                self._checked_count = news

    async def _recheck_pins(self, session: ClientSession, pipe: StdioConnection, tool: str) -> None:
        """Checks the pins again after a notification that the tools have changed.

        Raises:
            ToolError: If the tools cannot be listed.
        """
        try:
            await self._check_pins(session)
        except _protocol_errors() as error:
            call_error = await self._call_error(tool, pipe, error)
            if call_error.code == "T018":
                message = f"{self.name}.{tool} was not called: the server reported changed tools, but did not list them"
                call_error = ToolError(
                    "T018", f"{message}: {_first_line(error)}", f"check the server: orchestra tools list {self.name}"
                )
            raise call_error from None

    def _differences(self, pins: Mapping[str, ToolPin | InputError]) -> dict[str, str]:
        """Returns the difference from the pin for each tool that differs."""
        differences: dict[str, str] = {}
        for name, pin in self.pins.items():
            today = pins.get(name)
            if today is None:
                differences[name] = "is no longer one of the server's tools"
            elif isinstance(today, InputError):
                differences[name] = f"differs from its pin: {today.message}"
            elif today.digest != pin.digest:
                parts = [
                    part for part in ("description", "input", "output") if getattr(today, part) != getattr(pin, part)
                ]
                differences[name] = f"differs from its pin: it has another {' and another '.join(parts)}"
        return differences

    async def _on_message(self, message: IncomingMessage) -> None:
        """Handles a notification that the tools have changed: the pins are checked again before the next call."""
        from mcp_types import ToolListChangedNotification

        if isinstance(message, ToolListChangedNotification):
            self._change_count += 1

    def _on_stderr_line(self, line: str) -> None:
        if self._on_stderr is not None:
            self._on_stderr(self.name, line)

    # Errors

    async def _ping_or_stop(self, session: ClientSession) -> None:
        """Stops a server that does not answer a ping."""
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                await session.send_ping()
        except _protocol_errors():
            self._stop.set()

    async def _call_error(self, tool: str, pipe: StdioConnection, error: Exception) -> ToolError:
        """Returns the error of a call whose answer is an error or will not arrive."""
        if not pipe.closed.is_set():
            with_closing = asyncio.ensure_future(pipe.closed.wait())
            await asyncio.wait([with_closing], timeout=0.05)
            with_closing.cancel()
        if pipe.limit_error:
            return ToolError(
                "T015",
                f"{self.name}.{tool}: {pipe.limit_error}; the server was ended",
                "request less, or fix the server",
            )
        if pipe.closed.is_set():
            if self._task is not None:
                await asyncio.wait([self._task], timeout=5)
            return ToolError(
                "T014",
                f"the MCP server {self.name} ended during {tool}: {pipe.exit_status}",
                "check the server",
            )
        return ToolError(
            "T018", f"{self.name}.{tool} refused the call: {_first_line(error)}", "compare with `orchestra tools list`"
        )


async def _call_tool(session: ClientSession, tool: str, arguments: Mapping[str, Any]) -> CallToolResult:
    """Sends a call and returns the raw answer. `ClientSession.call_tool` is not used, because it runs the server's
    patterns.
    """
    from mcp_types import CallToolRequest, CallToolRequestParams, CallToolResult

    return await session.send_request(
        CallToolRequest(params=CallToolRequestParams(name=tool, arguments=dict(arguments))), CallToolResult
    )


async def _list_tools(session: ClientSession) -> dict[str, ToolPin | InputError]:
    from mcp_types import PaginatedRequestParams

    pins: dict[str, ToolPin | InputError] = {}
    cursor: str | None = None
    for _ in range(MAX_TOOLS):
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor) if cursor else None)
        for tool in page.tools:
            try:
                pins[tool.name] = ToolPin.from_tool(
                    tool.name, tool.description or "", tool.input_schema, tool.output_schema
                )
            except InputError as error:
                pins[tool.name] = error
        cursor = page.next_cursor
        if not cursor or len(pins) > MAX_TOOLS:
            break
    return pins


def _protocol_errors() -> tuple[type[Exception], ...]:
    """Returns the exceptions that the SDK raises for protocol errors."""
    import anyio
    from mcp.shared.exceptions import MCPError

    closed_errors = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream)
    return (MCPError, *closed_errors, TimeoutError, RuntimeError, ValueError, ExceptionGroup)


def _consume_exception(ready: asyncio.Future[Any]) -> None:
    """Retrieves the exception of a failed start, because there may be no waiter left."""
    if not ready.cancelled():
        ready.exception()


def _first_line(error: BaseException) -> str:
    """Returns an error message of a server as one line."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    message = error.message if isinstance(error, InputError) else exception_text(error)
    line = next((line.strip() for line in message.splitlines() if line.strip()), type(error).__name__)
    return to_storable(escape_invisible(line, keep=""), 300)
