"""Values that a person gives for nodes of a fork, checked before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import msgspec

from orchestra.agents.contract import Contract
from orchestra.app.fork_effects import LASTING_EFFECTS
from orchestra.app.inputs import to_jsonable
from orchestra.app.reuse import NEW, NodeChange
from orchestra.app.snapshot_store import called_contracts, reachable_contracts
from orchestra.core.errors import InputError
from orchestra.core.events import (
    Event,
    Override,
    OverrideSource,
    QuestionAnswered,
    QuestionAsked,
    RunStarted,
)
from orchestra.core.outcomes import SkippedOutcome, ValueOutcome
from orchestra.core.paths import root_name
from orchestra.core.suggestions import closest_match
from orchestra.core.untrusted_text import pluralize
from orchestra.engine.kinds.ask import incomplete_reason
from orchestra.engine.request import RunOptions
from orchestra.journal.history import History
from orchestra.schema.json_schema import bundle_definitions
from orchestra.schema.strict_json import storage_error
from orchestra.schema.types import Schema, Validator, format_type
from orchestra.workflows.program import CompiledNode, Program

SETTLED = (ValueOutcome, SkippedOutcome)
"""Outcomes that a fork has too, unless something has changed."""


@dataclass(frozen=True, slots=True)
class ParentRun:
    """The parent of a fork."""

    started: RunStarted
    events: Sequence[Event] | None
    """None if the fork has other inputs: then no answer is reused."""
    changes: Sequence[NodeChange]
    """What has changed since."""


def collect_overrides(
    program: Program, options: RunOptions, parent: ParentRun, inputs: Mapping[str, Any]
) -> dict[str, Override]:
    """Collects the values of persons for the nodes of a fork on these inputs: those of the options, and those given in
    the parent, by the names of nodes.

    The parent's answers to questions are reused too, unless they depend on a new value or a change, or an effect waits
    for them that is repeated or whose inputs may differ: such an effect was approved as it was then.

    Raises `InputError` E033 for a value that no node of the program accepts.
    """
    first, events, changes = parent.started, parent.events, parent.changes
    values, inherited_overrides, let_go = options.checked_values, _inherited_overrides(first), options.unset_nodes
    if unheld := let_go - inherited_overrides.keys():
        hint = f"it was given: {', '.join(sorted(inherited_overrides))}" if inherited_overrides else ""
        raise InputError("E033", f"run {first.run} was given no value of {min(unheld)} that could be let go", hint=hint)
    inherited_overrides = {name: override for name, override in inherited_overrides.items() if name not in let_go}
    names = {node.name for node in program.nodes}
    collected_overrides: dict[str, Override] = {}
    if events is not None:
        again = {*values, *let_go, *(root_name(change.node) for change in changes)}
        dependents = _dependents(program, again)
        effects = names if options.again else dependents | _dependents_of_new_values(program, events)
        collected_overrides |= _reusable_answers(
            first, events, names - dependents - _prerequisites_of_effects(program, effects - values.keys())
        )
    _require_nodes(program, inherited_overrides, values.keys(), changes)
    collected_overrides |= {name: override for name, override in inherited_overrides.items() if name in names}
    lists = {node.name for node in program.nodes if node.at_least == "all"}
    collected_overrides |= {
        name: Override(to_jsonable(value), OverrideSource(options.by), requires_all=name in lists)
        for name, value in values.items()
    }
    for name, override in collected_overrides.items():
        if not override.question_digest and (fault := _override_error(program, name, override, inputs)):
            origin = f", given in run {override.source.run}" if override.source.run else ""
            hint = f"{name}: {format_type(node_type(program, name))}"
            hint += (
                f"; another one: orchestra runs fork RUN --set {name}=VALUE; without one: --unset {name}"
                if origin
                else ""
            )
            raise InputError("E033", f"the value of {name}{origin}: {fault}", hint=hint)
    return collected_overrides


def _inherited_overrides(first: RunStarted) -> dict[str, Override]:
    """Returns the values that persons gave in a run, without answers, each with the run in which it was given."""
    before = {name: override for name, override in (first.overrides or {}).items() if not override.question_digest}
    return {
        name: msgspec.structs.replace(
            override, source=OverrideSource(override.source.by, override.source.run or first.run)
        )
        for name, override in before.items()
    }


def _require_nodes(
    program: Program, overrides: Mapping[str, Override], values: Set[str], changes: Sequence[NodeChange]
) -> None:
    """Raises `InputError` E033 if the node of an inherited value is gone and no new node gets one: a renamed node would
    be called.
    """
    removed_names = overrides.keys() - values - {node.name for node in program.nodes}
    fresh = [
        node.name
        for node in program.nodes
        if any(change.node == node.name and change.reason == NEW for change in changes)
    ]
    if len(removed_names) <= sum(name in values for name in fresh):
        return
    name = min(removed_names)
    untold = [new_name for new_name in fresh if new_name not in values]
    new = (closest_match(name, untold) or untold[0]) if untold else "NODE"
    message = f"the value of {name}, given in run {overrides[name].source.run}, has no node any more in {program.name}"
    hint = f"under its new name: orchestra runs fork RUN --set {new}=VALUE; without it: --unset {name}"
    raise InputError("E033", message, hint=hint)


def _override_error(program: Program, name: str, override: Override, inputs: Mapping[str, Any]) -> str | None:
    """Returns why a node does not accept a value. A list may have as many elements as the node, and needs all if their
    number follows from the inputs.
    """
    schema, value = node_type(program, name), override.value
    if fault := storage_error(value) or Validator(schema).check(value):
        return fault
    node = next(node for node in program.nodes if node.name == name)
    if node.each is None:
        return None
    if len(value) > node.limit:
        return f"{pluralize(len(value), 'element')}, and the limit is {node.limit:,}"
    if isinstance(node.at_least, int) and len(value) < node.at_least:
        return f"{pluralize(len(value), 'element')}, and {node.at_least:,} are needed"
    return incomplete_reason(node, value, {"input": inputs}) if override.requires_all else None


def node_type(program: Program, name: str) -> Schema:
    """Returns the type of a node's output, a list under `each`. Raises `InputError` E033 for an unknown node."""
    node = next((node for node in program.nodes if node.name == name), None)
    if node is not None:
        return node.output if node.each is None else bundle_definitions({"type": "array", "items": node.output})
    names = [compiled_node.name for compiled_node in program.nodes]
    outer = root_name(name)
    if outer != name and outer in names:
        raise InputError(
            "E033", f"{name} is inside of {outer}, which takes one value as a whole", hint=f"give {outer} one"
        )
    near = closest_match(name, names)
    hint = f"did you mean {near!r}?" if near else f"nodes are: {', '.join(names[:20])}"
    raise InputError("E033", f"{program.name} has no node {name!r}", hint=hint)


def skipped_effects(program: Program, values: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yields the nodes with a given value whose tools have effects, each with such a tool, which is not called."""
    for node in program.nodes:
        if node.name in values:
            yield from ((node.name, name) for name in dict.fromkeys(_effect_tools(node)))


def _effect_tools(node: CompiledNode) -> Iterator[str]:
    yield from (tool.name for tool in _node_tools(node) if tool.effect in LASTING_EFFECTS)


def _node_tools(node: CompiledNode) -> Iterator[Contract]:
    """Yields the tools that a node may call, in its body and in the workflows of its plan."""
    inside = called_contracts(node.body) if node.body is not None else ()
    yield from (contract for contract in (*reachable_contracts(node), *inside) if contract.kind == "tool")


def _dependents(program: Program, names: Iterable[str]) -> set[str]:
    """Returns these nodes and all that depend on them."""
    line = [node for node in program.nodes if node.name in set(names)]
    dependents = {node.name for node in line}
    while line:
        for child in (program.nodes[index] for index in line.pop().children):
            if child.name not in dependents:
                dependents.add(child.name)
                line.append(child)
    return dependents


def _dependents_of_new_values(program: Program, events: Sequence[Event]) -> set[str]:
    """Returns the nodes that depend on a node without a value in the parent: the fork gives it one."""
    paths = {row.path for row in History.of(events).rows if isinstance(row.outcome, SETTLED)}
    children = (index for node in program.nodes if node.name not in paths for index in node.children)
    return _dependents(program, {program.nodes[index].name for index in children})


def _prerequisites_of_effects(program: Program, names: Set[str]) -> set[str]:
    """Returns the nodes on which those of these depend whose tools have effects."""
    line = [
        node
        for node in program.nodes
        if node.name in names and any(tool.effect != "pure" for tool in _node_tools(node))
    ]
    prerequisites: set[str] = set()
    while line:
        for index in line.pop().needs:
            node = program.nodes[index]
            if node.name not in prerequisites:
                prerequisites.add(node.name)
                line.append(node)
    return prerequisites


def _reusable_answers(first: RunStarted, events: Sequence[Event], nodes: Iterable[str]) -> dict[str, Override]:
    """Returns the answers of persons in these nodes, by path. Each applies if the same question is asked again."""
    reused_nodes = frozenset(nodes)
    overrides = {path: override for path, override in (first.overrides or {}).items() if override.question_digest}
    questions: dict[str, QuestionAsked] = {}
    for event in events:
        if isinstance(event, QuestionAsked):
            questions[event.node] = event
        elif (
            isinstance(event, QuestionAnswered) and not event.decline_reason and questions[event.node].kind == "answer"
        ):
            overrides[event.node] = Override(
                event.value, OverrideSource(event.by, first.run), questions[event.node].question_digest
            )
    return {path: override for path, override in overrides.items() if root_name(path) in reused_nodes}
