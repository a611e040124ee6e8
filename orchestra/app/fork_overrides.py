"""Values that a person gives in the place of what steps would come to: those of a fork, checked before it begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import msgspec

from orchestra.agents.contract import Contract
from orchestra.app.fork_effects import LASTING
from orchestra.app.inputs import jsonable
from orchestra.app.reuse import NEW, Change
from orchestra.app.run_options import Options
from orchestra.app.snapshot_store import called, reached
from orchestra.core.errors import InputError
from orchestra.core.events import Answered, Asked, Event, Given, GivenValue, RunStarted
from orchestra.core.paths import first_name
from orchestra.core.suggestions import nearest
from orchestra.core.untrusted_text import counted
from orchestra.engine.kinds.ask import incomplete
from orchestra.schema.json_schema import bundled
from orchestra.schema.strict_json import unkept
from orchestra.schema.types import Schema, Validator, show
from orchestra.workflows.program import CompiledNode, Program


@dataclass(frozen=True, slots=True)
class Before:
    """The run that a fork is of."""

    first: RunStarted
    events: Sequence[Event] | None
    """None where the fork has other inputs: then no answer counts."""
    changed: Sequence[Change]
    """What is not today as it was then."""


def values_of(program: Program, options: Options, before: Before, inputs: Mapping[str, Any]) -> dict[str, GivenValue]:
    """What persons have given for the nodes of a fork on these inputs: what the options say, and what holds on of the run before, by the
    names of nodes, as inputs do, whatever the workflow is called; where the options say something, also its answers to questions that do
    not depend on that, nor on what has changed, and that no effect waits for which does: that was allowed as it was then.

    Raises `InputError` E033 for a value that no node of the program takes.
    """
    first, events, changed = before.first, before.events, before.changed
    values, held, let_go = options.given, _held(first), options.let_go
    if unheld := let_go - held.keys():
        hint = f"it was given: {', '.join(sorted(held))}" if held else ""
        raise InputError("E033", f"run {first.run} was given no value of {min(unheld)} that could be let go", hint=hint)
    held = {name: one for name, one in held.items() if name not in let_go}
    names = {node.name for node in program.nodes}
    found: dict[str, GivenValue] = {}
    if values and events is not None:
        again = {*values, *let_go, *(first_name(change.node) for change in changed)}
        other = _below(program, again)
        found |= _answers(first, events, names - other - _above_effects(program, other - values.keys()))
    _all_taken(program, held, values.keys(), changed)
    found |= {name: one for name, one in held.items() if name in names}
    lists = {node.name for node in program.nodes if node.at_least == "all"}
    found |= {name: GivenValue(jsonable(value), Given(options.by), whole=name in lists) for name, value in values.items()}
    for name, one in found.items():
        if not one.shown and (fault := _fault(program, name, one, inputs)):
            said = f", given in run {one.given.run}" if one.given.run else ""
            hint = f"{name}: {show(type_of(program, name))}"
            hint += f"; another one: orchestra runs fork RUN --set {name}=VALUE; without one: --unset {name}" if said else ""
            raise InputError("E033", f"the value of {name}{said}: {fault}", hint=hint)
    return found


def _held(first: RunStarted) -> dict[str, GivenValue]:
    """What a run was given by persons beside answers, each with the run in which that was said."""
    before = {name: one for name, one in (first.given or {}).items() if not one.shown}
    return {name: msgspec.structs.replace(one, given=Given(one.given.by, one.given.run or first.run)) for name, one in before.items()}


def _all_taken(program: Program, held: Mapping[str, GivenValue], values: Set[str], changed: Sequence[Change]) -> None:
    """Raises `InputError` E033 where a value that holds on has no node any more, and no new node is given one: a renamed node would be
    called for real."""
    lost = held.keys() - values - {node.name for node in program.nodes}
    fresh = [node.name for node in program.nodes if any(one.node == node.name and one.why == NEW for one in changed)]
    if len(lost) <= sum(name in values for name in fresh):
        return
    name = min(lost)
    untold = [one for one in fresh if one not in values]
    new = (nearest(name, untold) or untold[0]) if untold else "NODE"
    said = f"the value of {name}, given in run {held[name].given.run}, has no node any more in {program.name}"
    hint = f"under its new name: orchestra runs fork RUN --set {new}=VALUE; without it: --unset {name}"
    raise InputError("E033", said, hint=hint)


def _fault(program: Program, name: str, said: GivenValue, inputs: Mapping[str, Any]) -> str | None:
    """Why a node does not take a value; a list has as many elements as the node may have, and all where these follow from the inputs."""
    schema, value = type_of(program, name), said.value
    if fault := unkept(value) or Validator(schema).check(value):
        return fault
    node = next(node for node in program.nodes if node.name == name)
    if node.each is None:
        return None
    if len(value) > node.limit:
        return f"{counted(len(value), 'element')}, and the limit is {node.limit:,}"
    if isinstance(node.at_least, int) and len(value) < node.at_least:
        return f"{counted(len(value), 'element')}, and {node.at_least:,} are needed"
    return incomplete(node, value, {"input": inputs}) if said.whole else None


def type_of(program: Program, name: str) -> Schema:
    """The type of what a node gives, under `each` of its list. Raises `InputError` E033 for a name that no node of the workflow has."""
    node = next((node for node in program.nodes if node.name == name), None)
    if node is not None:
        return node.output if node.each is None else bundled({"type": "array", "items": node.output})
    names = [one.name for one in program.nodes]
    outer = first_name(name)
    if outer != name and outer in names:
        raise InputError("E033", f"{name} stands inside of {outer}, and a value is given for all of that", hint=f"give {outer} one")
    near = nearest(name, names)
    hint = f"did you mean {near!r}?" if near else f"nodes are: {', '.join(names[:20])}"
    raise InputError("E033", f"{program.name} has no node {name!r}", hint=hint)


def uncalled(program: Program, values: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The nodes among those that are given whose tools have effects, each with such a tool, which nobody calls."""
    for node in program.nodes:
        if node.name in values:
            yield from ((node.name, name) for name in dict.fromkeys(_acting(node)))


def _acting(node: CompiledNode) -> Iterator[str]:
    yield from (tool.name for tool in _tools(node) if tool.effect in LASTING)


def _tools(node: CompiledNode) -> Iterator[Contract]:
    """The tools that a node may call, in its body and in the workflows that it may plan too."""
    inside = called(node.body) if node.body is not None else ()
    yield from (contract for contract in (*reached(node), *inside) if contract.kind == "tool")


def _below(program: Program, names: Iterable[str]) -> set[str]:
    """These nodes, and all that wait for one of them."""
    line = [node for node in program.nodes if node.name in set(names)]
    found = {node.name for node in line}
    while line:
        for child in (program.nodes[index] for index in line.pop().children):
            if child.name not in found:
                found.add(child.name)
                line.append(child)
    return found


def _above_effects(program: Program, names: Set[str]) -> set[str]:
    """The nodes that those of these wait for whose tools have effects."""
    line = [node for node in program.nodes if node.name in names and any(tool.effect != "pure" for tool in _tools(node))]
    found: set[str] = set()
    while line:
        for index in line.pop().needs:
            node = program.nodes[index]
            if node.name not in found:
                found.add(node.name)
                line.append(node)
    return found


def _answers(first: RunStarted, events: Sequence[Event], nodes: Iterable[str]) -> dict[str, GivenValue]:
    """What persons answered in these nodes, by path; each counts where the very same is asked again."""
    kept = frozenset(nodes)
    found = {path: one for path, one in (first.given or {}).items() if one.shown}
    asked: dict[str, Asked] = {}
    for event in events:
        if isinstance(event, Asked):
            asked[event.node] = event
        elif isinstance(event, Answered) and not event.declined and asked[event.node].about == "answer":
            found[event.node] = GivenValue(event.value, Given(event.by, first.run), asked[event.node].shown)
    return {path: one for path, one in found.items() if first_name(path) in kept}
