"""The state of a batch row across its runs: which run counts, whether it is resumed or forked, and the marks in the
journal for that.
"""

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
from orchestra.app.run_queries import existing_runs, get_memos
from orchestra.cli.output import print_note
from orchestra.cli.run.batch_rows import BatchRow, RowResult
from orchestra.cli.run.watch import COMMAND_LINE_AUTHOR
from orchestra.core.error_codes import LEASE_HELD
from orchestra.core.errors import FleetError, OrchestraError
from orchestra.core.events import Event, RunFinished, RunStarted
from orchestra.core.outcomes import FailedOutcome, Outcome
from orchestra.core.protocols import Journal
from orchestra.engine.request import RunOptions
from orchestra.journal.scan import scan
from orchestra.schema.strict_json import canonical, digest
from orchestra.workflows.python.steps import Step

NOT_RESUMABLE_CODES = ("E015", "E019", "T005", "T009")
"""Error codes of an interrupted run that the batch cannot resume: it has another workflow, or its record or tools are
missing here.
"""
NOT_FORKABLE_CODES = ("E019", "E020")
"""Error codes of a run that cannot be forked: it was deleted, or its record is unreadable."""
UNKNOWN_OUTCOME_CODE = "C059"
POLL_SECONDS = 0.5
"""Seconds between two checks of a run that another process holds."""


@dataclass(slots=True)
class _RowRuns:
    """The runs that batches have started for a row, without forks, in order."""

    keys: dict[str, str] = field(default_factory=dict)
    """Their idempotency keys by run; the last key is that of a run not started yet."""
    latest: LineageRun | None = None
    """The last existing run with the current input."""
    deleted: list[str] = field(default_factory=list)
    """Deleted runs."""
    lost_result: bool = False
    """True if a run newer than `latest` was deleted before its result was written."""

    @property
    def reference_run(self) -> str:
        """The run that identifies the row: `latest`, or the first one."""
        return self.latest.run if self.latest is not None else next(iter(self.keys))


class RowRunner:
    """Runs a row: in a new run, or in the run that waited for a person when its result was written.

    The newest run of the row counts, whichever command started it. If its result was not written yet, it is the result.
    If it is unfinished,
    it is resumed. If it failed, or was or may have been written, it is forked, which repeats no effects. Only if a
    written result was removed from the output does the row start over. If tools with lasting effects may be called and
    it is unknown what the newest run has done, the row gets the error C059, and no run.
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
        """By row: the run of its result, until that is written."""
        self.rerun_rows = rerun_rows
        """Rows with a result that should get another one."""
        self.unchanged_rows: set[str] = set()
        """Of these, the rows that keep their result."""
        self.recovered = 0
        """Rows whose runs had ended before, unwritten."""
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
        )  # a cancellation releases the run, which continues with the batch

    def pop_finished_run(self, result: RowResult) -> str:
        """Returns the run of a written row if the result is its last one, otherwise an empty text."""
        run = self._run_by_row.pop(result.id, "")
        return run if result.waiting is None else ""

    def _record_result(self, row: BatchRow, run: Run[Any], result: Result[Any] | None) -> RowResult:
        self._run_by_row[row.id] = run.id
        return _waiting_or_result(row, run, result)

    def _error_result(self, row: BatchRow, error: OrchestraError) -> RowResult:
        if row.id in self.rerun_rows:
            self.unchanged_rows.add(row.id)
            print_note(f"row {row.id} keeps its result: {error.code}: {error.message}; {error.hint}")
        return RowResult(
            id=row.id, error={"code": error.code, "message": f"{error.message}; {error.hint}"}, inputs=row.digest
        )

    async def _get_run(self, row: BatchRow) -> Run[Any]:
        """The run of a row: an existing or a new one. Raises `OrchestraError` C059."""
        again, inputs = row.id in self.rerun_rows, canonical(bind_arguments(self._program, (), row.input))
        line = await self._load_runs(row, inputs)
        if line.lost_result and self._effect_tools:
            raise _unknown_outcome_error("a run of it was deleted before its result was written")
        if (head := line.latest) is None:
            if not line.deleted and not again:
                return await self._start_run(row, line)
        elif head.finished is None:
            return await self._take_existing(row, line, head)
        elif (
            head.succeeded
            and not again
            and (is_written := await self._marks.is_written(head.run, head.run)) is not None
        ):
            return await (self._start_run(row, line) if is_written else self._take_existing(row, line, head))
        tries = await self._lineage.runs_in_lineage([*line.deleted, line.reference_run], inputs)
        if not tries:
            if again and self._effect_tools:
                raise _unknown_outcome_error(
                    "its run is not in this journal: it was deleted, or belongs to another journal or another --output"
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
            if (lineage_run := LineageRun.from_events(events, inputs)) is not None:
                line.latest, line.lost_result = lineage_run, False
            elif events:
                if not isinstance(events[-1], RunFinished):
                    await self._orchestra.cancel(name, by=COMMAND_LINE_AUTHOR)
            elif state := await self._marks.follow_state(name):
                line.deleted.append(name)
                line.lost_result = line.lost_result or state == "lost"
            else:
                break
        return line

    async def _continue_row(self, row: BatchRow, row_runs: _RowRuns, runs: Sequence[LineageRun]) -> Run[Any]:
        """The run of a row with earlier runs: the newest one, a fork of it, or a new one. Raises `OrchestraError`
        C059.
        """
        again, last_success = row.id in self.rerun_rows, next((run for run in reversed(runs) if run.succeeded), None)
        if (last := last_success or latest_run(runs, self._effect_tools)) is None:
            raise _unknown_outcome_error("it was forked more than once, and several forks have made calls with effects")
        if last.finished is None:
            return await self._take_existing(row, row_runs, last)
        is_written = await self._marks.is_written(last.run, row_runs.reference_run)
        if last.succeeded:
            answers = last.started.workflow == self._program.name and (again or is_written is False)
        else:
            answers = (
                not again
                and is_written is False
                and last.finished.status != "cancelled"
                and not _is_fleet_error(last.finished.outcome)
            )
        if answers:
            return await self._take_existing(row, row_runs, last)
        if is_written and not again and not (self._effect_tools and await self._marks.follow_state(last.run) == "lost"):
            return await self._start_run(row, row_runs, runs)
        self.uncertain += not again and is_written is None and bool(self._effect_tools)
        return await self._start_over(row, row_runs, last, runs)

    async def _start_run(self, row: BatchRow, row_runs: _RowRuns, runs: Sequence[LineageRun] = ()) -> Run[Any]:
        """Starts a run without earlier runs."""
        *before, name = row_runs.keys
        for run in (*before[-1:], *(lineage_run.run for lineage_run in runs if not lineage_run.succeeded)):
            self._marks.mark_followed(run)
        self._marks.mark_begun(name)
        return await self._wait_for_lease(
            row, lambda: self._orchestra.options(idempotency_key=row_runs.keys[name]).start(self._step, **row.input)
        )

    async def _start_over(
        self, row: BatchRow, row_runs: _RowRuns, last: LineageRun, runs: Sequence[LineageRun]
    ) -> Run[Any]:
        """Starts a new run that repeats no effects of earlier runs of the row. Raises `OrchestraError` C059."""
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

    async def _take_existing(self, row: BatchRow, row_runs: _RowRuns, lineage_run: LineageRun) -> Run[Any]:
        """Continues an existing run. One that cannot continue with the current workflow is ended and forked."""
        if lineage_run.finished is None:
            self._marks.mark_begun(lineage_run.run)
        try:
            run = await self._wait_for_lease(row, lambda: self._open_existing(row, row_runs, lineage_run))
        except OrchestraError as error:
            if error.code not in NOT_RESUMABLE_CODES:
                raise
            await self._orchestra.cancel(lineage_run.run, by=COMMAND_LINE_AUTHOR)
            return await self._start_over(row, row_runs, lineage_run, [lineage_run])
        self.recovered += lineage_run.finished is not None
        return run

    async def _open_existing(self, row: BatchRow, row_runs: _RowRuns, lineage_run: LineageRun) -> Run[Any]:
        """Opens a run by its key if there is one; it then uses the current workflow."""
        parent = lineage_run.started.parent
        key = row_runs.keys.get(lineage_run.run, "") or (
            next_key(parent) if parent and lineage_run.run == next_run(parent) else ""
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
        return await self._orchestra.resume(lineage_run.run, by=COMMAND_LINE_AUTHOR)

    async def _wait_for_lease(self, row: BatchRow, begin: Callable[[], Awaitable[Run[Any]]]) -> Run[Any]:
        """Opens a run; waits while another process holds its lease."""
        is_reported = False
        while True:
            try:
                return await begin()
            except OrchestraError as error:
                if error.code != LEASE_HELD:
                    raise
                if not is_reported:
                    print_note(f"row {row.id} waits: {error.message}; {error.hint}")
                is_reported = True
            await asyncio.sleep(POLL_SECONDS)

    async def _resume_waiting(self, row: BatchRow, run_name: str) -> RowResult:
        """Resumes a waiting run. It is never started anew, because its effects may not be repeatable."""
        try:
            run = await self._orchestra.resume(run_name, by=COMMAND_LINE_AUTHOR)
        except OrchestraError as error:  # it is in another journal, or another process holds it
            message = f"its run waited for a person, and cannot be continued: {error.message}"
            return RowResult(
                id=row.id, error={"code": error.code, "message": message}, waiting=run_name, inputs=row.digest
            )
        return self._record_result(row, run, await run.wait_until_blocked())


def _unknown_outcome_error(reason: str) -> OrchestraError:
    hint = "inspect what it has done; to run it anew, put the row into a separate file, with a separate --output"
    return OrchestraError(
        UNKNOWN_OUTCOME_CODE, f"it is unknown what the row has done, so it does not run again: {reason}", hint=hint
    )


def _waiting_or_result(row: BatchRow, run: Run[Any], result: Result[Any] | None) -> RowResult:
    if result is None:
        nodes = ", ".join(question.node for question in run.questions)
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
    """Re-raises errors of the fleet. Without servers every row would fail alike: the batch ends, and the row runs when
    it is resumed.
    """
    outcome = result.outcome
    if isinstance(outcome, FailedOutcome) and _is_fleet_error(outcome):
        raise FleetError(outcome.code, outcome.reason, hint=outcome.hint)


def _is_fleet_error(outcome: Outcome) -> bool:
    return isinstance(outcome, FailedOutcome) and outcome.code.startswith("F0")


@dataclass(frozen=True, slots=True)
class LineageRun:
    """One of several runs for the same row."""

    started: RunStarted
    events: Sequence[Event]

    @property
    def run(self) -> str:
        """Its id."""
        return self.started.run

    @property
    def finished(self) -> RunFinished | None:
        """Its end; None for an unfinished run."""
        last = self.events[-1]
        return last if isinstance(last, RunFinished) else None

    @property
    def succeeded(self) -> bool:
        """True if it ended with an answer, or withheld one."""
        return self.finished is not None and self.finished.status in ("done", "abstained")

    @classmethod
    def from_events(cls, events: Sequence[Event], inputs: bytes) -> LineageRun | None:
        """Creates it from events; None without a run, or with other inputs."""
        first = events[0] if events else None
        return cls(first, events) if isinstance(first, RunStarted) and canonical(first.inputs) == inputs else None


class ForkLineage:
    """The forks within a journal. The journal is scanned once, and then only for newer runs."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._forks: dict[str, dict[str, None]] = {}
        self._since = -inf
        self._refresh_lock = asyncio.Lock()

    async def runs_in_lineage(self, runs: Iterable[str], inputs: bytes) -> list[LineageRun]:
        """Returns runs, their ancestors and all forks of these, oldest first, without those that have other inputs."""
        await self._refresh()
        lineage_runs: dict[str, LineageRun] = {}
        open_, visited_runs = list(runs), set[str]()
        while open_:
            if (run := open_.pop()) in visited_runs:
                continue
            visited_runs.add(run)
            if (lineage_run := LineageRun.from_events(await self._journal.read(run), inputs)) is not None:
                lineage_runs[run] = lineage_run
                open_.append(lineage_run.started.parent or run)
            open_ += self._forks.get(run, ())
        return sorted(lineage_runs.values(), key=lambda candidate: (candidate.started.at, candidate.run))

    async def _refresh(self) -> None:
        async with self._refresh_lock:
            latest = self._since
            async with aclosing(scan(self._journal, self._since)) as runs:
                async for run, start_time, events, _ in runs:
                    latest = max(latest, start_time)
                    if events and isinstance(first := events[0], RunStarted) and first.parent:
                        self._forks.setdefault(first.parent, {})[run] = None
            self._since = latest


def latest_run(runs: Sequence[LineageRun], effect_tools: Collection[str]) -> LineageRun | None:
    """The latest run without forks, or unfinished, that descends from every run with effects of `effect_tools`; None if
    such runs are on separate branches.
    """
    parents = {lineage_run.run: lineage_run.started.parent for lineage_run in runs}
    runs_with_effects = {lineage_run.run for lineage_run in runs if has_effects(lineage_run.events, effect_tools)}
    for candidate in reversed(runs):
        if candidate.finished is not None and candidate.run in parents.values():
            continue
        known_runs, run = set[str](), candidate.run
        while run in parents and run not in known_runs:
            known_runs.add(run)
            run = parents[run]
        if runs_with_effects <= known_runs:
            return candidate
    return None


KEYED_RUN_PREFIX = "k"
"""The prefix of run ids with an idempotency key, as those of batches."""


def next_key(run: str) -> str:
    """The idempotency key of the attempt after a run. Two commands with the same key create one run."""
    return digest(canonical(["next", run]))


def next_run(run: str) -> str:
    """The id of that run."""
    return RunOptions(next_key(run)).run_id


@dataclass(slots=True)
class _MarkedRuns:
    written: set[str] = field(default_factory=set)
    followed: set[str] = field(default_factory=set)
    """Runs with an existing next attempt."""
    unwritten: set[str] = field(default_factory=set)


class BatchMarks:
    """Marks in the journal beside the events of runs.

    A batch marks a run before it starts; from then on, a result without a mark as written is unwritten. This is unknown
    for runs of earlier versions and of other journals. A run that was followed by another attempt does not count,
    whether or not that attempt exists; the mark outlives the run.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def mark_begun(self, run: str) -> None:
        """Marks a run whose result is not written yet."""
        self._journal.put_memo(_mark_key("kept", run), run, True)

    def mark_written(self, run: str) -> None:
        """Marks a run whose result is in the output, on disk."""
        self._journal.put_memo(_mark_key("written", run), run, True)

    async def is_written(self, run: str, head: str) -> bool | None:
        """True if the result of a run was written by the batch that started the run `head` of the same row; None if
        unknown.
        """
        if await self._has_mark("written", run):
            return True
        return False if await self._has_mark("kept", run) or await self._has_mark("kept", head) else None

    def mark_followed(self, run: str, *, lost: bool = False) -> None:
        """Marks a run with a next attempt; with `lost`, one that was deleted, whose result was not written as far as
        known.
        """
        state = "lost" if lost else "followed"
        self._journal.put_memo(
            _mark_key(state, run), "", state
        )  # each state has its own mark, because the first value of a mark is final

    async def follow_state(self, run: str) -> Literal["", "followed", "lost"]:
        """The state of the attempt after a run."""
        if await self._journal.get_memo(_mark_key("lost", run)) is not None:
            return "lost"
        memo = await self._journal.get_memo(_mark_key("followed", run))
        return "" if memo is None else "lost" if memo[1] == "lost" else "followed"

    async def is_unwritten(self, run: str) -> bool:
        """True if a batch still has to write the result of a run or retry its row, as far as known."""
        return bool((await self._load_marked_runs((run,))).unwritten)

    async def filter_unwritten(self, runs: Collection[str]) -> set[str]:
        """Those of these runs that are `unwritten`."""
        return (await self._load_marked_runs(runs)).unwritten

    def mark_imported(self, run: str, *, unwritten: bool, followed: bool) -> None:
        """Marks an imported run. Its batch may continue here with another output, so earlier writes do not count."""
        if unwritten:
            self._journal.put_memo(_mark_key("kept", run), run, "elsewhere")
        if followed:
            self.mark_followed(run)

    async def mark_before_delete(self, parents: Mapping[str, str]) -> None:
        """Marks what must be known of deleted runs. `parents` maps each run to the run it was forked from, or to an
        empty text.
        """
        marked_runs = await self._load_marked_runs(parents)
        existing_parents = await existing_runs(self._journal, set(parents.values()) - {""})
        for run, parent in parents.items():
            if run in marked_runs.unwritten:
                self.mark_followed(run, lost=True)
            elif run in marked_runs.followed:
                self.mark_followed(run)
            if parent.startswith(KEYED_RUN_PREFIX) or parent in existing_parents:
                self.mark_followed(parent, lost=run not in marked_runs.written)

    async def _load_marked_runs(self, runs: Collection[str]) -> _MarkedRuns:
        """Loads the marks of runs with a constant number of queries."""
        words = {
            run: ("written", "kept", "lost", "followed") if run.startswith(KEYED_RUN_PREFIX) else ("written",)
            for run in runs
        }
        marks = {(run, word): _mark_key(word, run) for run, key in words.items() for word in key}
        memos = await get_memos(self._journal, set(marks.values()))
        later = {run: next_run(run) for run in runs}
        existing_later = await existing_runs(self._journal, set(later.values()))
        marked_runs = _MarkedRuns()
        for run in runs:
            mark = {word: memos.get(marks[run, word]) for word in words[run]}
            memo = mark["written"]
            if is_written := memo is not None and memo[1] is True:
                marked_runs.written.add(run)
            if later[run] in existing_later:
                marked_runs.followed.add(run)
            elif mark.get("kept") and not (is_written or mark.get("lost") or mark.get("followed")):
                marked_runs.unwritten.add(run)
        return marked_runs

    async def _has_mark(self, kind: str, run: str) -> bool:
        memo = await self._journal.get_memo(_mark_key(kind, run))
        return memo is not None and memo[1] is True


def _mark_key(word: str, run: str) -> str:
    return digest(canonical(["batch", word, run]))
