"""Risk-coverage curves of rankings of answers, as figures and as a picture. Pure functions.

An answer that no threshold accepts has no score (None) and comes last. Answers with equal scores are accepted together
or in any order: a figure at a coverage among them is the mean over the orders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Weights: TypeAlias = NDArray[Any]
"""Number of times that each row is drawn."""
Scores = Sequence[float | None]
"""Scores of answers in the order of their rows."""


@dataclass(frozen=True)
class Curve:
    """The number of wrong answers among the first answers."""

    counts: tuple[int, ...]
    """Number of answers at the end of each group with equal scores."""
    wrong: tuple[int, ...]
    """Number of wrong ones up to there."""
    refused: int = 0
    """Number of answers that no threshold accepts: the last group, if any."""

    @classmethod
    def of(cls, right: Sequence[bool], scores: Scores) -> Curve:
        """Returns the curve of a ranking."""
        ranked = sorted(
            zip(scores, right, strict=True), key=lambda one: -one[0] if one[0] is not None else float("inf")
        )
        counts, wrong, errors = [], [], 0
        for number, (score, good) in enumerate(ranked, 1):
            errors += not good
            if number == len(ranked) or ranked[number][0] != score:
                counts.append(number)
                wrong.append(errors)
        return cls(tuple(counts), tuple(wrong), sum(score is None for score in scores))

    @property
    def rows(self) -> int:
        """Number of answers."""
        return self.counts[-1] if self.counts else 0

    @property
    def most(self) -> float:
        """The maximal coverage of a threshold."""
        return 1 - self.refused / self.rows if self.rows else 0.0

    def errors(self, coverage: float) -> float:
        """Returns accepted and wrong answers as a share of all rows, if the share `coverage` with the highest scores is
        accepted.
        """
        wanted, before, seen = coverage * self.rows, 0, 0
        for count, wrong in zip(self.counts, self.wrong, strict=True):
            if count >= wanted:
                return (seen + (wrong - seen) * (wanted - before) / (count - before)) / self.rows
            before, seen = count, wrong
        return seen / max(1, self.rows)

    def area(self) -> float:
        """Returns the area under the risk-coverage curve (AURC): risk at each threshold times the coverage that it
        adds, as in `data/metrics.py`.
        """
        found, before = 0.0, 0
        for count, wrong in zip(self.counts, self.wrong, strict=True):
            found += wrong / count * (count - before) / self.rows
            before = count
        return found


class Drawn:
    """A ranking whose rows are resampled with replacement, for intervals."""

    def __init__(self, right: Sequence[bool], scores: Scores) -> None:
        ranks = np.array([float("-inf") if score is None else score for score in scores])
        self._order = np.argsort(-ranks, kind="stable")
        ordered = ranks[self._order]
        self._ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        self._wrong = ~np.array(right, dtype=bool)[self._order]

    def _groups(self, weights: Weights) -> tuple[Weights, Weights]:
        drawn = weights[self._order]
        return np.cumsum(drawn)[self._ends], np.cumsum(drawn * self._wrong)[self._ends]

    def errors(self, coverage: float, weights: Weights) -> float:
        """As `Curve.errors`."""
        counts, wrong = self._groups(weights)
        wanted = coverage * counts[-1]
        return float(np.interp(wanted, np.append(0, counts), np.append(0, wrong)) / counts[-1])

    def area(self, weights: Weights) -> float:
        """As `Curve.area`."""
        counts, wrong = self._groups(weights)
        added = np.diff(counts, prepend=0)
        return float((wrong / np.maximum(counts, 1) * added).sum() / counts[-1])


def spread(
    groups: Sequence[str], of: Callable[[Weights], float], rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Returns a 95 % bootstrap interval: `of` gives a figure for the number of draws of each row; comparisons are
    paired. Rows of one group, such as questions about one passage, are drawn together.
    """
    chance, (names, at) = np.random.default_rng(seed), np.unique(np.array(groups), return_inverse=True)
    count = len(names)
    found = sorted(of(np.bincount(chance.integers(count, size=count), minlength=count)[at]) for _ in range(rounds))
    return found[round(0.025 * rounds)], found[round(0.975 * rounds) - 1]


PANEL, GAP, LEFT, TOP, ACROSS = (190, 120), (56, 54), 40, 30, 3
LABEL = "font: 11px sans-serif; fill: #777"


def picture(panels: Mapping[str, Mapping[str, Curve]], colours: Mapping[str, str], goals: Mapping[str, float]) -> str:
    """Draws small multiples, one for each set: risk over coverage, one line for each ranking, and a mark at the
    coverage of the goal.

    The SVG needs no font and no script, and is readable on light and dark pages.
    """
    lines = -(-len(panels) // ACROSS)
    width, height = LEFT + ACROSS * (PANEL[0] + GAP[0]), TOP + lines * (PANEL[1] + GAP[1]) + 16
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="risk by '
            f'coverage">'
        )
    ]
    across = LEFT
    for name, colour in colours.items():
        parts.append(f'<path d="M{across} 12h18" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{across + 23}" y="16" style="{LABEL}">{name}</text>')
        across += 40 + round(6.2 * len(name))
    for number, (name, curves) in enumerate(panels.items()):
        left, top = LEFT + number % ACROSS * (PANEL[0] + GAP[0]), TOP + 14 + number // ACROSS * (PANEL[1] + GAP[1])
        parts += _panel(name, curves, colours, goals.get(name), (left, top))
    return "\n".join([*parts, "</svg>", ""])


def _panel(
    name: str, curves: Mapping[str, Curve], colours: Mapping[str, str], goal: float | None, place: tuple[int, int]
) -> list[str]:
    left, top = place
    wide, high = PANEL
    highest = (
        min(1.0, max((curve.wrong[-1] / curve.rows for curve in curves.values() if curve.rows), default=1.0) * 1.08)
        or 0.01
    )

    def at(coverage: float, risk: float) -> str:
        return f"{left + wide * coverage:.1f},{top + high * (1 - min(risk / highest, 1.0)):.1f}"

    parts = [
        f'<text x="{left}" y="{top - 6}" style="font: bold 12px sans-serif; fill: #777">{name}</text>',
        f'<path d="M{left} {top}v{high}h{wide}" fill="none" stroke="#999"/>',
    ]
    for share in (0.0, 0.5, 1.0):
        x, y = at(share, 0.0).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 14:.1f}" style="{LABEL}" text-anchor="middle">{share:.0%}</text>')
        x, y = at(0.0, highest * share).split(",")
        parts.append(
            f'<text x="{float(x) - 5:.1f}" y="{float(y) + 4:.1f}" style="{LABEL}" '
            f'text-anchor="end">{highest * share:.0%}</text>'
        )
    if goal is not None:
        x, _ = at(goal, 0.0).split(",")
        parts.append(f'<path d="M{x} {top}v{high}" stroke="#999" stroke-dasharray="2 3"/>')
    for ranking, curve in curves.items():
        line = " ".join(at(share, curve.errors(share) / share) for share in _shares(curve))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colours[ranking]}" stroke-width="1.8"/>')
    return parts


def _shares(curve: Curve) -> list[float]:
    """Returns the coverages of a line's points: from five answers on, because the risk of fewer is unstable."""
    steps = [step / 80 for step in range(1, 81)]
    return [step for step in steps if step * curve.rows >= 5 and step <= curve.most + 1e-9] or [1.0]
