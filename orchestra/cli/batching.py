"""What `orchestra batch` does: rows surveyed, asked in a window, written in order."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
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
from orchestra.errors import FleetError, InputError, OrchestraError
from orchestra.events import RunFinished
from orchestra.options import Options
from orchestra.result import Result
from orchestra.run import Run
from orchestra.values.json import canonical, digest
from orchestra.values.outcome import Failed
from orchestra.values.schema import nearest
from orchestra.values.validator import Validator
from orchestra.workflow.nodes import Budget
from orchestra.workflow.program import InputField, Program
from orchestra.workflow.steps import Agent, Step, Workflow

STALE = (HELD, "E015", "E019", "T005", "T009")
"""Codes of a run that was cut off and that the batch cannot go on with: it is another workflow's, or its record or tools are not here."""


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
            view = orchestra.options(budget=job.budget)
            again = results.waiting.keys() | (results.failed if job.retry_failed else set())
            summary = Summary(len(ids), len(results.done) - len(again))
            try:
                await _write_all(job, ids, results, summary, _Asking(view, step, str(job.target.resolve()), again, results.waiting))
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
            _count(result, summary, meter)


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


class _Asking:
    """What a row comes to: a run of its own, or the run of it that waited for a person when its result was written."""

    def __init__(
        self, view: Orchestra, step: Step[..., Any], target: str, again: Collection[str], waiting: Mapping[str, RowResult]
    ) -> None:
        self._view, self._step, self._target, self._waiting = view, step, target, waiting
        self.again = again
        """The rows that have a result, and are asked for another."""

    async def __call__(self, row: Row) -> RowResult:
        if (before := self._waiting.get(row.id)) is not None and before.waiting is not None:
            return await self._answered(row, before.waiting)
        run = await self._begun(row)
        try:
            result = await run.pause()
        except asyncio.CancelledError:
            run.cancel(WHO)  # on SIGTERM as well: the row is done again when the batch goes on
            raise
        return _told(row, run, result)

    async def _begun(self, row: Row) -> Run[Any]:
        """The run of a row. One that was cut off before its result was written goes on; one of another workflow or input is ended, as is
        one that cannot go on, and the row begins anew. A run that has ended is never the answer: whoever has taken its line out wants
        another."""
        for number in count():
            key = digest(canonical(["batch", self._target, row.id, number]))
            view, name = self._view.options(idempotency_key=key), Options(key).run
            events = await view.journal.read(name)
            if events and isinstance(events[-1], RunFinished):
                continue
            try:
                return await view.start(self._step, **row.input)
            except OrchestraError as error:
                if not events or error.code not in STALE:
                    raise
                if error.code != HELD:
                    await view.cancel(name, by=WHO)
        raise AssertionError("there are always more numbers")

    async def _answered(self, row: Row, waiting: str) -> RowResult:
        """The run is not begun anew, whatever becomes of it: what it has done may be nothing to do twice."""
        try:
            run = await self._view.resume(waiting, by=WHO)
        except OrchestraError as error:  # it lies in another journal, or another process has it in hand
            message = f"its run waited for a person, and cannot be taken up: {error.message}"
            return RowResult(id=row.id, error={"code": error.code, "message": message}, waiting=waiting, inputs=row.digest)
        return _told(row, run, await run.pause())


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
    if isinstance(outcome, Failed) and outcome.code.startswith("F0"):
        raise FleetError(outcome.code, outcome.reason, hint=outcome.hint)
