"""What the words around a table tell of the unit of its figures (`orchestra.agents.inference.tables.scales`), learnt from rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from orchestra.agents.inference.tables.scales import UNIT_SIGNS, UNITS, UnitWeights

MAX_STEPS: Final = 50
"""Steps of Newton's method at most; a handful will do, for the loss is convex and the weights are few."""
L2_PENALTY: Final = 1.0
"""What half the square of a weight counts beside the loss of a row."""
TOLERANCE: Final = 1e-6
"""A step whose largest part is less is the last."""


def fit_units(rows: Sequence[tuple[Sequence[Sequence[bool]], str]]) -> UnitWeights:
    """The weights that make the units of rows likeliest, by the signs that are seen of each: a conditional logit (McFadden 1974).

    A sign counts alike for all units, so that what “in millions” tells is known of “in billions”, which few tables are in.
    """
    import numpy as np

    if not rows:
        return UnitWeights(signs=(0.0,) * len(UNIT_SIGNS), usual=(0.0,) * len(UNITS))
    count = len(UNITS)
    seen = np.array([found for found, _ in rows], dtype=float)
    given = np.concatenate([seen, np.broadcast_to(np.eye(count), (len(rows), count, count))], axis=2)
    right = np.eye(count)[[UNITS.index(unit) for _, unit in rows]]
    weights = np.zeros(given.shape[2])
    for _ in range(MAX_STEPS):
        scores = given @ weights
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances = powers / powers.sum(axis=1, keepdims=True)
        means = np.einsum("ru,ruk->rk", chances, given)
        slope = np.einsum("ru,ruk->k", chances - right, given) + L2_PENALTY * weights
        bend = np.einsum("ru,ruk,rul->kl", chances, given, given) - means.T @ means + L2_PENALTY * np.eye(len(weights))
        step = np.linalg.solve(bend, slope)
        weights = weights - step
        if abs(step).max() < TOLERANCE:
            break
    found = [round(float(weight), 4) for weight in weights]
    return UnitWeights(signs=tuple(found[: len(UNIT_SIGNS)]), usual=tuple(found[len(UNIT_SIGNS) :]))
