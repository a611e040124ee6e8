"""What `orchestra runs fork`, `replay` and `diff` do: runs made again, held against today's engine, and against each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.app.fork_overrides import type_of, uncalled
from orchestra.app.orchestra import Orchestra
from orchestra.app.planning import asked_in
from orchestra.app.reuse import Change, compare
from orchestra.cli.context import Opener, settings
from orchestra.cli.inputs import Stdin, read_inputs, read_values
from orchestra.cli.output import console, print_json, say, table
from orchestra.cli.progress import Waiting
from orchestra.cli.run.result_view import as_text
from orchestra.cli.run.watch import Ending, Manner, Watch
from orchestra.cli.runs.find import find_run, opened_at
from orchestra.cli.runs.resume import opened
from orchestra.cli.runs.tail import given_text, line_of
from orchestra.cli.signals import Stop
from orchestra.core.errors import InputError
from orchestra.core.events import AttemptFinished, AttemptStarted, Event, GivenValue, RunStarted, encode
from orchestra.core.outcomes import Outcome, Value
from orchestra.core.untrusted_text import counted, shortened, visible
from orchestra.journal.history import History
from orchestra.workflows.model import Budget
from orchestra.workflows.python.steps import Step

LONG = 200


@dataclass(frozen=True, slots=True)
class Again:
    """Which run is to be made again, and what is to be otherwise."""

    run: str
    workflow: str
    inputs: Sequence[str]
    budget: Budget | None
    fleet: str | None
    effects: bool = False
    """Whether effects that the run had come about again."""
    values: Sequence[str] = ()
    """What nodes give, as it was typed: `NODE=VALUE`."""
    unset: Sequence[str] = ()
    """Nodes that do without what a person gave before."""
    by: str = ""
    """Who says so."""


async def fork(open_: Opener, again: Again, manner: Manner, stop: Stop) -> int:
    """Makes a run again where something changed: says what did, then runs, then says which calls were made; gives the exit code."""
    waiting = Waiting()
    async with opened(open_, again.run, waiting, settings(fleet=again.fleet)) as orchestra:
        old = await find_run(orchestra.journal, again.run)
        step = orchestra.find(again.workflow) if again.workflow else (await step_of(orchestra, old))[1]
        types = {name: field.schema for name, field in orchestra.program(step).inputs.items()}
        stdin = Stdin()
        given = read_inputs(again.inputs, types, stdin)
        program = orchestra.program(step)
        told = read_values(again.values, lambda name: type_of(program, name), stdin)
        options = orchestra.options(budget=again.budget, again=again.effects, live=manner.live, values=told, unset=again.unset, by=again.by)
        forked = await options.fork(old, step, **given)
        if not manner.as_json and not manner.stream:
            _show_changes(forked.changes, given, forked.given, uncalled(program, forked.given), again.unset)
        ending = await Watch(orchestra, forked.run, stop, waiting, manner).ending()
    recalled, anew = calls(ending)
    made = {"parent": old, "recalled": recalled, "anew": anew}
    ending.show(manner, {"changes": [{"node": change.node, "why": change.why} for change in forked.changes], "given": forked.given, **made})
    if not manner.as_json and not manner.stream:
        say(f"{counted(recalled, 'call')} recalled from run {old}, {anew} made anew", style="bold")
    return ending.code


async def step_of(orchestra: Orchestra, run: str) -> tuple[str, Step[..., Any]]:
    """The name of a run's workflow, and what it is today. Raises `InputError` C004."""
    first = (await orchestra.journal.read(run))[0]
    name = first.workflow if isinstance(first, RunStarted) else ""
    if isinstance(first, RunStarted) and (asked := await asked_in(orchestra, first)) is not None:
        return name, asked
    try:
        return name, orchestra.find(name)
    except InputError as error:
        if error.code != "C004":
            raise
        hint = f"name its file: orchestra runs fork {run} --workflow FILE"
        raise InputError("C004", f"run {run} ran {name!r}, which is no workflow of this project", hint=hint) from error


def _show_changes(
    changes: Sequence[Change],
    given: dict[str, Any],
    values: Mapping[str, GivenValue],
    uncalled: Iterable[tuple[str, str]],
    unset: Sequence[str],
) -> None:
    for change in changes:
        say(visible(f"{change.node}: {change.why}"))
    for name in given:
        say(visible(f"input {name}: is given anew"))
    for path, one in values.items():
        say(visible(f"{path}: {'the answer' if one.shown else 'the value'} is {given_text(one.given)}"))
    for name in dict.fromkeys(unset):
        say(visible(f"{name}: the value that a person gave it is let go"))
    for node, tool in uncalled:
        say(visible(f"{node}: {tool} has effects, and is not called"))
    if not changes and not given and not values and not unset:
        say("nothing has changed")
    say()


def calls(ending: Ending) -> tuple[int, int]:
    """How many calls of a run were recalled, and how many went out."""
    recalled = {(event.node, event.attempt) for event in ending.events if isinstance(event, AttemptFinished) and event.recalled}
    made = {(event.node, event.attempt) for event in ending.events if isinstance(event, AttemptStarted | AttemptFinished)}
    refused = {(event.node, event.attempt) for event in ending.refused}
    return len(recalled), len(made - recalled - refused)


async def replay(open_: Opener, name: str, *, as_json: bool) -> int:
    """Says whether today's engine would have brought a run's events about; gives 1 where not."""
    async with opened(open_, name) as orchestra:
        run = await find_run(orchestra.journal, name)
        found = await orchestra.replay(run)
    if as_json:
        print_json({"run": run, "events": found.events, "reason": found.reason, "different": _raw(found.different)})
    elif found.different is None:
        say(f"{counted(found.events, 'event')}, the same decisions today")
    else:
        say(f"{found.events} events, the same decisions today; but event {found.different.seq} differs: {found.reason}", style="yellow")
        say(visible(f"{line_of(found.different)}"))
    return int(found.different is not None)


def _raw(event: Event | None) -> Any:
    import msgspec

    return None if event is None else msgspec.Raw(encode(event))


async def diff(one: str, two: str, *, as_json: bool) -> int:
    """Shows the nodes that ended otherwise in two runs; gives 1 where there are some."""
    async with opened_at(one) as (journal, before):
        after = await find_run(journal, two)
        first, second = await journal.read(before), await journal.read(after)
    found = compare(first, second)
    if as_json:
        print_json([{"node": difference.node, "before": difference.before, "after": difference.after} for difference in found])
        return int(bool(found))
    if not found:
        say(f"the same: {len(History.of(second).rows)} nodes came to the same")
        return 0
    rows = [(difference.node or "the run", _cell(difference.before), _cell(difference.after)) for difference in found]
    console().print(table(("node", before, after), rows))
    return 1


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return "–"
    text = as_text(outcome.value) if isinstance(outcome, Value) else f"{type(outcome).__name__.lower()}: {outcome.reason}"
    text = " ".join(text.split())
    return shortened(text, LONG)
