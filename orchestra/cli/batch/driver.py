"""What `orchestra batch` does: rows surveyed, asked in a window, written in order."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from orchestra.app.orchestra import Orchestra
from orchestra.cli.batch.row_state import Asking
from orchestra.cli.batch.rows import Results, Row, RowResult, look, survey, surveyed
from orchestra.cli.context import Opener, serving
from orchestra.cli.output import note
from orchestra.cli.progress import Meter
from orchestra.cli.runs.batch_marks import Marks
from orchestra.cli.task_window import in_order
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.settings import Settings
from orchestra.core.suggestions import nearest
from orchestra.core.tags import Tags
from orchestra.schema.validator import Validator
from orchestra.workflows.model import Budget
from orchestra.workflows.program import InputField, Program
from orchestra.workflows.python.acceptance import Accept
from orchestra.workflows.python.steps import Agent, Step, Workflow


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
    accept: Accept | None = None
    """By what outputs are accepted as wholes; None for what the workflow says."""
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
        orchestra = orchestra.options(accept=job.accept)
        program = orchestra.program(step)
        job = dataclasses.replace(job, inputs=program.inputs)
        ids = survey(job.source, InputCheck(program), job.rows, job.inputs, job.accept)
        results = Results(job.target, ids)
        try:
            if results.repaired:
                note(f"{job.target}: the last line was torn, and is done again")
            view = orchestra.options(budget=job.budget, tags=job.tags)
            again = results.waiting.keys() | (results.failed if job.retry_failed else set())
            summary = Summary(len(ids), len(results.done) - len(again))
            marks = Marks(orchestra.journal)
            written, ask = Written(marks, results), Asking(view, step, job.target, again, results.waiting, marks)
            try:
                async with written.keeping():
                    await _write_all(_Work(job, ids, results, summary, ask, written))
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


@dataclasses.dataclass(frozen=True, slots=True)
class _Work:
    """A job under way."""

    job: Job
    ids: Collection[str]
    results: Results
    summary: Summary
    ask: Asking
    written: Written

    def wrote(self, result: RowResult) -> None:
        """A result stands in the output."""
        if run := self.ask.wrote(result):
            self.written.add(run)


async def _write_all(work: _Work) -> None:
    """First the rows that are there already and come to something else now, then those that are not there."""
    results, ask = work.results, work.ask
    with Meter(work.summary.rows, work.summary.earlier) as meter:
        if ask.again:
            await _take_up(work, meter)
        async for result in _answers(work, lambda row: row.id not in results.done):
            results.write(result)
            work.wrote(result)
            _count(result, work.summary, meter)
    if ask.found:
        note(f"{ask.found} of them are the results of runs that had ended before, and were not written")
    if ask.unknown:
        note(f"of {ask.unknown} of them nobody knows whether they were written before: what they had done was recalled, and not done again")


async def _take_up(work: _Work, meter: Meter) -> None:
    """A file whose folder cannot be written keeps what stands in it, and gets the rows that are not there all the same."""
    results, ask = work.results, work.ask
    found: dict[str, RowResult] = {}
    try:
        async for result in _answers(work, lambda row: row.id in ask.again):
            if result != results.waiting.get(result.id) and result.id not in ask.kept:
                found[result.id] = result
            _count(result, work.summary, meter)
    finally:
        try:
            if found:
                results.replace(found)
                for result in found.values():
                    work.wrote(result)
        except OrchestraError as error:
            note(f"{len(found)} results are left as they were: {error.message}")


async def _answers(work: _Work, wanted: Callable[[Row], bool]) -> AsyncGenerator[RowResult]:
    job = work.job
    rows = (row for row in surveyed(job.source, work.ids, job.rows, job.inputs, job.accept) if wanted(row))
    async with aclosing(in_order(rows, work.ask, job.concurrency)) as stream:
        async for result in stream:
            yield result


def _count(result: RowResult, summary: Summary, meter: Meter) -> None:
    summary.waiting += result.waiting is not None
    summary.failed += result.failed
    summary.abstained += result.abstained
    summary.done += result.error is None and not result.abstained
    meter.advance(failed=result.failed, abstained=result.abstained)


class Written:
    """Marks of runs whose results stand in the output, on disk. One that has ended without a mark is what its row came to, and was kept
    from being written; the line of one that has a mark was taken out since, by somebody who wants another."""

    def __init__(self, marks: Marks, results: Results) -> None:
        self._marks, self._results = marks, results
        self._fresh: list[str] = []
        self._news = asyncio.Event()

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
            self._marks.write(run)
        del self._fresh[:many]


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
