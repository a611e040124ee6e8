"""Rules of the oracle that do not depend on order or time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestra.core.errors import OrchestraError
from orchestra.core.events import OutputJudged, Verdict
from orchestra.core.outcomes import (
    AbstainedOutcome,
    Evidence,
    FailedOutcome,
    Outcome,
    SkippedOutcome,
    ValueOutcome,
    inherit_outcome,
)
from orchestra.core.protocols import EvidenceSource, collect_sources
from orchestra.schema.content import has_content
from orchestra.schema.strict_json import canonical, digest
from orchestra.verification import acceptance
from orchestra.verification.answer_parts import remaining_value
from orchestra.verification.certificates.combination import Combination
from orchestra.workflows.model import DEFAULT_RETRY, AgentChoice, AgentNode, AskNode
from orchestra.workflows.program import CompiledNode, Program

if TYPE_CHECKING:
    from tests.simulation.lab.answers import RunRecord

UNFIT_VALUE = "E033"
"""The failure of a person's value that its node does not accept. No fallback applies."""


def max_attempts(node: CompiledNode, code: str) -> int:
    """Returns the total number of attempts: one for `once` effects; as the file states; two if a model or a check
    rejects; else three.
    """
    if node.contract is not None and node.contract.effect == "once":
        return 1
    if node.source.retry is not None:
        return node.source.retry.attempts
    return 2 if code[:1] in ("M", "V") else node.retry.attempts


def has_default_retry(node: CompiledNode) -> bool:
    """Whether neither a node nor its workflow's defaults set `retry`."""
    return node.source.retry is None and node.retry is DEFAULT_RETRY


def is_short(node: CompiledNode, outcomes: Sequence[Outcome | None]) -> bool:
    """Whether too many elements have no value to satisfy `at_least`. With `all`, skipped elements do not count."""
    if node.at_least == "all":
        return any(isinstance(one, FailedOutcome | AbstainedOutcome) for one in outcomes)
    missing = sum(one is not None and not isinstance(one, ValueOutcome) for one in outcomes)
    return node.at_least is not None and missing > len(outcomes) - node.at_least


def is_unfit(node: CompiledNode, value: Any, bindings: Mapping[str, Any]) -> bool:
    """Whether a list that a person set for a node that needs all has a different number of elements."""
    if node.each is None or node.at_least != "all" or any(name not in bindings for name in node.each.references):
        return False
    of_elements = node.when is not None and node.variable in node.when.references
    try:
        number = len(node.each.evaluate(bindings))
        if node.when is not None and not of_elements:
            runs = all(name in bindings for name in node.when.references) and node.when.evaluate(bindings)
            return bool(runs) and len(value) != number <= node.limit
    except OrchestraError:
        return False
    return number <= node.limit and (len(value) > number or (len(value) < number and not of_elements))


def workflow_verdict(value: Any, path: str, recorded: RunRecord | None) -> Outcome | None:
    """Returns the outcome of a workflow that is judged as a whole.

    Its confidence is taken from the record. The rule checks whether it was judged, and whether the consequence is
    right.
    """
    if not has_content(value):
        return AbstainedOutcome("", path)
    said = recorded.judged.get((path, 0)) if recorded is not None else None
    if said is None or recorded is None:
        return None
    ended = recorded.outcome(path)
    return (
        ValueOutcome(value, said.score)
        if said.accepted
        else AbstainedOutcome("", path, ended.score if isinstance(ended, AbstainedOutcome) else None)
    )


def accepted_value(value: Any, ruling: acceptance.VerificationResult) -> ValueOutcome:
    """Returns the value that the checks accept, without the parts that they dropped."""
    return ValueOutcome(
        remaining_value(value, ruling.verdicts),
        ruling.score,
        tuple(evidence for verdict in ruling.verdicts for evidence in verdict.evidence),
    )


def combined_score(combination: Combination, verdicts: Sequence[Verdict]) -> float | None:
    """Returns the score of a combination of verdicts: None if one is unknown, 0 if a check without calls fails."""
    if any(one.outcome == "fail" and one.deterministic for one in verdicts):
        return 0.0
    said = {one.check: one for one in verdicts}
    if any(one.outcome == "unknown" for one in verdicts) or set(combination.checks) - set(said):
        return None
    total = combination.bias
    for voice in combination.weights:
        one = said[voice.check]
        chance = min(1 - 1e-6, max(1e-6, one.score))
        total += voice.weight * (math.log(chance) - math.log(1 - chance)) + (
            voice.passed if one.outcome == "pass" else voice.failed
        )
    if not combination.isotonic_points:
        return 1 / (1 + math.exp(-total))
    above = next(
        (number for number, step in enumerate(combination.isotonic_points) if step.total > total),
        len(combination.isotonic_points),
    )
    low, high = (
        combination.isotonic_points[max(0, above - 1)],
        combination.isotonic_points[min(above, len(combination.isotonic_points) - 1)],
    )
    return (
        low.share
        if high.total <= low.total
        else low.share + (total - low.total) / (high.total - low.total) * (high.share - low.share)
    )


def matches_combination(said: OutputJudged, combination: Combination, accept: float) -> bool:
    """Whether the record of an attempt has the score of the combination of its verdicts, and the right consequence."""
    score = combined_score(combination, said.verdicts)
    if score is None or said.score is None:
        return score is None and said.score is None and not said.accepted
    refused = any(one.outcome == "fail" and one.deterministic for one in said.verdicts)
    near = abs(score - accept) < 1e-9
    return abs(score - said.score) < 1e-9 and (near or said.accepted == (score >= accept and not refused))


def chosen_agent(node: CompiledNode, bindings: Mapping[str, Any]) -> str:
    """Returns the agent of a choice for the label of these values."""
    choice = node.source.agent if isinstance(node.source, AgentNode) else ""
    if not isinstance(choice, AgentChoice) or node.value is None:
        return ""
    label = node.value.evaluate(bindings)
    words = {True: "true", False: "false"} if isinstance(label, bool) else {}
    return next((name for key, name in choice.of.items() if key == words.get(label, label)), choice.otherwise or "")


def evidence_of(node: CompiledNode, bindings: Mapping[str, Any]) -> tuple[EvidenceSource, ...]:
    """Returns the value of a node's `against`."""
    rules = node.acceptance
    return () if rules is None or rules.against is None else collect_sources(rules.against.evaluate(bindings))


def apply_fallback(node: CompiledNode, path: str, bindings: Mapping[str, Any], found: Outcome | None) -> Outcome | None:
    """Returns the outcome of a unit, or of its fallback."""
    fallback = node.fallback
    if (
        fallback is None
        or found is None
        or isinstance(found, ValueOutcome)
        or any(name not in bindings for name in fallback.references)
    ):
        return found
    if isinstance(found, FailedOutcome) and found.code == UNFIT_VALUE:
        return found
    try:
        return ValueOutcome(fallback.evaluate(bindings))
    except OrchestraError as error:
        return FailedOutcome(error.code, error.message, path)


def first_arm_outcome(
    node: CompiledNode, bindings: Mapping[str, Any], outcomes: Sequence[Outcome | None], program: Program | None
) -> Outcome:
    """Returns the outcome of a `first_of`."""
    for arm in node.arms:
        if all(name in bindings for name in arm.references):
            return ValueOutcome(arm.evaluate(bindings))
    for kind in (FailedOutcome, AbstainedOutcome, SkippedOutcome):
        for need in node.needs if program is not None else ():
            if isinstance(outcome := outcomes[need], kind) and program is not None:
                return inherit_outcome(outcome, program.nodes[need].name)
    return SkippedOutcome("no arm is a value", node.name)


def program_outcome(program: Program, outcomes: Sequence[Outcome | None], bindings: Mapping[str, Any]) -> Outcome:
    """Returns the outcome of a body or workflow: its output; the failure of a part; or the remaining part of a
    mapping.
    """
    if program.runs_one_node:
        ran = [
            (node.name, outcome)
            for node in program.nodes
            if not isinstance(outcome := outcomes[node.index], SkippedOutcome)
        ]
        name, only = ran[0] if ran else (program.nodes[0].name, outcomes[0])
        assert only is not None, "a scope is at its end"
        return only if isinstance(only, ValueOutcome) else inherit_outcome(only, name)
    read = [(node.name, outcomes[node.index]) for node in program.nodes if node.name in program.output.references]
    values = [outcome for _, outcome in read if isinstance(outcome, ValueOutcome)]
    absent = {
        name: inherit_outcome(outcome, name)
        for name, outcome in read
        if outcome is not None and not isinstance(outcome, ValueOutcome)
    }
    score = min((value.score for value in values if value.score is not None), default=None)
    evidence: tuple[Evidence, ...] = tuple(one for value in values for one in value.evidence)
    if not absent:
        return ValueOutcome(program.output.evaluate(bindings), score, evidence)
    for outcome in absent.values():
        if isinstance(outcome, FailedOutcome):
            return outcome
    parts = program.output.parts
    kept = {key for key, part in parts.items() if part.references.isdisjoint(absent)} if parts is not None else set()
    if parts is None or not kept:
        return next(iter(absent.values()))
    return ValueOutcome(
        {key: part.evaluate(bindings) if key in kept else None for key, part in parts.items()}, score, evidence
    )


def question_digest(node: CompiledNode, question: str) -> str:
    """Returns the digest of the content shown for an `ask` node; empty if the answer is checked, which asks each
    time.
    """
    options = node.source.options if isinstance(node.source, AskNode) else ()
    checked = node.acceptance is not None and node.acceptance.checks
    return "" if checked else digest(canonical([question, options, node.output]))


def same_outcome(one: Outcome | None, two: Outcome | None) -> bool:
    """Whether two outcomes are equal except for the wording of their reasons."""
    match one, two:
        case ValueOutcome(), ValueOutcome():
            return one == two
        case FailedOutcome(), FailedOutcome():
            return (one.code, one.origin) == (two.code, two.origin)
        case AbstainedOutcome(), AbstainedOutcome():
            return (one.origin, one.score) == (two.origin, two.score)
        case SkippedOutcome(), SkippedOutcome():
            return one.origin == two.origin
        case _:
            return one is two
