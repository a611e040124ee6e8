"""Plans: the steps that a planner wrote, with the answer, and their conversion to a workflow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestra.agents.card_types import project_models
from orchestra.core.errors import InputError
from orchestra.core.untrusted_text import pluralize
from orchestra.router.capabilities import Capabilities, PlanScope
from orchestra.router.plan_syntax import (
    ELEMENT,
    INPUT,
    Argument,
    PlanAnswer,
    PlanLine,
    PlanLiteral,
    PlanReference,
    PlanStep,
)
from orchestra.schema.json_schema import format_type
from orchestra.schema.types import Schema, element_type, parse_type, union_members
from orchestra.workflows.expressions.parser import escape_references
from orchestra.workflows.model import Graph
from orchestra.workflows.python.signatures import models_in


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which they were written, and the answer."""

    steps: tuple[PlanStep, ...]
    answer: PlanAnswer

    def __str__(self) -> str:
        return "\n".join([*map(str, self.steps), str(self.answer)])

    @property
    def used_steps(self) -> tuple[PlanStep, ...]:
        """Steps that the answer depends on, in order. Other steps would have a cost and no use."""
        roots = {value.root for value in self.answer.values}
        plan_steps: list[PlanStep] = []
        for step in reversed(self.steps):
            if step.name in roots:
                plan_steps.append(step)
                roots |= {reference.root for reference in step.references} | set(step.after)
        return tuple(reversed(plan_steps))


def to_workflow(plan: Plan, capabilities: Capabilities, name: str, description: str = "") -> Graph:
    """Converts a plan to a workflow: one node per step, under the step's name. Its inputs are the values that the plan
    reads.
    """
    return _build_workflow(plan.used_steps, plan.answer, capabilities, name, description)


def partial_workflow(steps: Sequence[PlanStep], capabilities: Capabilities, name: str) -> Graph:
    """Converts a plan without an answer yet: all of its steps, with the value of the last one as output."""
    return _build_workflow(steps, PlanAnswer((PlanReference(steps[-1].name),)), capabilities, name, "")


def _build_workflow(
    steps: Sequence[PlanStep], answer: PlanAnswer, capabilities: Capabilities, name: str, description: str
) -> Graph:
    mapped_steps = {step.name for step in steps if step.each is not None}
    input_names = {
        str(reference.path[0])
        for step in steps
        for reference in step.references
        if reference.root == "input" and reference.path
    }
    nodes = {step.name: _node(step, capabilities, mapped_steps) for step in steps}
    if capabilities.confirm_effects and (
        effect_steps := [step for step in steps if capabilities.by_name[step.capability].has_effects]
    ):
        nodes = _with_confirmation(nodes, effect_steps, PlanScope(capabilities, steps))
    inputs, types = declare_inputs({key: schema for key, schema in capabilities.inputs.items() if key in input_names})
    source = {
        "schema": "orchestra/v1",
        "name": name,
        "description": description,
        "input": inputs,
        "types": types,
        "nodes": nodes,
    }
    answers = [_reference(value, mapped_steps) for value in answer.values]
    names = [str(value).replace(".", "_").replace("[", "_").replace("]", "") for value in answer.values]
    output = answers[0] if len(answers) == 1 else dict(zip(names, answers, strict=True))
    return Graph.model_validate({**source, "output": output}, strict=False)


def rebase_line(line: PlanLine, named: Mapping[str, str]) -> PlanLine:
    """Rewrites a line for the next version of the plan, in which these steps are inputs with these names."""
    if isinstance(line, PlanAnswer):
        return PlanAnswer(tuple(_rebase(value, named) for value in line.values))
    arguments = {
        name: _rebase(value, named) if isinstance(value, PlanReference) else value
        for name, value in line.arguments.items()
    }
    list_value = _rebase(line.each, named) if isinstance(line.each, PlanReference) else line.each
    return replace(
        line, arguments=arguments, each=list_value, after=tuple(name for name in line.after if name not in named)
    )


def _rebase(value: PlanReference, step_names: Mapping[str, str]) -> PlanReference:
    return PlanReference(INPUT, (step_names[value.root], *value.path)) if value.root in step_names else value


def declare_inputs(values: Mapping[str, Schema]) -> tuple[dict[str, Any], dict[str, Schema]]:
    """Declares values as inputs of a workflow.

    Journals store the names of the types. So a name gets a suffix only if it already has another meaning.

    Returns:
        The inputs, and the types to declare for those whose type has no text notation.
    """
    texts = {name: _type_text(schema or _ANY_VALUE) for name, schema in values.items()}
    used_words = {word for text in texts.values() for word in re.findall(r"\w+", _QUOTED.sub("", text))}
    types: dict[str, Schema] = {}
    for name in [name for name, text in texts.items() if not text]:
        title = "".join(part.capitalize() for part in name.split("_")) or "Value"
        schema = values[name] or _ANY_VALUE
        while title in used_words or types.get(title, schema) != schema:
            title += "_"
        texts[name], types[title] = title, schema
    return {name: {"type": text} for name, text in texts.items()}, types


_QUOTED = re.compile(r"""(['"])(?:\\.|(?!\1).)*\1""")
"""A text in a `Literal[...]` type."""
_ANY_VALUE: Schema = {
    "anyOf": [{"type": name} for name in ("null", "boolean", "integer", "number", "string", "array", "object")]
}
"""Schema of any value in the form of a declared type."""


def _type_text(schema: Schema) -> str:
    """A type in the notation of the workflow language; empty if it has none."""
    text = format_type(schema, full=True)
    try:
        return text if parse_type(text, {**project_models(), **models_in(schema)}) else ""
    except InputError:
        return ""


def _node(step: PlanStep, capabilities: Capabilities, mapped_steps: set[str]) -> dict[str, Any]:
    node: dict[str, Any] = {capabilities.by_name[step.capability].kind: step.capability}
    if step.arguments:
        node["with"] = {name: _argument(value, mapped_steps) for name, value in step.arguments.items()}
    if step.each is not None:
        list_text = (
            list_expression(step.each) if isinstance(step.each, PlanLiteral) else _reference(step.each, mapped_steps)
        )
        node |= {"each": list_text, "as": ELEMENT, "limit": capabilities.limits.width}
    if step.after:
        node["after"] = list(step.after)
    return node


CONFIRM_NODE = "confirm"
"""Name of the node that asks a person before the calls with effects. No plan step has this name."""
YES, NO = "yes", "no"
MAX_SHOWN_ITEMS = 8
"""Elements of an available list that the question shows."""


def _with_confirmation(nodes: Mapping[str, Any], effect_steps: Sequence[PlanStep], scope: PlanScope) -> dict[str, Any]:
    """Nodes of a plan in which those with effects run only if a person answers yes for all of them."""
    calls = "\n".join(_describe_call(step, scope) for step in effect_steps)
    question = {"ask": f"Make {pluralize(len(effect_steps), 'call')} with effects?\n{calls}", "options": [YES, NO]}
    agreed = {"when": f"${{{CONFIRM_NODE} == '{YES}'}}"}
    confirmed_names = {step.name for step in effect_steps}
    return {
        CONFIRM_NODE: question,
        **{name: {**node, **agreed} if name in confirmed_names else node for name, node in nodes.items()},
    }


def _describe_call(step: PlanStep, scope: PlanScope) -> str:
    """A call as a person reads it: constants literally, references by value."""
    text = ", ".join(f"{name}={_describe_value(value, step, scope)}" for name, value in step.arguments.items())
    return f"{step.capability}({text})" + (
        f" for {ELEMENT} in {_describe_value(step.each, step, scope)}" if step.each is not None else ""
    )


def _describe_value(value: Argument, step: PlanStep, scope: PlanScope) -> str:
    """A value in the question. A record, or a list element, is shown by its name."""
    if not isinstance(value, PlanReference):
        return str(escape_references(str(value)))
    kind = scope.type_of(value) if value.root != ELEMENT else {}
    at = _reference(value, scope.mapped_steps)[2:-1]
    if not isinstance(kind, dict) or not _is_scalar(inner := _item_type(kind)):
        return str(value)
    if inner is kind:
        return f"“${{{at}}}”"
    parts = "".join(
        f"${{size({at}) > {position} ? '“' + string({at}[{position}]) + '” ' : ''}}"
        for position in range(MAX_SHOWN_ITEMS)
    )
    return f"{value} [ {parts}${{size({at}) > {MAX_SHOWN_ITEMS} ? '… ' : ''}}], ${{size({at})}} in all"


def _item_type(kind: Schema) -> Schema:
    """Element type of a list; any other type unchanged."""
    branches = union_members(kind)
    inner = element_type(kind) if len(branches) == 1 and branches[0].get("type") == "array" else kind
    return inner if isinstance(inner, dict) else {}


def _is_scalar(kind: Schema) -> bool:
    return all(
        branch.get("type") in ("string", "integer", "number", "boolean") or "enum" in branch
        for branch in union_members(kind)
    )


def _argument(value: Argument, mapped_steps: set[str]) -> Any:
    return escape_references(value.value) if isinstance(value, PlanLiteral) else _reference(value, mapped_steps)


def _reference(reference: PlanReference, mapped_steps: set[str]) -> str:
    values = ".values" if reference.root in mapped_steps else ""
    rest = str(PlanReference("", reference.path))
    return f"${{{reference.root}{values}{rest}}}"


def list_expression(stated: PlanLiteral) -> str:
    """A list that a plan states, as an expression."""
    spelt = _CONTROL_CHARACTERS.sub(lambda match: rf"\u{ord(match[0]):04x}", str(stated))
    return f"${{{spelt}}}"


_CONTROL_CHARACTERS = re.compile("[\x7f-\x9f]")
"""Characters that are not allowed in a file. They are escaped in an expression."""


def build_plan(lines: Sequence[PlanStep | PlanAnswer]) -> Plan | None:
    """Builds a plan from lines that end with an answer; None for other lines."""
    if not lines or not isinstance(lines[-1], PlanAnswer):
        return None
    steps = tuple(line for line in lines[:-1] if isinstance(line, PlanStep))
    return Plan(steps, lines[-1]) if len(steps) == len(lines) - 1 else None


LINE_NODE = "line"
"""Name of the node that asks the planner agent. No plan step has this name."""


def question_workflow(agent: str, inputs: Mapping[str, str]) -> Graph:
    """Builds the workflow that asks the planner agent."""
    node = {"agent": agent, "with": {name: escape_references(text) for name, text in inputs.items()}}
    return Graph.model_validate(
        {"schema": "orchestra/v1", "name": LINE_NODE, "nodes": {LINE_NODE: node}, "output": f"${{{LINE_NODE}}}"},
        strict=False,
    )
