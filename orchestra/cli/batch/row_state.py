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

from orchestra.app.fork_effects import effect_tools
from orchestra.app.inputs import bind_arguments
from orchestra.app.orchestra import Orchestra
from orchestra.app.result import Result
from orchestra.app.run import Run
from orchestra.cli.batch.rows import BatchRow, RowResult
from orchestra.cli.output import print_note
from orchestra.cli.run.watch import COMMAND_LINE_AUTHOR
from orchestra.cli.runs.attempts import ForkLineage, LineageRun, latest_run
from orchestra.cli.runs.batch_marks import BatchMarks, next_key, next_run
from orchestra.core.error_codes import LEASE_HELD
from orchestra.core.errors import FleetError, OrchestraError
from orchestra.core.events import RunFinished
from orchestra.core.outcomes import FailedOutcome, Outcome
from orchestra.engine.request import RunOptions
from orchestra.schema.strict_json import canonical, digest
from orchestra.workflows.python.steps import Step

NOT_RESUMABLE_CODES = ("E015", "E019", "T005", "T009")
"""Codes of a run that was cut off and that the batch cannot go on with: it is another workflow's, or its record or tools are not here."""
NOT_FORKABLE_CODES = ("E019", "E020")
"""Codes of a run that nothing can be forked from: it was deleted, or its record cannot be read."""
UNKNOWN_OUTCOME_CODE = "C059"
POLL_SECONDS = 0.5
"""Seconds between two looks at a run that another process has in hand."""


@dataclass(slots=True)
class _RowRuns:
    """The runs that a batch has begun for a row, and not as forks, in their order."""

    keys: dict[str, str] = field(default_factory=dict)
    """Their idempotency keys, by run; the last one is that of a run which was not begun."""
    latest: LineageRun | None = None
    """The last of them that is there, with the input of now."""
    deleted: list[str] = field(default_factory=list)
    """Those that were deleted."""
    lost_result: bool = False
    """Whether one that is newer than `latest` was deleted before its result was written."""

    @property
    def reference_run(self) -> str:
        """The run that the row is known by: `latest`, or the first one."""
        return self.latest.run if self.latest is not None else next(iter(self.keys))


class RowRunner:
    """What a row comes to: a run of its own, or the run of it that waited for a person when its result was written.

    One rule: the newest run of the row speaks, whichever command has begun it. What it came to and nobody has written yet is the answer,
    and what is under way is gone on with. What failed, or was or may have been written, is done by a fork of it, which repeats nothing;
    only after a result that was written, and whose line somebody has taken out, all is done anew. Where tools with lasting effects may be
    called and nobody knows what the newest run has done, the row gets the error C059, and no run.
    """

    def __init__(
        self,
        orchestra: Orchestra,
        step: Step[..., Any],
        target: Path,
        rerun_rows: Collection[str],
        waiting: Mapping[str, RowResult],
        marks: BatchMarks,
    ) -> None:
        self._orchestra, self._step, self._target, self._waiting, self._marks = (
            orchestra,
            step,
            str(target.resolve()),
            waiting,
            marks,
        )
        self._program = orchestra.program(step)
        self._effect_tools = effect_tools(self._program)
        self._lineage = ForkLineage(orchestra.journal)
        self._run_by_row: dict[str, str] = {}
        """By row: the run that its result is of, until that is written."""
        self.rerun_rows = rerun_rows
        """The rows that have a result, and are asked for another."""
        self.unchanged_rows: set[str] = set()
        """Of these, the rows that keep the result which they have."""
        self.recovered = 0
        """Rows whose runs had ended before, and were not written."""
        self.uncertain = 0
        """Rows whose runs had ended before, and may have been written."""

    async def __call__(self, row: BatchRow) -> RowResult:
        if (before := self._waiting.get(row.id)) is not None and before.waiting is not None:
            return await self._resume_waiting(row, before.waiting)
        try:
            run = await self._get_run(row)
        except OrchestraError as error:
            if error.code != UNKNOWN_OUTCOME_CODE:
                raise
            return self._error_result(row, error)
        return self._record_result(
            row, run, await run.wait_until_blocked()
        )  # being cancelled, it lets go of the run, which goes on when the batch does

    def pop_finished_run(self, result: RowResult) -> str:
        """The result stands in the output: gives the run whose last result it is, else an empty text."""
        run = self._run_by_row.pop(result.id, "")
        return run if result.waiting is None else ""

    def _record_result(self, row: BatchRow, run: Run[Any], result: Result[Any] | None) -> RowResult:
        self._run_by_row[row.id] = run.id
        return _waiting_or_result(row, run, result)

    def _error_result(self, row: BatchRow, error: OrchestraError) -> RowResult:
        if row.id in self.rerun_rows:
            self.unchanged_rows.add(row.id)
            print_note(f"row {row.id} keeps its line: {error.code}: {error.message}; {error.hint}")
        return RowResult(
            id=row.id, error={"code": error.code, "message": f"{error.message}; {error.hint}"}, inputs=row.digest
        )

    async def _get_run(self, row: BatchRow) -> Run[Any]:
        """The run of a row: one that is there, or another. Raises `OrchestraError` C059."""
        again, inputs = row.id in self.rerun_rows, canonical(bind_arguments(self._program, (), row.input))
        line = await self._load_runs(row, inputs)
        if line.lost_result and self._effect_tools:
            raise _unknown_outcome_error("a run of it was deleted before its result was written")
        if (head := line.latest) is None:
            if not line.deleted and not again:
                return await self._start_run(row, line)
        elif head.finished is None:
            return await self._take_existing(row, line, head)
        elif head.succeeded and not again and (written := await self._marks.is_written(head.run, head.run)) is not None:
            return await (self._start_run(row, line) if written else self._take_existing(row, line, head))
        tries = await self._lineage.runs_in_lineage([*line.deleted, line.reference_run], inputs)
        if not tries:
            if again and self._effect_tools:
                raise _unknown_outcome_error(
                    "its run is not in this journal: it was deleted, or it was of another journal or another --output"
                )
            return await self._start_run(row, line)
        return await self._continue_row(row, line, tries)

    async def _load_runs(self, row: BatchRow, inputs: bytes) -> _RowRuns:
        line = _RowRuns()
        for number in count():
            key = digest(canonical(["batch", self._target, row.id, number]))
            name = RunOptions(key).run_id
            line.keys[name] = key
            events = await self._orchestra.journal.read(name)
            if (one := LineageRun.from_events(events, inputs)) is not None:
                line.latest, line.lost_result = one, False
            elif events:
                if not isinstance(events[-1], RunFinished):
                    await self._orchestra.cancel(name, by=COMMAND_LINE_AUTHOR)
            elif said := await self._marks.follow_state(name):
                line.deleted.append(name)
                line.lost_result = line.lost_result or said == "lost"
            else:
                break
        return line

    async def _continue_row(self, row: BatchRow, row_runs: _RowRuns, runs: Sequence[LineageRun]) -> Run[Any]:
        """The run of a row that was tried before: the newest one, a fork of it, or one that begins anew. Raises `OrchestraError` C059."""
        again, succeeded = row.id in self.rerun_rows, next((one for one in reversed(runs) if one.succeeded), None)
        if (last := succeeded or latest_run(runs, self._effect_tools)) is None:
            raise _unknown_outcome_error("it was forked more than once, and several of the forks have done something")
        if last.finished is None:
            return await self._take_existing(row, row_runs, last)
        written = await self._marks.is_written(last.run, row_runs.reference_run)
        if last.succeeded:
            answers = last.started.workflow == self._program.name and (again or written is False)
        else:
            answers = (
                not again
                and written is False
                and last.finished.status != "cancelled"
                and not _is_fleet_error(last.finished.outcome)
            )
        if answers:
            return await self._take_existing(row, row_runs, last)
        if written and not again and not (self._effect_tools and await self._marks.follow_state(last.run) == "lost"):
            return await self._start_run(row, row_runs, runs)
        self.uncertain += not again and written is None and bool(self._effect_tools)
        return await self._start_over(row, row_runs, last, runs)

    async def _start_run(self, row: BatchRow, row_runs: _RowRuns, runs: Sequence[LineageRun] = ()) -> Run[Any]:
        """A run that knows of none before."""
        *before, name = row_runs.keys
        for run in (*before[-1:], *(one.run for one in runs if not one.succeeded)):
            self._marks.mark_followed(run)
        self._marks.mark_begun(name)
        return await self._wait_for_lease(
            row, lambda: self._orchestra.options(idempotency_key=row_runs.keys[name]).start(self._step, **row.input)
        )

    async def _start_over(
        self, row: BatchRow, row_runs: _RowRuns, last: LineageRun, runs: Sequence[LineageRun]
    ) -> Run[Any]:
        """A new run; it repeats nothing that an earlier try of the row did in the world. Raises `OrchestraError` C059."""
        if not self._effect_tools:
            return await self._start_run(row, row_runs, runs)
        if await self._marks.follow_state(last.run):
            raise _unknown_outcome_error(f"run {last.run} was forked, and that fork was deleted")
        before = last.run
        while True:
            name, view = next_run(before), self._orchestra.options(idempotency_key=next_key(before))
            self._marks.mark_begun(name)
            try:
                return await self._wait_for_lease(row, partial(self._fork_run, view, before))
            except OrchestraError as error:
                if error.code in NOT_FORKABLE_CODES:
                    raise _unknown_outcome_error(
                        f"the record of run {before} cannot be read: {error.message}"
                    ) from error
                if error.code not in NOT_RESUMABLE_CODES:
                    raise
            await view.cancel(name, by=COMMAND_LINE_AUTHOR)
            before = name

    async def _fork_run(self, orchestra: Orchestra, run: str) -> Run[Any]:
        return (await orchestra.fork(run, self._step)).run

    async def _take_existing(self, row: BatchRow, row_runs: _RowRuns, existing: LineageRun) -> Run[Any]:
        """A run that is there already. One that cannot go on as the workflow is today is ended, and forked."""
        if existing.finished is None:
            self._marks.mark_begun(existing.run)
        try:
            run = await self._wait_for_lease(row, lambda: self._open_existing(row, row_runs, existing))
        except OrchestraError as error:
            if error.code not in NOT_RESUMABLE_CODES:
                raise
            await self._orchestra.cancel(existing.run, by=COMMAND_LINE_AUTHOR)
            return await self._start_over(row, row_runs, existing, [existing])
        self.recovered += existing.finished is not None
        return run

    async def _open_existing(self, row: BatchRow, row_runs: _RowRuns, existing: LineageRun) -> Run[Any]:
        """By its key, where it has one: then its workflow is that of today."""
        parent = existing.started.parent
        key = row_runs.keys.get(existing.run, "") or (
            next_key(parent) if parent and existing.run == next_run(parent) else ""
        )
        view = self._orchestra.options(idempotency_key=key)
        if key and not parent:
            return await view.start(self._step, **row.input)
        if key:
            try:
                return await self._fork_run(view, parent)
            except OrchestraError as error:
                if error.code not in NOT_FORKABLE_CODES:
                    raise
        return await self._orchestra.resume(existing.run, by=COMMAND_LINE_AUTHOR)

    async def _wait_for_lease(self, row: BatchRow, begin: Callable[[], Awaitable[Run[Any]]]) -> Run[Any]:
        """A run; one that another process has in hand once that has let go of it, or has ended it."""
        told = False
        while True:
            try:
                return await begin()
            except OrchestraError as error:
                if error.code != LEASE_HELD:
                    raise
                if not told:
                    print_note(f"row {row.id} waits: {error.message}; {error.hint}")
                told = True
            await asyncio.sleep(POLL_SECONDS)

    async def _resume_waiting(self, row: BatchRow, waiting: str) -> RowResult:
        """The run is not begun anew, whatever becomes of it: what it has done may be nothing to do twice."""
        try:
            run = await self._orchestra.resume(waiting, by=COMMAND_LINE_AUTHOR)
        except OrchestraError as error:  # it lies in another journal, or another process has it in hand
            message = f"its run waited for a person, and cannot be taken up: {error.message}"
            return RowResult(
                id=row.id, error={"code": error.code, "message": message}, waiting=waiting, inputs=row.digest
            )
        return self._record_result(row, run, await run.wait_until_blocked())


def _unknown_outcome_error(why: str) -> OrchestraError:
    hint = "see what it has done; to do it anew, put the row into a file of its own, with an --output of its own"
    return OrchestraError(
        UNKNOWN_OUTCOME_CODE, f"nobody knows what the row has done, so it is not begun again: {why}", hint=hint
    )


def _waiting_or_result(row: BatchRow, run: Run[Any], result: Result[Any] | None) -> RowResult:
    if result is None:
        nodes = ", ".join(asked.node for asked in run.questions)
        error = {"code": "C025", "message": f"{nodes} waits for a person: orchestra runs answer {run.id}"}
        return RowResult(id=row.id, error=error, waiting=run.id, inputs=row.digest)
    _raise_fleet_error(result)
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


def _raise_fleet_error(result: Result[Any]) -> None:
    """Without servers every row would fail alike: so the batch ends, and the row is done when it goes on."""
    outcome = result.outcome
    if isinstance(outcome, FailedOutcome) and _is_fleet_error(outcome):
        raise FleetError(outcome.code, outcome.reason, hint=outcome.hint)


def _is_fleet_error(outcome: Outcome) -> bool:
    return isinstance(outcome, FailedOutcome) and outcome.code.startswith("F0")
