"""Numerics that all trainings share: the data type to compute in, and the check for divergence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orchestra.core.errors import InputError
from orchestra.fleet import cpu
from orchestra.fleet.supervisor.folders import Folders

if TYPE_CHECKING:
    import torch


def pick_dtype(device: str) -> torch.dtype:
    """Returns the fastest data type: bfloat16, or float32 on a CPU without instructions for bfloat16."""
    import torch

    return (
        torch.bfloat16
        if device != "cpu" or cpu.default_dtype(Folders.from_environment().cache) == "bfloat16"
        else torch.float32
    )


def check_finite(loss: float, step: int) -> float:
    """Returns the loss of a step if it is finite. It is called before the optimizer's step.

    Raises:
        InputError: N124 if the loss is infinite or NaN: the training has diverged.
    """
    if not math.isfinite(loss):
        reason = f"the training has diverged: in step {step} its loss is {loss}"
        raise InputError("N124", reason, hint="repeat the command with a lower rate, if it has one, or check the rows")
    return loss
