"""Climbing: what happens to a value that is not accepted. Another attempt, a larger model, one still larger, a person, or nobody.

The tiers are those of the fleet file when the run began (`RunStarted.tiers`). Which of them may see the data of a call the fleet alone
knows: one that may not is passed over, with its refusal as the fact that says why, and nothing was sent.
"""

from __future__ import annotations

from typing import Any

from orchestra.core.error_codes import NO_TIER, NOT_CLEARED
from orchestra.core.events import Text, Withheld, tier_name
from orchestra.core.outcomes import Abstained
from orchestra.core.protocols import sources
from orchestra.engine.kinds.acceptance import evidence, sure, under
from orchestra.engine.proposals import Ask, Finish, Proposal
from orchestra.engine.retry import policy
from orchestra.engine.state import Rung, State, Unit, acceptance_of, answer_of, ruling_of
from orchestra.workflows.program import Acceptance

TEXT, TEXTS = 4_000, 16_000
"""Characters of one text of the evidence that a person is shown, and of all together."""


def refused(state: State, unit: Unit, value: Any) -> Proposal | None:
    """What follows where the checks have not accepted a unit's value: the next attempt, or the end."""
    ruling, acceptance = ruling_of(unit), acceptance_of(unit)
    if ruling.unasked is not None:  # nothing is held against the value, and another one would find no more in the budget
        return _unaccepted(state, unit, value, ruling.reason, ruling.score)
    # A check that crashed is no fault of the answer, and would only crash again.
    again = unit.answer is not None and not unit.tier and "retry" in acceptance.otherwise and ruling.told != ""
    if again and policy(unit.node, "V001").again(unit.attempt, ruling.at - unit.began):
        state.enqueue(unit)
        return None
    if higher(state, unit, acceptance):
        return None
    return _unaccepted(state, unit, value, ruling.reason, ruling.score)


def failed(state: State, unit: Unit) -> Proposal | None:
    """What follows where a larger model gave no value, after its own model's was not accepted."""
    ruling, answer = ruling_of(unit), answer_of(unit)
    if answer.error != NO_TIER and higher(state, unit, acceptance_of(unit)):
        return None
    if not state.tiers:
        reason = f"not accepted, and the larger model did not help: {answer.reason}"
        return _unaccepted(state, unit, unit.offered, reason, None)
    return _unaccepted(state, unit, unit.offered, ruling.reason, ruling.score)


def higher(state: State, unit: Unit, acceptance: Acceptance) -> bool:
    """Lets the next larger model try, where there is one."""
    contract = unit.node.contract
    if "escalate" not in acceptance.otherwise or unit.answer is None or contract is None or contract.kind != "agent":
        return False
    if unit.tier >= max(1, len(state.tiers)):
        return False
    unit.wanted = unit.tier + 1
    state.enqueue(unit)
    return True


def _unaccepted(state: State, unit: Unit, value: Any, reason: str, score: float | None) -> Proposal:
    """The end of the models: a person is asked, or the value is withheld."""
    tiers = told(state, unit)
    if "ask" in acceptance_of(unit).otherwise:
        return ask(unit, value, tiers)
    acceptance = acceptance_of(unit)
    why, score = under(acceptance, reason), sure(unit, value) if acceptance.whole else score
    return Finish(unit, Abstained(f"{why}; {tiers}" if tiers else why, unit.path, score, ruling_of(unit).told))


def told(state: State, unit: Unit) -> str:
    """Which larger models were asked, and which were passed over and why; empty where none was, or none has a name."""
    if not unit.climbed or not state.tiers:
        return ""
    found = [f"{tier_name(state.tiers, rung.tier)} {_came_to(rung)}" for rung in {rung.tier: rung for rung in unit.climbed}.values()]
    return f"its own model, then {', '.join(found)}"


def _came_to(rung: Rung) -> str:
    match rung.error:
        case "":
            return "(asked)"
        case code if code == NOT_CLEARED:
            return f"(passed over: {rung.reason})"
        case code:
            return f"({code}: {rung.reason})"


def ask(unit: Unit, value: Any, tiers: str) -> Proposal:
    """The question to a person for the value that a node should have, beside the one that was not accepted."""
    ruling = ruling_of(unit)
    given = evidence(unit) or sources(unit.node.inputs.evaluate(unit.bindings) if unit.node.inputs else [])
    texts, left = [], TEXTS
    for source in given:
        most = min(TEXT, left)
        if most <= 0:
            break
        texts.append(Text(source.text if len(source.text) <= most else f"{source.text[:most]}…", source.name))
        left -= len(source.text)
    withheld = Withheld(value, ruling.reason, ruling.verdicts, tuple(texts), tiers)
    question = f"this was not accepted ({ruling.reason}). What is right?"
    return Ask(unit, question, unit.node.output, about="acceptance", withheld=withheld)
