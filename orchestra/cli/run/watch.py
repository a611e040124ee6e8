"""Follows a run: shows its progress and model output, asks its questions, and shows the end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, TypeAlias

from orchestra.app.orchestra import Orchestra
from orchestra.app.result import Result
from orchestra.app.run import Run
from orchestra.cli.output import StatusLine, is_interactive, json_line, print_json, print_note, print_text
from orchestra.cli.run import questions as questions_module
from orchestra.cli.run.result_view import result_data, show_result
from orchestra.cli.signals import StopSignal
from orchestra.cli.typer_adapter import STATUS_CODES, format_error
from orchestra.core.error_codes import ALREADY_CALLED, TOOL_RAISED
from orchestra.core.errors import InputError
from orchestra.core.events import (
    NO_OPEN_QUESTION,
    AttemptFinished,
    Event,
    InboxMessageRejected,
    NodeFinished,
    QuestionAsked,
    RunFinished,
    TurnStarted,
    encode,
)
from orchestra.core.outcomes import FailedOutcome
from orchestra.core.untrusted_text import escape_invisible
from orchestra.engine.streaming import TextPiece, is_within
from orchestra.journal.history import History

COMMAND_LINE_AUTHOR = "the command line"
NOTICE_DELAY = 0.5
"""Seconds before an open question is printed without a terminal, while the run continues elsewhere."""


@dataclass(frozen=True, slots=True)
class DisplayOptions:
    """How a run is shown."""

    as_json: bool = False
    stream: bool = False
    live: bool = False
    """Shows model output while it is generated."""
    on_event: Callable[[Event], None] | None = None
    """Receives each event instead of the default progress line."""
    display_name: Callable[[str], str] = str
    """Maps a node to its displayed name; an empty name hides its text."""

    @classmethod
    def from_flags(cls, *, as_json: bool, stream: bool, live: bool) -> DisplayOptions:
        """Checks and combines the flags. Raises `InputError` C010 for conflicting flags."""
        if live and (as_json or stream):
            hint = "use one of them; programs read the text with `run.text()` in Python"
            raise InputError(
                "C010", f"--live is for people, and --{'json' if as_json else 'stream'} for programs", hint=hint
            )
        return cls(as_json, stream, live)


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The state of a run at its end, or when it waits for a person."""

    run: str
    result: Result[Any] | None
    events: list[Event]
    certificates: Mapping[str, Any]
    """The certificates behind its guarantees, by node."""

    @property
    def status(self) -> str:
        """The status of the result, or `waiting`."""
        return "waiting" if self.result is None else self.result.status

    @property
    def exit_code(self) -> int:
        """The exit code. It is not 0 if a fork skipped a call that may have been made before, even if the run
        succeeded.
        """
        return STATUS_CODES[self.status] or int(bool(self.refused_calls))

    @property
    def refused_calls(self) -> list[AttemptFinished]:
        """The calls with effects that a fork did not repeat."""
        return [event for event in self.events if isinstance(event, AttemptFinished) and event.error == ALREADY_CALLED]

    @property
    def defects(self) -> dict[str, str]:
        """The nodes in which a tool raised, with the exception, if another plan or a fallback has hidden it."""
        if self.result is not None and self.result.error is not None and self.result.error.code == TOOL_RAISED:
            return {}
        failures = [
            (event.node, outcome)
            for event in self.events
            if isinstance(event, NodeFinished)
            for outcome in (event.original_outcome or event.outcome,)
            if isinstance(outcome, FailedOutcome) and outcome.code == TOOL_RAISED
        ]
        return {node: outcome.reason for node, outcome in failures if outcome.origin in ("", node)}

    def show(
        self, display: DisplayOptions, more: Mapping[str, Any] | None = None, nodes: Callable[[], None] | None = None
    ) -> None:
        """Prints the end. `more` are further JSON keys; `nodes` replaces the default table of nodes."""
        self._print(display, more, nodes)
        self._report_refused_calls()
        self._report_defects(display)

    def show_answer(
        self, display: DisplayOptions, more: Mapping[str, Any], nodes: Callable[[], None], request: str
    ) -> None:
        """Prints the end of a request: its answer in sentences."""
        from orchestra.cli.run.answer_text import answer_text, is_reply

        if display.as_json or self.result is None:
            self._print(display, more, nodes)
        else:
            format_answer = partial(answer_text, request=request)
            show_result(self.result, self.events, nodes, format_answer, claims=not is_reply(self.result.value))
        self._report_refused_calls()
        self._report_defects(display)

    def _report_refused_calls(self) -> None:
        for event in self.refused_calls:  # a fallback may hide it, and the output then rests on the fallback
            # The hint repeats the fork, which has the intended inputs and workflow.
            print_note(f"{event.node}: {ALREADY_CALLED} {event.reason}; {event.hint.replace(' RUN ', f' {self.run} ')}")

    def _report_defects(self, display: DisplayOptions) -> None:
        if display.as_json:
            return  # they are in the JSON
        for node, reason in self.defects.items():
            print_note(
                escape_invisible(
                    f"{TOOL_RAISED}: a defect in a tool: {reason}; this output was made without it\n"
                    f"  its traceback: orchestra runs show {self.run} {node}"
                )
            )

    def _print(
        self, display: DisplayOptions, extra: Mapping[str, Any] | None, nodes: Callable[[], None] | None
    ) -> None:
        questions = [] if self.result is not None else History.of(self.events).open_questions
        if display.as_json:
            data: dict[str, Any] = {"run": self.run, "status": "waiting", "output": None}
            if self.result is not None:
                data = {**result_data(self.result), "certificates": self.certificates}
            print_json(
                {
                    **data,
                    **({"asked": questions_module.question_data(self.run, questions)} if questions else {}),
                    **({"defects": self.defects} if self.defects else {}),
                    **(extra or {}),
                }
            )
        elif display.stream:
            if questions:
                print_note(f"waits for a person\n{questions_module.format_open_questions(self.run, questions)}")
        elif self.result is not None:
            show_result(self.result, self.events, nodes)
        else:
            print_text("waits for a person\n", style="bold")
            print_text(questions_module.format_open_questions(self.run, questions))
            print_text(f"\nmore: orchestra runs show {self.run}", style="dim")


def update_open_questions(questions: Mapping[str, QuestionAsked], event: Event) -> Mapping[str, QuestionAsked]:
    """Returns the open questions by node after an event. A question that the run does not have is not asked again,
    regardless of later events.
    """
    match event:
        case QuestionAsked(node=node):
            return {**questions, node: event}
        case InboxMessageRejected(node=node, reason=reason):
            return (
                {question: questions[question] for question in questions if question != node}
                if reason == NO_OPEN_QUESTION
                else questions
            )
        case _:
            return (
                {
                    open_question.node: open_question
                    for open_question in History.of([*questions.values(), event]).open_questions
                }
                if questions
                else questions
            )


class RunWatcher:
    """Follows one run. It asks questions at the terminal if there is one. An interruption cancels the run."""

    def __init__(
        self,
        orchestra: Orchestra,
        run: Run[Any],
        stop: StopSignal,
        status_line: StatusLine,
        display: DisplayOptions,
        after_seq: int = 0,
    ) -> None:
        self._orchestra, self._run, self._stop, self._status_line = orchestra, run, stop, status_line
        self._display, self._after_seq = display, after_seq
        self._events: list[Event] = []
        self._open_questions: Mapping[str, QuestionAsked] = {}
        self._changed = asyncio.Event()
        self._refused_answers: set[str] = set()
        self._live_text = LiveText(status_line, display.display_name)

    async def wait_for_end(self) -> RunEnd:
        """Returns the end of the run, or its state once it waits for an absent person. Raises errors of the engine or
        the journal.
        """
        self._stop.run = self._run.id
        is_terminal = is_interactive()
        reader = asyncio.create_task(self._read_events(), name="reader")
        talker = asyncio.create_task(
            self._ask_questions() if is_terminal else self._announce_questions(), name="questions"
        )
        writer = asyncio.create_task(self._read_text(), name="text")
        end: asyncio.Task[Result[Any] | None] = asyncio.create_task(self._wait_for_result(is_terminal), name="end")
        try:
            while not end.done():
                open_tasks: set[asyncio.Task[Any]] = {task for task in (reader, talker, writer) if not task.done()}
                await asyncio.wait({end, *open_tasks}, return_when=asyncio.FIRST_COMPLETED)
                for task in (reader, talker, writer):
                    if task.done():
                        task.result()
                if is_terminal and talker.done():
                    # End of input: the run no longer waits for a person here.
                    is_terminal = False
                    end.cancel()
                    end = asyncio.create_task(self._wait_for_result(is_terminal), name="end")
            result = end.result()
            if result is not None:
                await asyncio.gather(reader, writer)
        except asyncio.CancelledError:
            await self._on_stop()
            raise
        finally:
            for task in (reader, talker, writer):
                task.cancel()
            end.cancel()
            await asyncio.gather(reader, talker, writer, end, return_exceptions=True)
            self._live_text.paused = False
            self._live_text.end()
            self._status_line.close()
        if result is None:
            for event in await self._orchestra.journal.read(self._run.id, len(self._events)):
                self._handle_event(event)
        self._stop.run = ""
        return RunEnd(self._run.id, result, self._events, await self._load_certificates(result))

    async def _load_certificates(self, result: Result[Any] | None) -> Mapping[str, Any]:
        if not self._display.as_json or result is None or not result.guarantees:
            return {}
        from orchestra.app.stored_certificates import certificates_by_node, read_certificates

        return certificates_by_node(
            History.of(self._events), await read_certificates(self._orchestra.journal, self._events)
        )

    async def _wait_for_result(self, interactive: bool) -> Result[Any] | None:
        return await self._run.wait() if interactive else await self._run.wait_until_blocked()

    async def _on_stop(self) -> None:
        """Releases the run on SIGTERM; cancels it otherwise, which the journal records."""
        if self._stop.terminating:
            print_note(f"stopped; {self._stop.resume_hint}")
            return
        self._run.cancel(COMMAND_LINE_AUTHOR)
        await self._run.wait()

    async def _read_events(self) -> None:
        async for event in self._run.events():
            self._handle_event(event)

    async def _read_text(self) -> None:
        if self._display.live:
            async for piece in self._run.text():
                self._live_text.add(piece)

    def _handle_event(self, event: Event) -> None:
        self._events.append(event)
        if isinstance(event, InboxMessageRejected) and event.node in self._open_questions:
            self._refused_answers.add(event.node)
            print_note(f"{event.node}: the answer was refused: {event.reason}")
        self._open_questions = update_open_questions(self._open_questions, event)
        self._changed.set()
        self._update_live_text(event)
        if event.seq <= self._after_seq:
            return
        if self._display.stream:
            sys.stdout.write(json_line(encode(event)))
            sys.stdout.flush()
        elif self._display.on_event is not None:
            if not self._open_questions:
                self._live_text.defer(partial(self._display.on_event, event))
        elif self._live_text.is_busy:
            return
        elif isinstance(event, NodeFinished) and not self._open_questions:
            self._status_line.show_line(
                f"{event.node} {'is done' if event.original_outcome is None else 'used its fallback'}"
            )
        elif (
            isinstance(event, TurnStarted)
            and event.draft is not None
            and event.draft.lines
            and not self._open_questions
        ):
            self._status_line.show_line(f"{event.node}: {event.draft.lines[-1]}")

    def _update_live_text(self, event: Event) -> None:
        """Updates the shown texts after an event."""
        self._live_text.paused = bool(self._open_questions)
        match event:
            case AttemptFinished():
                self._live_text.end(event.node, event.attempt)
            case NodeFinished():
                self._live_text.end(event.node)
            case RunFinished():
                self._live_text.end()
            case _:
                self._live_text.show()

    async def _wait_for_event(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _announce_questions(self) -> None:
        """Prints each question once to stderr if there is no terminal and the run continues elsewhere."""
        announced_nodes: set[str] = set()
        while True:
            while not self._open_questions.keys() - announced_nodes:
                await self._wait_for_event()
            await asyncio.sleep(NOTICE_DELAY)
            for open_question in [
                question for node, question in self._open_questions.items() if node not in announced_nodes
            ]:
                announced_nodes.add(open_question.node)
                print_note(questions_module.format_open_questions(self._run.id, (open_question,)))

    async def _ask_questions(self) -> None:
        """Asks open questions one after the other; returns at the end of input."""
        while True:
            while not self._open_questions:
                await self._wait_for_event()
            question = next(iter(self._open_questions.values()))
            line = await self._read_answer_line(question)
            if line is None:
                return
            if line and question.node in self._open_questions:
                await self._send_answer(question, line)

    async def _read_answer_line(self, question: QuestionAsked) -> str | None:
        """The typed line; empty if the question was closed meanwhile, None at the end of input."""
        self._status_line.close()
        questions_module.show_question(question)
        task = asyncio.create_task(questions_module.read_terminal_line())
        try:
            while not task.done() and self._open_questions.get(question.node) is question:
                news = asyncio.create_task(self._wait_for_event())
                try:
                    await asyncio.wait({task, news}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
                    with suppress(asyncio.CancelledError):
                        await news
            if task.done():
                return task.result()
            print_note(f"\n{question.node} was answered elsewhere, or is no longer asked")
            return ""
        finally:
            task.cancel()

    async def _send_answer(self, question: QuestionAsked, line: str) -> None:
        try:
            decline_reason = questions_module.parse_decline_reason(question, line)
            value, is_call_result = (
                (None, False) if decline_reason else questions_module.parse_terminal_line(self._run.id, question, line)
            )
            await self._orchestra.answer(
                self._run.id,
                value,
                node=question.node,
                question_digest=question.question_digest,
                question_seq=question.seq,
                decline_reason=decline_reason,
                call_happened=is_call_result,
            )
        except InputError as error:
            print_note(format_error(error))
            return
        self._refused_answers.discard(question.node)
        while self._open_questions.get(question.node) is question and question.node not in self._refused_answers:
            await self._wait_for_event()


AttemptKey: TypeAlias = tuple[str, int]
"""A node and its attempt."""


class LiveText:
    """Model output of a run. One text is shown at a time, the others wait. `display_name` maps a node to its displayed
    name; an empty name hides its text.
    """

    def __init__(self, status_line: StatusLine, display_name: Callable[[str], str] = str) -> None:
        self._status_line, self._display_name = status_line, display_name
        self._pending: dict[AttemptKey, list[TextPiece]] = {}
        """Received text that is not shown yet."""
        self._deferred: list[Callable[[], None]] = []
        """Output that waits for the end of the shown text."""
        self._current: AttemptKey | None = None
        self._finished: set[AttemptKey] = set()
        self.paused = False
        """True while a person types, when nothing may be shown."""

    @property
    def is_busy(self) -> bool:
        """True while an unfinished text is shown."""
        return self._current is not None

    def add(self, piece: TextPiece) -> None:
        """Adds a piece of text."""
        if not self._display_name(piece.node):
            return
        self._pending.setdefault((piece.node, piece.attempt), []).append(piece)
        self.show()

    def defer(self, action: Callable[[], None]) -> None:
        """Runs `action` at once, or after the shown text."""
        self._deferred.append(action)
        self._run_deferred()

    def _run_deferred(self) -> None:
        while self._deferred and not self.is_busy:
            self._deferred.pop(0)()

    def end(self, node: str = "", attempt: float = inf) -> None:
        """Ends the text of an attempt and of its inner nodes; without a node, all texts."""
        nodes = {*self._pending, *((self._current,) if self._current is not None else ())}
        self._finished |= {
            key for key in nodes if not node or (is_within(key[0], node) and (key[1] <= attempt or key[0] != node))
        }
        self.show()

    def show(self) -> None:
        """Shows as much text as possible."""
        while not self.paused:
            if self._current is None:
                if (first := next(iter(self._pending), None)) is None:
                    return
                self._current = first
                agent, attempt = self._pending[first][0].agent, f", attempt {first[1]}" if first[1] > 1 else ""
                self._status_line.show_text(f"{self._display_name(first[0])} ({agent}{attempt}), unverified:\n")
            for piece in self._pending.pop(self._current, ()):
                self._status_line.show_text(piece.text)
            if self._current not in self._finished:
                return
            self._finished.discard(self._current)
            self._current = None
            self._status_line.close()
            self._run_deferred()
