"""What a row of a batch comes to: the newest run of the row speaks, and says whether another is begun, and what that one may do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from math import inf
from pathlib import Path
from typing import Any, Literal

import msgspec

from orchestra.app.fork_effects import effect_tools, has_effects
from orchestra.app.inputs import bind_arguments
from orchestra.app.orchestra import Orchestra
from orchestra.app.result import Result
from orchestra.app.run import Run
from orchestra.app.run_options import RunOptions
from orchestra.app.run_queries import existing_runs, get_memos
from orchestra.cli.output import print_note
from orchestra.cli.run.batch_rows import BatchRow, RowResult
from orchestra.cli.run.watch import COMMAND_LINE_AUTHOR
from orchestra.core.error_codes import LEASE_HELD
from orchestra.core.errors import FleetError, OrchestraError
from orchestra.core.events import Event, RunFinished, RunStarted
from orchestra.core.outcomes import FailedOutcome, Outcome
from orchestra.core.protocols import Journal
from orchestra.journal.scan import scan
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


@dataclass(frozen=True, slots=True)
class LineageRun:
    """One run of several that have tried the same."""

    started: RunStarted
    events: Sequence[Event]

    @property
    def run(self) -> str:
        """Its id."""
        return self.started.run

    @property
    def finished(self) -> RunFinished | None:
        """How it ended; None for one that may go on."""
        last = self.events[-1]
        return last if isinstance(last, RunFinished) else None

    @property
    def succeeded(self) -> bool:
        """Whether it ended with an answer, or withheld one."""
        return self.finished is not None and self.finished.status in ("done", "abstained")

    @classmethod
    def from_events(cls, events: Sequence[Event], inputs: bytes) -> LineageRun | None:
        """A run with these inputs; None where it is not there, or has others."""
        first = events[0] if events else None
        return cls(first, events) if isinstance(first, RunStarted) and canonical(first.inputs) == inputs else None


class ForkLineage:
    """Which runs of a journal were forked from which. The journal is gone through once, and then as far as runs have begun since."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._forks: dict[str, dict[str, None]] = {}
        self._since = -inf
        self._refresh_lock = asyncio.Lock()

    async def runs_in_lineage(self, runs: Iterable[str], inputs: bytes) -> list[LineageRun]:
        """Runs, those that they were forked from, and all forks of these, oldest first; without those that have other inputs."""
        await self._refresh()
        found: dict[str, LineageRun] = {}
        open_, seen = list(runs), set[str]()
        while open_:
            if (run := open_.pop()) in seen:
                continue
            seen.add(run)
            if (one := LineageRun.from_events(await self._journal.read(run), inputs)) is not None:
                found[run] = one
                open_.append(one.started.parent or run)
            open_ += self._forks.get(run, ())
        return sorted(found.values(), key=lambda one: (one.started.at, one.run))

    async def _refresh(self) -> None:
        async with self._refresh_lock:
            latest = self._since
            async with aclosing(scan(self._journal, self._since)) as runs:
                async for run, started, events, _ in runs:
                    latest = max(latest, started)
                    if events and isinstance(first := events[0], RunStarted) and first.parent:
                        self._forks.setdefault(first.parent, {})[run] = None
            self._since = latest


def latest_run(runs: Sequence[LineageRun], effect_tools: Collection[str]) -> LineageRun | None:
    """The latest try that nothing was forked from, or that may go on, and that knows of all that was done with the `effect_tools`; None
    where that was done on several ways, none of which knows of the others."""
    parents = {one.run: one.started.parent for one in runs}
    acted = {one.run for one in runs if has_effects(one.events, effect_tools)}
    for one in reversed(runs):
        if one.finished is not None and one.run in parents.values():
            continue
        known, run = set[str](), one.run
        while run in parents and run not in known:
            known.add(run)
            run = parents[run]
        if acted <= known:
            return one
    return None


KEYED_RUN_PREFIX = "k"
"""How the ids of runs with an idempotency key begin: those of batches are such."""


def next_key(run: str) -> str:
    """The idempotency key of the try that comes next after a run: two commands that make it, also at once, make one."""
    return digest(canonical(["next", run]))


def next_run(run: str) -> str:
    """The id of that try."""
    return RunOptions(next_key(run)).run_id


@dataclass(slots=True)
class _MarkedRuns:
    written: set[str] = field(default_factory=set)
    followed: set[str] = field(default_factory=set)
    """Runs whose next try is there."""
    unwritten: set[str] = field(default_factory=set)


class BatchMarks:
    """What is known of runs beside their events.

    A batch marks a run before it begins: from then on a result that is not marked as written is not written. Of runs of earlier versions,
    and of those that came from another journal, nobody knows. A run that was followed is not the last try of what it was to do, whether or
    not the later one can be found; this outlives the run.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def mark_begun(self, run: str) -> None:
        """The result of a run is not written yet; from now on that is marked."""
        self._journal.put_memo(_mark_key("kept", run), run, True)

    def mark_written(self, run: str) -> None:
        """The result of a run stands in the output, on disk."""
        self._journal.put_memo(_mark_key("written", run), run, True)

    async def is_written(self, run: str, head: str) -> bool | None:
        """Whether the result of a run was written, by the batch that began the run `head` of the same row; None where nobody knows."""
        if await self._has_mark("written", run):
            return True
        return False if await self._has_mark("kept", run) or await self._has_mark("kept", head) else None

    def mark_followed(self, run: str, *, lost: bool = False) -> None:
        """Another try comes after a run; with `lost` one that is deleted, and whose result was not written, as far as anybody knows."""
        what = "lost" if lost else "followed"
        self._journal.put_memo(
            _mark_key(what, run), "", what
        )  # each has a mark of its own, since the first word of a mark stays

    async def follow_state(self, run: str) -> Literal["", "followed", "lost"]:
        """What was said of the try after a run."""
        if await self._journal.get_memo(_mark_key("lost", run)) is not None:
            return "lost"
        found = await self._journal.get_memo(_mark_key("followed", run))
        return "" if found is None else "lost" if found[1] == "lost" else "followed"

    async def is_unwritten(self, run: str) -> bool:
        """Whether a batch still has to write what a run came to, or to try its row once more, as far as that is known here."""
        return bool((await self._load_marked_runs((run,))).unwritten)

    async def filter_unwritten(self, runs: Collection[str]) -> set[str]:
        """Those of these runs that are `unwritten`."""
        return (await self._load_marked_runs(runs)).unwritten

    def mark_imported(self, run: str, *, unwritten: bool, followed: bool) -> None:
        """Marks a run that comes from another journal: its batch may go on here, with another output; what was written says nothing."""
        if unwritten:
            self._journal.put_memo(_mark_key("kept", run), run, "elsewhere")
        if followed:
            self.mark_followed(run)

    async def mark_before_delete(self, parents: Mapping[str, str]) -> None:
        """Marks what must be known of runs once they are deleted; each has the run that it was forked from, or an empty text."""
        standing = await self._load_marked_runs(parents)
        there = await existing_runs(self._journal, set(parents.values()) - {""})
        for run, parent in parents.items():
            if run in standing.unwritten:
                self.mark_followed(run, lost=True)
            elif run in standing.followed:
                self.mark_followed(run)
            if parent.startswith(KEYED_RUN_PREFIX) or parent in there:
                self.mark_followed(parent, lost=run not in standing.written)

    async def _load_marked_runs(self, runs: Collection[str]) -> _MarkedRuns:
        """What is known of runs, by few questions whatever their number."""
        words = {
            run: ("written", "kept", "lost", "followed") if run.startswith(KEYED_RUN_PREFIX) else ("written",)
            for run in runs
        }
        marks = {(run, word): _mark_key(word, run) for run, those in words.items() for word in those}
        said = await get_memos(self._journal, set(marks.values()))
        later = {run: next_run(run) for run in runs}
        there = await existing_runs(self._journal, set(later.values()))
        found = _MarkedRuns()
        for run in runs:
            mark = {word: said.get(marks[run, word]) for word in words[run]}
            done = mark["written"]
            if written := done is not None and done[1] is True:
                found.written.add(run)
            if later[run] in there:
                found.followed.add(run)
            elif mark.get("kept") and not (written or mark.get("lost") or mark.get("followed")):
                found.unwritten.add(run)
        return found

    async def _has_mark(self, what: str, run: str) -> bool:
        found = await self._journal.get_memo(_mark_key(what, run))
        return found is not None and found[1] is True


def _mark_key(what: str, run: str) -> str:
    return digest(canonical(["batch", what, run]))
