"""What a row of a batch comes to: the newest run of the row speaks, and says whether another is begun, and what that one may do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from orchestra.app.fork_effects import tools
from orchestra.app.inputs import bound
from orchestra.app.orchestra import Orchestra
from orchestra.app.result import Result
from orchestra.app.run import Run
from orchestra.app.run_options import Options
from orchestra.cli.batch.rows import Row, RowResult
from orchestra.cli.output import note
from orchestra.cli.run.watch import WHO
from orchestra.cli.runs.attempts import Lineage, Try, newest
from orchestra.cli.runs.batch_marks import Marks, next_key, next_run
from orchestra.core.error_codes import HELD
from orchestra.core.errors import FleetError, OrchestraError
from orchestra.core.events import RunFinished
from orchestra.core.outcomes import Failed, Outcome
from orchestra.schema.strict_json import canonical, digest
from orchestra.workflows.python.steps import Step

STALE = ("E015", "E019", "T005", "T009")
"""Codes of a run that was cut off and that the batch cannot go on with: it is another workflow's, or its record or tools are not here."""
GONE = ("E019", "E020")
"""Codes of a run that nothing can be forked from: it was deleted, or its record cannot be read."""
UNKNOWN = "C059"
LOOK = 0.5
"""Seconds between two looks at a run that another process has in hand."""


@dataclass(slots=True)
class _Line:
    """The runs that a batch has begun for a row, and not as forks, in their order."""

    keys: dict[str, str] = field(default_factory=dict)
    """Their idempotency keys, by run; the last one is that of a run which was not begun."""
    head: Try | None = None
    """The last of them that is there, with the input of now."""
    gone: list[str] = field(default_factory=list)
    """Those that were deleted."""
    lost: bool = False
    """Whether one that is newer than `head` was deleted before its result was written."""

    @property
    def first(self) -> str:
        """The run that the row is told by: `head`, or the first one."""
        return self.head.run if self.head is not None else next(iter(self.keys))


class Asking:
    """What a row comes to: a run of its own, or the run of it that waited for a person when its result was written.

    One rule: the newest run of the row speaks, whichever command has begun it. What it came to and nobody has written yet is the answer,
    and what is under way is gone on with. What failed, or was or may have been written, is done by a fork of it, which repeats nothing;
    only after a result that was written, and whose line somebody has taken out, all is done anew. Where tools with lasting effects may be
    called and nobody knows what the newest run has done, the row gets the error C059, and no run.
    """

    def __init__(
        self, view: Orchestra, step: Step[..., Any], target: Path, again: Collection[str], waiting: Mapping[str, RowResult], marks: Marks
    ) -> None:
        self._view, self._step, self._target, self._waiting, self._marks = view, step, str(target.resolve()), waiting, marks
        self._program = view.program(step)
        self._lasting = tools(self._program)
        self._lineage = Lineage(view.journal)
        self._runs: dict[str, str] = {}
        """By row: the run that its result is of, until that is written."""
        self.again = again
        """The rows that have a result, and are asked for another."""
        self.kept: set[str] = set()
        """Of these, the rows that keep the result which they have."""
        self.found = 0
        """Rows whose runs had ended before, and were not written."""
        self.unknown = 0
        """Rows whose runs had ended before, and may have been written."""

    async def __call__(self, row: Row) -> RowResult:
        if (before := self._waiting.get(row.id)) is not None and before.waiting is not None:
            return await self._answered(row, before.waiting)
        try:
            run = await self._begun(row)
        except OrchestraError as error:
            if error.code != UNKNOWN:
                raise
            return self._refused(row, error)
        return self._told(row, run, await run.pause())  # being cancelled, it lets go of the run, which goes on when the batch does

    def wrote(self, result: RowResult) -> str:
        """The result stands in the output: gives the run whose last result it is, else an empty text."""
        run = self._runs.pop(result.id, "")
        return run if result.waiting is None else ""

    def _told(self, row: Row, run: Run[Any], result: Result[Any] | None) -> RowResult:
        self._runs[row.id] = run.id
        return _told(row, run, result)

    def _refused(self, row: Row, error: OrchestraError) -> RowResult:
        if row.id in self.again:
            self.kept.add(row.id)
            note(f"row {row.id} keeps its line: {error.code}: {error.message}; {error.hint}")
        return RowResult(id=row.id, error={"code": error.code, "message": f"{error.message}; {error.hint}"}, inputs=row.digest)

    async def _begun(self, row: Row) -> Run[Any]:
        """The run of a row: one that is there, or another. Raises `OrchestraError` C059."""
        again, inputs = row.id in self.again, canonical(bound(self._program, (), row.input))
        line = await self._line(row, inputs)
        if line.lost and self._lasting:
            raise _unknown("a run of it was deleted before its result was written")
        if (head := line.head) is None:
            if not line.gone and not again:
                return await self._first(row, line)
        elif head.end is None:
            return await self._take(row, line, head)
        elif head.succeeded and not again and (written := await self._marks.written(head.run, head.run)) is not None:
            return await (self._first(row, line) if written else self._take(row, line, head))
        tries = await self._lineage.tries([*line.gone, line.first], inputs)
        if not tries:
            if again and self._lasting:
                raise _unknown("its run is not in this journal: it was deleted, or it was of another journal or another --output")
            return await self._first(row, line)
        return await self._after(row, line, tries)

    async def _line(self, row: Row, inputs: bytes) -> _Line:
        line = _Line()
        for number in count():
            key = digest(canonical(["batch", self._target, row.id, number]))
            name = Options(key).run
            line.keys[name] = key
            events = await self._view.journal.read(name)
            if (one := Try.of(events, inputs)) is not None:
                line.head, line.lost = one, False
            elif events:
                if not isinstance(events[-1], RunFinished):
                    await self._view.cancel(name, by=WHO)
            elif said := await self._marks.followed(name):
                line.gone.append(name)
                line.lost = line.lost or said == "lost"
            else:
                break
        return line

    async def _after(self, row: Row, line: _Line, tries: Sequence[Try]) -> Run[Any]:
        """The run of a row that was tried before: the newest one, a fork of it, or one that begins anew. Raises `OrchestraError` C059."""
        again, succeeded = row.id in self.again, next((one for one in reversed(tries) if one.succeeded), None)
        if (last := succeeded or newest(tries, self._lasting)) is None:
            raise _unknown("it was forked more than once, and several of the forks have done something")
        if last.end is None:
            return await self._take(row, line, last)
        written = await self._marks.written(last.run, line.first)
        if last.succeeded:
            answers = last.first.workflow == self._program.name and (again or written is False)
        else:
            answers = not again and written is False and last.end.status != "cancelled" and not _absent(last.end.outcome)
        if answers:
            return await self._take(row, line, last)
        if written and not again and not (self._lasting and await self._marks.followed(last.run) == "lost"):
            return await self._first(row, line, tries)
        self.unknown += not again and written is None and bool(self._lasting)
        return await self._anew(row, line, last, tries)

    async def _first(self, row: Row, line: _Line, tries: Sequence[Try] = ()) -> Run[Any]:
        """A run that knows of none before."""
        *before, name = line.keys
        for run in (*before[-1:], *(one.run for one in tries if not one.succeeded)):
            self._marks.follow(run)
        self._marks.begin(name)
        return await self._patiently(row, lambda: self._view.options(idempotency_key=line.keys[name]).start(self._step, **row.input))

    async def _anew(self, row: Row, line: _Line, last: Try, tries: Sequence[Try]) -> Run[Any]:
        """A new run; it repeats nothing that an earlier try of the row did in the world. Raises `OrchestraError` C059."""
        if not self._lasting:
            return await self._first(row, line, tries)
        if await self._marks.followed(last.run):
            raise _unknown(f"run {last.run} was forked, and that fork was deleted")
        before = last.run
        while True:
            name, view = next_run(before), self._view.options(idempotency_key=next_key(before))
            self._marks.begin(name)
            try:
                return await self._patiently(row, partial(self._fork, view, before))
            except OrchestraError as error:
                if error.code in GONE:
                    raise _unknown(f"the record of run {before} cannot be read: {error.message}") from error
                if error.code not in STALE:
                    raise
            await view.cancel(name, by=WHO)
            before = name

    async def _fork(self, view: Orchestra, run: str) -> Run[Any]:
        return (await view.fork(run, self._step)).run

    async def _take(self, row: Row, line: _Line, one: Try) -> Run[Any]:
        """A run that is there already. One that cannot go on as the workflow is today is ended, and forked."""
        if one.end is None:
            self._marks.begin(one.run)
        try:
            run = await self._patiently(row, lambda: self._there(row, line, one))
        except OrchestraError as error:
            if error.code not in STALE:
                raise
            await self._view.cancel(one.run, by=WHO)
            return await self._anew(row, line, one, [one])
        self.found += one.end is not None
        return run

    async def _there(self, row: Row, line: _Line, one: Try) -> Run[Any]:
        """By its key, where it has one: then its workflow is that of today."""
        parent = one.first.parent
        key = line.keys.get(one.run, "") or (next_key(parent) if parent and one.run == next_run(parent) else "")
        view = self._view.options(idempotency_key=key)
        if key and not parent:
            return await view.start(self._step, **row.input)
        if key:
            try:
                return await self._fork(view, parent)
            except OrchestraError as error:
                if error.code not in GONE:
                    raise
        return await self._view.resume(one.run, by=WHO)

    async def _patiently(self, row: Row, begin: Callable[[], Awaitable[Run[Any]]]) -> Run[Any]:
        """A run; one that another process has in hand once that has let go of it, or has ended it."""
        told = False
        while True:
            try:
                return await begin()
            except OrchestraError as error:
                if error.code != HELD:
                    raise
                if not told:
                    note(f"row {row.id} waits: {error.message}; {error.hint}")
                told = True
            await asyncio.sleep(LOOK)

    async def _answered(self, row: Row, waiting: str) -> RowResult:
        """The run is not begun anew, whatever becomes of it: what it has done may be nothing to do twice."""
        try:
            run = await self._view.resume(waiting, by=WHO)
        except OrchestraError as error:  # it lies in another journal, or another process has it in hand
            message = f"its run waited for a person, and cannot be taken up: {error.message}"
            return RowResult(id=row.id, error={"code": error.code, "message": message}, waiting=waiting, inputs=row.digest)
        return self._told(row, run, await run.pause())


def _unknown(why: str) -> OrchestraError:
    hint = "see what it has done; to do it anew, put the row into a file of its own, with an --output of its own"
    return OrchestraError(UNKNOWN, f"nobody knows what the row has done, so it is not begun again: {why}", hint=hint)


def _told(row: Row, run: Run[Any], result: Result[Any] | None) -> RowResult:
    if result is None:
        nodes = ", ".join(asked.node for asked in run.asked)
        error = {"code": "C025", "message": f"{nodes} waits for a person: orchestra runs answer {run.id}"}
        return RowResult(id=row.id, error=error, waiting=run.id, inputs=row.digest)
    _refuse_absent_fleet(result)
    return msgspec.structs.replace(row_result(row.id, result), inputs=row.digest)


def row_result(name: str, result: Result[Any]) -> RowResult:
    """A result as a line of the output."""
    error = result.error
    return RowResult(
        id=name,
        output=result.value,
        abstained=result.status == "abstained",
        score=result.confidence,
        evidence=result.evidence,
        usage=result.usage,
        error=None if error is None else {"code": error.code, "message": error.message},
    )


def _refuse_absent_fleet(result: Result[Any]) -> None:
    """Without servers every row would fail alike: so the batch ends, and the row is done when it goes on."""
    outcome = result.outcome
    if isinstance(outcome, Failed) and _absent(outcome):
        raise FleetError(outcome.code, outcome.reason, hint=outcome.hint)


def _absent(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed) and outcome.code.startswith("F0")
