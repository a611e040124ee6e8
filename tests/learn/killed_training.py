"""Trainings that are killed and resumed."""

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
    """Simulates a kill."""


def assert_resumes_to_same_result(run: Run, wanted: HeadTraining, elsewhere: Path) -> HeadTraining:
    """Asserts that a training that is killed half-way and resumed gives the same files as one that is not killed.

    Returns:
        The resumed training, with its own cache.
    """

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
