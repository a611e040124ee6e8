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
    steps_by_name: NamedSteps = {}
    pending_steps, visited = [*reversed(steps)], set[int]()
    while pending_steps:
        step = pending_steps.pop()
        if id(step) in visited:
            continue
        visited.add(id(step))
        if isinstance(step, Workflow) or (isinstance(step, Agent) and step.card is not None):
            other_step = steps_by_name.setdefault((step.kind, step.name), step)
            if other_step is not step and not step.is_same(other_step):
                raise ambiguous_name_error(step)
        pending_steps += reversed(
            step.steps if isinstance(step, Workflow) else step.declared_callees if isinstance(step, Agent) else ()
        )
    return steps_by_name


def ambiguous_name_error(step: Step[..., Any]) -> InputError:
    """Returns the error W021 of another agent or workflow with the same name."""
    kind = "workflow" if isinstance(step, Workflow) else step.kind
    reason = "a workflow calls steps by name"
    return InputError("W021", f"two different {kind}s are called {step.name!r}", hint="rename one", why=reason)


def declared_models(*steps: Step[..., Any]) -> dict[str, Schema]:
    """Returns the pydantic models, by name, that these steps take and return, for use in files.

    Names of two models with different schemas are left out, and so are models without a schema or with a secret.
    """
    type_hints: list[Any] = [
        type_hint for step in steps for type_hint in (*step.signature.types.values(), step.signature.returns)
    ]
    models: dict[str, Schema | None] = {}
    visited: list[Any] = []
    while type_hints:
        annotation = type_hints.pop()
        type_hints += get_args(annotation)
        if not (isclass(annotation) and issubclass(annotation, BaseModel)) or annotation in visited:
            continue
        visited.append(annotation)
        type_hints += [field.annotation for field in annotation.model_fields.values()]
        schema = _model_schema(annotation)
        models[annotation.__name__] = schema if models.get(annotation.__name__, schema) == schema else None
    return {name: schema for name, schema in models.items() if schema is not None and name.isidentifier()}


def _model_schema(model: type[BaseModel]) -> Schema | None:
    try:
        schema = schema_of(model, "validation")
    except InputError:
        return None
    return None if schema_has_format(schema, "password") else schema
