"""The Markdown tables of `bench.verification`."""

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

ALONE, CARD, NODE, ALL = (
    "log-probability alone",
    "its card's checks, confidence",
    "`score: combined`",
    "all that was asked",
)
RANKINGS = (ALONE, CARD, NODE, ALL)
"""Rankings of answers. A node can have the first three; the last one uses all features."""
CHECKS = ("agree", "deterministic", "entailment", "length", "log-probability", "rederive", "rules")
"""The checks of `bench.opinions`."""
FEWER, BETTER, READ = 0.9, 0.25, 0.6
"""The goals: fewer accepted wrong answers with deterministic checks; a smaller AURC, and fewer accepted wrong answers,
on reading.
"""


def in_percent(figure: IntervalEstimate) -> str:
    """Returns a share with its interval, in percent."""
    return f"{figure.value:.0%} [{figure.low:.0%}, {figure.high:.0%}]"


@dataclass(frozen=True)
class Measured:
    """A set, its answers, and their rankings."""

    of: Set
    ids: Sequence[str]
    groups: Sequence[str]
    """The group of each row."""
    independent: frozenset[str]
    """The rows that `orchestra certify` would use: one of each group."""
    right: Sequence[bool]
    scores: Mapping[str, Scores]
    """Scores by ranking."""
    ablation: Mapping[str, Scores]
    """Scores without one check, by check."""
    costs: Mapping[str, Mapping[str, float]]
    """Calls, tokens and seconds per answer, by arm."""

    @property
    def accuracy(self) -> float:
        """Returns the share of correct answers."""
        return sum(self.right) / len(self.right)

    @property
    def coverage(self) -> float:
        """Returns the coverage of the goal."""
        return 0.5 if self.of.kind == "reading" else min(0.8, 0.9 * self.accuracy)

    def curve(self, ranking: str) -> Curve:
        """Returns the curve of a ranking."""
        return Curve.of(self.right, self.scores[ranking])

    def fewer(self, scores: Scores) -> IntervalEstimate:
        """Returns the relative reduction of accepted wrong answers at the coverage of the goal, compared with as many
        random answers.
        """
        ranking, wrong = Drawn(self.right, scores), ~np.array(self.right, dtype=bool)

        def of(weights: Weights) -> float:
            chance = self.coverage * float((weights * wrong).sum()) / float(weights.sum())
            return 1 - ranking.errors(self.coverage, weights) / chance if chance else 0.0

        return self._figure(of)

    def better(self) -> IntervalEstimate:
        """Returns the relative reduction of the area under the risk-coverage curve by a node's combined score, compared
        with log-probability alone.
        """
        ours, alone = Drawn(self.right, self.scores[NODE]), Drawn(self.right, self.scores[ALONE])
        return self._figure(lambda weights: 1 - ours.area(weights) / (alone.area(weights) or 1.0))

    def _figure(self, of: Callable[[Weights], float]) -> IntervalEstimate:
        return IntervalEstimate(of(np.ones(len(self.right))), *spread(self.groups, of))


def accepted_and_wrong(found: Sequence[Measured]) -> str:
    """Returns accepted wrong answers at one coverage, without and with verification."""
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
        lines.append(
            f"| {one.of.title} | {len(one.right):,} | {one.accuracy:.1%} | {at:.0%} | {shares} | "
            f"{in_percent(fewer)} | {told} |"
        )
    return "\n".join(lines)


def _wrong(curve: Curve, at: float) -> str:
    """Returns accepted wrong answers at a coverage; or the maximal coverage of a ranking that refuses too much."""
    return f"{curve.errors(at):.1%}" if curve.most >= at else f"accepts {curve.most:.0%}"


def _reached(figure: IntervalEstimate, goal: float) -> str:
    """Returns whether a goal is met, and whether its complete interval meets it."""
    return (
        f"{goal:.0%}: "
        f"{'met' if figure.value >= goal else 'missed'}{', not surely' * (figure.low < goal <= figure.high)}"
    )


def areas(found: Sequence[Measured]) -> str:
    """Returns the area under the risk-coverage curve."""
    lines = [
        f"| set | no verification | {' | '.join(RANKINGS)} | better than {ALONE} | goal |",
        f"|---|---:|{'---:|' * len(RANKINGS)}---:|---|",
    ]
    for one in found:
        figures = " | ".join(
            f"{area:.4f}" for area in (1 - one.accuracy, *(one.curve(name).area() for name in RANKINGS))
        )
        better = one.better()
        told = _reached(better, BETTER) if one.of.kind == "reading" else ""
        lines.append(f"| {one.of.title} | {figures} | {in_percent(better)} | {told} |")
    return "\n".join(lines)


def ablation(found: Sequence[Measured]) -> str:
    """Returns the loss without each check: the area, and the reduction of accepted wrong answers."""
    lines = [
        f"| set | {ALL} | {' | '.join(f'without {check}' for check in CHECKS)} |",
        f"|---|---:|{'---:|' * len(CHECKS)}",
    ]
    for one in found:
        if len(one.ablation) > 2:
            cells = [one.scores[ALL], *(one.ablation.get(check) for check in CHECKS)]
            said = (
                f"{Curve.of(one.right, cell).area():.4f}, {one.fewer(cell).value:.0%}" if cell is not None else ""
                for cell in cells
            )
            lines.append(f"| {one.of.title} | {' | '.join(said)} |")
    return "\n".join(lines)


def reductions(found: Sequence[Measured], names: Mapping[str, str]) -> str:
    """Returns the ranking quality of several aggregations of token log-probabilities: AUROC and AURC."""
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
    """Returns the cost of an answer, and the additional cost of each check."""
    lines = [
        "| set | asked | calls a row | tokens in, out a row | seconds of a call alone |",
        "|---|---|---:|---:|---:|",
    ]
    for one in found:
        for arm, cost in one.costs.items():
            tokens = f"{cost['prompt']:.0f}, {cost['output']:.0f}"
            lines.append(f"| {one.of.title} | {arm} | {cost['calls']:.2f} | {tokens} | {cost['seconds']:.3f} |")
    return "\n".join(lines)


def certificates(found: Mapping[str, Mapping[float, Certification]]) -> str:
    """Returns the certificates at each alpha, tested on the other rows, with the naive threshold."""
    resplits = "resplits over alpha, of those certified; of all"
    lines = [
        (
            f"| agent, rows of | n | alpha | certificate | on the rest | {resplits} | naive threshold on the rest | "
            f"naive, of all |"
        ),
        "|---|---:|---:|---|---|---:|---|---:|",
    ]
    for name, terms in found.items():
        for alpha, one in terms.items():
            lines.append(f"| {name} | {one.rows:,} | {format_percent(alpha)} | {' | '.join(_certificate(one))} |")
    return "\n".join(lines)


def _certificate(one: Certification) -> tuple[str, str, str, str, str]:
    again = one.resplits
    kept = (
        (
            f"{again.violations} ({again.significant_violations}) of {again.certified}; "
            f"{again.violations / again.rounds:.1%}"
        )
        if again.certified
        else "-"
    )
    naive = (
        f"{again.naive_violations / again.rounds:.1%} ({again.naive_significant_violations / again.rounds:.1%})"
        if again.naive
        else "-"
    )
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
