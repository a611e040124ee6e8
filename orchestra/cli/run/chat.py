"""`orchestra chat`: a conversation at the terminal, or over the lines of standard input."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from orchestra.app.orchestra import Orchestra
from orchestra.app.planning import PlanOptions, recorded_request
from orchestra.app.threads import StartedTurn, Thread, Turn
from orchestra.cli.context import Opener, open_orchestra
from orchestra.cli.output import StatusLine, is_interactive, print_note, print_text
from orchestra.cli.run.plan import AskRequest, RequestValues, ignore_event, read_values, show_request_end
from orchestra.cli.run.watch import COMMAND_LINE_AUTHOR, DisplayOptions, RunWatcher
from orchestra.cli.signals import StopSignal
from orchestra.cli.typer_adapter import format_error
from orchestra.core.errors import OrchestraError
from orchestra.core.events import RunStarted
from orchestra.core.settings import Settings
from orchestra.core.tags import Tags
from orchestra.core.untrusted_text import escape_invisible, shorten
from orchestra.documents.index import FolderIndex
from orchestra.router.follow_ups import MAX_TURNS, Resolution
from orchestra.workflows.model import Budget

T = TypeVar("T")

HELP = """/history   the turns so far
/new [ID]  another thread
/delete    delete this thread with its runs, and start another one
/quit      leave; so does Ctrl-D. Ctrl-C cancels the present turn only"""
PROMPT = "> "
MAX_SHOWN = 200
"""Characters of a request or an answer in the history."""


@dataclass(frozen=True)
class ChatRequest:
    """The options of a conversation."""

    options: PlanOptions
    thread: str = ""
    documents: Sequence[Path] = ()
    inputs: Sequence[str] = ()
    budget: Budget | None = None
    tags: Tags = field(default_factory=dict)


async def chat(
    open_: Opener, settings: Settings, request: ChatRequest, display: DisplayOptions, stop: StopSignal
) -> int:
    """Answers requests line by line until the end of input. Returns the exit code: that of the last turn if standard
    input is no terminal, else 0.
    """
    status_line = StatusLine()
    async with open_orchestra(open_, settings, status_line) as orchestra:
        conversation = Conversation(orchestra, settings, request, display, status_line)
        return await conversation.talk(stop)


class LineReader:
    """Reads lines of standard input. A cancelled read loses nothing."""

    def __init__(self) -> None:
        self._buffer, self._ended = b"", False

    async def read(self) -> str | None:
        """Returns the next line without its end; None at the end of input."""
        descriptor = _pollable_input()
        if descriptor is None:  # a file, which never blocks
            line = sys.stdin.readline()
            return line.rstrip("\r\n") if line else None
        while b"\n" not in self._buffer and not self._ended:
            piece = await _read_piece(descriptor)
            self._buffer += piece
            self._ended = not piece
        line, end, self._buffer = self._buffer.partition(b"\n")
        return line.decode("utf-8", "replace").rstrip("\r") if line or end else None


def _pollable_input() -> int | None:
    """The descriptor of standard input if the event loop can wait for it: of a terminal, a pipe or a socket."""
    try:
        descriptor = sys.stdin.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError):
        return None
    pollable = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
    return descriptor if pollable else None


async def _read_piece(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bytes] = loop.create_future()

    def read_input() -> None:
        if not future.done():
            future.set_result(os.read(descriptor, 1 << 16))

    loop.add_reader(descriptor, read_input)
    try:
        return await future
    finally:
        loop.remove_reader(descriptor)


class ChatValues:
    """The values of a conversation. Files are read again only if they have changed."""

    def __init__(self, documents: Sequence[Path], inputs: Sequence[str]) -> None:
        self._documents, self._inputs = documents, inputs
        self._known: tuple[object, RequestValues] | None = None

    def read(self, request: str) -> RequestValues:
        """Returns the values for a request. Raises as `read_values`."""
        state = self._state()
        if self._known is None or state is None or self._known[0] != state:
            self._known = (state, read_values(self._documents, self._inputs, request))
        return self._known[1]

    def _state(self) -> object:
        """The files with their sizes and times; None if an index chooses passages for each request."""
        if any(path.is_dir() and FolderIndex(path).exists for path in self._documents):
            return None
        files = [file for path in self._documents for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
        file_states = [(str(file), file.stat()) for file in files if file.is_file()]
        return tuple((name, file_state.st_mtime_ns, file_state.st_size) for name, file_state in file_states)


class Conversation:
    """The turns of one or several threads at a terminal."""

    def __init__(
        self,
        orchestra: Orchestra,
        settings: Settings,
        request: ChatRequest,
        display: DisplayOptions,
        status_line: StatusLine,
    ) -> None:
        self._orchestra, self._settings, self._request, self._status_line = orchestra, settings, request, status_line
        self._display = replace(display, on_event=ignore_event)
        self._values = ChatValues(request.documents, request.inputs)
        self._lines = LineReader()
        self._choices: tuple[str, tuple[str, ...]] = ("", ())
        """A follow-up with several readings, which the next line may choose by number."""
        self._thread = self._open(request.thread)

    def _open(self, id: str) -> Thread:
        """A thread of this id; a new one without an id."""
        orchestra = self._orchestra.options(tags=self._request.tags, live=self._display.live)
        thread_id = id or secrets.token_hex(4)
        return orchestra.thread(thread_id, budget=self._request.budget, options=self._request.options)

    async def talk(self, stop: StopSignal) -> int:
        """Answers lines until the end of input."""
        code = 0
        print_note(f"thread {self._thread.id}; /help lists the commands")
        await self._cancellable(self._continue_last, stop)
        while True:
            if is_interactive():
                sys.stderr.write(PROMPT)
                sys.stderr.flush()
            line = await self._cancellable(self._read, stop)
            if line is None:
                continue
            if not line or line.strip() == "/quit":
                break
            exit_code = await self._cancellable(partial(self._answer, line.strip()), stop)
            code = 130 if exit_code is None else exit_code
        print_note(f"continue with: orchestra chat --thread {self._thread.id}")
        return 0 if is_interactive() else code

    async def _read(self, stop: StopSignal) -> str:
        """The next line with its end; empty at the end of input."""
        try:
            line = await self._lines.read()
        except asyncio.CancelledError:
            if not is_interactive():
                stop.terminating = True
            print_note("\n/quit or Ctrl-D leaves")
            raise
        return "" if line is None else f"{line}\n"

    async def _cancellable(self, work: Callable[[StopSignal], Coroutine[Any, Any, T]], outer: StopSignal) -> T | None:
        """Awaits a part of the conversation. Ctrl-C cancels this part only, and returns None; SIGTERM ends all."""
        stop = StopSignal()
        task = asyncio.create_task(work(stop))
        with stop.handle_signals(task):
            try:
                return await task
            except asyncio.CancelledError:
                if stop.requested and not stop.terminating:
                    return None
                outer.terminating = outer.terminating or stop.terminating
                task.cancel()
                raise

    async def _answer(self, line: str, stop: StopSignal) -> int:
        """Carries out a command or answers a request. An error ends the turn and not the conversation."""
        if not line:
            return 0
        try:
            if line.startswith("/"):
                return await self._command(line)
            return await self._turn(line, stop)
        except OrchestraError as error:
            print_note(format_error(error))
            return error.exit_code

    async def _command(self, line: str) -> int:
        word, _, rest = line.partition(" ")
        match word:
            case "/history":
                self._show_history(await self._thread.turns())
            case "/new":
                self._thread, self._choices = self._open(rest.strip()), ("", ())
                print_note(f"thread {self._thread.id}")
            case "/delete":
                count = await self._thread.delete()
                self._thread, self._choices = self._open(""), ("", ())
                print_note(f"deleted {count} turns; thread {self._thread.id}")
            case "/help":
                print_text(HELP)
            case _:
                print_note(f"{word} is no command\n{HELP}")
                return 2
        return 0

    def _show_history(self, turns: Sequence[Turn]) -> None:
        for turn in turns:
            print_text(escape_invisible(f"{turn.number}  {shorten(turn.text, MAX_SHOWN)}"), style="bold")
            if turn.request != turn.text:
                print_text(escape_invisible(f"   understood as: {shorten(turn.request, MAX_SHOWN)}"))
            answer = " ".join(turn.answer.split())
            print_text(escape_invisible(f"   {shorten(answer, MAX_SHOWN) if answer else turn.status}"))
            print_text(f"   orchestra runs show {turn.run}", style="dim")

    async def _turn(self, line: str, stop: StopSignal) -> int:
        text, resolution = self._choose(line)
        values = self._values.read(text)
        if resolution is None:
            resolution = await self._thread.resolve(text, values.values)
            if resolution.request != text:
                values = self._values.read(resolution.request)
        if not self._report(text, resolution):
            return 3
        request = AskRequest(
            resolution.request, values.values, self._request.options, self._request.budget, unread=values.unread
        )
        turn = await self._thread.start(text, values.values, resolution)
        assert isinstance(turn, StartedTurn)  # a resolution that can run
        return await self._follow(request, turn, stop)

    def _choose(self, line: str) -> tuple[str, Resolution | None]:
        """The follow-up and the reading that a number chooses; else the line itself."""
        text, options = self._choices
        self._choices = ("", ())
        if options and line.isdigit() and 1 <= int(line) <= len(options):
            return text, Resolution("resolved", options[int(line) - 1])
        return line, None

    def _report(self, text: str, resolution: Resolution) -> bool:
        """Shows what a follow-up means; whether it is to be run."""
        match resolution.status:
            case "resolved":
                print_note(f"Understood as: {resolution.request}")
            case "ambiguous":
                self._choices = (text, resolution.options)
                print_note(f"Not clear: {resolution.reason}. Which one is meant?")
                for number, option in enumerate(resolution.options, 1):
                    print_note(f"  {number}  {option}")
            case "unresolved" if resolution.can_run:
                print_note(f"Asked as it is: {resolution.reason}")
            case "unresolved":
                print_note(f"Not asked: {resolution.reason}. Write the full request.")
            case _:
                pass
        return resolution.can_run

    async def _follow(self, request: AskRequest, started_turn: StartedTurn, stop: StopSignal) -> int:
        display = self._display
        watcher = RunWatcher(self._orchestra, started_turn.run, stop, self._status_line, display)
        run_end = await watcher.wait_for_end()
        return await show_request_end(
            self._orchestra, self._settings, request, started_turn.step, run_end, display, with_nodes=False
        )

    async def _continue_last(self, stop: StopSignal) -> int:
        """Continues a turn that was interrupted, such as by a crash."""
        turns = await self._thread.turns(MAX_TURNS)
        if not turns or turns[-1].status not in ("interrupted", "waiting"):
            return 0
        last = turns[-1]
        print_note(f"continues the last turn: {last.request}")
        first = (await self._orchestra.journal.read(last.run))[0]
        step = await recorded_request(self._orchestra, first) if isinstance(first, RunStarted) else None
        if step is None:
            return 0
        run = await self._orchestra.resume(last.run, by=COMMAND_LINE_AUTHOR)
        request = AskRequest(last.request, {}, self._request.options)
        return await self._follow(request, StartedTurn(last, step, run), stop)
