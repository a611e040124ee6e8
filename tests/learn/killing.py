"""Trainings that are killed by somebody: they go on where they stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest

from orchestra.learn.encoders.member import TrainingStep
from orchestra.learn.encoders.training import HeadTraining, TrainedEncoder

Run: TypeAlias = Callable[[HeadTraining, Callable[[TrainingStep], None]], TrainedEncoder]


class Killed(Exception):
    """By somebody."""


def goes_on(run: Run, wanted: HeadTraining, elsewhere: Path) -> HeadTraining:
    """A training that was killed half-way and went on, in a cache of its own: it came to what one comes to that was not killed."""

    def kill(step: TrainingStep) -> None:
        if step.step > step.total_steps / 2:
            raise Killed

    whole, other = run(wanted, lambda step: None), replace(wanted, cache=elsewhere)
    with pytest.raises(Killed):
        run(other, kill)
    steps: list[int] = []
    assert run(other, lambda step: steps.append(step.step)).files == whole.files
    assert min(steps) > 1
    return other
