"""Escalation of a rejected value: another attempt, a larger model, an even larger one, a person, or the end.

The tiers are those of the fleet file when the run began (`RunStarted.tiers`). Only the fleet decides which may see the
data of a call: one that may not is skipped, and its recorded error is the reason; nothing was sent.
"""

from __future__ import annotations

from typing import Any

from orchestra.core.error_codes import LABEL_NOT_ALLOWED, NO_TIER
from orchestra.core.events import EvidenceText, WithheldOutput, tier_name
from orchestra.core.outcomes import AbstainedOutcome
from orchestra.core.protocols import collect_sources
from orchestra.engine.kinds.acceptance import evidence, output_confidence, withheld_reason
from orchestra.engine.proposals import AskPerson, FinishNode, Proposal
from orchestra.engine.retry import retry_policy
from orchestra.engine.state import (
    EscalationStep,
    RunState,
    WorkItem,
    require_acceptance,
    require_judgement,
    require_last_attempt,
)
from orchestra.workflows.program import Acceptance

MAX_TEXT, MAX_TEXTS = 4_000, 16_000
"""Characters of one evidence text that a person is shown, and of all together."""


def on_rejected(state: RunState, unit: WorkItem, value: Any) -> Proposal | None:
    """Handles a rejected value: the next attempt, or the end."""
    ruling, acceptance = require_judgement(unit), require_acceptance(unit)
    # The value was not rejected, and another answer would not fit the budget either.
    if ruling.skipped_checks is not None:
        return _ask_or_withhold(state, unit, value, ruling.reason, ruling.score)
    # A check that crashed is not an error of the answer, and would crash again.
    again = (
        unit.last_attempt is not None and not unit.tier and "retry" in acceptance.otherwise and ruling.feedback != ""
    )
    if again and retry_policy(unit.node, "V001").should_retry(unit.attempt, ruling.at - unit.started_at):
        state.enqueue(unit)
        return None
    if escalate(state, unit, acceptance):
        return None
    return _ask_or_withhold(state, unit, value, ruling.reason, ruling.score)


def on_tier_failed(state: RunState, unit: WorkItem) -> Proposal | None:
    """Handles a larger model that returned no value, after its own model's value was rejected."""
    ruling, answer = require_judgement(unit), require_last_attempt(unit)
    if answer.error != NO_TIER and escalate(state, unit, require_acceptance(unit)):
        return None
    if not state.tiers:
        reason = f"not accepted, and the larger model did not help: {answer.reason}"
        return _ask_or_withhold(state, unit, unit.rejected_value, reason, None)
    return _ask_or_withhold(state, unit, unit.rejected_value, ruling.reason, ruling.score)


def escalate(state: RunState, unit: WorkItem, acceptance: Acceptance) -> bool:
    """Asks the next larger model, if there is one."""
    contract = unit.node.contract
    if (
        "escalate" not in acceptance.otherwise
        or unit.last_attempt is None
        or contract is None
        or contract.kind != "agent"
    ):
        return False
    if unit.tier >= max(1, len(state.tiers)):
        return False
    unit.next_tier = unit.tier + 1
    state.enqueue(unit)
    return True


def _ask_or_withhold(state: RunState, unit: WorkItem, value: Any, reason: str, score: float | None) -> Proposal:
    """Ends the escalation: asks a person, or withholds the value."""
    tiers = tiers_text(state, unit)
    if "ask" in require_acceptance(unit).otherwise:
        return ask_correction(unit, value, tiers)
    acceptance = require_acceptance(unit)
    abstain_reason, score = (
        withheld_reason(acceptance, reason),
        output_confidence(unit, value) if acceptance.whole_workflow else score,
    )
    return FinishNode(
        unit,
        AbstainedOutcome(
            f"{abstain_reason}; {tiers}" if tiers else abstain_reason,
            unit.path,
            score,
            require_judgement(unit).feedback,
        ),
    )


def tiers_text(state: RunState, unit: WorkItem) -> str:
    """Returns which larger models were asked, and which were skipped and why; empty if none was, or none has a name."""
    if not unit.escalations or not state.tiers:
        return ""
    tier_texts = [
        f"{tier_name(state.tiers, step.tier)} {_step_text(step)}"
        for step in {step.tier: step for step in unit.escalations}.values()
    ]
    return f"its own model, then {', '.join(tier_texts)}"


def _step_text(step: EscalationStep) -> str:
    match step.error:
        case "":
            return "(asked)"
        case code if code == LABEL_NOT_ALLOWED:
            return f"(passed over: {step.reason})"
        case code:
            return f"({code}: {step.reason})"


def ask_correction(unit: WorkItem, value: Any, tiers: str) -> Proposal:
    """Asks a person for the correct value, and shows the rejected one."""
    ruling = require_judgement(unit)
    sources = evidence(unit) or collect_sources(unit.node.inputs.evaluate(unit.bindings) if unit.node.inputs else [])
    texts, remaining_texts = [], MAX_TEXTS
    for source in sources:
        max_text = min(MAX_TEXT, remaining_texts)
        if max_text <= 0:
            break
        texts.append(
            EvidenceText(source.text if len(source.text) <= max_text else f"{source.text[:max_text]}…", source.name)
        )
        remaining_texts -= len(source.text)
    withheld_output = WithheldOutput(value, ruling.reason, ruling.verdicts, tuple(texts), tiers)
    question = f"this was not accepted ({ruling.reason}). What is right?"
    return AskPerson(unit, question, unit.node.output, kind="acceptance", withheld=withheld_output)
