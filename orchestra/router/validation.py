"""Gates: what is wrong with a step, said so that a machine can act on it and a person can read it.

A grammar lets none of these through where a server decodes by it; elsewhere, and for plans that are written at once, the gates are what
stands between a model and a run. They trust nothing: names, types, sizes and effects are looked up in the offer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestra.core.suggestions import nearest
from orchestra.core.untrusted_text import shortened
from orchestra.router.capabilities import Offer, Scope, Skill, element_of, free, statable
from orchestra.router.effects import faults, unasked
from orchestra.router.grounding import is_ground, reads
from orchestra.router.multi_part import numbered, unserved
from orchestra.router.plan import listed
from orchestra.router.plan_syntax import ELEMENT, INPUT, Answer, Line, Literal, NotPlan, Reference, Step, read
from orchestra.schema.json_schema import show
from orchestra.schema.types import Schema, Validator, branches, bundled, elements, under, union
from orchestra.workflows.expressions.parser import MAX_LENGTH

UNSERVED, IDLE = "R024", "R025"
"""The codes of an answer that leaves a part of the request out, and of a step that computes from a part without a number."""
SHOWN = 200
"""Characters of a line that a rejection shows."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a plan cannot go on: a code, where, why, and what could stand there instead."""

    code: str
    path: str
    """As in `/steps/2/with/text`: steps are counted from 1."""
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}{'; ' + self.hint if self.hint else ''}"


def line_of(text: str, number: int) -> Line | Rejection:
    """The line that a model wrote as step `number`."""
    try:
        return read(text.strip())
    except NotPlan as error:
        shown = text.strip()
        shown = shown if len(shown) <= SHOWN else shown[: SHOWN - 1] + "…"
        return Rejection(
            "R001", f"/steps/{number}", f"{error.reason}, at column {error.column} of {shown!r}", "s1 = NAME(ARGUMENT=input.NAME)"
        )


def refusals(offer: Offer) -> list[Rejection]:
    """Why the request asks for no call of the skills with effects."""
    found = [unasked(skill, offer) for skill in offer.skills.values() if skill.acts]
    return [Rejection(code, "/steps/1", reason, hint) for code, _, reason, hint in filter(None, found)]


def judge(line: Line, offer: Offer, steps: Sequence[Step]) -> list[Rejection]:
    """What is wrong with a line that follows these steps; nothing where it may stand there."""
    scope = Scope(offer, steps)
    return list(_answer(line, scope, steps) if isinstance(line, Answer) else _step(line, scope, steps))


def _answer(answer: Answer, scope: Scope, steps: Sequence[Step]) -> Iterator[Rejection]:
    if not answer.values and scope.steps:
        yield Rejection("R001", "/answer", "a plan with steps returns the value of one", f"return {', '.join(scope.steps)}")
    elif not answer.values and not scope.offer.declines:
        yield Rejection("R001", "/answer", "nothing is no answer here: plan what can be done", "s1 = NAME(ARGUMENT=VALUE)")
    if len(answer.values) > 1 and scope.offer.returns:
        yield Rejection("R005", "/answer", f"one value is wanted, {show(scope.offer.returns)}, and these are {len(answer.values)}")
    for value in answer.values:
        yield from _answered(value, scope)
    if answer.values and (left := unserved(scope.offer.several, steps, answer)) is not None:
        every = Answer(tuple(Reference(step.name) for step in steps))
        done = unserved(scope.offer.several, steps, every) is None
        yield Rejection(UNSERVED, "/steps", str(left), str(every) if done else "write a step for each part")


def _answered(value: Reference, scope: Scope) -> Iterator[Rejection]:
    kind = scope.type_of(value)
    if isinstance(kind, str):
        yield Rejection("R004", "/answer", kind)
    elif value.root not in scope.steps:
        yield Rejection("R004", "/answer", f"{value} is no step", f"return the value of a step: {', '.join(scope.steps) or 's1'}")
    elif reason := scope.offer.proof.misfit(kind, scope.offer.returns):
        yield Rejection("R005", "/answer", reason, _instead(scope.of_steps(), scope.offer, scope.offer.returns))


def _step(step: Step, scope: Scope, steps: Sequence[Step]) -> Iterator[Rejection]:
    number = len(steps) + 1
    offer, path = scope.offer, f"/steps/{number}"
    if number > offer.limits.steps:
        yield Rejection("R006", path, f"a plan has at most {offer.limits.steps} steps", "return the value of one of them")
        return
    if step.name != f"s{number}":
        yield Rejection("R001", path, f"this step is called s{number}, not {step.name}")
    skill = offer.skills.get(step.skill)
    if skill is None:
        near = nearest(step.skill, offer.skills)
        code, why = offer.left_out.get(step.skill, ("R002", ""))
        reason = f"{step.skill} {why}" if why else f"there is no {step.skill!r}"
        yield Rejection(code, path, reason, f"did you mean {near}?" if near else f"known: {', '.join(offer.skills) or 'none'}")
        return
    if (same := next((one for one in steps if replace(one, name=step.name) == step), None)) is not None:
        yield Rejection("R001", path, f"it is the same call as {same.name}", f"use {same.name}")
        return
    element = _element(step, scope, path)
    if isinstance(element, Rejection):
        yield element
        return
    if not steps and not reads(offer, step):
        unread = ", ".join(f"{INPUT}.{name}" for name in offer.values if name in offer.grounds)
        over = isinstance(step.each, Reference) and is_ground(offer, step.each)
        how = f"give a skill all of {step.each}, not row by row" if over else f"the first step reads one of {unread}"
        yield Rejection("R015", path, "it reads nothing of what was brought along", how)
    for name in step.after:
        if name not in scope.steps:
            yield Rejection("R004", f"{path}/after", f"there is no {name} before this step")
    found = list(_arguments(step, skill, scope, element, path))
    yield from found or (Rejection(code, f"{path}{at}", reason, hint) for code, at, reason, hint in faults(step, skill, offer, steps))
    yield from _idle(step, skill, offer, path)
    yield from _dear(step, offer, steps, path)


def _idle(step: Step, skill: Skill, offer: Offer, path: str) -> Iterator[Rejection]:
    """Whether a step is to compute from words without a number. A router that has to write a step for each part of a request gives one to
    a part that nothing serves, too, and a small model computes something of any words."""
    stated = [(name, value.value) for name, value in step.arguments.items() if isinstance(value, Literal) and isinstance(value.value, str)]
    if offer.several is None or not skill.computes or not stated or len(stated) < len(step.arguments):
        return
    if not any(numbered(text) for _, text in stated):
        name, text = stated[0]
        reason = f"{step.skill} computes, and {shortened(text, 80)!r} has no number"
        yield Rejection(IDLE, f"{path}/with/{name}", reason, "give this part to another skill, or a step to another part")


def _dear(step: Step, offer: Offer, steps: Sequence[Step], path: str) -> Iterator[Rejection]:
    """Whether a plan with this step makes more calls than are left, if none has to be made again. Of lists that are not there yet nobody
    knows the length: what they take is for the budget to bound."""
    made = sum(_calls(one, offer) for one in (*steps, step))
    if offer.calls is not None and made > offer.calls:
        reason = f"the steps would make {made} calls at least, and {offer.calls} are left of the budget"
        yield Rejection("R023", path, reason, "go over a part of the list, or give a skill all of it")


def _calls(step: Step, offer: Offer) -> int:
    """The calls that a step surely makes."""
    one = offer.skills[step.skill].calls if step.skill in offer.skills else 1
    match step.each:
        case Literal(list() as values):
            return one * len(values)
        case Reference() as each:
            return one * offer.counts.get(str(each), 0)
        case _:
            return one


def _element(step: Step, scope: Scope, path: str) -> Schema | Rejection | None:
    """The type of `x`; None where there is none."""
    if step.each is None:
        return None
    inner = _stated(step.each.value, scope.offer, path) if isinstance(step.each, Literal) else _at_hand(step.each, scope, path)
    if isinstance(inner, Rejection):
        return inner
    if not any(isinstance(value, Reference) and value.root == ELEMENT for value in step.arguments.values()):
        return Rejection("R003", f"{path}/each", f"no argument reads {ELEMENT}", f"{ELEMENT} is an element of {step.each}")
    return inner


def _at_hand(each: Reference, scope: Scope, path: str) -> Schema | Rejection:
    """The type of the elements of a list that is at hand."""
    kind = scope.type_of(each)
    if isinstance(kind, str):
        return Rejection("R004", f"{path}/each", kind)
    inner = elements(kind) if all(one.get("type") == "array" for one in branches(kind)) else ""
    return Rejection("R005", f"{path}/each", f"expected a list, got {show(kind)}") if isinstance(inner, str) else inner


def _stated(values: Any, offer: Offer, path: str) -> Schema | Rejection:
    """The type of the elements of a list that the plan states. Whether each may stand where `x` does is for the arguments to say."""
    where, width = f"{path}/each", offer.limits.width
    if not isinstance(values, list) or not values or not all(map(_plain, values)):
        return Rejection("R005", where, "a list to go over that a plan states has texts, numbers or truth values")
    if len(values) > width:
        hint = "go over a part of them, or over a list that is at hand"
        return Rejection("R006", where, f"a list has at most {width} elements, and this one has {len(values)}", hint)
    if len(listed(Literal(values))) > MAX_LENGTH:
        reason = f"a list to go over that a plan states has at most {MAX_LENGTH:,} characters"
        return Rejection("R006", where, reason, "state shorter texts")
    return element_of(values)


def _plain(value: Any) -> bool:
    """Whether a value may stand in a list to go over: what an expression can write."""
    return isinstance(value, str | float | bool) or (isinstance(value, int) and abs(value) <= _LARGEST)


_LARGEST = 2**53
"""Beside a number with a fraction, CEL makes an integer one as well: the largest that stays what it is."""


def _arguments(step: Step, skill: Skill, scope: Scope, element: Schema | None, path: str) -> Iterator[Rejection]:
    kinds = skill.fields
    for name, kind in kinds.items():
        if name in skill.required and name not in step.arguments:
            reason = f"{step.skill} needs {name}: {show(kind)}"
            yield Rejection("R003", f"{path}/with/{name}", reason, _instead(scope.at_hand(), scope.offer, kind))
    over = step.each if isinstance(step.each, Reference) else None
    for name, value in step.arguments.items():
        where = f"{path}/with/{name}"
        if name not in kinds:
            near = nearest(name, kinds)
            hint = f"did you mean {near}?" if near else f"it takes: {', '.join(kinds) or 'nothing'}"
            yield Rejection("R003", where, f"{step.skill} takes no {name!r}", hint)
        elif isinstance(value, Literal):
            yield from _constant(value, kinds[name], scope, where)
        elif isinstance(step.each, Literal) and value.root == ELEMENT and not value.path:
            yield from _each_constant(step.each.value, kinds[name], scope, path, where)
        elif isinstance(have := scope.type_of(value, element), str):
            yield Rejection("R004", where, have)
        elif (misfit := scope.offer.proof.misfit(have, kinds[name])) is not None:
            yield Rejection("R005", where, misfit, _instead(scope.at_hand(), scope.offer, kinds[name], value.root))
        elif skill.acts and scope.hearsay(value, have, over):
            said = f"{step.skill} has effects, and {value} may be the words of a tool, a model or a document"
            yield Rejection("L123", where, said, "an input that is typed, or a piece of the request, or a skill that asks a person first")


def _each_constant(values: Sequence[Any], kind: Schema, scope: Scope, path: str, where: str) -> Iterator[Rejection]:
    """What is wrong with the elements of a list that a plan states, in an argument that is given them."""
    faults = [fault for at, one in enumerate(values) for fault in _constant(Literal(one), kind, scope, f"{path}/each/{at}")]
    yield from faults
    if not faults and (misfit := scope.offer.proof.misfit(element_of(values), kind)) is not None:
        yield Rejection("R005", where, misfit)


def _constant(value: Literal, kind: Schema, scope: Scope, where: str) -> Iterator[Rejection]:
    """What is wrong with a constant in an argument of this type, or in the list whose elements it is given."""
    stated = statable(kind)
    if not stated:
        yield Rejection("R005", where, f"a plan makes up no {show(kind)}", _instead(scope.at_hand(), scope.offer, kind))
    elif fault := Validator(bundled(kind)).check(value.value):
        yield Rejection("R005", where, fault)
    elif not any(_is(value.value, one) for one in stated):  # it is of a part of the union that is evidence
        evidence = union([one for one in branches(kind) if one not in stated])
        yield Rejection("R005", where, f"a plan makes up no {show(evidence)}", _instead(scope.at_hand(), scope.offer, kind))
    elif _made_up(value.value, kind, scope.offer.words):
        hint = _instead(scope.at_hand(), scope.offer, kind)
        yield Rejection("R012", where, f"{_shown(value)} is no piece of the request", hint)


def _made_up(value: Any, kind: Schema, words: str) -> bool:
    """Whether a text, or one in a list, is a plan's own where its texts are pieces of the request."""
    return bool(words) and not any(_is(value, one) and _copied(value, one, words) for one in statable(kind))


def _copied(value: Any, kind: Schema, words: str) -> bool:
    """Whether all texts in a value of this type, which is no union, are pieces of the request or told by the type."""
    if isinstance(value, list) and not kind.keys() & {"enum", "const"}:
        return not any(_made_up(one, under(kind, kind["items"]), words) for one in value)
    return not isinstance(value, str) or not free(kind) or value in words


def _is(value: Any, kind: Schema) -> bool:
    return Validator(bundled(kind)).check(value) is None


def _shown(value: Literal) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _instead(at_hand: Sequence[tuple[Reference, Schema]], offer: Offer, wanted: Schema, root: str = "") -> str:
    """The values at hand that would fit, parts of what was given first."""
    fitting = [reference for reference, kind in at_hand if offer.proof.misfit(kind, wanted) is None]
    found = [str(reference) for reference in sorted(fitting, key=lambda reference: reference.root != root)]
    return f"did you mean {' or '.join(found[:3])}?" if found else ""
