"""Acceptance: a pure function from a `VerificationRequest` to a `VerificationResult`.

`verify_without_models(request)` runs the checks that need no call (schema, quote, numbers, recompute, format). Checks
that need a call are `unknown` here; `orchestra.verification.session` makes these calls. An unregistered check is
`unknown`, and `unknown` never passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from orchestra.agents.contract import Contract
from orchestra.core.events import DroppedPart, Verdict
from orchestra.core.outcomes import Evidence
from orchestra.core.protocols import EvidenceSource
from orchestra.verification.answer_parts import remove_parts
from orchestra.verification.certificates.combination import Combination, is_veto
from orchestra.verification.check_expression import (
    AGREE,
    CheckCall,
    CheckExpression,
    CheckSyntaxError,
    check_calls,
    evaluate,
    open_checks,
    parse_check,
)
from orchestra.verification.custom_checks import TOOL
from orchestra.verification.deterministic import DETERMINISTIC_CHECKS, CheckFunction
from orchestra.verification.entailment import ENTAILMENT
from orchestra.verification.rederivation import REDERIVE
from orchestra.verification.verdict import FAIL, PASS, SAME_MODEL_REASON, UNKNOWN, failed, unknown, unknown_by_model

CONFIDENCE = "confidence"
"""Check of the producer's own score. It needs no evidence."""
MODEL_CHECK_NAMES = (TOOL, ENTAILMENT, REDERIVE, AGREE)
"""Checks that call a tool or an agent, the cheapest first (`orchestra.verification.model_checks`)."""
ALL_CHECKS = (*DETERMINISTIC_CHECKS, CONFIDENCE, *MODEL_CHECK_NAMES)
"""All checks, the cheapest first."""
HEAVY_SIZE = 1 << 14
"""Size in characters of a value and its evidence from which the checks should run outside the event loop: they may take
a tenth of a second.
"""
_CRASH_CODE = re.compile(r"(?:^|: )T00[234]\b")
"""Error codes in the reason of a check: the tool had wrong arguments, raised, or returned a value of another type."""


class VerificationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to verify: a value, its type, the evidence, the checks, and the score in [0, 1] that it must reach."""

    value: Any
    schema: dict[str, Any]
    evidence: tuple[EvidenceSource, ...] = ()
    checks: tuple[str, ...] = ()
    accept: float = 0.5
    confidence: float | None = None
    """Confidence of the producer in [0, 1], from a classifier or from token probabilities."""
    guarantee: str = ""
    """What a certificate guarantees about a value that is accepted here. Empty without a certificate."""
    producer: Contract | None = None
    """The agent that produced the value, and its `inputs`. Used by checks that call agents."""
    inputs: Mapping[str, Any] = {}
    judges: Mapping[str, Contract] = {}
    """Contracts that checks may call: agents by name, tools as `tool(NAME)`."""
    back_off: bool = False
    """Whether to remove parts that `entailment` does not pass at `accept`, and to judge the rest."""
    combination: Combination | None = None
    """How to combine the scores of the checks. None takes the lowest score."""


class VerificationResult(msgspec.Struct, frozen=True, kw_only=True):
    """Verdicts, and the decision that follows from them."""

    verdicts: tuple[Verdict, ...]
    accepted: bool
    score: float | None = None
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""
    guarantee: str = ""
    """Guarantee of the request, if the value is accepted."""
    feedback: str | None = None
    """Feedback for the producer, if it differs from `reason`: of a model check that returned `unknown`, only that fact
    and not its words. Empty if the only objections are checks that crashed.
    """

    @property
    def dropped(self) -> tuple[DroppedPart, ...]:
        """Parts of the value that the result does not cover."""
        return tuple(one for verdict in self.verdicts for one in verdict.dropped)

    def remaining(self, value: Any) -> Any:
        """Returns the value without the dropped parts: the value that the result is about."""
        return remove_parts(value, self.dropped).value if self.dropped else value


def combined_score(verdicts: Sequence[Verdict], combination: Combination | None = None) -> float | None:
    """Combines verdicts into one score in [0, 1].

    Returns:
        0 if a check fails, the lowest score if all pass, else None. A `combination` computes its own score, and then a
        model check may fail without a veto.
    """
    if combination is not None:
        return combination.score(verdicts)
    if any(verdict.outcome == FAIL for verdict in verdicts):
        return 0.0
    if not verdicts or any(verdict.outcome != PASS for verdict in verdicts):
        return None
    return min(verdict.score for verdict in verdicts)


def rejects(verdict: Verdict, combination: Combination | None = None) -> bool:
    """Whether a verdict alone prevents acceptance."""
    return verdict.outcome == UNKNOWN or (is_veto(verdict) if combination is not None else verdict.outcome != PASS)


def is_accepted(verdicts: Sequence[Verdict], threshold: float, combination: Combination | None = None) -> bool:
    """Whether no verdict rejects the value and the score reaches the threshold. True without checks."""
    if not verdicts:
        return True
    reached = combined_score(verdicts, combination)
    return (
        reached is not None and not any(rejects(verdict, combination) for verdict in verdicts) and reached >= threshold
    )


def is_heavy(request: VerificationRequest) -> bool:
    """Whether checks of this value and its evidence would block the event loop noticeably."""
    if not request.checks:
        return False
    found = sum(len(source.text) for source in request.evidence)
    line: list[Any] = [request.value]
    while line and found < HEAVY_SIZE:
        here = line.pop()
        if isinstance(here, str):
            found += len(here)
        elif isinstance(here, Mapping):
            line += here.values()
        elif isinstance(here, list | tuple):
            line += here
            found += len(here)
    return found >= HEAVY_SIZE


def verify_without_models(request: VerificationRequest) -> VerificationResult:
    """Verifies without calls. Checks run in the order of their cost; the first `fail` ends it."""
    rules, known = parse_checks(request.checks), run_deterministic(request)
    while (check := next_model_check(rules, known, request.combination)) is not None:
        known[check] = unknown_by_model(str(check), "no agent was asked")
    return build_result(request, rules, known)


@lru_cache(maxsize=1024)
def parse_checks(checks: tuple[str, ...]) -> tuple[CheckExpression, ...]:
    """Parses checks: the cheapest first, without duplicates. A text with a syntax error becomes a call of an unknown
    check.
    """
    return tuple(
        sorted(dict.fromkeys(map(_parse_or_call, checks)), key=lambda rule: max(map(_check_cost, check_calls(rule))))
    )


def check_names(checks: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the checks in a list of expressions, without duplicates."""
    return tuple(dict.fromkeys(check.check for rule in parse_checks(checks) for check in check_calls(rule)))


def _parse_or_call(text: str) -> CheckExpression:
    try:
        return parse_check(text)
    except CheckSyntaxError:
        return CheckCall(text)


def _check_cost(check: CheckCall) -> int:
    return ALL_CHECKS.index(check.check if check.check in ALL_CHECKS else CONFIDENCE)


def run_deterministic(request: VerificationRequest) -> dict[CheckCall, Verdict]:
    """Runs the checks that need no call, by cost, as far as they can affect the result. The first failed expression
    ends it.
    """
    rules = parse_checks(request.checks)
    known: dict[CheckCall, Verdict] = {}
    while (check := _next_deterministic(rules, known)) is not None:
        known[check] = _run_check(check, request)
    return known


def _next_deterministic(rules: tuple[CheckExpression, ...], known: dict[CheckCall, Verdict]) -> CheckCall | None:
    """The cheapest open check that needs no call and can affect the result."""
    if _has_failed(rules, known):
        return None
    return min(
        (check for rule in rules for check in open_checks(rule, known) if check.check not in MODEL_CHECK_NAMES),
        key=_check_cost,
        default=None,
    )


def next_model_check(
    rules: tuple[CheckExpression, ...], known: Mapping[CheckCall, Verdict], combination: Combination | None = None
) -> CheckCall | None:
    """The cheapest open check that needs a call and can affect acceptance."""
    evaluations = [evaluate(rule, known, expensive=True) for rule in rules]
    if any(one is not None and rejects(one, combination) for one in evaluations):
        return None
    return min(
        (check for rule in rules for check in open_checks(rule, known, expensive=True)), key=_check_cost, default=None
    )


def _has_failed(rules: Iterable[CheckExpression], known: Mapping[CheckCall, Verdict]) -> bool:
    return any((one := evaluate(rule, known)) is not None and one.outcome == FAIL for rule in rules)


def build_result(
    request: VerificationRequest, rules: tuple[CheckExpression, ...], known: Mapping[CheckCall, Verdict]
) -> VerificationResult:
    """Builds the result from the verdicts so far. Open expressions are left out, because another one has decided."""
    verdicts = [one for rule in rules if (one := evaluate(rule, known, expensive=True)) is not None]
    good = is_accepted(verdicts, request.accept, request.combination)
    against = [one for one in verdicts if rejects(one, request.combination)]
    return VerificationResult(
        verdicts=tuple(verdicts),
        accepted=good,
        score=combined_score(verdicts, request.combination),
        evidence=tuple(evidence for one in verdicts for evidence in one.evidence),
        reason="" if good else _rejection_reason(verdicts, request),
        guarantee=request.guarantee if good else "",
        feedback=None if good else _feedback(against),
    )


def _feedback(against: Iterable[Verdict]) -> str | None:
    """Feedback for the producer on rejecting verdicts; None if the reason can be used unchanged.

    The reason of an undetermined check is about the judge and not about the value. A crashed check would crash again.
    """
    single = list(_single_verdicts(against))
    if not any(map(_is_undetermined, single)):
        return None
    return "; ".join(
        f"{one.check}: {'it cannot tell' if _is_undetermined(one) else one.reason or one.outcome}"
        for one in single
        if not (_is_undetermined(one) and _has_crashed(one))
    )


def _single_verdicts(against: Iterable[Verdict]) -> Iterator[Verdict]:
    """Rejecting verdicts of single checks, also inside composed verdicts."""
    for said in against:
        if said.outcome != PASS:
            yield from _single_verdicts(said.parts) if said.parts else (said,)


def _is_undetermined(verdict: Verdict) -> bool:
    """Whether a model check or `confidence` returned `unknown`."""
    return verdict.outcome == UNKNOWN and verdict.check.partition("(")[0] not in DETERMINISTIC_CHECKS


def _has_crashed(verdict: Verdict) -> bool:
    """Whether the judge's own code failed, or no independent judge exists. A failure of its server is not meant."""
    return _CRASH_CODE.search(verdict.reason) is not None or verdict.reason.endswith(SAME_MODEL_REASON)


def certification_score(request: VerificationRequest) -> float | None:
    """The score that a threshold is compared with.

    None if the value is accepted at no threshold, because a check fails or is `unknown`. A value is accepted at a
    threshold exactly if this score reaches it.
    """
    ruling = verify_without_models(msgspec.structs.replace(request, accept=0.0))
    return ruling.score if ruling.accepted else None


def _run_check(named: CheckCall, request: VerificationRequest) -> Verdict:
    name = str(named)
    if name == CONFIDENCE:
        return _check_confidence(request)
    check: CheckFunction | None = DETERMINISTIC_CHECKS.get(name)
    if check is None:
        return unknown(name, f"there is no check named {name!r}; there are {', '.join(ALL_CHECKS)}", 0.0)
    try:
        return check(request.value, request.schema, request.evidence)
    except RecursionError:
        return failed(name, "the value is nested too deeply to be checked")


def _check_confidence(request: VerificationRequest) -> Verdict:
    """Compares the producer's confidence with `accept`. `unknown` without a confidence."""
    sure = request.confidence
    if sure is None:
        return unknown(CONFIDENCE, "its producer reports no confidence")
    if request.combination is not None:  # `accept` applies to the combined score
        return Verdict(CONFIDENCE, PASS, sure)
    if sure < request.accept:
        return failed(CONFIDENCE, f"{sure:.3f} is below {request.accept:g}")
    return Verdict(CONFIDENCE, PASS, sure)


def _rejection_reason(verdicts: list[Verdict], request: VerificationRequest) -> str:
    combination = request.combination
    against = [f"{one.check}: {one.reason or one.outcome}" for one in verdicts if rejects(one, combination)]
    if against:
        return "; ".join(against)
    reached = combined_score(verdicts, combination)
    if combination is None or reached is None:
        least = "".join(f", by {one.check}: {one.reason}" for one in verdicts if one.score == reached and one.reason)
        return f"a score of {reached} does not reach {request.accept}{least}"
    return (
        f"a score of {reached:.3f}, of {combination.describe(verdicts)} together, does not reach {request.accept:.6g}"
    )
