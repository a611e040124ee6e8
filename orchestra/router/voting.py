"""Voting: several plans for one request, and the one that most samples agree on.

Plans are sampled at a temperature above 0, each with its own seed, and compared as graphs: two plans are equal if the
same calls with the same connections give the same answer. Step names, the order of independent steps, the order of
arguments, and steps that the answer does not depend on make no difference. Constants compare as in the checks: numbers
by value, texts after folding. The share of votes is the plan's confidence, as in self-consistency (Wang et al. 2022,
https://arxiv.org/abs/2203.11171), over plans instead of answers.
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
    """The result of a vote. `winner` is the index of the winning plan among all samples, from 0."""

    winner: int
    votes: int
    samples: int
    """All samples, also those without a plan."""

    @property
    def agreement(self) -> float:
        """Share of the samples that agree on the plan, in (0, 1]."""
        return self.votes / self.samples


def count_votes(plans: Sequence[Plan | None]) -> VoteResult | None:
    """Returns the plan that most samples agree on, the first one of equals; None if no sample is a plan."""
    digests = [None if plan is None else plan_digest(plan) for plan in plans]
    counts = Counter(vote_digest for vote_digest in digests if vote_digest is not None)
    if not counts:
        return None
    winner, votes = max(
        counts.items(), key=lambda item: item[1]
    )  # the first of equals: a counter keeps insertion order
    return VoteResult(digests.index(winner), votes, len(plans))


def plan_digest(plan: Plan) -> str:
    """Digest of a plan's canonical form, equal for equal graphs."""
    names: dict[str, str] = {}
    above: dict[str, frozenset[str]] = {}
    for step in plan.used_steps:
        roots = {reference.root for reference in step.references if reference.root in names}
        read_roots = frozenset(roots.union(*(above[root] for root in roots)))
        waits = sorted(names[name] for name in step.after if name in names and name not in read_roots)
        names[step.name] = digest(canonical(_canonical_step(step, names, waits)))
        above[step.name] = read_roots.union(step.after)
    answers = sorted(canonical(_canonical_argument(value, names)).decode() for value in plan.answer.values)
    return digest(canonical([sorted(names.values()), answers]))


def _canonical_step(step: PlanStep, names: Mapping[str, str], waits: Sequence[str]) -> list[Any]:
    """A step without its name. Steps that it reads are identified by their digests."""
    arguments = {name: _canonical_argument(value, names) for name, value in step.arguments.items()}
    return [step.capability, arguments, None if step.each is None else _canonical_argument(step.each, names), waits]


def _canonical_argument(value: Argument, names: Mapping[str, str]) -> list[Any]:
    match value:
        case PlanLiteral(constant):
            return ["constant", _canonical_constant(constant)]
        case PlanReference(root, path):
            return ["of", ["step", names[root]] if root in names else ["name", root], list(path)]


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
    text = fold(value).text.strip(" ")
    numbers = find_numbers(text)
    if len(numbers) == 1 and numbers[0].text == text:
        return ["text of a number", str(numbers[0].value), numbers[0].currency]
    return ["text", text]
