"""The pipe to an MCP server: a child process that speaks JSON-RPC, a message a line, on its standard streams.

The SDK has a transport of this kind; it keeps a line in memory however long it is, hands on the caller's whole shell
environment, and leaves the child alive where this process is killed. So the session is the SDK's, and what carries its
messages is ours: lines and their number are bounded, the environment is a list of names, and the child leads a process
group that dies with us.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from orchestra.core.child_process import GUARD_SCRIPT, kill_group
from orchestra.core.untrusted_text import escape_invisible

MAX_LINE = 4 << 20
"""Bytes of a message at most."""
MAX_INVALID_LINES = 1_000
"""Lines that are no message, such as what a server prints for people, after which it is given up."""
MAX_MESSAGES = 100_000
"""Messages between two calls, after which a server is given up."""
SHUTDOWN_TIMEOUT = 2.0
"""Seconds that a server has to end once its input is closed."""
MAX_LOGGED_CHARACTERS = 500
"""Characters of a line of its standard error that are logged."""
MAX_LOGGED_LINES = 1_000
"""Lines of its standard error that are logged between two calls; the rest is read and dropped."""


@dataclass(frozen=True, slots=True)
class McpLaunchSpec:
    """How a server is started: an absolute program with its arguments, all of its environment, and its folder."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: str | None = None


@dataclass(slots=True)
class StdioConnection:
    """A running server: what the SDK's session reads and writes, and how it went."""

    process: asyncio.subprocess.Process
    read: MemoryObjectReceiveStream[SessionMessage | Exception]
    write: MemoryObjectSendStream[SessionMessage]
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once nothing more will come from it."""
    limit_error: str = ""
    """Why it was given up, where it said too much."""
    last_stderr_line: str = ""
    """The last line of its standard error."""
    invalid_lines: int = 0
    messages: int = 0
    stderr_lines: int = 0
    """Lines that were no message, messages, and lines of standard error, since the last call began."""

    @property
    def exit_status(self) -> str:
        """How it ended, in words."""
        code = self.process.returncode
        ended = (
            "it closed its output"
            if code is None
            else f"it was ended by signal {-code}"
            if code < 0
            else f"it ended with status {code}"
        )
        return f"{ended}: {self.last_stderr_line}" if self.last_stderr_line else ended


@asynccontextmanager
async def connect(launch: McpLaunchSpec, on_stderr: Callable[[str], None]) -> AsyncIterator[StdioConnection]:
    """A running server; leaving the context ends the whole process group. `on_stderr` is called with each line of its
    standard error.

    Raises `OSError` where it cannot be started.
    """
    guarded = (sys.executable, "-I", str(GUARD_SCRIPT), str(os.getpid()), *launch.command)
    process = await asyncio.create_subprocess_exec(
        *guarded,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(launch.environment),
        cwd=launch.folder,
        start_new_session=True,
        limit=MAX_LINE,
    )
    coming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, going = anyio.create_memory_object_stream[SessionMessage](0)
    pipe = StdioConnection(process, read, write)
    tasks = [
        asyncio.create_task(work)
        for work in (_receive(pipe, coming), _send(pipe, going), _read_stderr(pipe, on_stderr))
    ]
    try:
        yield pipe
    finally:
        await _shut_down(pipe, tasks)
        for stream in (coming, read, write, going):
            stream.close()


async def _receive(pipe: StdioConnection, incoming: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
    """Hands on what the server says, and ends it where it says too much."""
    stdout = pipe.process.stdout
    assert stdout is not None, "it was started with pipes"
    try:
        with incoming:
            while not pipe.limit_error:
                try:
                    line = await stdout.readuntil(b"\n")
                except asyncio.IncompleteReadError:
                    await _wait_for_exit(pipe)
                    return
                except asyncio.LimitOverrunError:
                    pipe.limit_error = f"it wrote a line of more than {MAX_LINE >> 20} MiB"
                    return
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    pipe.invalid_lines += bool(line.strip())
                    pipe.limit_error = (
                        f"it wrote {MAX_INVALID_LINES:,} lines that are no message"
                        if pipe.invalid_lines >= MAX_INVALID_LINES
                        else ""
                    )
                    await asyncio.sleep(0)
                    continue
                pipe.messages += 1
                pipe.limit_error = (
                    f"it sent {MAX_MESSAGES:,} messages that nobody asked for" if pipe.messages >= MAX_MESSAGES else ""
                )
                await incoming.send(SessionMessage(message))
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
        pass  # the session is gone
    finally:
        if pipe.limit_error:
            kill_group(pipe.process.pid)
        pipe.closed.set()


async def _wait_for_exit(pipe: StdioConnection) -> None:
    """Waits a moment for the end of a server that has closed its output, so that it can be told how it ended."""
    for _ in range(100):
        if pipe.process.returncode is not None:
            return
        await asyncio.sleep(0.01)


async def _send(pipe: StdioConnection, outgoing: MemoryObjectReceiveStream[SessionMessage]) -> None:
    stdin = pipe.process.stdin
    assert stdin is not None, "it was started with pipes"
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
        async for said in outgoing:
            stdin.write(said.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await stdin.drain()


async def _read_stderr(pipe: StdioConnection, on_stderr: Callable[[str], None]) -> None:
    """Reads standard error to its end, so that nobody waits for room in it."""
    stderr = pipe.process.stderr
    assert stderr is not None, "it was started with pipes"
    rest = b""
    while chunk := await stderr.read(1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[:MAX_LOGGED_CHARACTERS]
        for line in filter(None, (one.strip() for one in lines)):
            pipe.last_stderr_line = escape_invisible(line.decode("utf-8", "replace")[:MAX_LOGGED_CHARACTERS], keep="")
            pipe.stderr_lines += 1
            if pipe.stderr_lines <= MAX_LOGGED_LINES:
                on_stderr(pipe.last_stderr_line)


async def _shut_down(pipe: StdioConnection, tasks: Sequence[asyncio.Task[None]]) -> None:
    """Closes the server's input, waits, and kills what is left of its group; whatever happens meanwhile."""
    process = pipe.process
    if process.stdin is not None:
        process.stdin.close()
    try:
        if process.returncode is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(pipe.closed.wait()), SHUTDOWN_TIMEOUT)
    finally:
        kill_group(process.pid)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _reap(process)


async def _reap(process: asyncio.subprocess.Process) -> None:
    """Waits for a process that was killed, and for no more than it: a helper in a session of its own may keep its
    output
    open for ever, and asyncio's own `wait` ends with the pipes.
    """
    process._transport.close()  # type: ignore[attr-defined] # the only way to close our ends of its pipes
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), SHUTDOWN_TIMEOUT)
