"""What `bench.verification` prints: the tables, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.answer_sheets import Set
from bench.risk import Curve, Drawn, Scores, Weights, spread
from orchestra.learn.evaluation.bootstrap import IntervalEstimate
from orchestra.learn.evaluation.metrics import auroc
from orchestra.verification.certificates.certify import Certification, Certified, Infeasible, format_percent

ALONE, CARD, NODE, ALL = "log-probability alone", "its card's checks, confidence", "`score: combined`", "all that was asked"
RANKINGS = (ALONE, CARD, NODE, ALL)
"""Ways to rank answers. A node can have the first three; the last one is what could be made of everything that anybody said."""
CHECKS = ("agree", "deterministic", "entailment", "length", "log-probability", "rederive", "rules")
"""What `bench.opinions` knows."""
FEWER, BETTER, READ = 0.9, 0.25, 0.6
"""The goals: fewer accepted and wrong where checks are deterministic; a smaller AURC, and fewer accepted and wrong, on reading."""


def in_percent(figure: IntervalEstimate) -> str:
    """A share with its interval, in percent."""
    return f"{figure.value:.0%} [{figure.low:.0%}, {figure.high:.0%}]"


@dataclass(frozen=True)
class Measured:
    """A set, its answers, and what each ranking makes of them."""

    of: Set
    ids: Sequence[str]
    groups: Sequence[str]
    """What each row has in common with others."""
    independent: frozenset[str]
    """The rows by which `orchestra certify` would go: one of each group."""
    right: Sequence[bool]
    scores: Mapping[str, Scores]
    """By ranking."""
    ablation: Mapping[str, Scores]
    """All checks but one, by it."""
    costs: Mapping[str, Mapping[str, float]]
    """Calls, tokens and seconds an answer, by arm."""

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return sum(self.right) / len(self.right)

    @property
    def coverage(self) -> float:
        """The coverage at which the goal is judged."""
        return 0.5 if self.of.kind == "reading" else min(0.8, 0.9 * self.accuracy)

    def curve(self, ranking: str) -> Curve:
        """The curve of a ranking."""
        return Curve.of(self.right, self.scores[ranking])

    def fewer(self, scores: Scores) -> IntervalEstimate:
        """By which share fewer answers are accepted and wrong, at the coverage of the goal, than of as many drawn by chance."""
        ranking, wrong = Drawn(self.right, scores), ~np.array(self.right, dtype=bool)

        def of(weights: Weights) -> float:
            chance = self.coverage * float((weights * wrong).sum()) / float(weights.sum())
            return 1 - ranking.errors(self.coverage, weights) / chance if chance else 0.0

        return self._figure(of)

    def better(self) -> IntervalEstimate:
        """By which share the area under risk by coverage is smaller by a node's combined score than by log-probability alone."""
        ours, alone = Drawn(self.right, self.scores[NODE]), Drawn(self.right, self.scores[ALONE])
        return self._figure(lambda weights: 1 - ours.area(weights) / (alone.area(weights) or 1.0))

    def _figure(self, of: Callable[[Weights], float]) -> IntervalEstimate:
        return IntervalEstimate(of(np.ones(len(self.right))), *spread(self.groups, of))


def accepted_and_wrong(found: Sequence[Measured]) -> str:
    """Accepted and wrong at one coverage, without verification and with it."""
    lines = [
        f"| set | rows | right | coverage | no verification | {' | '.join(RANKINGS)} | fewer | goal |",
        f"|---|---:|---:|---:|---:|{'---:|' * len(RANKINGS)}---:|---|",
    ]
    for one in found:
        at = one.coverage
        shares = " | ".join([f"{at * (1 - one.accuracy):.1%}", *(_wrong(one.curve(name), at) for name in RANKINGS)])
        fewer = one.fewer(one.scores[NODE])
        goal = {"deterministic": FEWER, "reading": READ}.get(one.of.kind)
        told = "" if goal is None else _reached(fewer, goal)
        lines.append(f"| {one.of.title} | {len(one.right):,} | {one.accuracy:.1%} | {at:.0%} | {shares} | {in_percent(fewer)} | {told} |")
    return "\n".join(lines)


def _wrong(curve: Curve, at: float) -> str:
    """Accepted and wrong at a coverage; or how far a ranking comes that refuses too much."""
    return f"{curve.errors(at):.1%}" if curve.most >= at else f"accepts {curve.most:.0%}"


def _reached(figure: IntervalEstimate, goal: float) -> str:
    """Whether a goal is met, and whether surely: where the whole interval says so."""
    return f"{goal:.0%}: {'met' if figure.value >= goal else 'missed'}{', not surely' * (figure.low < goal <= figure.high)}"


def areas(found: Sequence[Measured]) -> str:
    """The area under risk by coverage."""
    lines = [
        f"| set | no verification | {' | '.join(RANKINGS)} | better than {ALONE} | goal |",
        f"|---|---:|{'---:|' * len(RANKINGS)}---:|---|",
    ]
    for one in found:
        figures = " | ".join(f"{area:.4f}" for area in (1 - one.accuracy, *(one.curve(name).area() for name in RANKINGS)))
        better = one.better()
        told = _reached(better, BETTER) if one.of.kind == "reading" else ""
        lines.append(f"| {one.of.title} | {figures} | {in_percent(better)} | {told} |")
    return "\n".join(lines)


def ablation(found: Sequence[Measured]) -> str:
    """What is lost without each check: the area, and by how much fewer are accepted and wrong."""
    lines = [f"| set | {ALL} | {' | '.join(f'without {check}' for check in CHECKS)} |", f"|---|---:|{'---:|' * len(CHECKS)}"]
    for one in found:
        if len(one.ablation) > 2:
            cells = [one.scores[ALL], *(one.ablation.get(check) for check in CHECKS)]
            said = (f"{Curve.of(one.right, cell).area():.4f}, {one.fewer(cell).value:.0%}" if cell is not None else "" for cell in cells)
            lines.append(f"| {one.of.title} | {' | '.join(said)} |")
    return "\n".join(lines)


def reductions(found: Sequence[Measured], names: Mapping[str, str]) -> str:
    """How well different makings of one number of the tokens' log-probabilities rank: AUROC, and AURC."""
    lines = [f"| set | {' | '.join(names.values())} |", f"|---|{'---:|' * len(names)}"]
    for one in found:
        if all(name in one.scores for name in names):
            cells = []
            for name in names:
                scores = [float("-inf") if score is None else score for score in one.scores[name]]
                ranked = auroc([(score, good) for score, good in zip(scores, one.right, strict=True)])
                cells.append(f"{ranked:.3f}, {Curve.of(one.right, scores).area():.4f}")
            lines.append(f"| {one.of.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def costs(found: Sequence[Measured]) -> str:
    """What an answer costs, and what each check adds to it."""
    lines = ["| set | asked | calls a row | tokens in, out a row | seconds of a call alone |", "|---|---|---:|---:|---:|"]
    for one in found:
        for arm, cost in one.costs.items():
            tokens = f"{cost['prompt']:.0f}, {cost['output']:.0f}"
            lines.append(f"| {one.of.title} | {arm} | {cost['calls']:.2f} | {tokens} | {cost['seconds']:.3f} |")
    return "\n".join(lines)


def certificates(found: Mapping[str, Mapping[float, Certification]]) -> str:
    """The certificates at each alpha, judged on the rest, beside the naive threshold."""
    resplits = "resplits over alpha, of those certified; of all"
    lines = [
        f"| agent, rows of | n | alpha | certificate | on the rest | {resplits} | naive threshold on the rest | naive, of all |",
        "|---|---:|---:|---|---|---:|---|---:|",
    ]
    for name, terms in found.items():
        for alpha, one in terms.items():
            lines.append(f"| {name} | {one.rows:,} | {format_percent(alpha)} | {' | '.join(_certificate(one))} |")
    return "\n".join(lines)


def _certificate(one: Certification) -> tuple[str, str, str, str, str]:
    again = one.resplits
    kept = (
        f"{again.violations} ({again.significant_violations}) of {again.certified}; {again.violations / again.rounds:.1%}"
        if again.certified
        else "-"
    )
    naive = f"{again.naive_violations / again.rounds:.1%} ({again.naive_significant_violations / again.rounds:.1%})" if again.naive else "-"
    picked = "none" if one.naive is None else f"{one.naive.threshold:.4g}: {_judged(one.naive.held_out)}"
    match one.outcome:
        case Certified(step, coverage):
            return f"{step.threshold:.4g}, covers {coverage:.0%}", _judged(one.held_out), kept, picked, naive
        case Infeasible(reason):
            return f"none: {reason}", "", kept, picked, naive
        case other:
            return f"none, too little data: about {other.rows_needed:,} rows are needed", "", kept, picked, naive


def _judged(found: Any) -> str:
    return f"{found.errors} wrong of {found.accepted}, of {found.rows}"
