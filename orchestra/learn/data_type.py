"""The data type that a training computes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestra.fleet import cpu
from orchestra.fleet.supervisor.folders import Folders

if TYPE_CHECKING:
    import torch


def pick_dtype(device: str) -> torch.dtype:
    """What is fastest on `cpu` or `cuda`: bfloat16, or float32 on a CPU that has no instructions for bfloat16."""
    import torch

    return torch.bfloat16 if device != "cpu" or cpu.default_dtype(Folders.from_environment().cache) == "bfloat16" else torch.float32
