"""`orchestra batch`: scans the rows, runs them concurrently and writes results in order."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from orchestra.app.orchestra import Orchestra
from orchestra.cli.context import Opener, open_orchestra
from orchestra.cli.output import ProgressMeter, print_note
from orchestra.cli.run.batch_row_state import BatchMarks, RowRunner
from orchestra.cli.run.batch_rows import BatchRow, ResultFile, RowResult, check_files, reread_rows, scan_rows
from orchestra.cli.run.batch_table import ResultTable, check_table, record_path
from orchestra.cli.signals import map_in_order
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.settings import Settings
from orchestra.core.suggestions import closest_match
from orchestra.core.tags import Tags
from orchestra.schema.validator import Validator
from orchestra.workflows.model import Budget
from orchestra.workflows.program import InputField, Program
from orchestra.workflows.python.checks import AcceptThreshold
from orchestra.workflows.python.steps import Agent, Step, Workflow


@dataclasses.dataclass(frozen=True, slots=True)
class BatchJob:
    """The job of one command."""

    name: str
    source: Path
    """A file that can be read several times."""
    target: Path
    """The output: JSON lines, or a table beside which they are."""
    concurrency: int
    budget: Budget | None
    checks: tuple[str, ...] | None
    """The checks of a single agent; None for those of its card."""
    source_name: str = ""
    """The name of the source for the user, if it is not its path."""
    retry_failed: bool = False
    """Retries failed rows."""
    tags: Tags = dataclasses.field(default_factory=dict)
    accept: AcceptThreshold | None = None
    """The acceptance of whole outputs; None for that of the workflow."""
    inputs: Mapping[str, InputField] = dataclasses.field(default_factory=dict)
    """The columns of a table; set after the program is compiled."""

    @property
    def record(self) -> Path:
        """The file of JSON lines from which the batch continues."""
        return record_path(self.target)


@dataclasses.dataclass(slots=True)
class BatchSummary:
    """The results of one command."""

    rows: int
    earlier: int
    """Rows with results of earlier commands."""
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
        return f"{self.rows} rows: " + (", ".join(f"{count} {state}" for count, state in counts if count) or "none")


async def run_batch(open_: Opener, settings: Settings, job: BatchJob) -> BatchSummary:
    """Runs a job, or the rest of it. Raises `InputError` before anything starts, and `FleetError` if no server is
    available.
    """
    check_files(job.source, job.record, job.source_name)
    if job.record != job.target:
        check_table(job.source, job.target)
    async with open_orchestra(open_, settings) as orchestra:
        step = step_with_checks(orchestra, job.name, job.checks)
        orchestra = orchestra.options(accept=job.accept)
        program = orchestra.program(step)
        job = dataclasses.replace(job, inputs=program.inputs)
        ids = scan_rows(job.source, InputValidator(program), job.source_name, job.inputs, job.accept)
        table = None
        if job.record != job.target:
            table = ResultTable.of(job.target, job.source, tuple(job.inputs), program.output_schema)
        results = ResultFile(job.record, ids)
        with _write_table_at_end(job, table, ids, results):
            if results.repaired:
                print_note(f"{job.record}: the last line was incomplete; its row runs again")
            view = orchestra.options(budget=job.budget, tags=job.tags)
            again = results.waiting.keys() | (results.failed if job.retry_failed else set())
            summary = BatchSummary(len(ids), len(results.done) - len(again))
            marks = BatchMarks(orchestra.journal)
            written_marks, ask = (
                WrittenMarks(marks, results),
                RowRunner(view, step, job.record, again, results.waiting, marks),
            )
            try:
                async with written_marks.sync_in_background():
                    await _write_all(_BatchProgress(job, ids, results, summary, ask, written_marks))
            except asyncio.CancelledError:
                print_note(f"{summary}; to continue, repeat the command")
                raise
    return summary


@contextmanager
def _write_table_at_end(
    job: BatchJob, table: ResultTable | None, ids: Mapping[str, str], results: ResultFile
) -> Iterator[None]:
    """Closes the results at the end of the context, also of an interrupted one, after their table was written.

    Raises:
        OrchestraError: C023 if the table cannot be written after all rows; the results are kept. After another error it
            is only reported.
    """
    complete = False
    try:
        yield
        complete = True
    finally:
        try:
            if table is not None and (table.outdated or results.changed):
                table.write(lambda: reread_rows(job.source, ids, job.source_name, job.inputs, job.accept), results)
        except OrchestraError as error:
            if complete:
                raise
            print_note(f"{job.target} lacks results, which {job.record} has: {error.message}")
        finally:
            results.close()


def step_with_checks(orchestra: Orchestra, name: str, checks: tuple[str, ...] | None) -> Step[..., Any]:
    """Finds a step by name. With `checks`, it must be an agent, whose card's checks are replaced.

    An empty list means the check `schema`, which every output of the type passes. Raises `InputError` C010 if it
    is no agent.
    """
    step = orchestra.find(name)
    if checks is None:
        return step
    if not isinstance(step, Agent):
        hint = "a workflow defines checks at its nodes"
        raise InputError("C010", f"--checks and --no-checks need an agent, and {name} is not one", hint=hint)
    contract = orchestra.registry.agents[step.name]
    graph = orchestra.program(step).graph
    if not (checks or contract.checks) or graph is None:
        return step
    nodes = {key: node.model_copy(update={"checks": checks or ("schema",)}) for key, node in graph.nodes.items()}
    return Workflow.from_graph(graph.model_copy(update={"nodes": nodes}))


@dataclasses.dataclass(frozen=True, slots=True)
class _BatchProgress:
    """A job in progress."""

    job: BatchJob
    ids: Collection[str]
    results: ResultFile
    summary: BatchSummary
    runner: RowRunner
    marks: WrittenMarks

    def mark_written(self, result: RowResult) -> None:
        """Counts a result that was written to the output."""
        if run := self.runner.pop_finished_run(result):
            self.marks.add(run)


async def _write_all(work: _BatchProgress) -> None:
    """Writes changed results of existing rows first, then new rows."""
    results, ask = work.results, work.runner
    with ProgressMeter(work.summary.rows, work.summary.earlier) as meter:
        if ask.rerun_rows:
            await _update_existing(work, meter)
        async for result in _run_rows(work, lambda row: row.id not in results.done):
            results.write(result)
            work.mark_written(result)
            _count_result(result, work.summary, meter)
    if ask.recovered:
        print_note(f"{ask.recovered} of them are results of earlier runs that had not been written")
    if ask.uncertain:
        print_note(f"of {ask.uncertain} of them may have been written before: their calls were recalled, not repeated")


async def _update_existing(work: _BatchProgress, meter: ProgressMeter) -> None:
    """Replaces changed results. If the folder cannot be written, the file keeps the old results and still gets new
    rows.
    """
    results, ask = work.results, work.runner
    row_results: dict[str, RowResult] = {}
    try:
        async for result in _run_rows(work, lambda row: row.id in ask.rerun_rows):
            if result != results.waiting.get(result.id) and result.id not in ask.unchanged_rows:
                row_results[result.id] = result
            _count_result(result, work.summary, meter)
    finally:
        try:
            if row_results:
                results.replace(row_results)
                for result in row_results.values():
                    work.mark_written(result)
        except OrchestraError as error:
            print_note(f"{len(row_results)} results are unchanged: {error.message}")


async def _run_rows(work: _BatchProgress, predicate: Callable[[BatchRow], bool]) -> AsyncGenerator[RowResult]:
    job = work.job
    rows = (row for row in reread_rows(job.source, work.ids, job.source_name, job.inputs, job.accept) if predicate(row))
    async with aclosing(map_in_order(rows, work.runner, job.concurrency)) as stream:
        async for result in stream:
            yield result


def _count_result(result: RowResult, summary: BatchSummary, meter: ProgressMeter) -> None:
    summary.waiting += result.waiting is not None
    summary.failed += result.failed
    summary.abstained += result.abstained
    summary.done += result.error is None and not result.abstained
    meter.advance(failed=result.failed, abstained=result.abstained)


class WrittenMarks:
    """Marks runs whose results are in the output, on disk. The result of an ended run without a mark was not written
    yet. If a marked run's line is missing, the user removed it to get another result.
    """

    def __init__(self, marks: BatchMarks, results: ResultFile) -> None:
        self._marks, self._results = marks, results
        self._pending: list[str] = []
        self._changed = asyncio.Event()

    def add(self, run: str) -> None:
        """Adds a run whose result is in the output, but not on disk yet."""
        self._pending.append(run)
        self._changed.set()

    @asynccontextmanager
    async def sync_in_background(self) -> AsyncIterator[None]:
        """Syncs results to disk and then writes their marks, periodically and at the end of the context. Raises
        `OrchestraError` C023.
        """
        keeper = asyncio.create_task(self._sync_loop(), name="marks")
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            self._results.sync()
            self._mark_synced(len(self._pending))

    async def _sync_loop(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            pending_count = len(self._pending)
            await asyncio.to_thread(self._results.sync)
            self._mark_synced(pending_count)

    def _mark_synced(self, count: int) -> None:
        for run in self._pending[:count]:
            self._marks.mark_written(run)
        del self._pending[:count]


class InputValidator:
    """Checks inputs of a program before anything starts; its validators are created once."""

    def __init__(self, program: Program) -> None:
        self._fields = program.inputs
        self._validators = {name: Validator(field.schema) for name, field in program.inputs.items()}

    def __call__(self, given: dict[str, Any]) -> str | None:
        """The error of an input, or None."""
        for name, value in given.items():
            if name not in self._validators:
                near = closest_match(name, self._validators)
                return f"there is no input {name!r}" + (f"; did you mean {near!r}?" if near else "")
            if fault := self._validators[name].check(value):
                return f"{name}: {fault}"
        return next(
            (
                f"the input {name!r} is missing"
                for name, field in self._fields.items()
                if field.required and name not in given
            ),
            None,
        )
