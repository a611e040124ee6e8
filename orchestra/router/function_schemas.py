"""JSON Schemas of what an agent with tools may call next, for servers with native function calling.

They allow what the grammar of the next line allows, except calls for each element of a list: each argument is a
constant, or the name of an available value that fits. The line that a call becomes is validated like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestra.agents.evidence_grammar import strip_unknown_formats
from orchestra.agents.native_tools import NativeFunction, NativeTools, function_names
from orchestra.router.capabilities import Capabilities, Capability, PlanScope, is_free_text, statable_types
from orchestra.router.plan_syntax import PlanReference, PlanStep
from orchestra.schema.types import Schema, bundle_definitions, union

MAX_REFERENCES = 24
"""Maximum number of available values that the schema of an argument names. A call may name others that fit."""
MAX_DESCRIPTION_LENGTH = 1_000
"""Maximum characters of a description: OpenAI accepts 1,024."""


def build_functions(capabilities: Capabilities, steps: Sequence[PlanStep]) -> NativeTools:
    """Returns the functions that may be called after these steps; none at the limit of steps."""
    scope = PlanScope(capabilities, steps)
    available = scope.available_values()
    trusted = [item for item in available if not scope.is_untrusted(*item)]
    names = function_names(capabilities.by_name)
    functions = [
        NativeFunction(names[name], name, capability.description[:MAX_DESCRIPTION_LENGTH], parameters)
        for name, capability in capabilities.by_name.items()
        if len(steps) < capabilities.limits.steps
        and (parameters := _parameters(capability, capabilities, trusted if capability.has_effects else available))
        is not None
    ]
    return NativeTools(len(steps) + 1, tuple(functions), frozenset(str(reference) for reference, _ in available))


def _parameters(
    capability: Capability, capabilities: Capabilities, available: Sequence[tuple[PlanReference, Schema]]
) -> Schema | None:
    """Returns the type of a capability's arguments; None if a required one has no value."""
    properties: dict[str, Schema] = {}
    for name, kind in capability.fields.items():
        fitting = [
            str(reference)
            for reference, value_kind in available
            if capabilities.assignability.mismatch(value_kind, kind) is None
        ]
        if (argument := _argument(kind, fitting[:MAX_REFERENCES])) is not None:
            properties[name] = argument
        elif name in capability.required:
            return None
    required = [name for name in properties if name in capability.required]
    return bundle_definitions(
        {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    )


def _argument(kind: Schema, references: Sequence[str]) -> Schema | None:
    """Returns the type of an argument: a constant, or the name of one of these values; None if it has neither."""
    literal_types = statable_types(kind)
    reference_schema: dict[str, Any] = {"type": "string", "enum": list(references)}
    about = {"description": kind["description"]} if isinstance(kind.get("description"), str) else {}
    if not literal_types:
        return {**reference_schema, **about} if references else None
    constant: Schema = strip_unknown_formats(union(literal_types))
    if not references:
        return {**constant, **about}
    if is_free_text(constant):  # an enum would forbid every other text
        text = f"{about.get('description', '')} A text, or the name of a value: {', '.join(references)}".strip()
        return {**constant, "description": text}
    return {**about, **bundle_definitions({"anyOf": [constant, reference_schema]})}
