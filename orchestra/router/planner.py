"""The router's machine: a request goes in, questions to a model come out, and at last a plan or the reasons why there is none.

Pure: `start` and `go_on` give the next state, and what is wanted now. Stepwise, the model is asked for one line at a time, under a grammar
of exactly what may stand there; a line that was accepted is forced from then on, so that the server finds its prefix again. Behind a step
it says whether another one follows; else the answer stands there at once, and needs no question of its own. At once, it is asked for the
whole plan; where a line of it is wrong, those before it are kept, and the rest is asked for line by line. A wrong line goes back with its
rejection, as often as `repairs` says; then, where there is one, to a larger planner, which goes on from the lines that stand, with as many
repairs of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from orchestra.router import prompt
from orchestra.router.capabilities import Offer
from orchestra.router.multi_part import Unserved, countable, had_all, unserved
from orchestra.router.plan import Plan
from orchestra.router.plan_grammar import BEGUN, NoStep, plan_grammar, step_grammar
from orchestra.router.plan_syntax import Answer, Line, Reference, Step, lines, read
from orchestra.router.shortlist import nearest_skill
from orchestra.router.validation import IDLE, UNSERVED, Rejection, judge, line_of, refusals

DECLINED = "R014"
"""The code of a plan that is `return nothing`."""
UNREADABLE = frozenset({"M001", "M002", "M003", "M004", "F205", "F210", "F217"})
"""Codes of answers that are no line: nothing, another type, cut off, too late, too large, broken off."""
_REST = re.compile(r"[0-9]+ = ")
"""How a line goes on whose first letter stood already."""


@dataclass(frozen=True)
class Request:
    """What is to be planned."""

    text: str
    offer: Offer
    repairs: int = 1
    stepwise: bool = True
    failed: tuple[tuple[str, str], ...] = ()
    """Calls of earlier plans, as lines of this one, and why they failed. None of them stands in this one again."""
    made: tuple[tuple[str, str], ...] = ()
    """Calls of earlier plans, as lines of this one, and the inputs that have their values. The same holds of them."""
    larger: bool = False
    """Whether there is a larger planner."""
    room: int = 0
    """Tokens that the planners have for what they are told; 0 where that is not known."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A call of the router's agent, or of the larger one."""

    inputs: Mapping[str, str]
    feedback: tuple[str, ...] = ()
    """Why its earlier lines were not accepted; it stands in the inputs too."""
    larger: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan."""

    plan: Plan
    repaired: int = 0
    """Lines that were wrong at first."""


@dataclass(frozen=True, slots=True)
class Unplanned:
    """No plan, and why."""

    rejections: tuple[Rejection, ...]
    steps: tuple[Step, ...] = ()
    """Those that were accepted."""

    @property
    def declined(self) -> bool:
        """Whether the plan is `return nothing`."""
        return bool(self.rejections) and self.rejections[0].code == DECLINED


Wanted: TypeAlias = Ask | Planned | Unplanned


@dataclass(frozen=True)
class Drafting:
    """A plan under way: the steps that were accepted, and the lines that were not."""

    request: Request
    steps: tuple[Step, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    """Of the step that is under way."""
    repaired: int = 0
    larger: bool = False
    """Whether the larger planner has taken over."""


def start(request: Request) -> tuple[Drafting, Wanted]:
    """The first question; or at once why there will be no plan."""
    return _ask(Drafting(request))


def go_on(state: Drafting, reply: str) -> tuple[Drafting, Wanted]:
    """What a model answered to the last question, and what is wanted next."""
    told, begun = _begun(_lines(reply))
    if not told:
        return _refused(state, (Rejection("R001", f"/steps/{len(state.steps) + 1}", "the line is empty", "s1 = NAME(ARGUMENT=VALUE)"),))
    said = {str(step) for step in state.steps}
    if all(text.strip() in said for text in told):
        return _refused(state, (Rejection("R001", f"/steps/{len(state.steps) + 1}", "this line stands already", "write the next one"),))
    for text in told:
        if text.strip() in said:  # a model that was not held to the next line begins anew
            continue
        line = line_of(text, len(state.steps) + 1)
        if isinstance(line, Rejection):
            return _refused(state, (line,))
        faults = [*judge(line, state.request.offer, state.steps), *_tried(line, state.request, len(state.steps) + 1)]
        if isinstance(line, Answer) and faults and all(one.code == UNSERVED for one in faults):
            return _left_out(state, line, faults[0])
        if faults:
            return _refused(state, tuple(faults), begun=all(one.code == IDLE for one in faults))
        if isinstance(line, Answer) and not line.values:
            return state, declined(state.request)
        if isinstance(line, Answer):
            return state, Planned(Plan(state.steps, line), state.repaired)
        state = replace(state, steps=(*state.steps, line), rejected=())
    return _ask(state, begun=begun)


def _left_out(state: Drafting, answer: Answer, fault: Rejection) -> tuple[Drafting, Wanted]:
    """What is wanted after an answer that leaves a part of the request out.

    As long as there are repairs: another step, if one had all of the request, or whatever the planner makes of it. Then the plan is taken
    as it is, if a step may have dealt with that part, or if what can be done is wanted anyway; else there is none. The same holds where the
    lines that were wanted instead are all refused (`_stood`).
    """
    left = unserved(state.request.offer.several, state.steps, answer)
    assert left is not None, "the answer was refused for it"
    more = left.whole > 0 or any(had_all(step) for step in state.steps)
    after, wanted = _refused(state, (fault,), begun=more and not fault.hint.startswith("return"))
    if isinstance(wanted, Ask):
        return after, wanted
    if state.request.offer.declines and not left.whole:
        return state, _lacking(left, state.steps)
    return state, Planned(Plan(state.steps, answer), state.repaired)


def _stood(state: Drafting) -> Planned | Unplanned | None:
    """The plan as it stood when an answer was refused for what it leaves out, and nothing else came of the repairs; or why it is not taken.
    None where no answer was. The plan's answer has all of its steps, if that leaves nothing out, else those that no other step reads."""
    if not state.steps or all(one.code != UNSERVED for one in state.rejected):
        return None
    offer, steps = state.request.offer, state.steps
    used = {reference.root for step in steps for reference in step.references}
    every, last = (Answer(tuple(Reference(step.name) for step in steps if step.name not in less)) for less in ((), used))
    if unserved(offer.several, steps, every) is None:
        return Planned(Plan(steps, every), state.repaired)
    left = unserved(offer.several, steps, last)
    return Planned(Plan(steps, last), state.repaired) if left is None or left.whole or not offer.declines else _lacking(left, steps)


def _lacking(left: Unserved, steps: tuple[Step, ...]) -> Unplanned:
    """That there is no plan, for what it leaves out."""
    return Unplanned((Rejection(DECLINED, "/steps", str(left), "--anyway plans the rest"),), steps)


def go_on_without(state: Drafting, code: str, reason: str) -> tuple[Drafting, Wanted] | None:
    """What is wanted where a model gave no line that could be read: its repair, as after a line that was refused, or the larger planner.
    None where nobody is left to ask, and after a failure that says nothing of the model, such as a server that is gone.
    """
    if code not in UNREADABLE:
        return None
    fault = Rejection("R020", f"/steps/{len(state.steps) + 1}", f"no line that can be read ({code}: {reason})", "s1 = NAME(ARGUMENT=VALUE)")
    state, wanted = _refused(state, (fault,))
    return None if isinstance(wanted, Unplanned) else (state, wanted)


def _begun(told: list[str]) -> tuple[list[str], bool]:
    """A reply without the beginning of the step that is not asked for yet, and whether there is one; a first line that goes on from such a
    beginning is made whole."""
    if told and _REST.match(told[0]):
        told = [BEGUN + told[0], *told[1:]]
    return (told[:-1], True) if len(told) > 1 and told[-1].strip() == BEGUN else (told, False)


def declined(request: Request) -> Unplanned:
    """What the plan `return nothing` comes to."""
    return Unplanned((Rejection(DECLINED, "/answer", "nothing that is offered serves the request", _nearest(request)),))


def _nearest(request: Request) -> str:
    """What of the offer has most words in common with the request."""
    found = nearest_skill(list(request.offer.skills.values()), request.text)
    return "" if found is None else f"the nearest is {prompt.line(found)}"


def _tried(line: Line, request: Request, number: int) -> Iterator[Rejection]:
    """Whether a line is a call that was made before: it would fail again, or give what is at hand."""
    if not isinstance(line, Step):
        return
    for told, reason in request.failed:
        if _same(line, told):
            yield Rejection("R009", f"/steps/{number}", f"this call has failed: {reason}", "go another way")
    for told, name in request.made:
        if _same(line, told):
            yield Rejection("R009", f"/steps/{number}", "this call was made, and its value is at hand", f"use input.{name}")


def _same(line: Step, told: str) -> bool:
    """Whether two lines are the same call, in whatever order their arguments stand."""
    other = read(told)
    return isinstance(other, Step) and replace(line, name="s1", after=()) == replace(other, name="s1", after=())


def _lines(reply: str) -> list[str]:
    """The lines of a plan in what a model wrote: what stands in its fence, where it has one; else all."""
    found = [line for line in lines(reply) if line.strip()]
    fences = [number for number, line in enumerate(found) if line.lstrip().startswith("```")]
    if not fences:
        return found
    # Of one fence alone nobody knows which side of it is meant: the beginning of what it closes, or the rest of what it opens.
    begin, end = (fences[0], fences[1]) if len(fences) > 1 else (fences[0], len(found)) if fences[0] == 0 else (-1, fences[0])
    return found[begin + 1 : end]


def _refused(state: Drafting, faults: tuple[Rejection, ...], *, begun: bool = False) -> tuple[Drafting, Wanted]:
    rejected = (*state.rejected, *faults)
    repairs = state.request.repairs
    if state.repaired >= (2 * repairs + 1 if state.larger else repairs):
        if state.larger or not state.request.larger:
            return state, _stood(state) or Unplanned(rejected, state.steps)
        state = replace(state, larger=True)
    return _ask(replace(state, rejected=rejected, repaired=state.repaired + 1), begun=begun)


def _ask(state: Drafting, *, begun: bool = False) -> tuple[Drafting, Wanted]:
    request, offer = state.request, state.request.offer
    if offer.several is not None and any(one.code == IDLE for one in state.rejected):
        offer = replace(offer, words=countable(offer.several, state.steps) or offer.words)  # what computes gets what it can compute
    whole = not request.stepwise and not state.steps and not state.rejected
    try:
        grammar = plan_grammar(offer) if whole else step_grammar(offer, state.steps, begun=begun)
    except NoStep as error:
        if begun:  # every call that is left stands already
            return _ask(state)
        reason = str(error) if len(state.steps) < offer.limits.steps else "the steps are used up, and none gives what is wanted"
        wanted = f"wanted is {prompt.kind(offer.returns)}, at hand {', '.join(offer.values) or 'nothing'}"
        wanted += "".join(f"; {name} {why}" for name, (code, why) in offer.left_out.items() if code == "R021")
        fault = Rejection("R006", f"/steps/{len(state.steps) + 1}", reason, wanted)
        return state, Unplanned((*state.rejected, *([] if state.steps else refusals(offer)), fault), state.steps)
    feedback = tuple(map(str, state.rejected))
    told = {
        "skills": prompt.skills(offer.skills.values()),
        "values": prompt.values(offer.values),
        "plan": "\n".join([*map(str, state.steps), *([BEGUN] if begun else [])]),
    }
    rest = request.room - sum(map(prompt.tokens, (*told.values(), _with("", feedback, request.failed)))) if request.room else 0
    text = prompt.cut(shortened(request.text), max(rest, prompt.LEAST) if request.room else prompt.MAX_TOKENS)
    inputs = {"request": _with(text, feedback, request.failed), **told, "grammar": grammar}
    return state, Ask(inputs, feedback, state.larger)


def _with(request: str, feedback: tuple[str, ...], failed: tuple[tuple[str, str], ...]) -> str:
    """The request, and at its end, where a model reads it last, what failed before, and what was wrong with its lines."""
    tried = "".join(f"\n- {line}: {reason}" for line, reason in failed)
    request = f"{request}\n\nThese calls failed, plan without them:{tried}" if tried else request
    said = "".join(f"\n- {reason}" for reason in feedback)
    return f"{request}\n\nNot accepted, write another line:{said}" if said else request


def shortened(text: str) -> str:
    """A request as a model is shown it."""
    if len(text) <= prompt.MAX_REQUEST:
        return text
    half = prompt.MAX_REQUEST // 2
    return f"{text[:half]}\n[…]\n{text[-half:]}"
