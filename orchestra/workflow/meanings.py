"""What names mean in one run: of the agents and workflows that Python declares, no two that differ may have one."""

from __future__ import annotations

from typing import Any, TypeAlias

from orchestra.errors import InputError
from orchestra.workflow.calls import Step
from orchestra.workflow.steps import Agent, Workflow

Meanings: TypeAlias = dict[tuple[str, str], Agent[..., Any] | Workflow[..., Any]]
"""Agents with cards of their own and workflows, by kind and name."""


def meanings(*steps: Step[..., Any]) -> Meanings:
    """What these steps are and may call, workflows and agents that are declared, each once.

    Agents that bind a card by its name are left to whoever knows the names. Raises `InputError` W021 where two that differ have one
    name, however many workflows lie between them.
    """
    found: Meanings = {}
    waiting, seen = [*reversed(steps)], set[int]()
    while waiting:
        step = waiting.pop()
        if id(step) in seen:
            continue
        seen.add(id(step))
        if isinstance(step, Workflow) or (isinstance(step, Agent) and step.card is not None):
            other = found.setdefault((step.kind, step.name), step)
            if other is not step and not step.same(other):
                raise ambiguous(step)
        waiting += reversed(step.steps if isinstance(step, Workflow) else step.uses if isinstance(step, Agent) else ())
    return found


def ambiguous(step: Step[..., Any]) -> InputError:
    """W021: another agent or workflow has the name of this one."""
    kind = "workflow" if isinstance(step, Workflow) else step.kind
    why = "a workflow refers to what it calls by name"
    return InputError("W021", f"two different {kind}s are called {step.name!r}", hint="rename one", why=why)
