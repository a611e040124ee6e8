"""The examination: verification as a machine, for checks that ask agents. Pure: who runs it makes the calls.

    state = start(situation)                    # an `Asked` with questions, or the `Ruling`
    state = go_on(situation, state, replies)    # as often as there are questions

Checks go by cost. What asks nobody goes first; then, of the checks on which it still depends whether the value is accepted, one after
the other. What a check asks goes out at once; what does not come back, or makes no sense, is `unknown`, and `unknown` never passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from orchestra.agents.contract import Contract
from orchestra.core.errors import InputError
from orchestra.core.events import Question, Verdict
from orchestra.core.suggestions import nearest
from orchestra.verification import custom_checks
from orchestra.verification.acceptance import Ruling, Situation, at_once, open_check, rules_of, ruling
from orchestra.verification.answer_parts import rest
from orchestra.verification.check_expression import Named, NotARule, named, read
from orchestra.verification.custom_checks import TOOL
from orchestra.verification.entailment import ENTAILMENT, Reply
from orchestra.verification.model_checks import ASKING, judge_of
from orchestra.verification.verdict import unsettled


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Where an examination stands when it has questions: the check that asks, what it asks, and what was said before."""

    check: str
    questions: tuple[Question, ...]
    verdicts: tuple[Verdict, ...] = ()


def start(situation: Situation) -> Asked | Ruling:
    """The first questions, or the ruling where there are none."""
    if situation.back_off:
        return _backing_off(situation)
    return _next(situation, at_once(situation))


def _backing_off(situation: Situation) -> Asked | Ruling:
    """Where parts may be dropped `entailment` is asked first: the other checks are about what it leaves."""
    check = next((one for one in rules_of(situation.checks) if isinstance(one, Named) and one.check == ENTAILMENT), None)
    if check is None:
        return _next(situation, at_once(situation))
    found = ASKING[ENTAILMENT].questions(check, situation)
    if isinstance(found, tuple):
        return Asked(check=str(check), questions=found)
    return _next(situation, {**at_once(situation), check: _named(check, found)})


def go_on(situation: Situation, asked: Asked, replies: Sequence[Reply]) -> Asked | Ruling:
    """What follows from the replies to the questions, in their order."""
    found = {read(one.check): one for one in asked.verdicts}
    check = read(asked.check)
    if isinstance(check, Named):
        found[check] = _named(check, ASKING[check.check].judged(check, situation, replies))
    known = {one: said for one, said in found.items() if isinstance(one, Named)}
    if situation.back_off:
        known |= at_once(_left(situation, known))
    return _next(situation, known)


def unasked(situation: Situation, asked: Asked, reason: str) -> Ruling:
    """The ruling where the questions are not asked: what they would have told is `unknown`, for this reason."""
    rules = rules_of(situation.checks)
    known = {name: one for one in asked.verdicts if isinstance(name := read(one.check), Named)}
    if situation.back_off:  # the other checks were to judge what is left, and that is all of it
        known = at_once(situation)
    while (check := open_check(rules, known, situation.combination)) is not None:
        known[check] = unsettled(str(check), reason)
    return ruling(situation, rules, known)


def _next(situation: Situation, known: dict[Named, Verdict]) -> Asked | Ruling:
    rules = rules_of(situation.checks)
    while (check := open_check(rules, known, situation.combination)) is not None:
        found = ASKING[check.check].questions(check, _left(situation, known) if check.check == TOOL else situation)
        if isinstance(found, tuple):
            return Asked(check=str(check), questions=found, verdicts=tuple(known.values()))
        known[check] = _named(check, found)
    return ruling(situation, rules, known)


def _left(situation: Situation, known: Mapping[Named, Verdict]) -> Situation:
    """The situation of what is left of the value, where parts were taken out of it."""
    return msgspec.structs.replace(situation, value=rest(situation.value, known.values())) if situation.back_off else situation


def _named(check: Named, said: Verdict) -> Verdict:
    """A verdict under the check's whole name, with the agent in it."""
    return msgspec.structs.replace(said, check=str(check))


def judges_of(checks: tuple[str, ...]) -> list[str]:
    """What checks ask beside the producer, each once: agents by name, tools as `tool(NAME)`."""
    return list(dict.fromkeys(name for rule in rules_of(checks) for check in named(rule) if (name := judge_of(check))))


def judge_among(name: str, agents: Mapping[str, Contract], own: Mapping[str, Contract]) -> Contract | None:
    """The agent, or of one's `own` tools the one, that is asked under a name; None where there is none."""
    return own.get(tool) if (tool := custom_checks.asked(name)) else agents.get(name)


def stated(
    checks: tuple[str, ...], agents: Mapping[str, Contract], own: Mapping[str, Contract]
) -> tuple[tuple[str, ...], dict[str, Contract]]:
    """Checks that somebody states outside of a workflow, and the agents and tools that they ask.

    Raises `InputError` V010 for a text that is no check, V011 for an agent or a tool that is not there, or cannot be asked.
    """
    for text in checks:
        try:
            read(text)
        except NotARule as error:
            raise InputError("V010", f"{text!r} is no check: {error.why}", hint='checks="quote | entailment"') from error
    found: dict[str, Contract] = {}
    for name in judges_of(checks):
        judge, tool = judge_among(name, agents, own), custom_checks.asked(name)
        if judge is None:
            near = nearest(tool or name, known := own if tool else agents)
            hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(sorted(known)) or 'none'}"
            raise InputError("V011", f"a check asks the {TOOL if tool else 'agent'} {tool or name!r}, and there is none", hint=hint)
        if tool and (why := custom_checks.misfit(judge)):
            raise InputError("V011", f"no check can ask the tool {tool!r}: {why}", hint="orchestra explain V011")
        found[name] = judge
    return checks, found
