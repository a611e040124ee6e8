"""Grounding: the first step of a plan must read one of the values that came with the request (decision 033).

A step reads a value if it takes it or one of its fields as an argument, or if it iterates over it, as a list, and takes
the elements or one of their fields. One element of a list is not enough, because a request about a folder of documents
is not about its first document. Iterating over the rows of a table does not read it either, because the header gives
them their meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from orchestra.router.capabilities import Capabilities, Capability, PlanScope, reachable_parts, statable_types
from orchestra.router.plan_syntax import ELEMENT, INPUT, PlanReference, PlanStep
from orchestra.schema.json_schema import union_members
from orchestra.schema.types import Schema


def grounded(capabilities: Capabilities, names: Iterable[str]) -> Capabilities:
    """Returns capabilities whose plans must read one of these inputs in the first step. Inputs that no capability can
    read are left out.
    """
    return replace(
        capabilities,
        grounds=frozenset(name for name in names if readers(capabilities, list(capabilities.by_name.values()), name)),
    )


def is_ground(capabilities: Capabilities, reference: PlanReference) -> bool:
    """Whether a reference is to a required input or one of its fields."""
    return _is_of_inputs(reference, capabilities.grounds)


def _is_of_inputs(reference: PlanReference, names: frozenset[str]) -> bool:
    path = reference.path
    return reference.root == INPUT and bool(path) and path[0] in names and is_whole(reference)


def is_whole(reference: PlanReference) -> bool:
    """Whether a reference is to a value or a field, and not to a single list element."""
    return not any(isinstance(key, int) for key in reference.path)


def reads_ground(capabilities: Capabilities, step: PlanStep) -> bool:
    """Whether a first step reads a required input. True if there are none."""
    over = step.each in [plan_reference for plan_reference, _ in iterable_grounds(capabilities, capabilities.grounds)]
    references = [value for value in step.arguments.values() if isinstance(value, PlanReference)]
    return not capabilities.grounds or any(
        is_ground(capabilities, plan_reference)
        or (over and plan_reference.root == ELEMENT and is_whole(plan_reference))
        for plan_reference in references
    )


def iterable_grounds(capabilities: Capabilities, names: frozenset[str]) -> list[tuple[PlanReference, Schema]]:
    """Required lists that a step reads by iterating over them, with their element types (lists for a table)."""
    input_lists = [
        (plan_reference, inner)
        for plan_reference, inner in PlanScope(capabilities).lists()
        if _is_of_inputs(plan_reference, names)
    ]
    return [
        (plan_reference, inner)
        for plan_reference, inner in input_lists
        if all(branch.get("type") != "array" for branch in union_members(inner))
    ]


def readers(capabilities: Capabilities, skills: Sequence[Capability], name: str) -> list[Capability]:
    """Capabilities whose call can be a first step that takes an input; if there are none, those that can iterate over
    it.
    """
    scope, own_names = PlanScope(capabilities), frozenset({name})
    at_hand = [kind for _, kind in scope.available_values()]
    whole_types = [kind for reference, kind in scope.available_values() if _is_of_inputs(reference, own_names)]
    over = [
        list(reachable_parts(PlanReference(ELEMENT), inner)) for _, inner in iterable_grounds(capabilities, own_names)
    ]
    callable_skills = [
        skill
        for skill in skills
        if _is_callable(capabilities, skill, whole_types, at_hand) and _can_finish(capabilities, skill, is_mapped=False)
    ]
    return callable_skills or [
        skill
        for skill in skills
        if any(_can_iterate(capabilities, skill, element_lists, at_hand) for element_lists in over)
        and _can_finish(capabilities, skill, is_mapped=True)
    ]


def _can_iterate(
    capabilities: Capabilities,
    capability: Capability,
    elements: Sequence[tuple[PlanReference, Schema]],
    at_hand: Sequence[Schema],
) -> bool:
    """Whether a capability can be called for each element of a list, and take all of it or one of its fields."""
    whole_lists = [kind for reference, kind in elements if is_whole(reference)]
    return _is_callable(capabilities, capability, whole_lists, [*at_hand, *(kind for _, kind in elements)])


def _is_callable(
    capabilities: Capabilities, capability: Capability, demanded_types: Sequence[Schema], at_hand: Sequence[Schema]
) -> bool:
    """Whether all arguments have values, at least one of them of the wanted types."""

    def accepts_any(kind: Schema, values: Sequence[Schema]) -> bool:
        return any(capabilities.assignability.mismatch(value_kind, kind) is None for value_kind in values)

    fields = [capability.fields[name] for name in capability.required]
    return any(accepts_any(kind, demanded_types) for kind in capability.fields.values()) and all(
        statable_types(kind) or accepts_any(kind, at_hand) for kind in fields
    )


def _can_finish(capabilities: Capabilities, capability: Capability, *, is_mapped: bool) -> bool:
    """Whether it produces the output if the first step is also the last one."""
    return capabilities.limits.steps > 1 or capabilities.produces_output(capability.name, each=is_mapped)
