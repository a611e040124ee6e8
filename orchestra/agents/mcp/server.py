"""MCP servers: each is started when its tools are first called, is held to its pins, and ends with whoever owns it.

The session is that of the official SDK (package `mcp`, MIT). A server's life is one task, because the SDK's scopes must be left by the
task that entered them; calls come from others, and wait for their answers. What a server says is data: it is asked for tools alone, and
offers of its own (sampling, elicitation, roots) are refused by the SDK's defaults.
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

from orchestra.agents.mcp.pins import Pin
from orchestra.agents.tools import ToolFault
from orchestra.core.errors import InputError
from orchestra.core.mcp_settings import McpServer
from orchestra.core.untrusted_text import keepable, told, visible

if TYPE_CHECKING:
    from mcp import ClientSession
    from mcp.client.session import IncomingMessage
    from mcp_types import CallToolResult

    from orchestra.agents.mcp.stdio_transport import Pipe

START = 30.0
"""Seconds in which a server must be ready."""
DOUBT = 5.0
"""Seconds in which a server that was late must answer a ping; else it is ended, and started anew for the next call."""
MAX_TOOLS = 1_000
PASSED_ON = ("PATH", "HOME", "LANG")
"""What every server has of our environment, beside what `environment` names."""


class Server:
    """One server of the configuration."""

    def __init__(
        self,
        name: str,
        config: McpServer,
        pins: Mapping[str, Pin],
        folder: Path | None = None,
        heard: Callable[[str, str], None] | None = None,
    ) -> None:
        """`heard` gets the server's name and each line of its standard error."""
        self.name, self.config, self.pins = name, config, dict(pins)
        self._folder, self._heard = folder, heard
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[tuple[ClientSession, Pipe]] | None = None
        self._stop = asyncio.Event()
        self._starting = asyncio.Lock()
        self._patience: asyncio.Timeout | None = None
        """Of a server that is starting."""
        self._checking = asyncio.Lock()
        self._changed: dict[str, str] = {}
        self._news = 0
        """How often a server has said that its tools have changed."""
        self._known = -1
        """How often it had when they were last held against their pins; -1 where they were not since it started."""

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> CallToolResult:
        """What a tool answered.

        Raises `ToolFault`: T010 without the package, T011 where the server cannot be started, T012 for a tool that is not what was pinned,
        T014 where the server ended, T015 where it said too much, T016 where it answered what nobody understands, T017 where it was late,
        T018 where it refused the call.
        """
        session, pipe = await self._session()
        pipe.junk = pipe.messages = pipe.lines = 0
        try:
            async with asyncio.timeout(self.config.timeout):
                if self._known != self._news:
                    await self._look_again(session, pipe, tool)
                if (reason := self._changed.get(tool)) is not None:
                    raise ToolFault("T012", f"{self.name}.{tool} {reason}", f"orchestra tools pin {self.name}, if that is well")
                return await _asked(session, tool, arguments)
        except TimeoutError:
            await self._doubt(session)
            hint = f"raise `timeout` of [mcp.{self.name}], or look into the server"
            raise ToolFault("T017", f"{self.name}.{tool} gave no answer within {self.config.timeout:g} s", hint) from None
        except ToolFault:
            raise
        except (ValidationError, ValueError) as error:
            raise ToolFault("T016", f"{self.name}.{tool} answered what is no result: {_first(error)}", "mend the server") from None
        except _strange() as error:
            raise await self._lost(tool, pipe, error) from None

    async def listed(self) -> dict[str, Pin | InputError]:
        """All tools of the server as they are today; for one whose types cannot be used, why. Raises `ToolFault` as `call` does."""
        session, pipe = await self._session()
        try:
            async with asyncio.timeout(self.config.timeout):
                return await _listed(session)
        except TimeoutError:
            raise ToolFault(
                "T017", f"{self.name} did not list its tools within {self.config.timeout:g} s", "look into the server"
            ) from None
        except _strange() as error:
            raise await self._lost("tools/list", pipe, error) from None

    async def close(self) -> None:
        """Ends the server, where it runs."""
        self._stop.set()
        if self._patience is not None:
            self._patience.reschedule(asyncio.get_running_loop().time())
        if self._task is not None:
            await asyncio.wait([self._task])

    # Its life

    async def _session(self) -> tuple[ClientSession, Pipe]:
        """The session of the running server, which is started where it is not running; who waits for one start shares what it comes to."""
        async with self._starting:
            ready = await self._begun()
        return await asyncio.shield(ready)

    async def _begun(self) -> asyncio.Future[tuple[ClientSession, Pipe]]:
        if self._task is not None and not self._task.done() and self._over:
            await asyncio.wait([self._task])  # one that is ending takes no more calls
        if self._task is None or self._task.done() or self._ready is None:
            if find_spec("mcp") is None:
                raise ToolFault(
                    "T010", f"{self.name} is an MCP server, and the package mcp is not there", "pip install 'orchestra-slm[mcp]'"
                )
            self._stop = asyncio.Event()
            self._ready = asyncio.get_running_loop().create_future()
            self._ready.add_done_callback(_noticed)
            self._task = asyncio.create_task(self._live(self._ready, self._stop))
        return self._ready

    @property
    def _over(self) -> bool:
        """Whether the server is about to end, or has ended by itself."""
        ready = self._ready
        began = ready is not None and ready.done() and not ready.cancelled() and ready.exception() is None
        return self._stop.is_set() or (ready is not None and began and ready.result()[1].closed.is_set())

    async def _live(self, ready: asyncio.Future[tuple[ClientSession, Pipe]], stop: asyncio.Event) -> None:
        from mcp import ClientSession

        from orchestra.agents.mcp.stdio_transport import connected

        fault = ToolFault("T011", f"the MCP server {self.name} did not start", f"run it by hand: {' '.join(self.config.command)}")
        try:
            async with (
                connected(self._launch(), self._said) as pipe,
                ClientSession(pipe.read, pipe.write, message_handler=self._told) as session,
            ):
                try:
                    async with self._in_time(stop):
                        await session.initialize()
                        self._known = -1
                        await self._check(session)
                except TimeoutError:
                    late = "was closed before it was ready" if stop.is_set() else f"was not ready within {START:g} s"
                    fault.reason = f"the MCP server {self.name} {late}"
                except _strange() as error:
                    await asyncio.wait([asyncio.ensure_future(pipe.closed.wait())], timeout=0.5)
                    why = pipe.flooded or (pipe.status if pipe.closed.is_set() else _first(error))
                    fault.reason = f"the MCP server {self.name} did not begin to speak MCP: {why}"
                else:
                    ready.set_result((session, pipe))
                    waiting = [asyncio.ensure_future(event.wait()) for event in (stop, pipe.closed)]
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    for one in waiting:
                        one.cancel()
        except (OSError, ExceptionGroup, RuntimeError, InputError) as error:
            fault.reason = f"the MCP server {self.name} cannot be run: {_first(error)}"
        finally:
            if not ready.done():
                ready.set_exception(fault)

    @asynccontextmanager
    async def _in_time(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """The time in which a server must be ready: it is over at once for one that is closed meanwhile."""
        async with asyncio.timeout(0 if stop.is_set() else START) as self._patience:
            try:
                yield
            finally:
                self._patience = None

    def _launch(self) -> Any:
        from orchestra.agents.mcp.stdio_transport import Launch

        program, *arguments = self.config.command
        found = self._found(program)
        if found is None:
            raise InputError("T011", f"there is no program {program!r}", hint=f"command = [...] of [mcp.{self.name}]")
        names = (*PASSED_ON, *self.config.environment)
        environment = {name: os.environ[name] for name in names if name in os.environ}
        return Launch((found, *arguments), environment, str(self._folder) if self._folder else None)

    def _found(self, program: str) -> str | None:
        """The program's absolute path, wherever one stands: a path from the project's folder, a name from the absolute folders of PATH."""
        if os.path.dirname(program):
            return shutil.which(str((self._folder or Path()).absolute() / program))
        return shutil.which(program, path=os.pathsep.join(folder for folder in os.get_exec_path() if os.path.isabs(folder)))

    async def _check(self, session: ClientSession) -> None:
        """Holds the server's tools against their pins, unless another call has done so. Until it has succeeded nothing is called."""
        async with self._checking:
            if self._known != (news := self._news):
                self._changed = self._differences(await _listed(session) if self.pins else {})
                self._known = news

    async def _look_again(self, session: ClientSession, pipe: Pipe, tool: str) -> None:
        """Holds the tools against their pins once more, for the server says that they have changed. Raises `ToolFault`."""
        try:
            await self._check(session)
        except _strange() as error:
            lost = await self._lost(tool, pipe, error)
            if lost.code == "T018":
                said = f"{self.name}.{tool} was not called: the server says that its tools have changed, and did not list them"
                lost = ToolFault("T018", f"{said}: {_first(error)}", f"look into the server: orchestra tools list {self.name}")
            raise lost from None

    def _differences(self, found: Mapping[str, Pin | InputError]) -> dict[str, str]:
        """By tool: in what it is not what was pinned."""
        changed: dict[str, str] = {}
        for name, pin in self.pins.items():
            today = found.get(name)
            if today is None:
                changed[name] = "is not among the server's tools any more"
            elif isinstance(today, InputError):
                changed[name] = f"is not what was pinned: {today.message}"
            elif today.digest != pin.digest:
                parts = [part for part in ("description", "input", "output") if getattr(today, part) != getattr(pin, part)]
                changed[name] = f"is not what was pinned: it has another {' and another '.join(parts)}"
        return changed

    async def _told(self, message: IncomingMessage) -> None:
        """A server that says that its tools have changed is held against their pins again before the next call."""
        from mcp_types import ToolListChangedNotification

        if isinstance(message, ToolListChangedNotification):
            self._news += 1

    def _said(self, line: str) -> None:
        if self._heard is not None:
            self._heard(self.name, line)

    # What goes wrong

    async def _doubt(self, session: ClientSession) -> None:
        """Ends a server that does not even answer a ping."""
        try:
            async with asyncio.timeout(DOUBT):
                await session.send_ping()
        except _strange():
            self._stop.set()

    async def _lost(self, tool: str, pipe: Pipe, error: Exception) -> ToolFault:
        """What is said of a call whose answer is an error, or will not come."""
        if not pipe.closed.is_set():
            with_closing = asyncio.ensure_future(pipe.closed.wait())
            await asyncio.wait([with_closing], timeout=0.05)
            with_closing.cancel()
        if pipe.flooded:
            return ToolFault("T015", f"{self.name}.{tool}: {pipe.flooded}; the server was ended", "ask it for less, or mend it")
        if pipe.closed.is_set():
            if self._task is not None:
                await asyncio.wait([self._task], timeout=5)
            return ToolFault("T014", f"the MCP server {self.name} ended in the middle of {tool}: {pipe.status}", "look into the server")
        return ToolFault("T018", f"{self.name}.{tool} refused the call: {_first(error)}", "compare with `orchestra tools list`")


async def _asked(session: ClientSession, tool: str, arguments: Mapping[str, Any]) -> CallToolResult:
    """The answer as it came. Not by `ClientSession.call_tool`, which checks it with patterns that a server has chosen."""
    from mcp_types import CallToolRequest, CallToolRequestParams, CallToolResult

    return await session.send_request(CallToolRequest(params=CallToolRequestParams(name=tool, arguments=dict(arguments))), CallToolResult)


async def _listed(session: ClientSession) -> dict[str, Pin | InputError]:
    from mcp_types import PaginatedRequestParams

    found: dict[str, Pin | InputError] = {}
    cursor: str | None = None
    for _ in range(MAX_TOOLS):
        page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor) if cursor else None)
        for tool in page.tools:
            try:
                found[tool.name] = Pin.of(tool.name, tool.description or "", tool.input_schema, tool.output_schema)
            except InputError as error:
                found[tool.name] = error
        cursor = page.next_cursor
        if not cursor or len(found) > MAX_TOOLS:
            break
    return found


def _strange() -> tuple[type[Exception], ...]:
    """What the SDK raises where a server does not do as it should."""
    import anyio
    from mcp.shared.exceptions import MCPError

    closed = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream)
    return (MCPError, *closed, TimeoutError, RuntimeError, ValueError, ExceptionGroup)


def _noticed(ready: asyncio.Future[Any]) -> None:
    """Looks at how a start ended, for it may be that nobody waits for it any more."""
    if not ready.cancelled():
        ready.exception()


def _first(error: BaseException) -> str:
    """What a stranger's error says, in one line."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    said = error.message if isinstance(error, InputError) else told(error)
    line = next((line.strip() for line in said.splitlines() if line.strip()), type(error).__name__)
    return keepable(visible(line, keep=""), 300)
