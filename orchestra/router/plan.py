"""Plans: the steps that a router wrote, with the value that answers; and the workflow that they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestra.agents.card_types import project_models
from orchestra.core.errors import InputError
from orchestra.core.untrusted_text import counted
from orchestra.router.capabilities import Offer, Scope
from orchestra.router.plan_syntax import ELEMENT, INPUT, Answer, Argument, Line, Literal, Reference, Step
from orchestra.schema.json_schema import show
from orchestra.schema.types import Schema, branches, elements, parse_type
from orchestra.workflows.expressions.parser import escaped
from orchestra.workflows.model import Graph
from orchestra.workflows.python.signatures import models_of


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which they were written, and the answer."""

    steps: tuple[Step, ...]
    answer: Answer

    def __str__(self) -> str:
        return "\n".join([*map(str, self.steps), str(self.answer)])

    @property
    def used(self) -> tuple[Step, ...]:
        """The steps that the answer rests on, in their order. The others would cost and give nothing."""
        wanted = {value.root for value in self.answer.values}
        kept: list[Step] = []
        for step in reversed(self.steps):
            if step.name in wanted:
                kept.append(step)
                wanted |= {reference.root for reference in step.references} | set(step.after)
        return tuple(reversed(kept))


def workflow(plan: Plan, offer: Offer, name: str, description: str = "") -> Graph:
    """The workflow that a plan is: one node a step, under the step's own name; its inputs are the values that the plan reads."""
    return _workflow(plan.used, plan.answer, offer, name, description)


def so_far(steps: Sequence[Step], offer: Offer, name: str) -> Graph:
    """The workflow that a plan is as long as its answer is not known: all of its steps, and the value of the last one."""
    return _workflow(steps, Answer((Reference(steps[-1].name),)), offer, name, "")


def _workflow(steps: Sequence[Step], answer: Answer, offer: Offer, name: str, description: str) -> Graph:
    mapped = {step.name for step in steps if step.each is not None}
    read = {str(reference.path[0]) for step in steps for reference in step.references if reference.root == "input" and reference.path}
    nodes = {step.name: _node(step, offer, mapped) for step in steps}
    if offer.confirm and (acting := [step for step in steps if offer.skills[step.skill].acts]):
        nodes = _confirmed(nodes, acting, Scope(offer, steps))
    inputs, types = declared({key: schema for key, schema in offer.values.items() if key in read})
    said = {"schema": "orchestra/v1", "name": name, "description": description, "input": inputs, "types": types, "nodes": nodes}
    answers = [_reference(value, mapped) for value in answer.values]
    names = [str(value).replace(".", "_").replace("[", "_").replace("]", "") for value in answer.values]
    output = answers[0] if len(answers) == 1 else dict(zip(names, answers, strict=True))
    return Graph.model_validate({**said, "output": output}, strict=False)


def rewritten(line: Line, named: Mapping[str, str]) -> Line:
    """A line of a plan as one of its next version, in which the values of these steps are inputs, under these names."""
    if isinstance(line, Answer):
        return Answer(tuple(_moved(value, named) for value in line.values))
    arguments = {name: _moved(value, named) if isinstance(value, Reference) else value for name, value in line.arguments.items()}
    each = _moved(line.each, named) if isinstance(line.each, Reference) else line.each
    return replace(line, arguments=arguments, each=each, after=tuple(name for name in line.after if name not in named))


def _moved(value: Reference, named: Mapping[str, str]) -> Reference:
    return Reference(INPUT, (named[value.root], *value.path)) if value.root in named else value


def declared(values: Mapping[str, Schema]) -> tuple[dict[str, Any], dict[str, Schema]]:
    """Values as the inputs of a workflow, and the types that it must declare for them: those that no text says, by the input's name.

    The names stand in journals: only one that means something else already, in another of them or as a model, gets a mark behind it.
    """
    texts = {name: _text(schema or _ANYTHING) for name, schema in values.items()}
    taken = {word for text in texts.values() for word in re.findall(r"\w+", _QUOTED.sub("", text))}
    types: dict[str, Schema] = {}
    for name in [name for name, text in texts.items() if not text]:
        title = "".join(part.capitalize() for part in name.split("_")) or "Value"
        schema = values[name] or _ANYTHING
        while title in taken or types.get(title, schema) != schema:
            title += "_"
        texts[name], types[title] = title, schema
    return {name: {"type": text} for name, text in texts.items()}, types


_QUOTED = re.compile(r"""(['"])(?:\\.|(?!\1).)*\1""")
"""A text that a `Literal` lists."""
_ANYTHING: Schema = {"anyOf": [{"type": name} for name in ("null", "boolean", "integer", "number", "string", "array", "object")]}
"""What takes any value, as a type that is declared must say it."""


def _text(schema: Schema) -> str:
    """A type as the language writes it; empty where it has no text."""
    text = show(schema, full=True)
    try:
        return text if parse_type(text, {**project_models(), **models_of(schema)}) else ""
    except InputError:
        return ""


def _node(step: Step, offer: Offer, mapped: set[str]) -> dict[str, Any]:
    node: dict[str, Any] = {offer.skills[step.skill].kind: step.skill}
    if step.arguments:
        node["with"] = {name: _argument(value, mapped) for name, value in step.arguments.items()}
    if step.each is not None:
        each = listed(step.each) if isinstance(step.each, Literal) else _reference(step.each, mapped)
        node |= {"each": each, "as": ELEMENT, "limit": offer.limits.width}
    if step.after:
        node["after"] = list(step.after)
    return node


CONFIRM = "confirm"
"""The node of the question to a person before a plan's calls with effects; the steps of plans have other names."""
YES, NO = "yes", "no"
SHOWN = 8
"""Elements of a list at hand that the question shows."""


def _confirmed(nodes: Mapping[str, Any], acting: Sequence[Step], scope: Scope) -> dict[str, Any]:
    """The nodes of a plan, of which those with effects run where a person says yes to all of them."""
    calls = "\n".join(_shown(step, scope) for step in acting)
    question = {"ask": f"Make {counted(len(acting), 'call')} with effects?\n{calls}", "options": [YES, NO]}
    agreed = {"when": f"${{{CONFIRM} == '{YES}'}}"}
    waiting = {step.name for step in acting}
    return {CONFIRM: question, **{name: {**node, **agreed} if name in waiting else node for name, node in nodes.items()}}


def _shown(step: Step, scope: Scope) -> str:
    """A call as the person reads it: its constants as the plan has them, what it refers to by its value."""
    given = ", ".join(f"{name}={_said(value, step, scope)}" for name, value in step.arguments.items())
    return f"{step.skill}({given})" + (f" for {ELEMENT} in {_said(step.each, step, scope)}" if step.each is not None else "")


def _said(value: Argument, step: Step, scope: Scope) -> str:
    """A value in the question; a record, and an element of a list, by its name."""
    if not isinstance(value, Reference):
        return str(escaped(str(value)))
    kind = scope.type_of(value) if value.root != ELEMENT else {}
    at = _reference(value, scope.mapped)[2:-1]
    if not isinstance(kind, dict) or not _scalar(inner := _inner(kind)):
        return str(value)
    if inner is kind:
        return f"“${{{at}}}”"
    parts = "".join(f"${{size({at}) > {one} ? '“' + string({at}[{one}]) + '” ' : ''}}" for one in range(SHOWN))
    return f"{value} [ {parts}${{size({at}) > {SHOWN} ? '… ' : ''}}], ${{size({at})}} in all"


def _inner(kind: Schema) -> Schema:
    """The type of the elements of a list; any other type itself."""
    several = branches(kind)
    inner = elements(kind) if len(several) == 1 and several[0].get("type") == "array" else kind
    return inner if isinstance(inner, dict) else {}


def _scalar(kind: Schema) -> bool:
    return all(one.get("type") in ("string", "integer", "number", "boolean") or "enum" in one for one in branches(kind))


def _argument(value: Argument, mapped: set[str]) -> Any:
    return escaped(value.value) if isinstance(value, Literal) else _reference(value, mapped)


def _reference(reference: Reference, mapped: set[str]) -> str:
    values = ".values" if reference.root in mapped else ""
    rest = str(Reference("", reference.path))
    return f"${{{reference.root}{values}{rest}}}"


def listed(stated: Literal) -> str:
    """A list that a plan states, as the expression that it is."""
    spelt = _SPELT.sub(lambda found: rf"\u{ord(found[0]):04x}", str(stated))
    return f"${{{spelt}}}"


_SPELT = re.compile("[\x7f-\x9f]")
"""Characters that no file may hold; a text in an expression spells them by their numbers."""


def plan_of(lines: Sequence[Step | Answer]) -> Plan | None:
    """The plan of lines that end with an answer; None where they do not."""
    if not lines or not isinstance(lines[-1], Answer):
        return None
    steps = tuple(line for line in lines[:-1] if isinstance(line, Step))
    return Plan(steps, lines[-1]) if len(steps) == len(lines) - 1 else None


LINE = "line"
"""The node of a question to the router's agent; the steps of plans have other names."""


def question(agent: str, inputs: Mapping[str, str]) -> Graph:
    """A question to the router's agent, as the workflow that it is."""
    node = {"agent": agent, "with": {name: escaped(text) for name, text in inputs.items()}}
    return Graph.model_validate({"schema": "orchestra/v1", "name": LINE, "nodes": {LINE: node}, "output": f"${{{LINE}}}"}, strict=False)
