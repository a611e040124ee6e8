"""Grounds: the values that somebody brought along with a request, of which the first step of its plan reads one (decision 033).

To read a value is to be given it, or a field of it, or to go over it, if it is a list, and be given its elements or a field of theirs.
One element of a list is too little: whoever brings a folder of documents does not mean the first one's name. And the rows of a table are
nothing of their own, for what they mean stands in its head: nobody reads a table who goes over its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from orchestra.router.capabilities import Capabilities, Capability, PlanScope, reachable_parts, statable_types
from orchestra.router.plan_syntax import ELEMENT, INPUT, PlanReference, PlanStep
from orchestra.schema.json_schema import union_members
from orchestra.schema.types import Schema


def grounded(capabilities: Capabilities, names: Iterable[str]) -> Capabilities:
    """The offer, of whose plans the first step reads one of these inputs; those that no skill can read in a first step are left out."""
    return replace(
        capabilities,
        grounds=frozenset(name for name in names if readers(capabilities, list(capabilities.by_name.values()), name)),
    )


def is_ground(capabilities: Capabilities, reference: PlanReference) -> bool:
    """Whether a reference is to a value that the first step is to read, or to a field of one."""
    return _is_of_inputs(reference, capabilities.grounds)


def _is_of_inputs(reference: PlanReference, names: frozenset[str]) -> bool:
    path = reference.path
    return reference.root == INPUT and bool(path) and path[0] in names and is_whole(reference)


def is_whole(reference: PlanReference) -> bool:
    """Whether it is to a value or to a field of it, and to no single element of a list."""
    return not any(isinstance(one, int) for one in reference.path)


def reads_ground(capabilities: Capabilities, step: PlanStep) -> bool:
    """Whether a first step reads what it is to read; any does where it is nothing."""
    over = step.each in [one for one, _ in iterable_grounds(capabilities, capabilities.grounds)]
    given = [value for value in step.arguments.values() if isinstance(value, PlanReference)]
    return not capabilities.grounds or any(
        is_ground(capabilities, one) or (over and one.root == ELEMENT and is_whole(one)) for one in given
    )


def iterable_grounds(capabilities: Capabilities, names: frozenset[str]) -> list[tuple[PlanReference, Schema]]:
    """The lists of these inputs that whoever goes over them has read, with the types of their elements: those of tables are lists."""
    found = [(one, inner) for one, inner in PlanScope(capabilities).lists() if _is_of_inputs(one, names)]
    return [
        (one, inner) for one, inner in found if all(branch.get("type") != "array" for branch in union_members(inner))
    ]


def readers(capabilities: Capabilities, skills: Sequence[Capability], name: str) -> list[Capability]:
    """Of these skills, those whose call can be a first step that is given an input; where there are none, those that can go over it."""
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
    """Whether a skill can be called of each element of a list, and be given all of it or a field of it."""
    whole = [kind for reference, kind in elements if is_whole(reference)]
    return _is_callable(capabilities, capability, whole, [*at_hand, *(kind for _, kind in elements)])


def _is_callable(
    capabilities: Capabilities, capability: Capability, wanted: Sequence[Schema], at_hand: Sequence[Schema]
) -> bool:
    """Whether all arguments can be given, at least one of them a value of the types that are wanted."""

    def takes(kind: Schema, values: Sequence[Schema]) -> bool:
        return any(capabilities.assignability.mismatch(have, kind) is None for have in values)

    needed = [capability.fields[name] for name in capability.required]
    return any(takes(kind, wanted) for kind in capability.fields.values()) and all(
        statable_types(kind) or takes(kind, at_hand) for kind in needed
    )


def _can_finish(capabilities: Capabilities, capability: Capability, *, each: bool) -> bool:
    """Whether it brings the answer about, where it is the last step too."""
    return capabilities.limits.steps > 1 or capabilities.produces_output(capability.name, each=each)
