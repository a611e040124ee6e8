"""`orchestra runs fork`, `replay` and `diff`: repeat runs, verify them against the current engine, and compare them.

For failed runs, only the newest run counts: one that was forked or repeated is left out. The id of a fork of several
runs derives from the id of the run, so that two commands create one fork, and an interrupted one is continued.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from orchestra.app.fork_overrides import node_type, skipped_effects
from orchestra.app.orchestra import Orchestra
from orchestra.app.planning import recorded_request
from orchestra.app.reuse import NodeChange, compare_runs
from orchestra.app.run import Run
from orchestra.app.run_status import RunListQuery, latest_runs, started_events
from orchestra.app.run_text import describe_given, format_value
from orchestra.cli.context import Opener, load_settings
from orchestra.cli.inputs import StdinReader, read_inputs, read_node_values
from orchestra.cli.output import StatusLine, print_json, print_note, print_table, print_text
from orchestra.cli.run.batch_row_state import BatchMarks, next_key, next_run
from orchestra.cli.run.watch import COMMAND_LINE_AUTHOR, DisplayOptions, RunEnd, RunWatcher
from orchestra.cli.runs.find import find_run, open_journal_of
from orchestra.cli.runs.resume import MAX_CONCURRENT_RUNS, open_recorded_orchestra
from orchestra.cli.runs.tail import format_event
from orchestra.cli.signals import StopSignal, map_in_order
from orchestra.core.error_codes import LEASE_HELD
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import AttemptFinished, AttemptStarted, Event, Override, RunStarted, encode
from orchestra.core.outcomes import Outcome, ValueOutcome
from orchestra.core.protocols import NO_LIMIT
from orchestra.core.untrusted_text import escape_invisible, pluralize, shorten
from orchestra.journal.history import History
from orchestra.workflows.model import Budget
from orchestra.workflows.python.steps import Step

MAX_VALUE_LENGTH = 200


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """Which run is repeated, and what changes."""

    run: str
    workflow: str
    inputs: Sequence[str]
    budget: Budget | None
    fleet: str | None
    repeat_effects: bool = False
    """Repeats the effects of the run."""
    node_values: Sequence[str] = ()
    """Overrides of node outputs as typed: `NODE=VALUE`."""
    unset: Sequence[str] = ()
    """Nodes whose override is removed."""
    by: str = ""
    """The author of the overrides."""


async def fork(open_: Opener, request: ForkRequest, display: DisplayOptions, stop: StopSignal) -> int:
    """Repeats a run: shows the changes, runs, shows the calls, and returns the exit code."""
    status_line = StatusLine()
    async with open_recorded_orchestra(
        open_, request.run, status_line, load_settings(fleet=request.fleet)
    ) as orchestra:
        old = await find_run(orchestra.journal, request.run)
        step = orchestra.find(request.workflow) if request.workflow else (await step_of(orchestra, old))[1]
        types = {name: field.schema for name, field in orchestra.program(step).inputs.items()}
        stdin = StdinReader()
        inputs = read_inputs(request.inputs, types, stdin)
        program = orchestra.program(step)
        node_values = read_node_values(request.node_values, lambda name: node_type(program, name), stdin)
        options = orchestra.options(
            budget=request.budget,
            again=request.repeat_effects,
            live=display.live,
            values=node_values,
            unset=request.unset,
            by=request.by,
        )
        forked_run = await options.fork(old, step, **inputs)
        if not display.as_json and not display.stream:
            _show_changes(
                forked_run.changes,
                inputs,
                forked_run.overrides,
                skipped_effects(program, forked_run.overrides),
                request.unset,
            )
        run_end = await RunWatcher(orchestra, forked_run.run, stop, status_line, display).wait_for_end()
    recalled_calls, anew = count_calls(run_end)
    fork_fields = {"parent": old, "recalled": recalled_calls, "anew": anew}
    run_end.show(
        display,
        {
            "changes": [{"node": change.node, "why": change.reason} for change in forked_run.changes],
            "given": forked_run.overrides,
            **fork_fields,
        },
    )
    if not display.as_json and not display.stream:
        print_text(f"{pluralize(recalled_calls, 'call')} recalled from run {old}, {anew} made", style="bold")
    return run_end.exit_code


async def step_of(orchestra: Orchestra, run: str) -> tuple[str, Step[..., Any]]:
    """The name of a run's workflow, and its current version. Raises `InputError` C004."""
    first = (await orchestra.journal.read(run))[0]
    name = first.workflow if isinstance(first, RunStarted) else ""
    if isinstance(first, RunStarted) and (workflow := await recorded_request(orchestra, first)) is not None:
        return name, workflow
    try:
        return name, orchestra.find(name)
    except InputError as error:
        if error.code != "C004":
            raise
        hint = f"use its file: orchestra runs fork {run} --workflow FILE"
        raise InputError(
            "C004", f"run {run} ran {name!r}, which is not a workflow of this project", hint=hint
        ) from error


def _show_changes(
    changes: Sequence[NodeChange],
    node_values: dict[str, Any],
    values: Mapping[str, Override],
    not_called: Iterable[tuple[str, str]],
    unset_nodes: Sequence[str],
) -> None:
    for change in changes:
        print_text(escape_invisible(f"{change.node}: {change.reason}"))
    for name in node_values:
        print_text(escape_invisible(f"input {name}: has a new value"))
    for path, override in values.items():
        print_text(
            escape_invisible(
                f"{path}: {'the answer' if override.question_digest else 'the value'} is "
                f"{describe_given(override.source)}"
            )
        )
    for name in dict.fromkeys(unset_nodes):
        print_text(escape_invisible(f"{name}: its override is removed"))
    for node, tool in not_called:
        print_text(escape_invisible(f"{node}: {tool} has effects and is not called"))
    if not changes and not node_values and not values and not unset_nodes:
        print_text("nothing has changed")
    print_text()


def count_calls(end: RunEnd) -> tuple[int, int]:
    """The number of recalled calls and of calls made."""
    recalled_calls = {
        (event.node, event.attempt) for event in end.events if isinstance(event, AttemptFinished) and event.reused_from
    }
    executed_calls = {
        (event.node, event.attempt) for event in end.events if isinstance(event, AttemptStarted | AttemptFinished)
    }
    refused_calls = {(event.node, event.attempt) for event in end.refused_calls}
    return len(recalled_calls), len(executed_calls - recalled_calls - refused_calls)


async def replay(open_: Opener, name: str, *, as_json: bool) -> int:
    """Shows whether the current engine would produce the events of a run; returns 1 if not."""
    async with open_recorded_orchestra(open_, name) as orchestra:
        run = await find_run(orchestra.journal, name)
        replay_result = await orchestra.replay(run)
    if as_json:
        print_json(
            {
                "run": run,
                "events": replay_result.event_count,
                "reason": replay_result.reason,
                "different": _to_raw(replay_result.first_difference),
            }
        )
    elif replay_result.first_difference is None:
        print_text(f"{pluralize(replay_result.event_count, 'event')}, same decisions of the engine")
    else:
        print_text(
            f"{replay_result.event_count} events, same decisions of the engine; but event "
            f"{replay_result.first_difference.seq} differs: {replay_result.reason}",
            style="yellow",
        )
        print_text(escape_invisible(f"{format_event(replay_result.first_difference)}"))
    return int(replay_result.first_difference is not None)


def _to_raw(event: Event | None) -> Any:
    import msgspec

    return None if event is None else msgspec.Raw(encode(event))


async def diff(one: str, two: str, *, as_json: bool) -> int:
    """Shows the nodes with different outcomes in two runs; returns 1 if there are any."""
    async with open_journal_of(one) as (journal, before):
        after = await find_run(journal, two)
        first, second = await journal.read(before), await journal.read(after)
    differences = compare_runs(first, second)
    if as_json:
        print_json(
            [
                {"node": difference.node, "before": difference.before, "after": difference.after}
                for difference in differences
            ]
        )
        return int(bool(differences))
    if not differences:
        print_text(f"the same: {len(History.of(second).rows)} nodes have equal outcomes")
        return 0
    rows = [
        (difference.node or "the run", _format_outcome(difference.before), _format_outcome(difference.after))
        for difference in differences
    ]
    print_table(("node", before, after), rows)
    return 1


def _format_outcome(outcome: Outcome | None) -> str:
    if outcome is None:
        return "–"
    text = (
        format_value(outcome.value)
        if isinstance(outcome, ValueOutcome)
        else f"{type(outcome).__name__.lower()}: {outcome.reason}"
    )
    text = " ".join(text.split())
    return shorten(text, MAX_VALUE_LENGTH)


MAX_RUNS_SHOWN = 5
"""The maximum number of omitted runs that are named."""
FAILURE_STATUSES = ("failed", "budget", "cancelled", "not forked")


@dataclass(frozen=True, slots=True)
class ForkManyRequest:
    """Which runs are repeated: the named ones, or the failed ones of a period."""

    runs: Sequence[str]
    period: tuple[float, float] | None
    """The start period of failed runs; None for named runs only."""
    budget: Budget | None
    fleet: str | None
    repeat_effects: bool
    """Repeats the effects of the runs."""


@dataclass(frozen=True, slots=True)
class _ForkEnd:
    """The result for a repeated run; `run` is the new one."""

    run: str
    parent: str
    workflow: str
    status: str
    reason: str = ""


async def fork_all(open_: Opener, request: ForkManyRequest, *, as_json: bool) -> int:
    """Repeats runs, oldest first, and prints a line for each. Returns 1 if one failed or was not forked. A cancellation
    releases the forks, and the command to continue them is printed.
    """
    async with open_recorded_orchestra(
        open_, request.runs[0] if request.runs else "failed", None, load_settings(fleet=request.fleet)
    ) as orchestra:
        view, bad = orchestra.options(budget=request.budget, again=request.repeat_effects), False
        failed_runs, lost_runs = ({}, []) if request.period is None else await _find_failed(orchestra, *request.period)
        reasons_by_run = (
            dict.fromkeys([await find_run(orchestra.journal, name) for name in request.runs], "") | failed_runs
        )
        if lost_runs:
            runs, more_text = ", ".join(lost_runs[:MAX_RUNS_SHOWN]), ", …" if len(lost_runs) > MAX_RUNS_SHOWN else ""
            print_note(
                f"{pluralize(len(lost_runs), 'failed run')} left out: their forks were deleted, and may have made "
                f"calls with effects: {runs}{more_text}"
            )
            print_note(f"to fork one of them nevertheless: orchestra runs fork {lost_runs[0]}")
        elif not reasons_by_run and not as_json:
            print_text("no failed run is left to repeat")

        async def one(run: str) -> _ForkEnd:
            return await _fork_run(view, run, reasons_by_run[run], is_unique=run in failed_runs)

        async with aclosing(map_in_order(reasons_by_run, one, MAX_CONCURRENT_RUNS)) as ends:
            for _ in reasons_by_run:
                try:
                    end = await anext(ends)
                except asyncio.CancelledError:
                    print_note("to continue all of them, repeat the command")
                    raise
                bad = bad or end.status in FAILURE_STATUSES
                if as_json:
                    print_json(
                        {
                            "run": end.run,
                            "parent": end.parent,
                            "workflow": end.workflow,
                            "status": end.status,
                            "reason": end.reason,
                        }
                    )
                else:
                    fork_text = f"{end.run}  " if end.run else ""
                    print_text(
                        f"{fork_text}{end.workflow}  {end.status}, forked from "
                        f"{end.parent}{f': {end.reason}' if end.reason else ''}"
                    )
    return int(bad)


async def _find_failed(orchestra: Orchestra, since: float, until: float) -> tuple[dict[str, str], list[str]]:
    """The failed runs of a period that were not repeated, oldest first, without those of evaluations, each with its
    interrupted fork, which is continued instead. Also returns those whose fork was deleted.
    """
    runs = await latest_runs(orchestra.journal, time.time(), RunListQuery(NO_LIMIT, since=since))
    marks, finished_runs, forks = BatchMarks(orchestra.journal), set[str](), dict[str, list[str]]()
    async for run, first in started_events(orchestra.journal, runs):
        if first.options.get("purpose"):
            finished_runs.add(run)
        elif first.parent:
            forks.setdefault(first.parent, []).append(run)
    cut_off = {run.run for run in runs if run.status == "interrupted"}
    failed_runs, lost_runs = dict[str, str](), list[str]()
    for run in (
        run.run
        for run in reversed(runs)
        if run.status == "failed" and run.started < until and run.run not in finished_runs
    ):
        if run in forks:
            if forks[run] == [fork := next_run(run)] and fork in cut_off:
                failed_runs[run] = fork
        elif not (state := await marks.follow_state(run)):
            failed_runs[run] = ""
        elif state == "lost":
            lost_runs.append(run)
    return failed_runs, lost_runs


async def _fork_run(orchestra: Orchestra, old: str, fork: str, *, is_unique: bool) -> _ForkEnd:
    """The end of a repeated run, through its interrupted fork if there is one, or why it cannot be repeated. With
    `is_unique` it has at most one such fork, whichever command creates it.
    """
    resumed_run: Run[Any] | None = None
    workflow = ""
    try:
        workflow, step = await step_of(orchestra, old)
        if is_unique and not fork and await BatchMarks(orchestra.journal).follow_state(old):
            return _ForkEnd("", old, workflow, "not forked", "it was repeated meanwhile")
        if fork:
            resumed_run = await orchestra.resume(fork, by=COMMAND_LINE_AUTHOR)
        else:
            if is_unique and await BatchMarks(orchestra.journal).is_unwritten(old):
                BatchMarks(orchestra.journal).mark_begun(next_run(old))  # the batch still has to write its result
            resumed_run = (
                await orchestra.options(idempotency_key=next_key(old) if is_unique else "").fork(old, step)
            ).run
        result = await resumed_run.wait_until_blocked()
    except OrchestraError as error:
        run = resumed_run.id if resumed_run is not None else fork
        if error.code == LEASE_HELD:
            return _ForkEnd(run, old, workflow, "running", f"{error.code}: {error.message}")
        hint = f"; orchestra runs fork {fork}" if fork else ""
        return _ForkEnd(run, old, workflow, "not forked", f"{error.code}: {error.message}{hint}")
    except asyncio.CancelledError:
        if resumed_run is not None:  # it is released
            print_note(f"stopped; resume with: orchestra runs resume {resumed_run.id}")
        raise
    if result is None:
        return _ForkEnd(resumed_run.id, old, workflow, "waiting", f"orchestra runs answer {resumed_run.id}")
    return _ForkEnd(
        resumed_run.id, old, workflow, result.status, result.error.message if result.error is not None else ""
    )
