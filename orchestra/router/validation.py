"""Validation of steps: rejections that a machine can act on and a person can read.

If a server decodes under the grammar, none of these occur. Elsewhere, and for plans that are written at once, this is
the only check between a model and a run. It trusts nothing: names, types, sizes and effects are looked up in the
capabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestra.core.suggestions import closest_match
from orchestra.core.untrusted_text import shorten
from orchestra.router.capabilities import (
    Capabilities,
    Capability,
    PlanScope,
    is_free_text,
    literal_element_type,
    statable_types,
)
from orchestra.router.effects import effect_violations, unrequested_effect
from orchestra.router.grounding import is_ground, reads_ground
from orchestra.router.multi_part import find_uncovered, has_number
from orchestra.router.plan import list_expression
from orchestra.router.plan_syntax import (
    ELEMENT,
    INPUT,
    PlanAnswer,
    PlanLine,
    PlanLiteral,
    PlanReference,
    PlanStep,
    PlanSyntaxError,
    parse_line,
)
from orchestra.schema.json_schema import format_type
from orchestra.schema.types import Schema, Validator, bundle_definitions, element_type, subschema, union, union_members
from orchestra.workflows.expressions.parser import MAX_LENGTH

PART_NOT_COVERED, NOTHING_TO_COMPUTE = "R024", "R025"
"""Error codes: an answer that leaves out a part of the request, and a step that computes from a part without a number.
"""
MAX_SHOWN_LENGTH = 200
"""Maximum characters of a line in a rejection."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a line is invalid: error code, path, reason, and hint."""

    code: str
    path: str
    """Such as `/steps/2/with/text`. Steps are counted from 1."""
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}{'; ' + self.hint if self.hint else ''}"


def parse_or_reject(text: str, number: int) -> PlanLine | Rejection:
    """Parses the line that a model wrote as step `number`."""
    try:
        return parse_line(text.strip())
    except PlanSyntaxError as error:
        line_text = text.strip()
        line_text = line_text if len(line_text) <= MAX_SHOWN_LENGTH else line_text[: MAX_SHOWN_LENGTH - 1] + "…"
        return Rejection(
            "R001",
            f"/steps/{number}",
            f"{error.reason}, at column {error.column} of {line_text!r}",
            "s1 = NAME(ARGUMENT=input.NAME)",
        )


def effect_rejections(capabilities: Capabilities) -> list[Rejection]:
    """Yields why the request asks for no call of the capabilities with effects."""
    violations = [
        unrequested_effect(capability, capabilities)
        for capability in capabilities.by_name.values()
        if capability.has_effects
    ]
    return [Rejection(code, "/steps/1", reason, hint) for code, _, reason, hint in filter(None, violations)]


def validate_line(line: PlanLine, capabilities: Capabilities, steps: Sequence[PlanStep]) -> list[Rejection]:
    """Yields what is wrong with a line after these steps; nothing if it is valid."""
    scope = PlanScope(capabilities, steps)
    return list(
        _validate_answer(line, scope, steps) if isinstance(line, PlanAnswer) else _validate_step(line, scope, steps)
    )


def _validate_answer(answer: PlanAnswer, scope: PlanScope, steps: Sequence[PlanStep]) -> Iterator[Rejection]:
    if not answer.values and scope.steps:
        yield Rejection(
            "R001", "/answer", "a plan with steps returns the value of one", f"return {', '.join(scope.steps)}"
        )
    elif not answer.values and not scope.capabilities.may_decline:
        yield Rejection(
            "R001",
            "/answer",
            "`return nothing` is not allowed here: plan what can be done",
            "s1 = NAME(ARGUMENT=VALUE)",
        )
    if len(answer.values) > 1 and scope.capabilities.output_type:
        yield Rejection(
            "R005",
            "/answer",
            f"expected one value, {format_type(scope.capabilities.output_type)}, not {len(answer.values)}",
        )
    for value in answer.values:
        yield from _validate_answer_value(value, scope)
    if answer.values and (uncovered := find_uncovered(scope.capabilities.request_parts, steps, answer)) is not None:
        full_answer = PlanAnswer(tuple(PlanReference(step.name) for step in steps))
        is_done = find_uncovered(scope.capabilities.request_parts, steps, full_answer) is None
        yield Rejection(
            PART_NOT_COVERED, "/steps", str(uncovered), str(full_answer) if is_done else "write a step for each part"
        )


def _validate_answer_value(value: PlanReference, scope: PlanScope) -> Iterator[Rejection]:
    kind = scope.type_of(value)
    if isinstance(kind, str):
        yield Rejection("R004", "/answer", kind)
    elif value.root not in scope.steps:
        yield Rejection(
            "R004", "/answer", f"{value} is not a step", f"return the value of a step: {', '.join(scope.steps) or 's1'}"
        )
    elif reason := scope.capabilities.assignability.mismatch(kind, scope.capabilities.output_type):
        yield Rejection(
            "R005",
            "/answer",
            reason,
            _suggest_values(scope.step_values(), scope.capabilities, scope.capabilities.output_type),
        )


def _validate_step(step: PlanStep, scope: PlanScope, steps: Sequence[PlanStep]) -> Iterator[Rejection]:
    number = len(steps) + 1
    capabilities, path = scope.capabilities, f"/steps/{number}"
    if number > capabilities.limits.steps:
        yield Rejection(
            "R006", path, f"a plan has at most {capabilities.limits.steps} steps", "return the value of one of them"
        )
        return
    if step.name != f"s{number}":
        yield Rejection("R001", path, f"this step is called s{number}, not {step.name}")
    capability = capabilities.by_name.get(step.capability)
    if capability is None:
        near = closest_match(step.capability, capabilities.by_name)
        code, exclusion_reason = capabilities.excluded.get(step.capability, ("R002", ""))
        reason = f"{step.capability} {exclusion_reason}" if exclusion_reason else f"there is no {step.capability!r}"
        yield Rejection(
            code,
            path,
            reason,
            f"did you mean {near}?" if near else f"known: {', '.join(capabilities.by_name) or 'none'}",
        )
        return
    if (
        equal_step := next((plan_step for plan_step in steps if replace(plan_step, name=step.name) == step), None)
    ) is not None:
        yield Rejection("R001", path, f"it is the same call as {equal_step.name}", f"use {equal_step.name}")
        return
    element = _element_type(step, scope, path)
    if isinstance(element, Rejection):
        yield element
        return
    if not steps and not reads_ground(capabilities, step):
        input_names = ", ".join(f"{INPUT}.{name}" for name in capabilities.inputs if name in capabilities.grounds)
        over = isinstance(step.each, PlanReference) and is_ground(capabilities, step.each)
        how = (
            f"pass all of {step.each} to a capability, not row by row"
            if over
            else f"the first step must read one of {input_names}"
        )
        yield Rejection("R015", path, "it reads none of the required inputs", how)
    for name in step.after:
        if name not in scope.steps:
            yield Rejection("R004", f"{path}/after", f"there is no {name} before this step")
    rejections = list(_validate_arguments(step, capability, scope, element, path))
    yield from rejections or (
        Rejection(code, f"{path}{at}", reason, hint)
        for code, at, reason, hint in effect_violations(step, capability, capabilities, steps)
    )
    yield from _check_computation(step, capability, capabilities, path)
    yield from _check_call_budget(step, capabilities, steps, path)


def _check_computation(
    step: PlanStep, capability: Capability, capabilities: Capabilities, path: str
) -> Iterator[Rejection]:
    """Rejects a step that computes from words without a number.

    A planner that must write a step for each part of a request also writes one for a part that no capability serves,
    and a small model computes a result from any words.
    """
    literals = [
        (name, value.value)
        for name, value in step.arguments.items()
        if isinstance(value, PlanLiteral) and isinstance(value.value, str)
    ]
    if (
        capabilities.request_parts is None
        or not capability.computes
        or not literals
        or len(literals) < len(step.arguments)
    ):
        return
    if not any(has_number(text) for _, text in literals):
        name, text = literals[0]
        reason = f"{step.capability} computes, and {shorten(text, 80)!r} has no number"
        yield Rejection(
            NOTHING_TO_COMPUTE,
            f"{path}/with/{name}",
            reason,
            "use another capability for this part, or a step for another part",
        )


def _check_call_budget(
    step: PlanStep, capabilities: Capabilities, steps: Sequence[PlanStep], path: str
) -> Iterator[Rejection]:
    """Rejects a plan that makes more calls than are left, without repetitions. Lists whose length is still unknown are
    left to the budget of the run.
    """
    calls = sum(_min_calls(plan_step, capabilities) for plan_step in (*steps, step))
    if capabilities.calls_left is not None and calls > capabilities.calls_left:
        reason = f"the steps would make at least {calls} calls, and {capabilities.calls_left} are left in the budget"
        yield Rejection("R023", path, reason, "iterate over a part of the list, or pass all of it to a capability")


def _min_calls(step: PlanStep, capabilities: Capabilities) -> int:
    """Minimum number of agent calls of a step."""
    call_count = capabilities.by_name[step.capability].min_calls if step.capability in capabilities.by_name else 1
    match step.each:
        case PlanLiteral(list() as values):
            return call_count * len(values)
        case PlanReference() as list_value:
            return call_count * capabilities.list_lengths.get(str(list_value), 0)
        case _:
            return call_count


def _element_type(step: PlanStep, scope: PlanScope, path: str) -> Schema | Rejection | None:
    """Type of `x`; None without iteration."""
    if step.each is None:
        return None
    inner = (
        _literal_list_type(step.each.value, scope.capabilities, path)
        if isinstance(step.each, PlanLiteral)
        else _list_element_type(step.each, scope, path)
    )
    if isinstance(inner, Rejection):
        return inner
    if not any(isinstance(value, PlanReference) and value.root == ELEMENT for value in step.arguments.values()):
        return Rejection(
            "R003", f"{path}/each", f"no argument reads {ELEMENT}", f"{ELEMENT} is an element of {step.each}"
        )
    return inner


def _list_element_type(list_value: PlanReference, scope: PlanScope, path: str) -> Schema | Rejection:
    """Element type of an available list."""
    kind = scope.type_of(list_value)
    if isinstance(kind, str):
        return Rejection("R004", f"{path}/each", kind)
    inner = element_type(kind) if all(branch.get("type") == "array" for branch in union_members(kind)) else ""
    return (
        Rejection("R005", f"{path}/each", f"expected a list, got {format_type(kind)}")
        if isinstance(inner, str)
        else inner
    )


def _literal_list_type(values: Any, capabilities: Capabilities, path: str) -> Schema | Rejection:
    """Element type of a list that the plan states. The arguments check whether each element fits."""
    pointer, width = f"{path}/each", capabilities.limits.width
    if not isinstance(values, list) or not values or not all(map(_is_expressible, values)):
        return Rejection("R005", pointer, "a stated list to iterate over has texts, numbers or booleans")
    if len(values) > width:
        hint = "iterate over a part of them, or over an available list"
        return Rejection("R006", pointer, f"a list has at most {width} elements, and this one has {len(values)}", hint)
    if len(list_expression(PlanLiteral(values))) > MAX_LENGTH:
        reason = f"a stated list to iterate over has at most {MAX_LENGTH:,} characters"
        return Rejection("R006", pointer, reason, "state shorter texts")
    return literal_element_type(values)


def _is_expressible(value: Any) -> bool:
    """Whether a value may be in a list to iterate over: whether an expression can contain it."""
    return isinstance(value, str | float | bool) or (isinstance(value, int) and abs(value) <= _MAX_INTEGER)


_MAX_INTEGER = 2**53
"""Largest integer that a double represents exactly. CEL converts integers beside a fraction to doubles."""


def _validate_arguments(
    step: PlanStep, capability: Capability, scope: PlanScope, element: Schema | None, path: str
) -> Iterator[Rejection]:
    kinds = capability.fields
    for name, kind in kinds.items():
        if name in capability.required and name not in step.arguments:
            reason = f"{step.capability} needs {name}: {format_type(kind)}"
            yield Rejection(
                "R003",
                f"{path}/with/{name}",
                reason,
                _suggest_values(scope.available_values(), scope.capabilities, kind),
            )
    over = step.each if isinstance(step.each, PlanReference) else None
    for name, value in step.arguments.items():
        pointer = f"{path}/with/{name}"
        if name not in kinds:
            near = closest_match(name, kinds)
            hint = f"did you mean {near}?" if near else f"it takes: {', '.join(kinds) or 'nothing'}"
            yield Rejection("R003", pointer, f"{step.capability} takes no {name!r}", hint)
        elif isinstance(value, PlanLiteral):
            yield from _validate_constant(value, kinds[name], scope, pointer)
        elif isinstance(step.each, PlanLiteral) and value.root == ELEMENT and not value.path:
            yield from _validate_each_constant(step.each.value, kinds[name], scope, path, pointer)
        elif isinstance(actual := scope.type_of(value, element), str):
            yield Rejection("R004", pointer, actual)
        elif (misfit := scope.capabilities.assignability.mismatch(actual, kinds[name])) is not None:
            yield Rejection(
                "R005",
                pointer,
                misfit,
                _suggest_values(scope.available_values(), scope.capabilities, kinds[name], value.root),
            )
        elif capability.has_effects and scope.is_untrusted(value, actual, over):
            message = f"{step.capability} has effects, and {value} may contain text of a tool, a model or a document"
            yield Rejection(
                "L123",
                pointer,
                message,
                "a typed input, a piece of the request, or a capability that asks a person first",
            )


def _validate_each_constant(
    values: Sequence[Any], kind: Schema, scope: PlanScope, path: str, pointer: str
) -> Iterator[Rejection]:
    """Yields what is wrong with the elements of a stated list, in an argument that receives them."""
    faults = [
        fault
        for at, value in enumerate(values)
        for fault in _validate_constant(PlanLiteral(value), kind, scope, f"{path}/each/{at}")
    ]
    yield from faults
    if (
        not faults
        and (misfit := scope.capabilities.assignability.mismatch(literal_element_type(values), kind)) is not None
    ):
        yield Rejection("R005", pointer, misfit)


def _validate_constant(value: PlanLiteral, kind: Schema, scope: PlanScope, pointer: str) -> Iterator[Rejection]:
    """Yields what is wrong with a constant in an argument of this type, or in a list that is iterated over."""
    literal_types = statable_types(kind)
    if not literal_types:
        yield Rejection(
            "R005",
            pointer,
            f"a plan cannot state {format_type(kind)}",
            _suggest_values(scope.available_values(), scope.capabilities, kind),
        )
    elif fault := Validator(bundle_definitions(kind)).check(value.value):
        yield Rejection("R005", pointer, fault)
    elif not any(
        _is_of_type(value.value, literal_type) for literal_type in literal_types
    ):  # it is of a union member that is evidence
        evidence = union([branch for branch in union_members(kind) if branch not in literal_types])
        yield Rejection(
            "R005",
            pointer,
            f"a plan cannot state {format_type(evidence)}",
            _suggest_values(scope.available_values(), scope.capabilities, kind),
        )
    elif _is_invented(value.value, kind, scope.capabilities.request_text):
        hint = _suggest_values(scope.available_values(), scope.capabilities, kind)
        yield Rejection("R012", pointer, f"{_excerpt(value)} is not part of the request", hint)


def _is_invented(value: Any, kind: Schema, words: str) -> bool:
    """Whether a text, or one in a list, is no substring of the request although the plan's texts must be."""
    return bool(words) and not any(
        _is_of_type(value, statable_type) and _is_copied(value, statable_type, words)
        for statable_type in statable_types(kind)
    )


def _is_copied(value: Any, kind: Schema, words: str) -> bool:
    """Whether all texts in a value of this type, which is no union, are substrings of the request or enum values."""
    if isinstance(value, list) and not kind.keys() & {"enum", "const"}:
        return not any(_is_invented(item, subschema(kind, kind["items"]), words) for item in value)
    return not isinstance(value, str) or not is_free_text(kind) or value in words


def _is_of_type(value: Any, kind: Schema) -> bool:
    return Validator(bundle_definitions(kind)).check(value) is None


def _excerpt(value: PlanLiteral) -> str:
    text = str(value)
    return text if len(text) <= MAX_SHOWN_LENGTH else f"{text[: MAX_SHOWN_LENGTH - 1]}…"


def _suggest_values(
    at_hand: Sequence[tuple[PlanReference, Schema]], capabilities: Capabilities, expected: Schema, root: str = ""
) -> str:
    """Hint with the available values that fit, parts of the given one first."""
    fitting = [reference for reference, kind in at_hand if capabilities.assignability.mismatch(kind, expected) is None]
    suggestions = [str(reference) for reference in sorted(fitting, key=lambda reference: reference.root != root)]
    return f"did you mean {' or '.join(suggestions[:3])}?" if suggestions else ""
