"""Checks that ask agents: their questions are calls beneath the unit that is judged, and what comes of them goes on to the verdict.

A question has a path (`reading[2]?1/entailment_0`), a reservation in the unit's budget, and events of its own, as any call has. One that
fails, is late, answers nonsense or finds no room in the budget is no reply; and what has no reply is `unknown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestra.agents.contract import Contract
from orchestra.core.events import ChecksStarted, Question
from orchestra.core.outcomes import Failed, Outcome, Value
from orchestra.engine.kinds.acceptance import situation
from orchestra.engine.proposals import Judge, Proposal
from orchestra.engine.state import Phase, Unit, contradiction
from orchestra.schema.json_schema import ANY, Schema
from orchestra.workflows.model import RETRY as AS_ANY
from orchestra.workflows.model import AgentNode, Retry, ToolNode
from orchestra.workflows.program import Acceptance, CompiledNode, Expression, Program

if TYPE_CHECKING:
    from orchestra.verification.acceptance import Ruling
    from orchestra.verification.entailment import Reply
    from orchestra.verification.session import Asked

PATIENCE = 120.0
"""Seconds that an attempt at a question may take where the node states no `timeout`: a late verdict is none."""
RETRY = Retry.model_construct(attempts=2, wait=(0.5, 4.0))
"""Of questions to agents: a value that waits for its verdict should not wait long."""


class Given:
    """An expression that stands for a value that is there."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    @property
    def references(self) -> frozenset[str]:
        """None."""
        return frozenset()

    @property
    def schema(self) -> Schema:
        """Nobody asks."""
        return ANY

    @property
    def parts(self) -> Mapping[str, Expression] | None:
        """None."""
        return None

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """The value."""
        return self._value


def examined(judge: Judge) -> Asked | Ruling:
    """What the checks say of a value, or ask; the same for the same facts."""
    from orchestra.verification import session

    if judge.asked is None:
        return session.start(judge.situation)
    return session.go_on(judge.situation, judge.asked, judge.replies)


def rounds(unit: Unit) -> int:
    """How often checks of a unit have asked."""
    return unit.checking.asked.round if unit.checking is not None else 0


def timed(unit: Unit) -> bool:
    """Whether the time of a unit is that of its body, and its checks ask meanwhile: they are in that time."""
    return unit.phase in (Phase.CHECKING, Phase.CHECKED, Phase.QUEUED) and unit.body is not None and unit.node.timeout is not None


def program(unit: Unit, event: ChecksStarted) -> Program:
    """The questions of a check as nodes beside each other."""
    name = event.check.partition("(")[0]
    nodes = tuple(_node(unit, index, f"{name}_{index}", question) for index, question in enumerate(event.questions))
    return Program(name, nodes, Given(None), ANY, {}, lexical=True)


def _node(unit: Unit, index: int, name: str, question: Question) -> CompiledNode:
    node = unit.node
    contract = asked_of(unit, question)
    return CompiledNode(
        index=index,
        name=name,
        kind=contract.kind,
        source=AgentNode.model_construct(agent=contract.name) if contract.kind == "agent" else ToolNode.model_construct(tool=contract.name),
        output=contract.output,
        needs=(),
        children=(),
        tolerant=False,
        soft=frozenset(),
        height=node.height,
        contract=contract,
        inputs=Given(question.inputs),
        retry=RETRY if contract.kind == "agent" else AS_ANY,
        timeout=PATIENCE if node.timeout is None or node.body is not None else node.timeout,
        # No checks of its own; but quotes in its answer are of the same evidence.
        acceptance=Acceptance(against=node.acceptance.against if node.acceptance is not None else None),
        # Beside the node's own sample: the value, drawn again with its seed, would agree with itself.
        sample=node.sample + question.sample if question.sample else 0,
    )


def asked_of(unit: Unit, question: Question) -> Contract:
    """The agent or the tool that a question is for. Raises `OrchestraError` E002 for one that nobody knows."""
    judges = unit.node.acceptance.judges if unit.node.acceptance is not None else {}
    contract = judges.get(question.agent)
    if question.sample:
        contract = unit.node.contract
    if contract is None:
        raise contradiction(f"{unit.path}: no check can ask {question.agent}")
    return contract


def heard(unit: Unit, candidate: Outcome) -> Proposal:
    """What was asked has come back: the verdict, or more questions."""
    from orchestra.verification.session import Asked

    checking = unit.checking
    if checking is None or not isinstance(candidate, Value):
        raise contradiction(f"{unit.path} has no value that is judged")
    event = checking.asked
    asked = Asked(check=event.check, questions=event.questions, verdicts=event.verdicts)
    replies = tuple(map(reply, checking.scope.outcomes))
    return Judge(unit, unit.attempt, situation(unit, candidate), asked, replies)


def reply(outcome: Outcome | None) -> Reply:
    """What came of a question."""
    from orchestra.verification.entailment import Reply

    match outcome:
        case Value(value):
            return Reply(value)
        case Failed(code, reason):
            return Reply(fault=f"{code} {reason}")
        case _:
            return Reply(fault="it was not asked")
