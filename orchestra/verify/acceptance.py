"""Acceptance: a pure machine from a situation to a ruling.

`start(situation)` gives the ruling at once: the checks of V0 (schema, quote, numbers, recompute) need no call. A check that
nobody knows is `unknown`, and `unknown` never passes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from orchestra.doors import Source
from orchestra.events import Verdict
from orchestra.values.outcome import Evidence
from orchestra.verify import combine
from orchestra.verify.deterministic import CHECKS, Check
from orchestra.verify.verdict import FAIL, PASS, failed, unknown


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt's value, before its checks: its type, what it may rest on, and the score in [0, 1] that it must reach."""

    value: Any
    schema: dict[str, Any]
    evidence: tuple[Source, ...] = ()
    checks: tuple[str, ...] = ()
    accept: float = 0.5


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks said, together: whether the value is accepted, how surely, on what, and if not, why."""

    verdicts: tuple[Verdict, ...]
    accepted: bool
    score: float | None = None
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""


def start(situation: Situation) -> Ruling:
    """The ruling on a situation. Checks go by cost; the first `fail` ends it."""
    verdicts: list[Verdict] = []
    for name in sorted(dict.fromkeys(situation.checks), key=_cost):
        verdicts.append(_judge(name, situation))
        if verdicts[-1].outcome == FAIL:
            break
    good = combine.accepted(verdicts, situation.accept)
    return Ruling(
        verdicts=tuple(verdicts),
        accepted=good,
        score=combine.score(verdicts),
        evidence=tuple(evidence for verdict in verdicts for evidence in verdict.evidence),
        reason="" if good else _objection(verdicts, situation.accept),
    )


def _cost(name: str) -> int:
    return list(CHECKS).index(name) if name in CHECKS else len(CHECKS)


def _judge(name: str, situation: Situation) -> Verdict:
    check: Check | None = CHECKS.get(name)
    if check is None:
        return unknown(name, f"there is no check named {name!r}; there are {', '.join(CHECKS)}", 0.0)
    try:
        return check(situation.value, situation.schema, situation.evidence)
    except RecursionError:
        return failed(name, "the value is nested too deeply to be checked")


def _objection(verdicts: list[Verdict], threshold: float) -> str:
    against = [f"{verdict.check}: {verdict.reason or verdict.outcome}" for verdict in verdicts if verdict.outcome != PASS]
    return "; ".join(against) or f"a score of {combine.score(verdicts)} does not reach {threshold}"
