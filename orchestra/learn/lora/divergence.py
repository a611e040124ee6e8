"""Divergence: a training whose loss is no number any more learns nothing from then on, and ends."""

from __future__ import annotations

import math

from orchestra.core.errors import InputError


def check_finite(loss: float, step: int) -> float:
    """The loss of a step, before anything follows from it. Raises `InputError` N124 for one that is infinite or no number."""
    if not math.isfinite(loss):
        reason = f"the training has diverged: in step {step} its loss is {loss}"
        raise InputError("N124", reason, hint="give the same command with a lower rate, where it has one, or look into the rows")
    return loss
