"""Acceptance: a pure machine from a situation to a ruling.

`ruled_unasked(situation)` gives the ruling as far as no agent need be asked: the checks of V0 (schema, quote, numbers, recompute, format)
need no call, and those that do are `unknown` here; `orchestra.verification.session` asks them. A check that nobody knows is `unknown`, and
`unknown` never passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from orchestra.agents.contract import Contract
from orchestra.core.events import Dropped, Verdict
from orchestra.core.outcomes import Evidence
from orchestra.core.protocols import Source
from orchestra.verification import combine_verdicts
from orchestra.verification.answer_parts import without
from orchestra.verification.certificates.combination import Combination
from orchestra.verification.check_expression import Named, NotARule, Rule, named, read, verdict, wanted
from orchestra.verification.deterministic import CHECKS, Check
from orchestra.verification.model_checks import ASKING
from orchestra.verification.verdict import FAIL, PASS, SAME, UNKNOWN, failed, unknown, unsettled

CONFIDENCE = "confidence"
"""The check that asks no evidence but the producer's own score."""
KNOWN = (*CHECKS, CONFIDENCE, *ASKING)
"""All checks, the cheapest first."""
HEAVY = 1 << 14
"""Characters of a value and its evidence from which on checks should speak beside the loop: they may take a tenth of a second."""
_CRASH = re.compile(r"(?:^|: )T00[234]\b")
"""In the reason of a check: a tool that could not be called so, that raised, or gave what is not of its type."""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt's value, before its checks: its type, what it may rest on, and the score in [0, 1] that it must reach."""

    value: Any
    schema: dict[str, Any]
    evidence: tuple[Source, ...] = ()
    checks: tuple[str, ...] = ()
    accept: float = 0.5
    confidence: float | None = None
    """How sure whoever produced it is, in [0, 1]: a classifier says so, and the tokens of a language model do."""
    promise: str = ""
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


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks said, together: whether the value is accepted, how surely, on what, and if not, why."""

    verdicts: tuple[Verdict, ...]
    accepted: bool
    score: float | None = None
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""
    promise: str = ""
    """The situation's, of a value that is accepted."""
    told: str | None = None
    """What whoever gave the value is told, where that is not the whole reason: that checks which ask could not tell, without their words.
    Empty where all that is against the value is checks that crashed."""

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """The parts of the value that the ruling is not about."""
        return tuple(one for verdict in self.verdicts for one in verdict.dropped)

    def rest(self, value: Any) -> Any:
        """The value that the ruling is about: without the parts that were dropped."""
        return without(value, self.dropped).value if self.dropped else value


def heavy(situation: Situation) -> bool:
    """Whether a value and its evidence are so much that others should not wait while its checks read them."""
    if not situation.checks:
        return False
    found = sum(len(source.text) for source in situation.evidence)
    line: list[Any] = [situation.value]
    while line and found < HEAVY:
        here = line.pop()
        if isinstance(here, str):
            found += len(here)
        elif isinstance(here, Mapping):
            line += here.values()
        elif isinstance(here, list | tuple):
            line += here
            found += len(here)
    return found >= HEAVY


def ruled_unasked(situation: Situation) -> Ruling:
    """The ruling on a situation where no agent is asked. Checks go by cost; the first `fail` ends it."""
    rules, known = rules_of(situation.checks), at_once(situation)
    while (check := open_check(rules, known, situation.combination)) is not None:
        known[check] = unsettled(str(check), "no agent was asked")
    return ruling(situation, rules, known)


@lru_cache(maxsize=1024)
def rules_of(checks: tuple[str, ...]) -> tuple[Rule, ...]:
    """The rules of a list of checks, the cheapest first, each once. A text that is no rule stands for a check that nobody knows."""
    return tuple(sorted(dict.fromkeys(map(_rule, checks)), key=lambda rule: max(map(_cost, named(rule)))))


def names_of(checks: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the checks in a list of rules, each once."""
    return tuple(dict.fromkeys(check.check for rule in rules_of(checks) for check in named(rule)))


def _rule(text: str) -> Rule:
    try:
        return read(text)
    except NotARule:
        return Named(text)


def _cost(check: Named) -> int:
    return KNOWN.index(check.check if check.check in KNOWN else CONFIDENCE)


def at_once(situation: Situation) -> dict[Named, Verdict]:
    """What the checks say that ask nobody, by cost, as far as it matters; the first rule that fails ends it."""
    rules = rules_of(situation.checks)
    known: dict[Named, Verdict] = {}
    while (check := _next(rules, known)) is not None:
        known[check] = _judge(check, situation)
    return known


def _next(rules: tuple[Rule, ...], known: dict[Named, Verdict]) -> Named | None:
    """The cheapest check that is open, asks nobody, and may still make a difference."""
    if _failed(rules, known):
        return None
    return min((check for rule in rules for check in wanted(rule, known) if check.check not in ASKING), key=_cost, default=None)


def open_check(rules: tuple[Rule, ...], known: Mapping[Named, Verdict], combination: Combination | None = None) -> Named | None:
    """The cheapest check that is open, asks agents, and on which it still depends whether the value is accepted."""
    said = [verdict(rule, known, dear=True) for rule in rules]
    if any(one is not None and combine_verdicts.decides(one, combination) for one in said):
        return None
    return min((check for rule in rules for check in wanted(rule, known, dear=True)), key=_cost, default=None)


def _failed(rules: Iterable[Rule], known: Mapping[Named, Verdict]) -> bool:
    return any((one := verdict(rule, known)) is not None and one.outcome == FAIL for rule in rules)


def ruling(situation: Situation, rules: tuple[Rule, ...], known: Mapping[Named, Verdict]) -> Ruling:
    """What the rules say together, given what their checks have said. Rules that are still open are left out: another one has decided."""
    verdicts = [one for rule in rules if (one := verdict(rule, known, dear=True)) is not None]
    good = combine_verdicts.accepted(verdicts, situation.accept, situation.combination)
    against = [one for one in verdicts if combine_verdicts.decides(one, situation.combination)]
    return Ruling(
        verdicts=tuple(verdicts),
        accepted=good,
        score=combine_verdicts.score(verdicts, situation.combination),
        evidence=tuple(evidence for one in verdicts for evidence in one.evidence),
        reason="" if good else _objection(verdicts, situation),
        promise=situation.promise if good else "",
        told=None if good else _told(against),
    )


def _told(against: Iterable[Verdict]) -> str | None:
    """What whoever gave the value is told of these; None where that is the whole reason.

    The words of a check that could not tell are of whoever was asked, and not of the value; one that crashed would only do so again.
    """
    single = list(_single(against))
    if not any(map(_open, single)):
        return None
    return "; ".join(
        f"{one.check}: {'it cannot tell' if _open(one) else one.reason or one.outcome}"
        for one in single
        if not (_open(one) and _crashed(one))
    )


def _single(against: Iterable[Verdict]) -> Iterator[Verdict]:
    """The verdicts of single checks that are against a value, also within what was put together."""
    for said in against:
        if said.outcome != PASS:
            yield from _single(said.parts) if said.parts else (said,)


def _open(said: Verdict) -> bool:
    """Whether a check that asks, or `confidence`, could not tell."""
    return said.outcome == UNKNOWN and said.check.partition("(")[0] not in CHECKS


def _crashed(said: Verdict) -> bool:
    """Whether the code that was asked is at fault, and not whom it reached or what it was asked of; or nobody else could be asked."""
    return _CRASH.search(said.reason) is not None or said.reason.endswith(SAME)


def certifiable(situation: Situation) -> float | None:
    """The score that a threshold is held against: that of the ruling where nothing is asked of it; None for a value that is accepted
    at no threshold, because a check fails or cannot tell. A value is accepted at a threshold where this score reaches it."""
    ruling = ruled_unasked(msgspec.structs.replace(situation, accept=0.0))
    return ruling.score if ruling.accepted else None


def _judge(named: Named, situation: Situation) -> Verdict:
    name = str(named)
    if name == CONFIDENCE:
        return _confidence(situation)
    check: Check | None = CHECKS.get(name)
    if check is None:
        return unknown(name, f"there is no check named {name!r}; there are {', '.join(KNOWN)}", 0.0)
    try:
        return check(situation.value, situation.schema, situation.evidence)
    except RecursionError:
        return failed(name, "the value is nested too deeply to be checked")


def _confidence(situation: Situation) -> Verdict:
    """Whether its producer is sure enough; where nobody knows how sure it is, that is `unknown`."""
    sure = situation.confidence
    if sure is None:
        return unknown(CONFIDENCE, "it says nothing of how sure it is")
    if situation.combination is not None:  # `accept` is about what is made of all scores
        return Verdict(CONFIDENCE, PASS, sure)
    if sure < situation.accept:
        return failed(CONFIDENCE, f"it is sure to {sure:.3f}, and {situation.accept:g} is wanted")
    return Verdict(CONFIDENCE, PASS, sure)


def _objection(verdicts: list[Verdict], situation: Situation) -> str:
    combination = situation.combination
    against = [f"{one.check}: {one.reason or one.outcome}" for one in verdicts if combine_verdicts.decides(one, combination)]
    if against:
        return "; ".join(against)
    reached = combine_verdicts.score(verdicts, combination)
    if combination is None or reached is None:
        least = "".join(f", by {one.check}: {one.reason}" for one in verdicts if one.score == reached and one.reason)
        return f"a score of {reached} does not reach {situation.accept}{least}"
    return f"a score of {reached:.3f}, of {combination.told(verdicts)} together, does not reach {situation.accept:.6g}"
