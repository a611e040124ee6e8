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
    return not any(isinstance(one, int) for one in reference.path)


def reads_ground(capabilities: Capabilities, step: PlanStep) -> bool:
    """Whether a first step reads a required input. True if there are none."""
    over = step.each in [one for one, _ in iterable_grounds(capabilities, capabilities.grounds)]
    given = [value for value in step.arguments.values() if isinstance(value, PlanReference)]
    return not capabilities.grounds or any(
        is_ground(capabilities, one) or (over and one.root == ELEMENT and is_whole(one)) for one in given
    )


def iterable_grounds(capabilities: Capabilities, names: frozenset[str]) -> list[tuple[PlanReference, Schema]]:
    """Required lists that a step reads by iterating over them, with their element types (lists for a table)."""
    found = [(one, inner) for one, inner in PlanScope(capabilities).lists() if _is_of_inputs(one, names)]
    return [
        (one, inner) for one, inner in found if all(branch.get("type") != "array" for branch in union_members(inner))
    ]


def readers(capabilities: Capabilities, skills: Sequence[Capability], name: str) -> list[Capability]:
    """Capabilities whose call can be a first step that takes an input; if there are none, those that can iterate over
    it.
    """
    scope, own = PlanScope(capabilities), frozenset({name})
    at_hand = [kind for _, kind in scope.available_values()]
    whole = [kind for reference, kind in scope.available_values() if _is_of_inputs(reference, own)]
    over = [list(reachable_parts(PlanReference(ELEMENT), inner)) for _, inner in iterable_grounds(capabilities, own)]
    given = [
        one
        for one in skills
        if _is_callable(capabilities, one, whole, at_hand) and _can_finish(capabilities, one, each=False)
    ]
    return given or [
        one
        for one in skills
        if any(_can_iterate(capabilities, one, each, at_hand) for each in over)
        and _can_finish(capabilities, one, each=True)
    ]


def _can_iterate(
    capabilities: Capabilities,
    capability: Capability,
    elements: Sequence[tuple[PlanReference, Schema]],
    at_hand: Sequence[Schema],
) -> bool:
    """Whether a capability can be called for each element of a list, and take all of it or one of its fields."""
    whole = [kind for reference, kind in elements if is_whole(reference)]
    return _is_callable(capabilities, capability, whole, [*at_hand, *(kind for _, kind in elements)])


def _is_callable(
    capabilities: Capabilities, capability: Capability, wanted: Sequence[Schema], at_hand: Sequence[Schema]
) -> bool:
    """Whether all arguments have values, at least one of them of the wanted types."""

    def accepts_any(kind: Schema, values: Sequence[Schema]) -> bool:
        return any(capabilities.assignability.mismatch(have, kind) is None for have in values)

    needed = [capability.fields[name] for name in capability.required]
    return any(accepts_any(kind, wanted) for kind in capability.fields.values()) and all(
        statable_types(kind) or accepts_any(kind, at_hand) for kind in needed
    )


def _can_finish(capabilities: Capabilities, capability: Capability, *, each: bool) -> bool:
    """Whether it produces the output if the first step is also the last one."""
    return capabilities.limits.steps > 1 or capabilities.produces_output(capability.name, each=each)
