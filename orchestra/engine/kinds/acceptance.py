"""Acceptance: a value becomes the node's value if its checks accept it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import structs

from orchestra.core.outcomes import AbstainedOutcome, Outcome, ValueOutcome
from orchestra.core.protocols import EvidenceSource, collect_sources
from orchestra.engine.proposals import FinishNode, Proposal, RunChecks
from orchestra.engine.state import WorkItem
from orchestra.workflows.program import Acceptance

if TYPE_CHECKING:
    from orchestra.verification.acceptance import VerificationRequest


def settle(unit: WorkItem, outcome: Outcome) -> Proposal:
    """Finishes a unit with a value, or proposes to run its checks."""
    acceptance = unit.node.acceptance
    if unit.is_map or acceptance is None or not acceptance.checks or not isinstance(outcome, ValueOutcome):
        return FinishNode(unit, outcome)
    if acceptance.whole_workflow:
        from orchestra.schema.content import has_content

        if not has_content(outcome.value):
            return FinishNode(unit, AbstainedOutcome(withheld_reason(acceptance, "it says nothing"), unit.path))
    return RunChecks(unit, unit.attempt, verification_request(unit, outcome))


def withheld_reason(acceptance: Acceptance, why: str) -> str:
    """Returns why a value is withheld, with the workflow's certificate if that is the reason."""
    return f"under its certificate: {why}" if acceptance.whole_workflow and acceptance.certificate is not None else why


def verification_request(unit: WorkItem, outcome: ValueOutcome) -> VerificationRequest:
    """Returns what the checks of a unit judge."""
    from orchestra.verification.acceptance import VerificationRequest

    acceptance = unit.node.acceptance or Acceptance()
    request = VerificationRequest(
        value=outcome.value,
        schema=unit.node.output,
        evidence=evidence(unit)
        or collect_sources(unit.node.inputs.evaluate(unit.bindings) if unit.node.inputs else []),
        checks=acceptance.checks,
        accept=acceptance.accept,
        confidence=output_confidence(unit, outcome.value) if acceptance.whole_workflow else outcome.score,
        guarantee=_guarantee(unit, acceptance),
        combination=acceptance.combination,
    )
    if not acceptance.uses_model_checks:
        return request
    inputs = unit.node.inputs.evaluate(unit.bindings) if unit.node.inputs is not None else {}
    back_off = "back_off" in acceptance.otherwise
    return structs.replace(
        request, producer=unit.node.contract, inputs=inputs, judges=acceptance.judges, back_off=back_off
    )


def output_confidence(unit: WorkItem, value: Any) -> float | None:
    """Returns the confidence of a workflow's whole output, if it is judged as a whole."""
    from orchestra.engine.kinds import confidence

    return confidence.output_confidence(unit, value)


def _guarantee(unit: WorkItem, acceptance: Acceptance) -> str:
    """Returns the certificate's guarantee for this value: only for a first answer, since the certificate was made on
    first answers.
    """
    certificate = acceptance.certificate
    is_own_value = (
        unit.judgement is None
        and not unit.tier
        and not (unit.person_answer is not None and unit.person_answer.call_happened)
    )
    if unit.body is not None and unit.body.finished_items is not None and unit.body.finished_items.person_values:
        is_own_value = False
    return certificate.guarantee if certificate is not None and is_own_value else ""


def evidence(unit: WorkItem) -> tuple[EvidenceSource, ...]:
    """Returns the texts on which a unit's output must rest, by its `against`."""
    acceptance = unit.node.acceptance
    if acceptance is None or acceptance.against is None:
        return ()
    return collect_sources(acceptance.against.evaluate(unit.bindings))
