"""Grounds: the values that somebody brought along with a request, of which the first step of its plan reads one (decision 033).

To read a value is to be given it, or a field of it, or to go over it, if it is a list, and be given its elements or a field of theirs.
One element of a list is too little: whoever brings a folder of documents does not mean the first one's name. And the rows of a table are
nothing of their own, for what they mean stands in its head: nobody reads a table who goes over its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from orchestra.router.capabilities import Offer, Scope, Skill, parts, statable
from orchestra.router.plan_syntax import ELEMENT, INPUT, Reference, Step
from orchestra.schema.json_schema import branches
from orchestra.schema.types import Schema


def grounded(offer: Offer, names: Iterable[str]) -> Offer:
    """The offer, of whose plans the first step reads one of these inputs; those that no skill can read in a first step are left out."""
    return replace(offer, grounds=frozenset(name for name in names if readers(offer, list(offer.skills.values()), name)))


def is_ground(offer: Offer, reference: Reference) -> bool:
    """Whether a reference is to a value that the first step is to read, or to a field of one."""
    return _of(reference, offer.grounds)


def _of(reference: Reference, names: frozenset[str]) -> bool:
    path = reference.path
    return reference.root == INPUT and bool(path) and path[0] in names and is_whole(reference)


def is_whole(reference: Reference) -> bool:
    """Whether it is to a value or to a field of it, and to no single element of a list."""
    return not any(isinstance(one, int) for one in reference.path)


def reads(offer: Offer, step: Step) -> bool:
    """Whether a first step reads what it is to read; any does where it is nothing."""
    over = step.each in [one for one, _ in read_by_going_over(offer, offer.grounds)]
    given = [value for value in step.arguments.values() if isinstance(value, Reference)]
    return not offer.grounds or any(is_ground(offer, one) or (over and one.root == ELEMENT and is_whole(one)) for one in given)


def read_by_going_over(offer: Offer, names: frozenset[str]) -> list[tuple[Reference, Schema]]:
    """The lists of these inputs that whoever goes over them has read, with the types of their elements: those of tables are lists."""
    found = [(one, inner) for one, inner in Scope(offer).lists() if _of(one, names)]
    return [(one, inner) for one, inner in found if all(branch.get("type") != "array" for branch in branches(inner))]


def readers(offer: Offer, skills: Sequence[Skill], name: str) -> list[Skill]:
    """Of these skills, those whose call can be a first step that is given an input; where there are none, those that can go over it."""
    scope, own = Scope(offer), frozenset({name})
    at_hand = [kind for _, kind in scope.at_hand()]
    whole = [kind for reference, kind in scope.at_hand() if _of(reference, own)]
    over = [list(parts(Reference(ELEMENT), inner)) for _, inner in read_by_going_over(offer, own)]
    given = [one for one in skills if _callable(offer, one, whole, at_hand) and _ends(offer, one, each=False)]
    return given or [one for one in skills if any(_over(offer, one, each, at_hand) for each in over) and _ends(offer, one, each=True)]


def _over(offer: Offer, skill: Skill, elements: Sequence[tuple[Reference, Schema]], at_hand: Sequence[Schema]) -> bool:
    """Whether a skill can be called of each element of a list, and be given all of it or a field of it."""
    whole = [kind for reference, kind in elements if is_whole(reference)]
    return _callable(offer, skill, whole, [*at_hand, *(kind for _, kind in elements)])


def _callable(offer: Offer, skill: Skill, wanted: Sequence[Schema], at_hand: Sequence[Schema]) -> bool:
    """Whether all arguments can be given, at least one of them a value of the types that are wanted."""

    def takes(kind: Schema, values: Sequence[Schema]) -> bool:
        return any(offer.proof.misfit(have, kind) is None for have in values)

    needed = [skill.fields[name] for name in skill.required]
    return any(takes(kind, wanted) for kind in skill.fields.values()) and all(statable(kind) or takes(kind, at_hand) for kind in needed)


def _ends(offer: Offer, skill: Skill, *, each: bool) -> bool:
    """Whether it brings the answer about, where it is the last step too."""
    return offer.limits.steps > 1 or offer.brings(skill.name, each=each)
