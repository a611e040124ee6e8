"""A run that is carried out before somebody's eyes: its progress, its questions, its end; and what is shown of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from orchestra.app.orchestra import Orchestra
from orchestra.app.result import Result
from orchestra.app.run import Run
from orchestra.cli.exit_codes import STATUS_CODES, report
from orchestra.cli.output import json_line, note, print_json, say
from orchestra.cli.progress import Waiting
from orchestra.cli.run import questions as questions_module
from orchestra.cli.run.live_text import Writing
from orchestra.cli.run.result_view import result_data, show_result
from orchestra.cli.signals import Stop
from orchestra.core.error_codes import REPEATED
from orchestra.core.errors import InputError
from orchestra.core.events import NOBODY_ASKS, Asked, AttemptFinished, Event, LetterRefused, NodeFinished, RunFinished, TurnStarted, encode
from orchestra.journal.history import History

WHO = "the command line"
NOTICE = 0.5
"""Seconds that a question is open before it is told where nobody sits at the terminal, while the run goes on elsewhere."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a run is to be shown."""

    as_json: bool = False
    stream: bool = False
    live: bool = False
    """Whether what models write is shown while they do."""
    seen: Callable[[Event], None] | None = None
    """What is told of each event, where that is not the usual line of progress."""
    called: Callable[[str], str] = str
    """What a node is called where its text is shown; empty where it is not."""

    @classmethod
    def of(cls, *, as_json: bool, stream: bool, live: bool) -> Manner:
        """As options say. Raises `InputError` C010 where they go against each other."""
        if live and (as_json or stream):
            hint = "leave one of them out; a program reads the pieces with `run.text()` of Python"
            raise InputError("C010", f"--live is for people, and --{'json' if as_json else 'stream'} for programs", hint=hint)
        return cls(as_json, stream, live)


@dataclass(frozen=True, slots=True)
class Ending:
    """How far a run has come when nobody watches it any more: at its end, or waiting for a person."""

    run: str
    result: Result[Any] | None
    events: list[Event]
    certificates: Mapping[str, Any]
    """What stands behind its promises, by node."""

    @property
    def status(self) -> str:
        """The result's, or `waiting`."""
        return "waiting" if self.result is None else self.result.status

    @property
    def code(self) -> int:
        """The exit code: not 0 where a fork did not make a call that may have been made before, whatever hides that."""
        return STATUS_CODES[self.status] or int(bool(self.refused))

    @property
    def refused(self) -> list[AttemptFinished]:
        """The calls with effects that a fork did not make a second time."""
        return [event for event in self.events if isinstance(event, AttemptFinished) and event.error == REPEATED]

    def show(self, manner: Manner, more: Mapping[str, Any] | None = None, nodes: Callable[[], None] | None = None) -> None:
        """Prints it; `more` stands in the JSON object beside the result, and `nodes` prints what they took in another way than usual."""
        self._show(manner, more, nodes)
        for event in self.refused:  # a fallback may hide it, and is then what the output rests on
            # The fork itself is made again: it has the inputs and the workflow that were meant.
            note(f"{event.node}: {REPEATED} {event.reason}; {event.hint.replace(' RUN ', f' {self.run} ')}")

    def _show(self, manner: Manner, more: Mapping[str, Any] | None, nodes: Callable[[], None] | None) -> None:
        questions = [] if self.result is not None else History.of(self.events).asked
        if manner.as_json:
            data: dict[str, Any] = {"run": self.run, "status": "waiting", "output": None}
            if self.result is not None:
                data = {**result_data(self.result), "certificates": self.certificates}
            print_json({**data, **({"asked": questions_module.question_data(self.run, questions)} if questions else {}), **(more or {})})
        elif manner.stream:
            if questions:
                note(f"waits for a person\n{questions_module.waiting_text(self.run, questions)}")
        elif self.result is not None:
            show_result(self.result, self.events, nodes)
        else:
            say("waits for a person\n", style="bold")
            say(questions_module.waiting_text(self.run, questions))
            say(f"\nmore: orchestra runs show {self.run}", style="dim")


def asked_after(asked: Mapping[str, Asked], event: Event) -> Mapping[str, Asked]:
    """What persons are asked after an event, by node, of what they were asked before. A question that the run does not know is not asked
    again, whatever the events say of it."""
    match event:
        case Asked(node=node):
            return {**asked, node: event}
        case LetterRefused(node=node, reason=reason):
            return {one: asked[one] for one in asked if one != node} if reason == NOBODY_ASKS else asked
        case _:
            return {one.node: one for one in History.of([*asked.values(), event]).asked} if asked else asked


class Watch:
    """Follows one run. Questions are asked at the terminal, if somebody sits there; being interrupted cancels the run."""

    def __init__(self, orchestra: Orchestra, run: Run[Any], stop: Stop, waiting: Waiting, manner: Manner, after: int = 0) -> None:
        self._orchestra, self._run, self._stop, self._waiting = orchestra, run, stop, waiting
        self._manner, self._after = manner, after
        self._events: list[Event] = []
        self._open: Mapping[str, Asked] = {}
        self._changed = asyncio.Event()
        self._refused: set[str] = set()
        self._writing = Writing(waiting, manner.called)

    async def ending(self) -> Ending:
        """The run's end; or how it stands once it waits for a person who is not here. Raises what broke the engine or the journal."""
        self._stop.run = self._run.id
        here = questions_module.somebody_is_here()
        reader = asyncio.create_task(self._read(), name="reader")
        talker = asyncio.create_task(self._ask() if here else self._tell(), name="questions")
        writer = asyncio.create_task(self._listen(), name="text")
        end: asyncio.Task[Result[Any] | None] = asyncio.create_task(self._end(here), name="end")
        try:
            while not end.done():
                going: set[asyncio.Task[Any]] = {task for task in (reader, talker, writer) if not task.done()}
                await asyncio.wait({end, *going}, return_when=asyncio.FIRST_COMPLETED)
                for task in (reader, talker, writer):
                    if task.done():
                        task.result()
                if here and talker.done():
                    # The person has gone away: so the run waits for nobody who is here.
                    here = False
                    end.cancel()
                    end = asyncio.create_task(self._end(here), name="end")
            result = end.result()
            if result is not None:
                await asyncio.gather(reader, writer)
        except asyncio.CancelledError:
            await self._stopped()
            raise
        finally:
            for task in (reader, talker, writer):
                task.cancel()
            end.cancel()
            await asyncio.gather(reader, talker, writer, end, return_exceptions=True)
            self._writing.still = False
            self._writing.end()
            self._waiting.close()
        if result is None:
            for event in await self._orchestra.journal.read(self._run.id, len(self._events)):
                self._see(event)
        self._stop.run = ""
        return Ending(self._run.id, result, self._events, await self._certificates(result))

    async def _certificates(self, result: Result[Any] | None) -> Mapping[str, Any]:
        if not self._manner.as_json or result is None or not result.promises:
            return {}
        from orchestra.cli.certify.promises import certificates, stored

        return certificates(History.of(self._events), await stored(self._orchestra.journal, self._events))

    async def _end(self, here: bool) -> Result[Any] | None:
        return await self._run.wait() if here else await self._run.pause()

    async def _stopped(self) -> None:
        """SIGTERM lets go of the run; anything else cancels it, which its journal says."""
        if self._stop.leaving:
            note(f"stopped; {self._stop.resume}")
            return
        self._run.cancel(WHO)
        await self._run.wait()

    async def _read(self) -> None:
        async for event in self._run.events():
            self._see(event)

    async def _listen(self) -> None:
        if self._manner.live:
            async for piece in self._run.text():
                self._writing.add(piece)

    def _see(self, event: Event) -> None:
        self._events.append(event)
        if isinstance(event, LetterRefused) and event.node in self._open:
            self._refused.add(event.node)
            note(f"{event.node}: the answer was refused: {event.reason}")
        self._open = asked_after(self._open, event)
        self._changed.set()
        self._told(event)
        if event.seq <= self._after:
            return
        if self._manner.stream:
            sys.stdout.write(json_line(encode(event)))
            sys.stdout.flush()
        elif self._manner.seen is not None:
            if not self._open:
                self._writing.between(partial(self._manner.seen, event))
        elif self._writing.busy:
            return
        elif isinstance(event, NodeFinished) and not self._open:
            self._waiting.line(f"{event.node} {'is done' if event.instead is None else 'came to its fallback'}")
        elif isinstance(event, TurnStarted) and event.drafted is not None and event.drafted.lines and not self._open:
            self._waiting.line(f"{event.node}: {event.drafted.lines[-1]}")

    def _told(self, event: Event) -> None:
        """What an event says of the texts that are being written."""
        self._writing.still = bool(self._open)
        match event:
            case AttemptFinished():
                self._writing.end(event.node, event.attempt)
            case NodeFinished():
                self._writing.end(event.node)
            case RunFinished():
                self._writing.end()
            case _:
                self._writing.show()

    async def _next(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _tell(self) -> None:
        """Where nobody sits at the terminal, but the run goes on elsewhere: a question is told once on stderr."""
        told: set[str] = set()
        while True:
            while not self._open.keys() - told:
                await self._next()
            await asyncio.sleep(NOTICE)
            for asked in [asked for node, asked in self._open.items() if node not in told]:
                told.add(asked.node)
                note(questions_module.waiting_text(self._run.id, (asked,)))

    async def _ask(self) -> None:
        """Asks what is open, one question after the other; returns when the person goes away."""
        while True:
            while not self._open:
                await self._next()
            asked = next(iter(self._open.values()))
            line = await self._line(asked)
            if line is None:
                return
            if line and asked.node in self._open:
                await self._post(asked, line)

    async def _line(self, asked: Asked) -> str | None:
        """What the person types; empty where the question has gone meanwhile, None where the person has."""
        self._waiting.close()
        questions_module.prompt(asked)
        typed = asyncio.create_task(questions_module.line_from_terminal())
        try:
            while not typed.done() and self._open.get(asked.node) is asked:
                news = asyncio.create_task(self._next())
                try:
                    await asyncio.wait({typed, news}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
                    with suppress(asyncio.CancelledError):
                        await news
            if typed.done():
                return typed.result()
            note(f"\n{asked.node} has been answered elsewhere, or is not asked any more")
            return ""
        finally:
            typed.cancel()

    async def _post(self, asked: Asked, line: str) -> None:
        try:
            declined = questions_module.declined(asked, line)
            value, gave = (None, False) if declined else questions_module.said_at_terminal(self._run.id, asked, line)
            await self._orchestra.answer(
                self._run.id, value, node=asked.node, shown=asked.shown, asked=asked.seq, declined=declined, gave=gave
            )
        except InputError as error:
            note(report(error))
            return
        self._refused.discard(asked.node)
        while self._open.get(asked.node) is asked and asked.node not in self._refused:
            await self._next()
