"""The processes of a point: one runs or resumes the workflows until it ends or is killed, one sends inbox messages."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, cast

import msgspec

from orchestra.core.clock import SystemClock
from orchestra.core.events import Event, NodeFinished, QuestionAnswered, QuestionAsked, encode
from orchestra.core.protocols import InboxMessage, Journal, OutboxMessage
from orchestra.engine.engine import Engine
from orchestra.engine.request import RunOptions, RunRequest
from orchestra.engine.run import Execution
from orchestra.journal.errors import JournalError
from orchestra.schema.strict_json import digest
from tests.crash.points import Kill, Points, watched
from tests.crash.stage import PROGRAMS, TEXTS, Entry, Lines, World, lines, stored
from tests.crash.stores import Place

T = TypeVar("T")
Answers: TypeAlias = Literal["itself", "between", "outside"]
"""Which process answers questions: the process that asks, a later process, or a concurrent process."""
OVER, WAITING = 0, 3
"""Exit codes of a process that is not killed: all runs have ended, or some wait for persons."""
LINGER = 10.0
"""Seconds that a database may take to detect that the lease holder has died."""


class Scene(msgspec.Struct, frozen=True):
    """Settings shared by all processes of a point."""

    folder: str
    place: Place
    point: int
    answers: Answers = "itself"
    hasty: bool = False
    """Whether the journal reports events as durable too early: a fault that the audit must detect."""

    @property
    def runs(self) -> dict[str, str]:
        """Returns the run ids with the workflow of each; one workflow occurs twice, because its answers are
        memoized.
        """
        names = ("everything", "effects", "everything", "stopped", "brief")
        return {f"p{self.point}-{letter}": name for letter, name in zip("abcde", names, strict=True)}

    def lines(self, name: str) -> Lines:
        """Returns a file of complete lines in the point's folder."""
        return Lines(Path(self.folder) / name)

    def reply(self, asked: QuestionAsked) -> str:
        """A person's answer."""
        if asked.kind == "answer":
            return "yes"
        return "again" if self.point % 2 else "fail"


class Acknowledged(msgspec.Struct, frozen=True):
    """An event that a subscriber received as durable."""

    run: str
    seq: int
    digest: str


class Kept(msgspec.Struct, frozen=True):
    """A run that is about to be deleted: its events, and the messages taken out of the outbox."""

    run: str
    events: list[Event]
    messages: list[OutboxMessage]


class _Hasty:
    """A journal that does not wait for the disk."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    async def wait_durable(self, run: str, seq: int) -> None:
        """Returns at once."""


class Child:
    """A process that holds the leases of the runs."""

    def __init__(self, scene: Scene, number: int, kill: Kill | None, pipe: int) -> None:
        """`pipe` is connected to the parent: `k` requests a kill, `a` requests a process that sends messages."""
        self.scene, self.number, self._pipe = scene, number, pipe
        killed = scene.lines("killed")
        self.points = Points(kill, lambda name: killed.write(name.encode()), lambda: self._tell(b"k"))
        self._record, self._seen = scene.lines("world"), scene.lines("acknowledged")

    def _tell(self, what: bytes) -> None:
        os.write(self._pipe, what)

    async def act(self) -> int:
        """Starts or resumes the runs and waits for their end; returns `OVER` or `WAITING`."""
        reach = self.points.reach
        self._record.write(msgspec.json.encode(Entry(self.number, f"born {time.time()!r}", "", "", 0, "", "")))
        world = World(self._record, self.number, reach, self.scene.point)
        async with self.scene.place.pierced(reach) as opened:
            journal = watched(opened, reach)
            if self.scene.hasty:
                journal = cast(Journal, _Hasty(journal))
            engine = Engine(SystemClock(), journal, world)
            over = await asyncio.gather(
                *(self._see_through(engine, journal, run, name) for run, name in self.scene.runs.items())
            )
            await engine.close()
            reach("before close")
        reach("after close")
        return OVER if all(over) else WAITING

    async def _see_through(self, engine: Engine, journal: Journal, run: str, name: str) -> bool:
        over = await self._seen_through(engine, journal, run, name)
        if over and name == "brief":
            await self._remove(journal, run)
        return over

    async def _seen_through(self, engine: Engine, journal: Journal, run: str, name: str) -> bool:
        if name == "brief" and any(kept.run == run for kept in self._kept()):
            return True
        if (
            name == "stopped"
            and self.number
            and self.scene.point % 3 == 0
            and await self._close_off(engine, journal, run)
        ):
            return True
        handle = await self._taken(engine, journal, run, name)
        if handle is None:
            return True
        if name == "stopped" and self.scene.answers == "itself":
            await asyncio.sleep(self.scene.point % 7 * 0.001)
            await cancel(journal, run)
        watching = asyncio.create_task(self._watch(handle))
        answered = set[int]()
        while (finished := await handle.wait_until_blocked()) is None:
            new = [asked for asked in handle.questions if asked.seq not in answered]
            answered.update(asked.seq for asked in new)
            match self.scene.answers:
                case "between":
                    break
                case "itself" if name == "stopped":
                    pass
                case "itself":
                    for asked in new:
                        await journal.send(
                            run,
                            InboxMessage(
                                kind="answer",
                                node=asked.node,
                                value=self.scene.reply(asked),
                                question_digest=asked.question_digest,
                            ),
                        )
                case _ if new:
                    self._tell(b"a")
            await asyncio.sleep(0.001)
        if finished is not None:
            await watching
        watching.cancel()
        return finished is not None

    async def _close_off(self, engine: Engine, journal: Journal, run: str) -> bool:
        """Cancels a run without a lease holder and without continuing it, like `orchestra runs cancel`; returns whether
        the run existed.
        """
        await cancel(journal, run)
        try:
            await self._patiently(lambda: engine.terminate(run, f"process {self.number}"))
        except JournalError as error:
            if error.code == "J023":
                return False
            if error.code != "J006":
                raise
        return True

    def _kept(self) -> list[Kept]:
        return lines(Path(self.scene.folder) / "kept", Kept)

    async def _remove(self, journal: Journal, run: str) -> None:
        """Deletes an ended run once its message is delivered; its contents are kept beside the journal."""
        if events := await journal.read(run):
            messages = [message for message in await journal.outbox(limit=1_000_000) if message.run == run]
            self.scene.lines("kept").write(msgspec.json.encode(Kept(run, events, messages)))
            await journal.mark_delivered([message.number for message in messages])
            await journal.delete(run)

    async def _taken(self, engine: Engine, journal: Journal, run: str, name: str) -> Execution | None:
        """Returns the run, resumed, or started if it does not exist; None if it has ended."""
        try:
            return await self._patiently(lambda: engine.resume(PROGRAMS[name], run, by=f"process {self.number}"))
        except JournalError as error:
            if error.code == "J006":
                return None
            if error.code != "J023":
                raise
        graph = journal.put_blob(stored(run, name))
        return engine.start(
            PROGRAMS[name],
            RunRequest(inputs={"text": TEXTS[name]}, graph=graph, run=run, options=RunOptions(memo=True)),
        )

    async def _patiently(self, take: Callable[[], Awaitable[T]]) -> T:
        """Takes a run over, with retries until the death of its holder is detected; returns the result."""
        give_up = time.monotonic() + LINGER
        while True:
            try:
                return await take()
            except JournalError as error:
                # The operating system releases the file lock of a dead process at once; a database detects a dead
                # client only at its next check.
                if error.code != "J022" or self.scene.place.file or time.monotonic() > give_up:
                    raise
            await asyncio.sleep(0.005)

    async def _watch(self, run: Execution) -> None:
        """Records the events that are reported as durable."""
        async for event in run.events(run.log_offset):
            self._seen.write(msgspec.json.encode(Acknowledged(run.id, event.seq, digest(encode(event)))))


async def cancel(journal: Journal, run: str) -> None:
    """Requests the cancellation of a run by an inbox message, unless one was sent before."""
    if not any(letter.kind == "cancel" for letter in await journal.inbox(run)):
        await post(journal, run, InboxMessage(kind="cancel", by="somebody"))


async def post(journal: Journal, run: str, letter: InboxMessage) -> None:
    """Sends an inbox message to a run that may have ended or may not exist."""
    try:
        await journal.send(run, letter)
    except JournalError as error:
        if error.code not in ("J006", "J023"):
            raise


async def bring_letters(scene: Scene) -> int:
    """Answers the questions of the runs and cancels the run that is to be cancelled, from a separate process."""
    async with scene.place.opened() as journal:
        for run, name in scene.runs.items():
            if name == "stopped":
                await cancel(journal, run)
                continue
            asked: dict[str, QuestionAsked] = {}
            for event in await journal.read(run):
                if isinstance(event, QuestionAsked):
                    asked[event.node] = event
                elif isinstance(event, QuestionAnswered | NodeFinished):
                    asked.pop(event.node, None)
            for node, question in asked.items():
                await post(
                    journal,
                    run,
                    InboxMessage(
                        kind="answer", node=node, value=scene.reply(question), question_digest=question.question_digest
                    ),
                )
    return OVER
