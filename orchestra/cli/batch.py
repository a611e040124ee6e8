"""`orchestra batch`: many rows through one workflow or one agent, in order, taken up again where it stopped."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orchestra.cli.failure import Verb
from orchestra.cli.opening import Opener, opener, settings
from orchestra.cli.rows import Results, Row, RowResult, read_rows, survey
from orchestra.cli.screen import note, print_json
from orchestra.errors import FleetError, InputError
from orchestra.values.outcome import Failed
from orchestra.values.schema import nearest

if TYPE_CHECKING:
    from orchestra.app import Orchestra
    from orchestra.config import Settings
    from orchestra.result import Result
    from orchestra.workflow.nodes import Budget
    from orchestra.workflow.program import Program
    from orchestra.workflow.steps import Step


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What is to be done."""

    name: str
    source: Path
    target: Path
    concurrency: int
    budget: Budget | None
    checks: tuple[str, ...] | None
    """Of a single agent; None for those of its card."""


def register(app: typer.Typer) -> None:
    """Adds the verb."""

    @app.command(cls=Verb, rich_help_panel="Run")
    def batch(
        context: typer.Context,
        name: Annotated[str, typer.Argument(help="A workflow or an agent; or a workflow's file.", show_default=False)],
        source: Annotated[Path, typer.Option("--input", "-i", help='Rows {"id", "input"}: .jsonl or .jsonl.gz.', show_default=False)],
        target: Annotated[
            Path, typer.Option("--output", "-o", help="Results in the rows' order; goes on by the ids in it.", show_default=False)
        ],
        concurrency: Annotated[
            int | None, typer.Option("--concurrency", "-c", min=1, max=10_000, help="Rows at once.", show_default="as configured")
        ] = None,
        checks: Annotated[
            list[str] | None, typer.Option(help="Of an agent: its checks, instead of those of its card.", show_default=False)
        ] = None,
        no_checks: Annotated[bool, typer.Option("--no-checks", help="Of an agent: accept every output of its type.")] = False,
        constraint: Annotated[
            Literal["evidence", "schema", "none"] | None, typer.Option(help="What models decode over.", show_default="as configured")
        ] = None,
        budget: Annotated[list[str] | None, typer.Option(metavar="LIMITS", help="Of each row: tokens=2000,seconds=60.")] = None,
        fleet: Annotated[str | None, typer.Option(help="A name in configs/, or a path.", show_default="as configured")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    ) -> None:
        """Run a workflow or an agent on many rows. Given again, it goes on where it stopped.

        Exits with 0 if every row has an output or abstained, 1 if one failed, 2 for bad input, 130 interrupted.
        """
        from orchestra.cli.limits import read_budget

        if checks and no_checks:
            raise InputError("C010", "--checks and --no-checks exclude each other", hint="give one of them")
        chosen = settings(fleet=fleet, concurrency=concurrency, constraint=constraint)
        wanted = () if no_checks else tuple(check.strip() for given in checks for check in given.split(",")) if checks else None
        job = Job(name, source, target, chosen.concurrency, read_budget(budget or ()), wanted)
        summary = asyncio.run(_batch(opener(context), chosen, job))
        if as_json:
            print_json(dataclasses.asdict(summary))
        else:
            note(f"{target}: {summary}")
        if summary.failed:
            raise typer.Exit(1)


@dataclasses.dataclass(slots=True)
class Summary:
    """What became of the rows of one command."""

    rows: int
    earlier: int
    """Rows whose results were there already."""
    done: int = 0
    abstained: int = 0
    failed: int = 0

    def __str__(self) -> str:
        counts = ((self.done, "done"), (self.abstained, "abstained"), (self.failed, "failed"), (self.earlier, "from before"))
        return f"{self.rows} rows: " + (", ".join(f"{count} {what}" for count, what in counts if count) or "none")


async def _batch(open_: Opener, chosen: Settings, job: Job) -> Summary:
    from orchestra.cli.progress import Waiting

    waiting = Waiting()
    async with open_(chosen, fleet="start", progress=waiting) as orchestra:
        step = _step(orchestra, job)
        program = orchestra.program(step)
        ids = survey(job.source, InputCheck(program))
        results = Results(job.target)
        try:
            if strange := sorted(results.done - set(ids))[:1]:
                hint = "name another file with --output, or move this one away"
                raise InputError("C022", f"{job.target} has a result of {strange[0]!r}, which is no row of {job.source}", hint=hint)
            if results.repaired:
                note(f"{job.target}: the last line was torn, and is done again")
            summary = Summary(len(ids), len(results.done))
            view = orchestra.options(budget=job.budget)
            try:
                await _write_all(job, results, summary, lambda row: _ask(view, step, row))
            except asyncio.CancelledError:
                note(f"{summary}; to go on, give the same command again")
                raise
        finally:
            waiting.close()
            results.close()
    return summary


async def _write_all(job: Job, results: Results, summary: Summary, ask: Callable[[Row], Awaitable[RowResult]]) -> None:
    from orchestra.cli.progress import Meter
    from orchestra.cli.stream import in_order

    rows = (row for row in read_rows(job.source) if row.id not in results.done)
    with Meter(summary.rows, summary.earlier) as meter:
        async with aclosing(in_order(rows, ask, job.concurrency)) as stream:
            async for result in stream:
                results.write(result)
                failed = result.error is not None and not result.abstained
                summary.failed += failed
                summary.abstained += result.abstained
                summary.done += not failed and not result.abstained
                meter.advance(failed=failed, abstained=result.abstained)


async def _ask(view: Orchestra, step: Step[..., Any], row: Row) -> RowResult:
    run = await view.start(step, **row.input)
    try:
        result = await run.wait()
    except asyncio.CancelledError:
        run.cancel("the command line")
        raise
    _refuse_absent_fleet(result)
    return row_result(row.id, result)


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
        from orchestra.values.validator import Validator

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
