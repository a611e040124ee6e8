"""Resolves the names of agents and workflows declared in Python, which must be unique in a run, and of models."""

from __future__ import annotations

from inspect import isclass
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel

from orchestra.core.errors import InputError
from orchestra.schema.fields import schema_has_format
from orchestra.schema.types import Schema, schema_of
from orchestra.workflows.python.calls import Step
from orchestra.workflows.python.steps import Agent, Workflow

NamedSteps: TypeAlias = dict[tuple[str, str], Agent[..., Any] | Workflow[..., Any]]
"""Agents with their own cards, and workflows, by kind and name."""


def resolve_names(*steps: Step[..., Any]) -> NamedSteps:
    """Returns these steps and what they may call: declared workflows and agents, each once.

    Agents that refer to a card by name are left to the catalog. Raises `InputError` W021 for two different steps of one
    name, at any depth of calls.
    """
    found: NamedSteps = {}
    waiting, seen = [*reversed(steps)], set[int]()
    while waiting:
        step = waiting.pop()
        if id(step) in seen:
            continue
        seen.add(id(step))
        if isinstance(step, Workflow) or (isinstance(step, Agent) and step.card is not None):
            other = found.setdefault((step.kind, step.name), step)
            if other is not step and not step.is_same(other):
                raise ambiguous_name_error(step)
        waiting += reversed(
            step.steps if isinstance(step, Workflow) else step.declared_callees if isinstance(step, Agent) else ()
        )
    return found


def ambiguous_name_error(step: Step[..., Any]) -> InputError:
    """Returns the error W021 of another agent or workflow with the same name."""
    kind = "workflow" if isinstance(step, Workflow) else step.kind
    why = "a workflow calls steps by name"
    return InputError("W021", f"two different {kind}s are called {step.name!r}", hint="rename one", why=why)


def declared_models(*steps: Step[..., Any]) -> dict[str, Schema]:
    """Returns the pydantic models, by name, that these steps take and return, for use in files.

    Names of two models with different schemas are left out, and so are models without a schema or with a secret.
    """
    waiting: list[Any] = [one for step in steps for one in (*step.signature.types.values(), step.signature.returns)]
    found: dict[str, Schema | None] = {}
    seen: list[Any] = []
    while waiting:
        here = waiting.pop()
        waiting += get_args(here)
        if not (isclass(here) and issubclass(here, BaseModel)) or here in seen:
            continue
        seen.append(here)
        waiting += [field.annotation for field in here.model_fields.values()]
        schema = _model_schema(here)
        found[here.__name__] = schema if found.get(here.__name__, schema) == schema else None
    return {name: schema for name, schema in found.items() if schema is not None and name.isidentifier()}


def _model_schema(model: type[BaseModel]) -> Schema | None:
    try:
        schema = schema_of(model, "validation")
    except InputError:
        return None
    return None if schema_has_format(schema, "password") else schema
