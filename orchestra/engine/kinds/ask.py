"""Questions to people: `ask` nodes, and calls of which nobody knows whether they happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestra.core.error_codes import SAID_NO, UNFIT
from orchestra.core.errors import OrchestraError
from orchestra.core.events import Answered, Asked, Given
from orchestra.core.outcomes import Abstained, Failed, Value
from orchestra.core.paths import first_name
from orchestra.core.untrusted_text import counted
from orchestra.engine.kinds.acceptance import settle
from orchestra.engine.proposals import Ask, Finish, Proposal
from orchestra.engine.state import State, Unit, contradiction
from orchestra.schema.strict_json import canonical, digest
from orchestra.workflows.model import AskNode
from orchestra.workflows.program import CompiledNode

AGAIN, FAIL = "again", "fail"


def ask(state: State, unit: Unit) -> Proposal:
    """The question of an `ask` node; or its answer, where a person was asked the very same before, and nothing judges it."""
    node = unit.node
    question = node.value.evaluate(unit.bindings) if node.value is not None else ""
    options = node.source.options if isinstance(node.source, AskNode) else ()
    asked = Ask(unit, str(question), node.output, options)
    checked = node.acceptance is not None and node.acceptance.checks
    if state.given and not checked and (known := state.given.get(unit.path)) is not None and known.shown == facts(asked)["shown"]:
        return Finish(unit, Value(known.value), given=known.given)
    return asked


def given(state: State, unit: Unit) -> Proposal | None:
    """The end of a unit of which a person said what it gives, whatever it would have come to; None of any other."""
    known = state.given.get(unit.path) if state.given is not None else None
    if known is None or known.shown:
        return None
    if known.whole and (fault := incomplete(unit.node, known.value, unit.bindings)):
        hint = f"give one for each: orchestra runs fork RUN --set {unit.path}=VALUE; or leave `at_least` out"
        return Finish(unit, Failed(UNFIT, fault, unit.path, hint))
    return Finish(unit, Value(known.value), given=known.given)


def incomplete(node: CompiledNode, value: Any, bindings: Mapping[str, Any]) -> str:
    """Why a list that a person gave is none of all elements, where all are needed: it has another number of them than the list that the
    node goes over; empty for any other value. Fewer may be right where a condition leaves elements out. Where that list has no value or is
    longer than `limit`, and where the node's own condition is false or has no value, the person's word stands."""
    if node.at_least != "all" or node.each is None:
        return ""
    left_out = node.when is not None and node.variable in node.when.references
    read = node.each.references if node.when is None or left_out else node.each.references | node.when.references
    if any(name not in bindings for name in read):
        return ""
    try:
        wanted = len(node.each.evaluate(bindings))
        if wanted > node.limit or (node.when is not None and not left_out and not node.when.evaluate(bindings)):
            return ""
    except OrchestraError:
        return ""
    if len(value) == wanted or (left_out and len(value) < wanted):
        return ""
    return f"{counted(len(value), 'element')} given for the {wanted:,} that it goes over, and all are needed"


def _happened(unit: Unit, reply: Answered) -> Proposal:
    """A call in doubt of which a person says what it gave: its checks judge that as they would have judged the answer."""
    proposal = settle(unit, Value(reply.value))
    return Finish(unit, proposal.outcome, given=Given(reply.by)) if isinstance(proposal, Finish) else proposal


def doubt(unit: Unit) -> Proposal:
    """The question about a call that must happen once: its start is on record, and its end is not."""
    name = unit.node.contract.name if unit.node.contract is not None else unit.path
    question = (
        f"{name} was called by {unit.path} when the run was interrupted, and may have done its work. Call it again, or fail the node?"
    )
    return Ask(unit, question, {"enum": [AGAIN, FAIL]}, (AGAIN, FAIL), about="effect", gives=unit.node.output or {})


def facts(ask: Ask) -> dict[str, Any]:
    """What is on record of a question, with the digest of all that the person is shown."""
    shown: list[Any] = [ask.question, ask.options, ask.schema]
    shown += [ask.withheld] if ask.withheld is not None else []
    shown += [ask.gives] if ask.gives is not None else []
    return {
        "question": ask.question,
        "schema": ask.schema,
        "shown": digest(canonical(shown)),
        "options": ask.options,
        "about": ask.about,
        "withheld": ask.withheld,
        "gives": ask.gives,
    }


def _declined(unit: Unit, asked: Asked, reply: Answered) -> Abstained:
    """What a unit ends in whose question nobody answers: withheld, as what its checks did not accept was before."""
    why = f"{reply.by or 'a person'} declined to answer: {reply.declined}"
    ruling = unit.judged if asked.about == "acceptance" else None
    if ruling is None:
        return Abstained(why, unit.path)
    told = None if ruling.told is None else "; ".join(filter(None, (ruling.told, why)))
    return Abstained(f"{ruling.reason}; {why}", unit.path, ruling.score, told)


def replied(state: State, unit: Unit) -> Proposal | None:
    """What follows from a person's answer."""
    asked, reply = unit.asked, unit.reply
    if asked is None or reply is None:
        raise contradiction(f"{unit.path} was not asked")
    if reply.declined and asked.about != "effect":
        return Finish(unit, _declined(unit, asked, reply))
    if asked.about == "answer":
        return settle(unit, Value(reply.value))
    if asked.about == "acceptance":
        return Finish(unit, Value(reply.value))  # as it stands: who asks a person does not judge the answer
    if reply.gave:
        return _happened(unit, reply)
    unit.reply = None
    if reply.value == AGAIN:
        unit.attempt -= 1
        state.enqueue(unit)
        return None
    hint = "see what it has done; to call it again: orchestra runs fork RUN --again"
    if first_name(unit.path) == unit.path:
        hint += f"; to say what it gave: orchestra runs fork RUN --set {unit.path}=VALUE"
    return Finish(unit, Failed(SAID_NO, "interrupted while it ran; a person said not to call it again", unit.path, hint))
