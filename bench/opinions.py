"""Check features of answers, and one score from all of them, fitted on other rows.

L2 logistic regression over the features (V4 of the specification), cross-fitted: the score of a row is from a model
that has not seen it. A workflow node has the same from its verdicts alone (`score: combined`,
`orchestra.learn.certification.combination`).
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from bench.answer_sheets import Set, Sheet
from orchestra.agents.card import Card
from orchestra.core.events import Verdict
from orchestra.core.protocols import collect_sources
from orchestra.learn.certification.combination import L2_PENALTY, CombinationRow, usable_rows
from orchestra.learn.evaluation.metrics import normalize_squad
from orchestra.learn.evaluation.rows import EvaluationRow
from orchestra.text import arithmetic
from orchestra.text.numbers.numbers import find_numbers
from orchestra.verification.acceptance import VerificationRequest, certification_score, verify_without_models
from orchestra.verification.certificates.combination import log_odds
from orchestra.verification.entailment import JudgeReply
from orchestra.verification.rederivation import judge_agreement, judge_rederivation
from orchestra.verification.verdict import UNKNOWN

LEAST = 1e-6
FOLDS = 10
SURE, SHRUNK = "log-probability", 0.3
"""The feature with full prior weight, and the prior weight of the others: some sets have two hundred rows."""
JUDGED = ("quote", "numbers", "recompute")
"""Deterministic checks that apply to the shipped agents' answers; `schema` has passed, or there is no answer."""
SIGNS = {"pass": 1.0, "unknown": 0.0, "fail": -1.0}


@dataclass(frozen=True)
class Answered:
    """A row, the agent's answer, and the answers of others."""

    question: EvaluationRow
    sheet: Sheet
    others: Mapping[str, Sheet]
    """Answers by arm."""
    rules: tuple[Any, ...] = ()
    """Answers of rules without a model."""


def said(value: Any) -> str:
    """Returns the content of an answer in a form that is equal for equal answers: numbers by value, texts in SQuAD's
    normal form, lists as sets.
    """
    if value is None or (not value and isinstance(value, str | list | dict)):
        return "nothing"
    match value:
        case bool():
            return str(value)
        case int() | float():
            return f"{round(value, 4):g}"
        case str():
            found = normalize_squad(value)
            plain = find_numbers(value)
            return f"{round(float(plain[0].value), 4):g}" if len(plain) == 1 and len(found.split()) == 1 else found
        case {"answer": answer, **rest} if "scale" in rest or "quotes" in rest or "expression" in rest or not rest:
            return said(answer)
        case {"label": label}:
            return str(label)
        case {"intent": intent}:
            return str(intent)
        case {"slots": dict(slots)}:
            return json.dumps(sorted((name, span.get("start"), span.get("end")) for name, span in slots.items()))
        case {"calls": list(calls)}:
            return "|".join(sorted(json.dumps(call, sort_keys=True).casefold() for call in calls)) or "nothing"
        case list() | tuple() as several:
            return "|".join(sorted(map(said, several))) if len(several) > 1 else said(several[0])
        case _:
            return json.dumps(value, sort_keys=True, default=str)


def probability(sheet: Sheet) -> float:
    """Returns the log-probability of an answer: of all its tokens, or of a classical agent's own probability."""
    if sheet.logprobs:
        return sum(sheet.logprobs)
    return math.log(max(LEAST**4, sheet.score or 0.0))


def opinions(one: Answered, of: Set, card: Card) -> dict[str, list[float]]:
    """Returns the features of an answer by check. All answers of a set have the same features."""
    sheet, logprobs = one.sheet, one.sheet.logprobs or (probability(one.sheet),)
    found = {
        "log-probability": [probability(sheet), math.log(_odds(sheet.score))],
        "deterministic": _deterministic(one, card),
        "length": [math.log1p(len(logprobs)), math.log1p(len(json.dumps(one.question.input))), *_shape(sheet.output)],
    }
    own = said(sheet.output)
    if of.claims:
        claim = one.others.get("claim")
        output = (claim.output if claim is not None else None) or {}
        supported, refuted = output.get("p_supported"), output.get("p_refute")
        found["entailment"] = (
            [0.0, 0.0, 0.0] if supported is None else [1.0, math.log(_odds(supported)), math.log(_odds(refuted))]
        )
    if of.blind:
        told = (one.others.get(f"blind{number}") for number, _ in enumerate(of.blind, 1))
        found["rederive"] = [number for other in told for number in _rederived(own, other)]
    if samples := [sheet for arm, sheet in one.others.items() if arm.startswith("sample")]:
        found["agree"] = [*agreement(own, [said(sample.output) for sample in samples])]
    if one.rules:
        found["rules"] = [float(said(rule) == own) for rule in one.rules]
    return found


def _rederived(own: str, other: Sheet | None) -> list[float]:
    """Returns features of another agent's answer: whether it is equal, whether it is empty, its probability, and its
    probability if equal.
    """
    if other is None:
        return [0.0] * 4
    same = said(other.output) == own
    return [
        float(same),
        float(said(other.output) == "nothing"),
        probability(other),
        probability(other) if same else 0.0,
    ]


def agreement(own: str, samples: Sequence[str]) -> tuple[float, float]:
    """Returns the share of samples that agree with the answer, and 1 - entropy / log k over all samples."""
    counts = Counter(samples)
    entropy = -sum(count / len(samples) * math.log(count / len(samples)) for count in counts.values())
    return counts[own] / len(samples), 1 - entropy / math.log(len(samples)) if len(samples) > 1 else 1.0


def _odds(probability: float | None) -> float:
    clipped = min(1 - LEAST, max(LEAST, 0.5 if probability is None else probability))
    return clipped / (1 - clipped)


def _shape(output: Any) -> list[float]:
    """Returns whether an answer is empty, and its number of parts."""
    own = said(output)
    parts = (
        next((len(value) for value in (output or {}).values() if isinstance(value, list | dict)), 1) if output else 0
    )
    return [float(own == "nothing"), float(parts)]


def situation(one: Answered, card: Card, checks: Sequence[str]) -> VerificationRequest:
    """Returns the situation that the engine would verify an answer in."""
    given = collect_sources(one.question.input.get(card.evidence or "")) or collect_sources(one.question.input)
    return VerificationRequest(
        value=one.sheet.output,
        schema=card.output_schema,
        evidence=given,
        checks=tuple(checks),
        confidence=one.sheet.score,
    )


def _deterministic(one: Answered, card: Card) -> list[float]:
    if one.sheet.output is None:
        return [-1.0] * (len(JUDGED) + 2)
    verdicts = (verify_without_models(situation(one, card, [check])).verdicts[0] for check in JUDGED)
    return [*(SIGNS[verdict.outcome] for verdict in verdicts), *_figures(one)]


def _figures(one: Answered) -> tuple[float, float]:
    """Returns, for an expression, the share of its operands that are in the input, and the share of the input's numbers
    that it uses.
    """
    expression = one.sheet.output.get("expression") if isinstance(one.sheet.output, dict) else None
    if not isinstance(expression, str):
        return 1.0, 1.0
    try:
        wanted = {abs(operand) for operand in arithmetic.operands(expression)}
    except arithmetic.ArithmeticParseError:
        return 0.0, 0.0
    texts = [text.text for text in collect_sources(one.question.input)]
    there = {abs(number.value) for text in texts for number in find_numbers(text, words=True)}
    return len(wanted & there) / max(1, len(wanted)), len(wanted & there) / max(1, len(there))


def accepted(one: Answered, card: Card, checks: Sequence[str]) -> float | None:
    """Returns the score that a node compares with its threshold; None for an answer that is never accepted."""
    return None if one.sheet.output is None else certification_score(situation(one, card, checks))


def verdicts(one: Answered, of: Set, cards: Mapping[str, Card], checks: Sequence[str]) -> tuple[Verdict, ...]:
    """Returns the verdicts of `checks`, and of the checks with recorded calls in the set, as a workflow node would
    record them: by the checks' own code on recorded answers.
    """
    card, value = cards[of.agent], one.sheet.output
    # As with a combination: an agent's confidence alone refuses nothing.
    asked = (msgspec.structs.replace(situation(one, card, [check]), accept=0.0) for check in checks)
    found = [verify_without_models(one).verdicts[0] for one in asked]
    for number, name in enumerate(of.blind, 1):
        if (other := one.others.get(f"blind{number}")) is not None:
            said = judge_rederivation(value, card.output_schema, cards[name].output_schema, [JudgeReply(other.output)])
            found.append(msgspec.structs.replace(said, check=f"rederive({name})"))
    samples = [JudgeReply(sheet.output) for arm, sheet in one.others.items() if arm.startswith("sample")]
    if len(samples) > 1:  # one sample gives no agreement
        found.append(judge_agreement(value, card.output_schema, samples))
    return tuple(found)


def weighed(said: Sequence[tuple[Verdict, ...]], right: Sequence[bool], groups: Sequence[str]) -> list[float | None]:
    """Returns the scores of a node with `score: combined`, with weights of `orchestra learn combine` from other groups;
    None for answers that such a node accepts at no threshold. A check without a verdict on any answer is left out.
    """
    telling = {verdict.check for few in said for verdict in few if verdict.outcome != UNKNOWN}
    said = [tuple(verdict for verdict in few if verdict.check in telling) for few in said]
    checks = [verdict.check for verdict in max(said, key=len)]
    kept = {
        row.id for row in usable_rows([CombinationRow(str(number), few) for number, few in enumerate(said)], checks)[0]
    }
    places = [number for number in range(len(said)) if str(number) in kept]
    rows = [{verdict.check: [log_odds(verdict.score)] for verdict in said[number]} for number in places]
    scores = combined(rows, [right[at] for at in places], [groups[at] for at in places], shrunk=1.0)
    told = dict(zip(places, scores, strict=True))
    return [told.get(number) for number in range(len(said))]


def combined(
    rows: Sequence[Mapping[str, Sequence[float]]],
    right: Sequence[bool],
    groups: Sequence[str] = (),
    without: str = "",
    seed: int = 0,
    *,
    shrunk: float = SHRUNK,
) -> list[float]:
    """Returns one score per answer, higher is more confident, from all features except those of one check; by a
    regression fitted on other groups.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    kept = [check for check in rows[0] if check != without]
    places = np.array([[value for check in kept for value in row[check]] for row in rows])
    trust = np.array([1.0 if check == SURE else shrunk for check in kept for _ in rows[0][check]])
    places = StandardScaler().fit_transform(places) * trust
    labels, of = np.array(right), groups or [str(number) for number in range(len(rows))]
    order = list(dict.fromkeys(of))
    random.Random(seed).shuffle(order)
    folds = np.array([order.index(group) % FOLDS for group in of])
    scores = np.zeros(len(rows))
    for fold in range(FOLDS):
        held, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        if len(set(labels[rest])) == 2:
            # Without the intercept: it is lower if a fold holds back more correct answers, and would rank folds against
            # each other.
            scores[held] = (
                places[held]
                @ LogisticRegression(C=1 / L2_PENALTY, max_iter=2_000).fit(places[rest], labels[rest]).coef_[0]
            )
    return [float(score) for score in scores]
