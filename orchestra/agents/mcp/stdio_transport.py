"""The transport to an MCP server: a child process that exchanges JSON-RPC, one message a line, on its standard streams.

The SDK's transport keeps lines of any length in memory, passes on the whole environment, and leaves the child running
if this process is killed. So the SDK provides the session and this module the transport: length and number of lines are
limited, the environment is a list of names, and the child leads a process group that ends with this process.
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
"""Maximum size of a message, in bytes."""
MAX_INVALID_LINES = 1_000
"""Maximum number of lines that are not messages, such as log output, before the server is stopped."""
MAX_MESSAGES = 100_000
"""Maximum number of messages between two calls before the server is stopped."""
SHUTDOWN_TIMEOUT = 2.0
"""Seconds that a server has to exit after its input is closed."""
MAX_LOGGED_CHARACTERS = 500
"""Maximum characters of a line of standard error that are logged."""
MAX_LOGGED_LINES = 1_000
"""Maximum lines of standard error that are logged between two calls. Further lines are dropped."""


@dataclass(frozen=True, slots=True)
class McpLaunchSpec:
    """How to start a server: an absolute program with arguments, the complete environment, and the folder."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: str | None = None


@dataclass(slots=True)
class StdioConnection:
    """A running server: the streams of the SDK's session and the state of the process."""

    process: asyncio.subprocess.Process
    read: MemoryObjectReceiveStream[SessionMessage | Exception]
    write: MemoryObjectSendStream[SessionMessage]
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there will be no more output."""
    limit_error: str = ""
    """The exceeded limit, if the server was stopped for one."""
    last_stderr_line: str = ""
    """The last line of standard error."""
    invalid_lines: int = 0
    messages: int = 0
    stderr_lines: int = 0
    """Counts since the last call began: lines that are not messages, messages, and lines of standard error."""

    @property
    def exit_status(self) -> str:
        """Describes how the process ended."""
        code = self.process.returncode
        end_text = (
            "it closed its output"
            if code is None
            else f"it was ended by signal {-code}"
            if code < 0
            else f"it ended with status {code}"
        )
        return f"{end_text}: {self.last_stderr_line}" if self.last_stderr_line else end_text


@asynccontextmanager
async def connect(launch: McpLaunchSpec, on_stderr: Callable[[str], None]) -> AsyncIterator[StdioConnection]:
    """Starts a server; leaving the context stops its whole process group.

    Args:
        on_stderr: Called with each line of standard error.

    Raises:
        OSError: If the server cannot be started.
    """
    guard_command = (sys.executable, "-I", str(GUARD_SCRIPT), str(os.getpid()), *launch.command)
    process = await asyncio.create_subprocess_exec(
        *guard_command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(launch.environment),
        cwd=launch.folder,
        start_new_session=True,
        limit=MAX_LINE,
    )
    send_stream, receive_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, outgoing_stream = anyio.create_memory_object_stream[SessionMessage](0)
    pipe = StdioConnection(process, receive_stream, write)
    tasks = [
        asyncio.create_task(work)
        for work in (_receive(pipe, send_stream), _send(pipe, outgoing_stream), _read_stderr(pipe, on_stderr))
    ]
    try:
        yield pipe
    finally:
        await _shut_down(pipe, tasks)
        for stream in (send_stream, receive_stream, write, outgoing_stream):
            stream.close()


async def _receive(pipe: StdioConnection, incoming: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
    """Passes on the messages of the server. Stops it if it exceeds a limit."""
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
                        f"it wrote {MAX_INVALID_LINES:,} lines that are not messages"
                        if pipe.invalid_lines >= MAX_INVALID_LINES
                        else ""
                    )
                    await asyncio.sleep(0)
                    continue
                pipe.messages += 1
                pipe.limit_error = (
                    f"it sent {MAX_MESSAGES:,} unsolicited messages" if pipe.messages >= MAX_MESSAGES else ""
                )
                await incoming.send(SessionMessage(message))
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
        pass  # the session has ended
    finally:
        if pipe.limit_error:
            kill_group(pipe.process.pid)
        pipe.closed.set()


async def _wait_for_exit(pipe: StdioConnection) -> None:
    """Waits briefly for the exit of a server that has closed its output, so that its exit status is known."""
    for _ in range(100):
        if pipe.process.returncode is not None:
            return
        await asyncio.sleep(0.01)


async def _send(pipe: StdioConnection, outgoing: MemoryObjectReceiveStream[SessionMessage]) -> None:
    stdin = pipe.process.stdin
    assert stdin is not None, "it was started with pipes"
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
        async for session_message in outgoing:
            stdin.write(session_message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await stdin.drain()


async def _read_stderr(pipe: StdioConnection, on_stderr: Callable[[str], None]) -> None:
    """Reads standard error to its end, so that the server does not block on a full pipe."""
    stderr = pipe.process.stderr
    assert stderr is not None, "it was started with pipes"
    rest = b""
    while chunk := await stderr.read(1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[:MAX_LOGGED_CHARACTERS]
        for line in filter(None, (stderr_line.strip() for stderr_line in lines)):
            pipe.last_stderr_line = escape_invisible(line.decode("utf-8", "replace")[:MAX_LOGGED_CHARACTERS], keep="")
            pipe.stderr_lines += 1
            if pipe.stderr_lines <= MAX_LOGGED_LINES:
                on_stderr(pipe.last_stderr_line)


async def _shut_down(pipe: StdioConnection, tasks: Sequence[asyncio.Task[None]]) -> None:
    """Closes the server's input, waits, and kills the rest of its process group, even on cancellation."""
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
    """Waits for a killed process only. A child in a session of its own may keep the output open, and asyncio's own
    `wait` waits for the pipes to close.
    """
    process._transport.close()  # type: ignore[attr-defined] # the only way to close our ends of its pipes
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), SHUTDOWN_TIMEOUT)
