"""Checks that ask agents: their questions are calls in a scope under the judged unit.

A question has a path (`reading[2]?1/entailment_0`), a reservation in the unit's budget, and events, as any call. A
question that fails, times out, returns nonsense or has no budget has no reply; its verdict is `unknown`.
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
"""Seconds for an attempt at a question if the node states no `timeout`."""
QUESTION_RETRY = Retry.model_construct(attempts=2, wait=(0.5, 4.0))
"""Few and short retries: a value waits for its verdict."""


class LiteralExpression:
    """An expression with a constant value."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    @property
    def references(self) -> frozenset[str]:
        """Returns none."""
        return frozenset()

    @property
    def schema(self) -> Schema:
        """Not used."""
        return ANY

    @property
    def parts(self) -> Mapping[str, Expression] | None:
        """Returns none."""
        return None

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """Returns the value."""
        return self._value


def evaluate_checks(proposal: RunChecks) -> ChecksPending | VerificationResult:
    """Runs the checks of a value: returns their judgement or their questions. Depends on recorded facts only."""
    from orchestra.verification import session

    if proposal.pending is None:
        return session.start(proposal.request)
    return session.advance(proposal.request, proposal.pending, proposal.replies)


def round_number(unit: WorkItem) -> int:
    """Returns how often checks of a unit have asked."""
    return unit.check_progress.started.round if unit.check_progress is not None else 0


def has_timed_checks(unit: WorkItem) -> bool:
    """Whether a unit's checks ask while the timeout of its body runs."""
    return (
        unit.phase in (Phase.CHECKING, Phase.CHECKED, Phase.CHECKS_QUEUED)
        and unit.body is not None
        and unit.node.timeout is not None
    )


def program(unit: WorkItem, event: ChecksStarted) -> Program:
    """Returns the questions of a check as a program of independent nodes."""
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
        # No checks of its own; but quotes in its answer rest on the same evidence.
        acceptance=Acceptance(against=node.acceptance.against if node.acceptance is not None else None),
        # Not the node's own sample: the value, drawn again with the same seed, would agree with itself.
        sample=node.sample + question.sample if question.sample else 0,
    )


def question_contract(unit: WorkItem, question: CheckQuestion) -> Contract:
    """Returns the agent or tool of a question. Raises `OrchestraError` E002 for an unknown one."""
    judges = unit.node.acceptance.judges if unit.node.acceptance is not None else {}
    contract = judges.get(question.agent)
    if question.sample:
        contract = unit.node.contract
    if contract is None:
        raise internal_error(f"{unit.path}: no check can ask {question.agent}")
    return contract


def on_checks_done(unit: WorkItem, candidate: Outcome) -> Proposal:
    """Handles the end of questions: judges the value, or asks more."""
    from orchestra.verification.session import ChecksPending

    check_progress = unit.check_progress
    if check_progress is None or not isinstance(candidate, ValueOutcome):
        raise internal_error(f"{unit.path} has no value that is judged")
    event = check_progress.started
    pending = ChecksPending(check=event.check, questions=event.questions, verdicts=event.verdicts)
    replies = tuple(map(to_reply, check_progress.scope.outcomes))
    return RunChecks(unit, unit.attempt, verification_request(unit, candidate), pending, replies)


def to_reply(outcome: Outcome | None) -> JudgeReply:
    """Returns the reply to a question."""
    from orchestra.verification.entailment import JudgeReply

    match outcome:
        case ValueOutcome(value):
            return JudgeReply(value)
        case FailedOutcome(code, reason):
            return JudgeReply(error=f"{code} {reason}")
        case _:
            return JudgeReply(error="it was not asked")
