"""What `orchestra runs fork`, `replay` and `diff` do: runs made again, held against today's engine, and against each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.app.fork_overrides import node_type, skipped_effects
from orchestra.app.orchestra import Orchestra
from orchestra.app.planning import recorded_request
from orchestra.app.reuse import NodeChange, compare_runs
from orchestra.cli.context import Opener, load_settings
from orchestra.cli.inputs import StdinReader, read_inputs, read_node_values
from orchestra.cli.output import make_console, make_table, print_json, print_text
from orchestra.cli.progress import StatusLine
from orchestra.cli.run.result_view import format_value
from orchestra.cli.run.watch import DisplayOptions, RunEnd, RunWatcher
from orchestra.cli.runs.find import find_run, open_journal_of
from orchestra.cli.runs.resume import open_recorded_orchestra
from orchestra.cli.runs.tail import describe_given, format_event
from orchestra.cli.signals import StopSignal
from orchestra.core.errors import InputError
from orchestra.core.events import AttemptFinished, AttemptStarted, Event, Override, RunStarted, encode
from orchestra.core.outcomes import Outcome, ValueOutcome
from orchestra.core.untrusted_text import escape_invisible, pluralize, shorten
from orchestra.journal.history import History
from orchestra.workflows.model import Budget
from orchestra.workflows.python.steps import Step

MAX_VALUE_LENGTH = 200


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """Which run is to be made again, and what is to be otherwise."""

    run: str
    workflow: str
    inputs: Sequence[str]
    budget: Budget | None
    fleet: str | None
    repeat_effects: bool = False
    """Whether effects that the run had come about again."""
    node_values: Sequence[str] = ()
    """What nodes give, as it was typed: `NODE=VALUE`."""
    unset: Sequence[str] = ()
    """Nodes that do without what a person gave before."""
    by: str = ""
    """Who says so."""


async def fork(open_: Opener, request: ForkRequest, display: DisplayOptions, stop: StopSignal) -> int:
    """Makes a run again where something changed: says what did, then runs, then says which calls were made; gives the exit code."""
    waiting = StatusLine()
    async with open_recorded_orchestra(open_, request.run, waiting, load_settings(fleet=request.fleet)) as orchestra:
        old = await find_run(orchestra.journal, request.run)
        step = orchestra.find(request.workflow) if request.workflow else (await step_of(orchestra, old))[1]
        types = {name: field.schema for name, field in orchestra.program(step).inputs.items()}
        stdin = StdinReader()
        given = read_inputs(request.inputs, types, stdin)
        program = orchestra.program(step)
        told = read_node_values(request.node_values, lambda name: node_type(program, name), stdin)
        options = orchestra.options(
            budget=request.budget,
            again=request.repeat_effects,
            live=display.live,
            values=told,
            unset=request.unset,
            by=request.by,
        )
        forked = await options.fork(old, step, **given)
        if not display.as_json and not display.stream:
            _show_changes(
                forked.changes, given, forked.overrides, skipped_effects(program, forked.overrides), request.unset
            )
        ending = await RunWatcher(orchestra, forked.run, stop, waiting, display).wait_for_end()
    recalled, anew = count_calls(ending)
    made = {"parent": old, "recalled": recalled, "anew": anew}
    ending.show(
        display,
        {
            "changes": [{"node": change.node, "why": change.reason} for change in forked.changes],
            "given": forked.overrides,
            **made,
        },
    )
    if not display.as_json and not display.stream:
        print_text(f"{pluralize(recalled, 'call')} recalled from run {old}, {anew} made anew", style="bold")
    return ending.exit_code


async def step_of(orchestra: Orchestra, run: str) -> tuple[str, Step[..., Any]]:
    """The name of a run's workflow, and what it is today. Raises `InputError` C004."""
    first = (await orchestra.journal.read(run))[0]
    name = first.workflow if isinstance(first, RunStarted) else ""
    if isinstance(first, RunStarted) and (asked := await recorded_request(orchestra, first)) is not None:
        return name, asked
    try:
        return name, orchestra.find(name)
    except InputError as error:
        if error.code != "C004":
            raise
        hint = f"name its file: orchestra runs fork {run} --workflow FILE"
        raise InputError("C004", f"run {run} ran {name!r}, which is no workflow of this project", hint=hint) from error


def _show_changes(
    changes: Sequence[NodeChange],
    given: dict[str, Any],
    values: Mapping[str, Override],
    not_called: Iterable[tuple[str, str]],
    unset: Sequence[str],
) -> None:
    for change in changes:
        print_text(escape_invisible(f"{change.node}: {change.reason}"))
    for name in given:
        print_text(escape_invisible(f"input {name}: is given anew"))
    for path, one in values.items():
        print_text(
            escape_invisible(
                f"{path}: {'the answer' if one.question_digest else 'the value'} is {describe_given(one.source)}"
            )
        )
    for name in dict.fromkeys(unset):
        print_text(escape_invisible(f"{name}: the value that a person gave it is let go"))
    for node, tool in not_called:
        print_text(escape_invisible(f"{node}: {tool} has effects, and is not called"))
    if not changes and not given and not values and not unset:
        print_text("nothing has changed")
    print_text()


def count_calls(end: RunEnd) -> tuple[int, int]:
    """How many calls of a run were recalled, and how many went out."""
    recalled = {
        (event.node, event.attempt) for event in end.events if isinstance(event, AttemptFinished) and event.reused_from
    }
    made = {(event.node, event.attempt) for event in end.events if isinstance(event, AttemptStarted | AttemptFinished)}
    refused = {(event.node, event.attempt) for event in end.refused_calls}
    return len(recalled), len(made - recalled - refused)


async def replay(open_: Opener, name: str, *, as_json: bool) -> int:
    """Says whether today's engine would have brought a run's events about; gives 1 where not."""
    async with open_recorded_orchestra(open_, name) as orchestra:
        run = await find_run(orchestra.journal, name)
        found = await orchestra.replay(run)
    if as_json:
        print_json(
            {
                "run": run,
                "events": found.event_count,
                "reason": found.reason,
                "different": _to_raw(found.first_difference),
            }
        )
    elif found.first_difference is None:
        print_text(f"{pluralize(found.event_count, 'event')}, the same decisions today")
    else:
        print_text(
            f"{found.event_count} events, the same decisions today; but event {found.first_difference.seq} differs: {found.reason}",
            style="yellow",
        )
        print_text(escape_invisible(f"{format_event(found.first_difference)}"))
    return int(found.first_difference is not None)


def _to_raw(event: Event | None) -> Any:
    import msgspec

    return None if event is None else msgspec.Raw(encode(event))


async def diff(one: str, two: str, *, as_json: bool) -> int:
    """Shows the nodes that ended otherwise in two runs; gives 1 where there are some."""
    async with open_journal_of(one) as (journal, before):
        after = await find_run(journal, two)
        first, second = await journal.read(before), await journal.read(after)
    found = compare_runs(first, second)
    if as_json:
        print_json(
            [{"node": difference.node, "before": difference.before, "after": difference.after} for difference in found]
        )
        return int(bool(found))
    if not found:
        print_text(f"the same: {len(History.of(second).rows)} nodes came to the same")
        return 0
    rows = [
        (difference.node or "the run", _format_outcome(difference.before), _format_outcome(difference.after))
        for difference in found
    ]
    make_console().print(make_table(("node", before, after), rows))
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
