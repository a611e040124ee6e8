"""Votes: several plans for one request, and the one that most of them agree on.

Plans are sampled at a temperature above 0, each with a seed of its own, and compared as the graphs that they are: two are equal where the
same calls, wired alike, give the same answer. Step names, the order of independent steps, the order of arguments and steps that the answer
does not rest on make no difference; constants compare as the checks compare them: numbers by value, texts by their folding. The share of
the votes is the plan's confidence, as self-consistency has it (Wang et al. 2022, https://arxiv.org/abs/2203.11171), over plans instead of
answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from orchestra.router.plan import Plan
from orchestra.router.plan_syntax import Argument, PlanLiteral, PlanReference, PlanStep
from orchestra.schema.strict_json import canonical, digest
from orchestra.text.numbers.numbers import find_numbers
from orchestra.text.quotes import fold


@dataclass(frozen=True, slots=True)
class VoteResult:
    """What an election came to. `chosen` is the place of the plan that won, among all that were sampled, from 0."""

    winner: int
    votes: int
    samples: int
    """Samples in all, those that came to no plan included."""

    @property
    def agreement(self) -> float:
        """The share of the samples that agree on the plan, in (0, 1]."""
        return self.votes / self.samples


def count_votes(plans: Sequence[Plan | None]) -> VoteResult | None:
    """The plan that most samples agree on, of equal ones the one that came first; None where no sample came to a plan."""
    marks = [None if plan is None else plan_digest(plan) for plan in plans]
    counts = Counter(found for found in marks if found is not None)
    if not counts:
        return None
    won, votes = max(counts.items(), key=lambda item: item[1])  # the first of equal ones: a counter keeps the order of arrival
    return VoteResult(marks.index(won), votes, len(plans))


def plan_digest(plan: Plan) -> str:
    """The digest of a plan's canonical form: equal for equal graphs."""
    marks: dict[str, str] = {}
    above: dict[str, frozenset[str]] = {}
    for step in plan.used_steps:
        roots = {reference.root for reference in step.references if reference.root in marks}
        read = frozenset(roots.union(*(above[root] for root in roots)))
        waits = sorted(marks[name] for name in step.after if name in marks and name not in read)
        marks[step.name] = digest(canonical(_canonical_step(step, marks, waits)))
        above[step.name] = read.union(step.after)
    answers = sorted(canonical(_canonical_argument(value, marks)).decode() for value in plan.answer.values)
    return digest(canonical([sorted(marks.values()), answers]))


def _canonical_step(step: PlanStep, marks: Mapping[str, str], waits: Sequence[str]) -> list[Any]:
    """A step without its name; the steps that it reads are told by their marks."""
    arguments = {name: _canonical_argument(value, marks) for name, value in step.arguments.items()}
    return [step.capability, arguments, None if step.each is None else _canonical_argument(step.each, marks), waits]


def _canonical_argument(value: Argument, marks: Mapping[str, str]) -> list[Any]:
    match value:
        case PlanLiteral(constant):
            return ["constant", _canonical_constant(constant)]
        case PlanReference(root, path):
            return ["of", ["step", marks[root]] if root in marks else ["name", root], list(path)]


def _canonical_constant(value: Any) -> list[Any]:
    match value:
        case bool() | None:
            return ["is", value]
        case int() | float():
            return ["number", str(Fraction(Decimal(str(value))))]
        case str():
            return _canonical_text(value)
        case list():
            return ["list", *map(_canonical_constant, value)]
        case _:
            return ["json", value]


def _canonical_text(value: str) -> list[Any]:
    folded = fold(value).text.strip(" ")
    found = find_numbers(folded)
    if len(found) == 1 and found[0].text == folded:
        return ["text of a number", str(found[0].value), found[0].currency]
    return ["text", folded]
