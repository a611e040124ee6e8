"""Effects of run options on a program: its budget, its sample number, and the label of its data."""

from __future__ import annotations

import dataclasses

from orchestra.core.labels import CURRENT_LABEL, Label, join
from orchestra.engine.request import RunOptions
from orchestra.workflows.program import Program, with_sample

PLANNING_PURPOSE = "planning"
"""The recorded purpose of runs that only plan."""


def data_label(program: Program, options: RunOptions) -> Label:
    """Returns the strictest label of the workflow, the options and the caller's context."""
    return join((program.label, options.label or program.label, CURRENT_LABEL.get()))


def apply_options(program: Program, options: RunOptions) -> Program:
    """Returns the program with the budget and the sample number of the options."""
    program, budget = with_sample(program, options.sample), options.budget
    return program if budget is None else dataclasses.replace(program, budget=budget.with_defaults(program.budget))
