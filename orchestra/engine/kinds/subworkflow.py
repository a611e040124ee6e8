"""Bodies of nodes: a `call` runs its body once, a `loop` repeats its body until a condition holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestra.core.outcomes import Evidence, FailedOutcome, Outcome, SkippedOutcome, ValueOutcome, inherit_outcome
from orchestra.engine.kinds.acceptance import settle
from orchestra.engine.proposals import EnterBody, Proposal
from orchestra.engine.state import ExecutionScope, RunState, WorkItem, internal_error
from orchestra.workflows.compile import agent_choice
from orchestra.workflows.expressions.evaluation import ListExpression
from orchestra.workflows.program import Expression


def enter(unit: WorkItem) -> Proposal:
    """Enters the first turn. The inputs of a called workflow are evaluated here once, so that an error fails the
    node.
    """
    node = unit.node
    if node.inputs is not None:
        node.inputs.evaluate(unit.bindings)
    choice = (
        agent_choice.explain_choice(node, unit.bindings) if node.body is not None and node.body.runs_one_node else ""
    )
    return EnterBody(unit, 1, choice_reason=choice)


def on_body_done(state: RunState, unit: WorkItem) -> Proposal:
    """Handles the end of a body: the value, the next turn, or the outcome of the body."""
    scope = require_body_scope(unit)
    outcome = scope_outcome(scope)
    node = unit.node
    if (
        isinstance(outcome, ValueOutcome)
        and node.until is not None
        and unit.turn < node.at_most
        and not node.until.evaluate(scope.bindings)
    ):
        return EnterBody(unit, unit.turn + 1)
    return settle(unit, outcome)


def require_body_scope(unit: WorkItem) -> ExecutionScope:
    """Returns the scope that gives a unit its value: its body, or its plan. Raises `OrchestraError` E002 if it has
    none.
    """
    if unit.plan_progress is not None and unit.plan_progress.plan_scope is not None:
        return unit.plan_progress.plan_scope
    if unit.body is None:
        raise internal_error(f"{unit.path} has no body")
    return unit.body


def scope_outcome(scope: ExecutionScope) -> Outcome:
    """Returns the outcome of a scope: its output, once all its nodes have an outcome.

    An output that is one reference takes the outcome of its target. In an output of several parts, named or listed, a
    skipped or withheld part is null; the output fails if a part failed, and has no value if no part has one.
    """
    if scope.program.runs_one_node:
        return _choice_outcome(scope)
    output = scope.program.output
    missing = _missing_references(scope, output.references)
    if not missing:
        return ValueOutcome(output.evaluate(scope.bindings), *_score_and_evidence(scope, output.references))
    failure = next((outcome for outcome in missing.values() if isinstance(outcome, FailedOutcome)), None)
    if failure is not None:
        return failure
    expressions = output.items if isinstance(output, ListExpression) else None
    parts: Mapping[Any, Expression] = output.parts or {} if expressions is None else dict(enumerate(expressions))
    present_keys = {key for key, part in parts.items() if not part.references & missing.keys()}
    if not present_keys:
        return next(iter(missing.values()))
    values = {key: part.evaluate(scope.bindings) if key in present_keys else None for key, part in parts.items()}
    return ValueOutcome(
        values if expressions is None else list(values.values()), *_score_and_evidence(scope, output.references)
    )


def _choice_outcome(scope: ExecutionScope) -> Outcome:
    """Returns the outcome of a choice: that of the node that was not skipped, with its score and evidence; a skip if
    all were.
    """
    outcomes = [
        (node.name, outcome)
        for node, outcome in zip(scope.program.nodes, scope.outcomes, strict=True)
        if outcome is not None
    ]
    name, outcome = next(
        ((name, outcome) for name, outcome in outcomes if not isinstance(outcome, SkippedOutcome)), outcomes[0]
    )
    return outcome if isinstance(outcome, ValueOutcome) else inherit_outcome(outcome, name)


def _missing_references(scope: ExecutionScope, references: frozenset[str]) -> dict[str, Outcome]:
    """Returns the references of the output without a value, in the order of the file."""
    outcomes: dict[str, Outcome] = {}
    if scope.has_all_values:
        return outcomes
    for node, outcome in zip(scope.program.nodes, scope.outcomes, strict=True):
        if node.name in references and outcome is not None and not isinstance(outcome, ValueOutcome):
            outcomes[node.name] = inherit_outcome(outcome, node.name)
    return outcomes


def _score_and_evidence(scope: ExecutionScope, references: frozenset[str]) -> tuple[float | None, tuple[Evidence, ...]]:
    """Returns the lowest score and the evidence of the values that an output refers to."""
    value_outcomes = [
        outcome
        for node, outcome in zip(scope.program.nodes, scope.outcomes, strict=True)
        if node.name in references and isinstance(outcome, ValueOutcome)
    ]
    score = min((outcome.score for outcome in value_outcomes if outcome.score is not None), default=None)
    return score, tuple(evidence for outcome in value_outcomes for evidence in outcome.evidence)
