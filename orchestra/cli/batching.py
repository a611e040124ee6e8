"""What `orchestra batch` does: rows surveyed, asked in a window, written in order."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from orchestra.app import Orchestra
from orchestra.cli.opening import Opener, serving
from orchestra.cli.progress import Meter
from orchestra.cli.rows import Results, Row, RowResult, look, survey, surveyed
from orchestra.cli.screen import note
from orchestra.cli.stream import in_order
from orchestra.cli.watching import WHO
from orchestra.codes import HELD
from orchestra.config import Settings
from orchestra.doors import Journal
from orchestra.effects import tools
from orchestra.errors import FleetError, InputError, OrchestraError
from orchestra.events import RunFinished, RunStarted
from orchestra.inputs import bound
from orchestra.options import Options
from orchestra.result import Result
from orchestra.run import Run
from orchestra.tags import Tags
from orchestra.values.json import canonical, digest
from orchestra.values.outcome import Failed, Outcome
from orchestra.values.schema import nearest
from orchestra.values.validator import Validator
from orchestra.workflow.nodes import Budget
from orchestra.workflow.program import InputField, Program
from orchestra.workflow.steps import Agent, Step, Workflow

STALE = ("E015", "E019", "T005", "T009")
"""Codes of a run that was cut off and that the batch cannot go on with: it is another workflow's, or its record or tools are not here."""
GONE = ("E019", "E020")
"""Codes of a run that nothing can be forked from: it was deleted, or its record cannot be read."""
LOOK = 0.5
"""Seconds between two looks at a run that another process has in hand."""


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What is to be done."""

    name: str
    source: Path
    """A file that can be read more than once."""
    target: Path
    concurrency: int
    budget: Budget | None
    checks: tuple[str, ...] | None
    """Of a single agent; None for those of its card."""
    rows: str = ""
    """What the user calls the source, where that is not its path."""
    retry_failed: bool = False
    """Whether rows that failed before are done again."""
    tags: Tags = dataclasses.field(default_factory=dict)
    inputs: Mapping[str, InputField] = dataclasses.field(default_factory=dict)
    """What the columns of a table are; known once the program is."""


@dataclasses.dataclass(slots=True)
class Summary:
    """What became of the rows of one command."""

    rows: int
    earlier: int
    """Rows whose results were there already."""
    done: int = 0
    abstained: int = 0
    failed: int = 0
    waiting: int = 0
    """Rows whose runs wait for a person."""

    def __str__(self) -> str:
        counts = (
            (self.done, "done"),
            (self.abstained, "abstained"),
            (self.failed, "failed"),
            (self.waiting, "waiting for a person"),
            (self.earlier, "from before"),
        )
        return f"{self.rows} rows: " + (", ".join(f"{count} {what}" for count, what in counts if count) or "none")


async def run_batch(open_: Opener, chosen: Settings, job: Job) -> Summary:
    """Does a job, or what is left of it. Raises `InputError` before anything starts, and `FleetError` where no server can be had."""
    look(job.source, job.target, job.rows)
    async with serving(open_, chosen) as orchestra:
        step = judged(orchestra, job.name, job.checks)
        program = orchestra.program(step)
        job = dataclasses.replace(job, inputs=program.inputs)
        ids = survey(job.source, InputCheck(program), job.rows, job.inputs)
        results = Results(job.target, ids)
        try:
            if results.repaired:
                note(f"{job.target}: the last line was torn, and is done again")
            view = orchestra.options(budget=job.budget, tags=job.tags)
            again = results.waiting.keys() | (results.failed if job.retry_failed else set())
            summary = Summary(len(ids), len(results.done) - len(again))
            written = Written(orchestra.journal, results)
            try:
                async with written.keeping():
                    await _write_all(job, ids, results, summary, _Asking(view, step, job.target, again, results.waiting, written))
            except asyncio.CancelledError:
                note(f"{summary}; to go on, give the same command again")
                raise
        finally:
            results.close()
    return summary


def judged(orchestra: Orchestra, name: str, checks: tuple[str, ...] | None) -> Step[..., Any]:
    """A step by name; where `checks` are given, the agent of that name with these instead of its card's.

    No checks are the check `schema`, which every output of the type passes. Raises `InputError` C010 for what is no agent.
    """
    step = orchestra.find(name)
    if checks is None:
        return step
    if not isinstance(step, Agent):
        hint = "a workflow states its checks itself, at its nodes"
        raise InputError("C010", f"--checks and --no-checks are for a single agent, and {name} is none", hint=hint)
    contract = orchestra.registry.agents[step.name]
    graph = orchestra.program(step).graph
    if not (checks or contract.checks) or graph is None:
        return step
    nodes = {key: node.model_copy(update={"checks": checks or ("schema",)}) for key, node in graph.nodes.items()}
    return Workflow.of(graph.model_copy(update={"nodes": nodes}))


async def _write_all(job: Job, ids: Collection[str], results: Results, summary: Summary, ask: _Asking) -> None:
    """First the rows that are there already and come to something else now, then those that are not there."""
    with Meter(summary.rows, summary.earlier) as meter:
        if ask.again:
            await _take_up(job, ids, results, summary, ask, meter)
        async for result in _answers(job, ids, lambda row: row.id not in results.done, ask):
            results.write(result)
            ask.wrote(result)
            _count(result, summary, meter)
    if ask.found:
        note(f"{ask.found} of them are the results of runs that had ended before, and were not written")


async def _take_up(job: Job, ids: Collection[str], results: Results, summary: Summary, ask: _Asking, meter: Meter) -> None:
    """A file whose folder cannot be written keeps what stands in it, and gets the rows that are not there all the same."""
    found: dict[str, RowResult] = {}
    try:
        async for result in _answers(job, ids, lambda row: row.id in ask.again, ask):
            if result != results.waiting.get(result.id):
                found[result.id] = result
            _count(result, summary, meter)
    finally:
        try:
            if found:
                results.replace(found)
                for result in found.values():
                    ask.wrote(result)
        except OrchestraError as error:
            note(f"{len(found)} results are left as they were: {error.message}")


async def _answers(
    job: Job, ids: Collection[str], wanted: Callable[[Row], bool], ask: Callable[[Row], Awaitable[RowResult]]
) -> AsyncGenerator[RowResult]:
    rows = (row for row in surveyed(job.source, ids, job.rows, job.inputs) if wanted(row))
    async with aclosing(in_order(rows, ask, job.concurrency)) as stream:
        async for result in stream:
            yield result


def _count(result: RowResult, summary: Summary, meter: Meter) -> None:
    summary.waiting += result.waiting is not None
    summary.failed += result.failed
    summary.abstained += result.abstained
    summary.done += result.error is None and not result.abstained
    meter.advance(failed=result.failed, abstained=result.abstained)


class Written:
    """Marks in the journal: the runs whose results stand in the output, on disk. One that has ended without a mark is what its row came to,
    and was kept from being written; the line of one that has a mark was taken out since, by somebody who wants another. That marks are
    kept of a run is marked as well, before it begins: of those of earlier versions, and of imported ones, nobody knows."""

    def __init__(self, journal: Journal, results: Results) -> None:
        self._journal, self._results = journal, results
        self._fresh: list[str] = []
        self._news = asyncio.Event()

    async def has(self, run: str) -> bool:
        """Whether the result of a run was written, or may have been: no marks are kept of it."""
        return await self._journal.recall(_mark("kept", run)) is None or await self._journal.recall(_mark("written", run)) is not None

    def begin(self, run: str) -> None:
        """The result of a run, which has not ended, is not written yet; from now on that is marked."""
        self._journal.remember(_mark("kept", run), run, True)

    def add(self, run: str) -> None:
        """The result of a run stands in the output, though not on disk yet."""
        self._fresh.append(run)
        self._news.set()

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        """While it lasts, and at its end, results come to the disk, and then their marks. Raises `OrchestraError` C023."""
        keeper = asyncio.create_task(self._keep(), name="marks")
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            self._results.sync()
            self._put(len(self._fresh))

    async def _keep(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            many = len(self._fresh)
            await asyncio.to_thread(self._results.sync)
            self._put(many)

    def _put(self, many: int) -> None:
        for run in self._fresh[:many]:
            self._journal.remember(_mark("written", run), run, True)
        del self._fresh[:many]


def _mark(what: str, run: str) -> str:
    return digest(canonical(["batch", what, run]))


class _Asking:
    """What a row comes to: a run of its own, or the run of it that waited for a person when its result was written."""

    def __init__(
        self,
        view: Orchestra,
        step: Step[..., Any],
        target: Path,
        again: Collection[str],
        waiting: Mapping[str, RowResult],
        written: Written,
    ) -> None:
        self._view, self._step, self._target, self._waiting, self._written = view, step, str(target.resolve()), waiting, written
        self._program = view.program(step)
        self._lasting = bool(tools(self._program))
        self._runs: dict[str, str] = {}
        """By row: the run that its result is of, until that is written."""
        self.again = again
        """The rows that have a result, and are asked for another."""
        self.found = 0
        """Rows whose runs had ended before, and were not written."""

    async def __call__(self, row: Row) -> RowResult:
        if (before := self._waiting.get(row.id)) is not None and before.waiting is not None:
            return await self._answered(row, before.waiting)
        run = await self._begun(row)
        return self._told(row, run, await run.pause())  # being cancelled, it lets go of the run, which goes on when the batch does

    def wrote(self, result: RowResult) -> None:
        """The result stands in the output. That of a run which waits is not its last."""
        run = self._runs.pop(result.id, "")
        if run and result.waiting is None:
            self._written.add(run)

    def _told(self, row: Row, run: Run[Any], result: Result[Any] | None) -> RowResult:
        self._runs[row.id] = run.id
        return _told(row, run, result)

    async def _begun(self, row: Row) -> Run[Any]:
        """The run of a row: the one that was cut off, or ended, before its result was written; else another.

        One of another workflow or input is ended, and so is one that cannot go on. What was written is never the answer: whoever has taken
        its line out wants another.
        """
        before = ""
        for number in count():
            key = digest(canonical(["batch", self._target, row.id, number]))
            view, name = self._view.options(idempotency_key=key), Options(key).run
            events = await view.journal.read(name)
            if not events:
                self._written.begin(name)
                return await self._anew(view, row, before)
            first, last = events[0], events[-1]
            same = isinstance(first, RunStarted) and canonical(first.inputs) == canonical(bound(self._program, (), row.input))
            if isinstance(last, RunFinished) and ((written := await self._written.has(name)) or not self._is_answer(row, last)):
                before = name if same and (row.id in self.again or not written) else ""
                continue
            try:
                if same and isinstance(first, RunStarted):
                    if not isinstance(last, RunFinished):
                        self._written.begin(name)
                    run = await self._taken(view, row, name, first.parent)
                    self.found += isinstance(last, RunFinished)
                    return run
            except OrchestraError as error:
                if error.code not in STALE:
                    raise
            await view.cancel(name, by=WHO)
            before = name if same else ""
        raise AssertionError("there are always more numbers")

    def _is_answer(self, row: Row, last: RunFinished) -> bool:
        """Whether an end that was not written is what the row came to; else it is to be tried again."""
        if last.status in ("done", "abstained"):
            return True
        return last.status != "cancelled" and row.id not in self.again and not _absent(last.outcome)

    async def _anew(self, view: Orchestra, row: Row, before: str) -> Run[Any]:
        """A new run; it repeats nothing that an earlier try of the row did in the world."""
        if before and self._lasting:
            try:
                return (await view.fork(before, self._step)).run
            except OrchestraError as error:
                if error.code not in GONE:
                    raise
        return await view.start(self._step, **row.input)

    async def _taken(self, view: Orchestra, row: Row, name: str, parent: str) -> Run[Any]:
        """A run that is there already; one that another process has in hand once that has let go of it, or has ended it."""
        told = False
        while True:
            try:
                if not parent:
                    return await view.start(self._step, **row.input)
                try:
                    return (await view.fork(parent, self._step)).run
                except OrchestraError as error:
                    if error.code not in GONE:
                        raise
                    return await self._view.resume(name, by=WHO)
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


class InputCheck:
    """Says what is wrong with an input of a program, before anything starts; its validators are made once."""

    def __init__(self, program: Program) -> None:
        self._fields = program.inputs
        self._validators = {name: Validator(field.schema) for name, field in program.inputs.items()}

    def __call__(self, given: dict[str, Any]) -> str | None:
        """What is wrong, or None."""
        for name, value in given.items():
            if name not in self._validators:
                near = nearest(name, self._validators)
                return f"there is no input {name!r}" + (f"; did you mean {near!r}?" if near else "")
            if fault := self._validators[name].check(value):
                return f"{name}: {fault}"
        return next(
            (f"the input {name!r} is missing" for name, field in self._fields.items() if field.required and name not in given), None
        )


def _refuse_absent_fleet(result: Result[Any]) -> None:
    """Without servers every row would fail alike: so the batch ends, and the row is done when it goes on."""
    outcome = result.outcome
    if isinstance(outcome, Failed) and _absent(outcome):
        raise FleetError(outcome.code, outcome.reason, hint=outcome.hint)


def _absent(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed) and outcome.code.startswith("F0")
