"""Questions to people: `ask` nodes, and calls of which nobody knows whether they happened."""

from __future__ import annotations

from typing import Any

from orchestra.engine.kinds.acceptance import settle
from orchestra.engine.proposals import Ask, Finish, Proposal
from orchestra.engine.state import State, Unit, contradiction
from orchestra.events import Answered, Asked
from orchestra.values.json import canonical, digest
from orchestra.values.outcome import Abstained, Failed, Value
from orchestra.workflow.nodes import AskNode

AGAIN, FAIL = "again", "fail"


def ask(unit: Unit) -> Proposal:
    """The question of an `ask` node."""
    node = unit.node
    question = node.value.evaluate(unit.bindings) if node.value is not None else ""
    options = node.source.options if isinstance(node.source, AskNode) else ()
    return Ask(unit, str(question), node.output, options)


def doubt(unit: Unit) -> Proposal:
    """The question about a call that must happen once: its start is on record, and its end is not."""
    name = unit.node.contract.name if unit.node.contract is not None else unit.path
    question = (
        f"{name} was called by {unit.path} when the run was interrupted, and may have done its work. Call it again, or fail the node?"
    )
    return Ask(unit, question, {"enum": [AGAIN, FAIL]}, (AGAIN, FAIL), about="effect")


def facts(ask: Ask) -> dict[str, Any]:
    """What is on record of a question, with the digest of all that the person is shown."""
    shown: list[Any] = [ask.question, ask.options, ask.schema]
    shown += [ask.withheld] if ask.withheld is not None else []
    return {
        "question": ask.question,
        "schema": ask.schema,
        "shown": digest(canonical(shown)),
        "options": ask.options,
        "about": ask.about,
        "withheld": ask.withheld,
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
    unit.reply = None
    if reply.value == AGAIN:
        unit.attempt -= 1
        state.enqueue(unit)
        return None
    hint = "see what it has done, and start a new run"
    return Finish(unit, Failed("E016", "interrupted while it ran; a person said not to call it again", unit.path, hint))
