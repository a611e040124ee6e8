"""MCP servers: each is started when its tools are first called, is held to its pins, and ends with whoever owns it.

The session is that of the official SDK (package `mcp`, MIT). A server's life is one task, because the SDK's scopes must
be left by the task that entered them; calls come from others, and wait for their answers. What a server says is data:
it is asked for tools alone, and offers of its own (sampling, elicitation, roots) are refused by the SDK's defaults.
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
"""Seconds in which a server that was late must answer a ping; else it is ended, and started anew for the next call."""
MAX_TOOLS = 1_000
INHERITED_ENVIRONMENT = ("PATH", "HOME", "LANG")
"""What every server has of our environment, beside what `environment` names."""


class McpClient:
    """One server of the configuration."""

    def __init__(
        self,
        name: str,
        config: McpServer,
        pins: Mapping[str, ToolPin],
        folder: Path | None = None,
        on_stderr: Callable[[str, str], None] | None = None,
    ) -> None:
        """`on_stderr` is called with the server's name and each line of its standard error."""
        self.name, self.config, self.pins = name, config, dict(pins)
        self._folder, self._on_stderr = folder, on_stderr
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[tuple[ClientSession, StdioConnection]] | None = None
        self._stop = asyncio.Event()
        self._starting = asyncio.Lock()
        self._start_timeout: asyncio.Timeout | None = None
        """Of a server that is starting."""
        self._checking = asyncio.Lock()
        self._pin_errors: dict[str, str] = {}
        self._change_count = 0
        """How often a server has said that its tools have changed."""
        self._checked_count = -1
        """How often it had when they were last held against their pins; -1 where they were not since it started."""

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> CallToolResult:
        """What a tool answered.

        Raises `ToolError`: T010 without the package, T011 where the server cannot be started, T012 for a tool that is
        not what was pinned,
        T014 where the server ended, T015 where it said too much, T016 where it answered what nobody understands, T017
        where it was late, T018 where it refused the call.
        """
        session, pipe = await self._session()
        pipe.invalid_lines = pipe.messages = pipe.stderr_lines = 0
        try:
            async with asyncio.timeout(self.config.timeout):
                if self._checked_count != self._change_count:
                    await self._recheck_pins(session, pipe, tool)
                if (reason := self._pin_errors.get(tool)) is not None:
                    raise ToolError(
                        "T012", f"{self.name}.{tool} {reason}", f"orchestra tools pin {self.name}, if that is well"
                    )
                return await _call_tool(session, tool, arguments)
        except TimeoutError:
            await self._ping_or_stop(session)
            hint = f"raise `timeout` of [mcp.{self.name}], or look into the server"
            raise ToolError(
                "T017", f"{self.name}.{tool} gave no answer within {self.config.timeout:g} s", hint
            ) from None
        except ToolError:
            raise
        except (ValidationError, ValueError) as error:
            raise ToolError(
                "T016", f"{self.name}.{tool} answered what is no result: {_first_line(error)}", "mend the server"
            ) from None
        except _protocol_errors() as error:
            raise await self._call_error(tool, pipe, error) from None

    async def list_tools(self) -> dict[str, ToolPin | InputError]:
        """All tools of the server as they are today; for one whose types cannot be used, why. Raises `ToolError` as
        `call`
        does.
        """
        session, pipe = await self._session()
        try:
            async with asyncio.timeout(self.config.timeout):
                return await _list_tools(session)
        except TimeoutError:
            raise ToolError(
                "T017", f"{self.name} did not list its tools within {self.config.timeout:g} s", "look into the server"
            ) from None
        except _protocol_errors() as error:
            raise await self._call_error("tools/list", pipe, error) from None

    async def close(self) -> None:
        """Ends the server, where it runs."""
        self._stop.set()
        if self._start_timeout is not None:
            self._start_timeout.reschedule(asyncio.get_running_loop().time())
        if self._task is not None:
            await asyncio.wait([self._task])

    # Its life

    async def _session(self) -> tuple[ClientSession, StdioConnection]:
        """The session of the running server, which is started where it is not running; who waits for one start shares
        what
        it comes to.
        """
        async with self._starting:
            ready = await self._start()
        return await asyncio.shield(ready)

    async def _start(self) -> asyncio.Future[tuple[ClientSession, StdioConnection]]:
        if self._task is not None and not self._task.done() and self._is_ending:
            await asyncio.wait([self._task])  # one that is ending takes no more calls
        if self._task is None or self._task.done() or self._ready is None:
            if find_spec("mcp") is None:
                raise ToolError(
                    "T010",
                    f"{self.name} is an MCP server, and the package mcp is not there",
                    "pip install 'orchestra-slm[mcp]'",
                )
            self._stop = asyncio.Event()
            self._ready = asyncio.get_running_loop().create_future()
            self._ready.add_done_callback(_consume_exception)
            self._task = asyncio.create_task(self._run(self._ready, self._stop))
        return self._ready

    @property
    def _is_ending(self) -> bool:
        """Whether the server is about to end, or has ended by itself."""
        ready = self._ready
        began = ready is not None and ready.done() and not ready.cancelled() and ready.exception() is None
        return self._stop.is_set() or (ready is not None and began and ready.result()[1].closed.is_set())

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
                    why = pipe.limit_error or (pipe.exit_status if pipe.closed.is_set() else _first_line(error))
                    fault.reason = f"the MCP server {self.name} did not begin to speak MCP: {why}"
                else:
                    ready.set_result((session, pipe))
                    waiting = [asyncio.ensure_future(event.wait()) for event in (stop, pipe.closed)]
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    for one in waiting:
                        one.cancel()
        except (OSError, ExceptionGroup, RuntimeError, InputError) as error:
            fault.reason = f"the MCP server {self.name} cannot be run: {_first_line(error)}"
        finally:
            if not ready.done():
                ready.set_exception(fault)

    @asynccontextmanager
    async def _start_deadline(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """The time in which a server must be ready: it is over at once for one that is closed meanwhile."""
        async with asyncio.timeout(0 if stop.is_set() else START_TIMEOUT) as self._start_timeout:
            try:
                yield
            finally:
                self._start_timeout = None

    def _launch_spec(self) -> Any:
        from orchestra.agents.mcp.stdio_transport import McpLaunchSpec

        program, *arguments = self.config.command
        found = self._find_program(program)
        if found is None:
            raise InputError("T011", f"there is no program {program!r}", hint=f"command = [...] of [mcp.{self.name}]")
        names = (*INHERITED_ENVIRONMENT, *self.config.environment)
        environment = {name: os.environ[name] for name in names if name in os.environ}
        return McpLaunchSpec((found, *arguments), environment, str(self._folder) if self._folder else None)

    def _find_program(self, program: str) -> str | None:
        """The program's absolute path, wherever one stands: a path from the project's folder, a name from the absolute
        folders of PATH.
        """
        if os.path.dirname(program):
            return shutil.which(str((self._folder or Path()).absolute() / program))
        return shutil.which(
            program, path=os.pathsep.join(folder for folder in os.get_exec_path() if os.path.isabs(folder))
        )

    async def _check_pins(self, session: ClientSession) -> None:
        """Holds the server's tools against their pins, unless another call has done so. Until it has succeeded nothing
        is
        called.
        """
        async with self._checking:
            if self._checked_count != (news := self._change_count):
                self._pin_errors = self._differences(await _list_tools(session) if self.pins else {})
                self._checked_count = news

    async def _recheck_pins(self, session: ClientSession, pipe: StdioConnection, tool: str) -> None:
        """Holds the tools against their pins once more, for the server says that they have changed. Raises
        `ToolError`.
        """
        try:
            await self._check_pins(session)
        except _protocol_errors() as error:
            lost = await self._call_error(tool, pipe, error)
            if lost.code == "T018":
                said = (
                    f"{self.name}.{tool} was not called: the server says that its tools have changed, and did not list"
                    " them"
                )
                lost = ToolError(
                    "T018", f"{said}: {_first_line(error)}", f"look into the server: orchestra tools list {self.name}"
                )
            raise lost from None

    def _differences(self, found: Mapping[str, ToolPin | InputError]) -> dict[str, str]:
        """By tool: in what it is not what was pinned."""
        changed: dict[str, str] = {}
        for name, pin in self.pins.items():
            today = found.get(name)
            if today is None:
                changed[name] = "is not among the server's tools any more"
            elif isinstance(today, InputError):
                changed[name] = f"is not what was pinned: {today.message}"
            elif today.digest != pin.digest:
                parts = [
                    part for part in ("description", "input", "output") if getattr(today, part) != getattr(pin, part)
                ]
                changed[name] = f"is not what was pinned: it has another {' and another '.join(parts)}"
        return changed

    async def _on_message(self, message: IncomingMessage) -> None:
        """A server that says that its tools have changed is held against their pins again before the next call."""
        from mcp_types import ToolListChangedNotification

        if isinstance(message, ToolListChangedNotification):
            self._change_count += 1

    def _on_stderr_line(self, line: str) -> None:
        if self._on_stderr is not None:
            self._on_stderr(self.name, line)

    # What goes wrong

    async def _ping_or_stop(self, session: ClientSession) -> None:
        """Ends a server that does not even answer a ping."""
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                await session.send_ping()
        except _protocol_errors():
            self._stop.set()

    async def _call_error(self, tool: str, pipe: StdioConnection, error: Exception) -> ToolError:
        """What is said of a call whose answer is an error, or will not come."""
        if not pipe.closed.is_set():
            with_closing = asyncio.ensure_future(pipe.closed.wait())
            await asyncio.wait([with_closing], timeout=0.05)
            with_closing.cancel()
        if pipe.limit_error:
            return ToolError(
                "T015", f"{self.name}.{tool}: {pipe.limit_error}; the server was ended", "ask it for less, or mend it"
            )
        if pipe.closed.is_set():
            if self._task is not None:
                await asyncio.wait([self._task], timeout=5)
            return ToolError(
                "T014",
                f"the MCP server {self.name} ended in the middle of {tool}: {pipe.exit_status}",
                "look into the server",
            )
        return ToolError(
            "T018", f"{self.name}.{tool} refused the call: {_first_line(error)}", "compare with `orchestra tools list`"
        )


async def _call_tool(session: ClientSession, tool: str, arguments: Mapping[str, Any]) -> CallToolResult:
    """The answer as it came. Not by `ClientSession.call_tool`, which checks it with patterns that a server has
    chosen.
    """
    from mcp_types import CallToolRequest, CallToolRequestParams, CallToolResult

    return await session.send_request(
        CallToolRequest(params=CallToolRequestParams(name=tool, arguments=dict(arguments))), CallToolResult
    )


async def _list_tools(session: ClientSession) -> dict[str, ToolPin | InputError]:
    from mcp_types import PaginatedRequestParams

    found: dict[str, ToolPin | InputError] = {}
    cursor: str | None = None
    for _ in range(MAX_TOOLS):
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor) if cursor else None)
        for tool in page.tools:
            try:
                found[tool.name] = ToolPin.from_tool(
                    tool.name, tool.description or "", tool.input_schema, tool.output_schema
                )
            except InputError as error:
                found[tool.name] = error
        cursor = page.next_cursor
        if not cursor or len(found) > MAX_TOOLS:
            break
    return found


def _protocol_errors() -> tuple[type[Exception], ...]:
    """What the SDK raises where a server does not do as it should."""
    import anyio
    from mcp.shared.exceptions import MCPError

    closed = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream)
    return (MCPError, *closed, TimeoutError, RuntimeError, ValueError, ExceptionGroup)


def _consume_exception(ready: asyncio.Future[Any]) -> None:
    """Looks at how a start ended, for it may be that nobody waits for it any more."""
    if not ready.cancelled():
        ready.exception()


def _first_line(error: BaseException) -> str:
    """What a stranger's error says, in one line."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    said = error.message if isinstance(error, InputError) else exception_text(error)
    line = next((line.strip() for line in said.splitlines() if line.strip()), type(error).__name__)
    return to_storable(escape_invisible(line, keep=""), 300)
