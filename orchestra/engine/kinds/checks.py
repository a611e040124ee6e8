"""Checks that ask agents: their questions are calls beneath the unit that is judged, and what comes of them goes on to the verdict.

A question has a path (`reading[2]?1/entailment_0`), a reservation in the unit's budget, and events of its own, as any call has. One that
fails, is late, answers nonsense or finds no room in the budget is no reply; and what has no reply is `unknown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestra.agents.contract import Contract
from orchestra.core.events import CheckQuestion, ChecksStarted
from orchestra.core.outcomes import FailedOutcome, Outcome, ValueOutcome
from orchestra.engine.kinds.acceptance import verification_request
from orchestra.engine.proposals import Proposal, RunChecks
from orchestra.engine.state import Phase, WorkItem, internal_error
from orchestra.schema.json_schema import ANY, Schema
from orchestra.workflows.model import DEFAULT_RETRY as AS_ANY
from orchestra.workflows.model import AgentNode, Retry, ToolNode
from orchestra.workflows.program import Acceptance, CompiledNode, Expression, Program

if TYPE_CHECKING:
    from orchestra.verification.acceptance import VerificationResult
    from orchestra.verification.entailment import JudgeReply
    from orchestra.verification.session import ChecksPending

QUESTION_TIMEOUT = 120.0
"""Seconds that an attempt at a question may take where the node states no `timeout`: a late verdict is none."""
QUESTION_RETRY = Retry.model_construct(attempts=2, wait=(0.5, 4.0))
"""Of questions to agents: a value that waits for its verdict should not wait long."""


class LiteralExpression:
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


def evaluate_checks(proposal: RunChecks) -> ChecksPending | VerificationResult:
    """What the checks say of a value, or ask; the same for the same facts."""
    from orchestra.verification import session

    if proposal.pending is None:
        return session.start(proposal.request)
    return session.advance(proposal.request, proposal.pending, proposal.replies)


def round_number(unit: WorkItem) -> int:
    """How often checks of a unit have asked."""
    return unit.check_progress.started.round if unit.check_progress is not None else 0


def has_timed_checks(unit: WorkItem) -> bool:
    """Whether the time of a unit is that of its body, and its checks ask meanwhile: they are in that time."""
    return (
        unit.phase in (Phase.CHECKING, Phase.CHECKED, Phase.CHECKS_QUEUED)
        and unit.body is not None
        and unit.node.timeout is not None
    )


def program(unit: WorkItem, event: ChecksStarted) -> Program:
    """The questions of a check as nodes beside each other."""
    name = event.check.partition("(")[0]
    nodes = tuple(
        _question_node(unit, index, f"{name}_{index}", question) for index, question in enumerate(event.questions)
    )
    return Program(name, nodes, LiteralExpression(None), ANY, {}, sees_outer_scope=True)


def _question_node(unit: WorkItem, index: int, name: str, question: CheckQuestion) -> CompiledNode:
    node = unit.node
    contract = question_contract(unit, question)
    return CompiledNode(
        index=index,
        name=name,
        kind=contract.kind,
        source=AgentNode.model_construct(agent=contract.name)
        if contract.kind == "agent"
        else ToolNode.model_construct(tool=contract.name),
        output=contract.output,
        needs=(),
        children=(),
        has_soft_needs=False,
        soft_needs=frozenset(),
        height=node.height,
        contract=contract,
        inputs=LiteralExpression(question.inputs),
        retry=QUESTION_RETRY if contract.kind == "agent" else AS_ANY,
        timeout=QUESTION_TIMEOUT if node.timeout is None or node.body is not None else node.timeout,
        # No checks of its own; but quotes in its answer are of the same evidence.
        acceptance=Acceptance(against=node.acceptance.against if node.acceptance is not None else None),
        # Beside the node's own sample: the value, drawn again with its seed, would agree with itself.
        sample=node.sample + question.sample if question.sample else 0,
    )


def question_contract(unit: WorkItem, question: CheckQuestion) -> Contract:
    """The agent or the tool that a question is for. Raises `OrchestraError` E002 for one that nobody knows."""
    judges = unit.node.acceptance.judges if unit.node.acceptance is not None else {}
    contract = judges.get(question.agent)
    if question.sample:
        contract = unit.node.contract
    if contract is None:
        raise internal_error(f"{unit.path}: no check can ask {question.agent}")
    return contract


def on_checks_done(unit: WorkItem, candidate: Outcome) -> Proposal:
    """What was asked has come back: the verdict, or more questions."""
    from orchestra.verification.session import ChecksPending

    checking = unit.check_progress
    if checking is None or not isinstance(candidate, ValueOutcome):
        raise internal_error(f"{unit.path} has no value that is judged")
    event = checking.started
    asked = ChecksPending(check=event.check, questions=event.questions, verdicts=event.verdicts)
    replies = tuple(map(to_reply, checking.scope.outcomes))
    return RunChecks(unit, unit.attempt, verification_request(unit, candidate), asked, replies)


def to_reply(outcome: Outcome | None) -> JudgeReply:
    """What came of a question."""
    from orchestra.verification.entailment import JudgeReply

    match outcome:
        case ValueOutcome(value):
            return JudgeReply(value)
        case FailedOutcome(code, reason):
            return JudgeReply(error=f"{code} {reason}")
        case _:
            return JudgeReply(error="it was not asked")
