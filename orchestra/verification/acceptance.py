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
"""The check that asks no evidence but the producer's own score."""
MODEL_CHECK_NAMES = (TOOL, ENTAILMENT, REDERIVE, AGREE)
"""Checks that call a tool or an agent, the cheapest first (`orchestra.verification.model_checks`)."""
ALL_CHECKS = (*DETERMINISTIC_CHECKS, CONFIDENCE, *MODEL_CHECK_NAMES)
"""All checks, the cheapest first."""
HEAVY_SIZE = 1 << 14
"""Characters of a value and its evidence from which on checks should speak beside the loop: they may take a tenth of a second."""
_CRASH_CODE = re.compile(r"(?:^|: )T00[234]\b")
"""In the reason of a check: a tool that could not be called so, that raised, or gave what is not of its type."""


class VerificationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt's value, before its checks: its type, what it may rest on, and the score in [0, 1] that it must reach."""

    value: Any
    schema: dict[str, Any]
    evidence: tuple[EvidenceSource, ...] = ()
    checks: tuple[str, ...] = ()
    accept: float = 0.5
    confidence: float | None = None
    """How sure whoever produced it is, in [0, 1]: a classifier says so, and the tokens of a language model do."""
    guarantee: str = ""
    """What a certificate promises of a value that is accepted here; empty where none does."""
    producer: Contract | None = None
    """Who produced it, and on what `inputs`; for checks that ask agents."""
    inputs: Mapping[str, Any] = {}
    judges: Mapping[str, Contract] = {}
    """What checks may ask: agents by name, tools as `tool(NAME)`."""
    back_off: bool = False
    """Whether parts that `entailment` does not pass at `accept` are taken out of the value, and the rest is judged."""
    combination: Combination | None = None
    """How the scores of the checks become one; the lowest of them where there is none."""


class VerificationResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks said, together: whether the value is accepted, how surely, on what, and if not, why."""

    verdicts: tuple[Verdict, ...]
    accepted: bool
    score: float | None = None
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""
    guarantee: str = ""
    """The situation's, of a value that is accepted."""
    feedback: str | None = None
    """What whoever gave the value is told, where that is not the whole reason: that checks which ask could not tell, without their words.
    Empty where all that is against the value is checks that crashed."""

    @property
    def dropped(self) -> tuple[DroppedPart, ...]:
        """The parts of the value that the ruling is not about."""
        return tuple(one for verdict in self.verdicts for one in verdict.dropped)

    def remaining(self, value: Any) -> Any:
        """The value that the ruling is about: without the parts that were dropped."""
        return remove_parts(value, self.dropped).value if self.dropped else value


def combined_score(verdicts: Sequence[Verdict], combination: Combination | None = None) -> float | None:
    """One score in [0, 1]: 0 where a check fails, the lowest score where all pass, None where nothing is known.

    Where a `combination` weighs them, a check that asks agents may fail, and the score is the combination's.
    """
    if combination is not None:
        return combination.score(verdicts)
    if any(verdict.outcome == FAIL for verdict in verdicts):
        return 0.0
    if not verdicts or any(verdict.outcome != PASS for verdict in verdicts):
        return None
    return min(verdict.score for verdict in verdicts)


def rejects(verdict: Verdict, combination: Combination | None = None) -> bool:
    """Whether a verdict alone keeps a value from being accepted, whatever the others say."""
    return verdict.outcome == UNKNOWN or (is_veto(verdict) if combination is not None else verdict.outcome != PASS)


def is_accepted(verdicts: Sequence[Verdict], threshold: float, combination: Combination | None = None) -> bool:
    """Whether no verdict decides against it and the score reaches the threshold; no checks, no objection."""
    if not verdicts:
        return True
    reached = combined_score(verdicts, combination)
    return (
        reached is not None and not any(rejects(verdict, combination) for verdict in verdicts) and reached >= threshold
    )


def is_heavy(request: VerificationRequest) -> bool:
    """Whether a value and its evidence are so much that others should not wait while its checks read them."""
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
    """The ruling on a situation where no agent is asked. Checks go by cost; the first `fail` ends it."""
    rules, known = parse_checks(request.checks), run_deterministic(request)
    while (check := next_model_check(rules, known, request.combination)) is not None:
        known[check] = unknown_by_model(str(check), "no agent was asked")
    return build_result(request, rules, known)


@lru_cache(maxsize=1024)
def parse_checks(checks: tuple[str, ...]) -> tuple[CheckExpression, ...]:
    """The rules of a list of checks, the cheapest first, each once. A text that is no rule stands for a check that nobody knows."""
    return tuple(
        sorted(dict.fromkeys(map(_parse_or_call, checks)), key=lambda rule: max(map(_check_cost, check_calls(rule))))
    )


def check_names(checks: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the checks in a list of rules, each once."""
    return tuple(dict.fromkeys(check.check for rule in parse_checks(checks) for check in check_calls(rule)))


def _parse_or_call(text: str) -> CheckExpression:
    try:
        return parse_check(text)
    except CheckSyntaxError:
        return CheckCall(text)


def _check_cost(check: CheckCall) -> int:
    return ALL_CHECKS.index(check.check if check.check in ALL_CHECKS else CONFIDENCE)


def run_deterministic(request: VerificationRequest) -> dict[CheckCall, Verdict]:
    """What the checks say that ask nobody, by cost, as far as it matters; the first rule that fails ends it."""
    rules = parse_checks(request.checks)
    known: dict[CheckCall, Verdict] = {}
    while (check := _next_deterministic(rules, known)) is not None:
        known[check] = _run_check(check, request)
    return known


def _next_deterministic(rules: tuple[CheckExpression, ...], known: dict[CheckCall, Verdict]) -> CheckCall | None:
    """The cheapest check that is open, asks nobody, and may still make a difference."""
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
    """The cheapest check that is open, asks agents, and on which it still depends whether the value is accepted."""
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
    """What the rules say together, given what their checks have said. Rules that are still open are left out: another one has decided."""
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
    """What whoever gave the value is told of these; None where that is the whole reason.

    The words of a check that could not tell are of whoever was asked, and not of the value; one that crashed would only do so again.
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
    """The verdicts of single checks that are against a value, also within what was put together."""
    for said in against:
        if said.outcome != PASS:
            yield from _single_verdicts(said.parts) if said.parts else (said,)


def _is_undetermined(verdict: Verdict) -> bool:
    """Whether a check that asks, or `confidence`, could not tell."""
    return verdict.outcome == UNKNOWN and verdict.check.partition("(")[0] not in DETERMINISTIC_CHECKS


def _has_crashed(verdict: Verdict) -> bool:
    """Whether the code that was asked is at fault, and not whom it reached or what it was asked of; or nobody else could be asked."""
    return _CRASH_CODE.search(verdict.reason) is not None or verdict.reason.endswith(SAME_MODEL_REASON)


def certification_score(request: VerificationRequest) -> float | None:
    """The score that a threshold is held against: that of the ruling where nothing is asked of it; None for a value that is accepted
    at no threshold, because a check fails or cannot tell. A value is accepted at a threshold where this score reaches it."""
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
    """Whether its producer is sure enough; where nobody knows how sure it is, that is `unknown`."""
    sure = request.confidence
    if sure is None:
        return unknown(CONFIDENCE, "it says nothing of how sure it is")
    if request.combination is not None:  # `accept` is about what is made of all scores
        return Verdict(CONFIDENCE, PASS, sure)
    if sure < request.accept:
        return failed(CONFIDENCE, f"it is sure to {sure:.3f}, and {request.accept:g} is wanted")
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
