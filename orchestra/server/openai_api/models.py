"""The models of the API: workflows, agents, and `orchestra/auto`, which plans a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import msgspec

from orchestra.app.planning import PlanOptions, request_workflow
from orchestra.core.errors import OrchestraError
from orchestra.schema.assignability import assignability_error
from orchestra.schema.builtin_models import Document
from orchestra.schema.json_schema import bundle_definitions, object_type
from orchestra.schema.types import Schema, schema_of
from orchestra.server.endpoints import Call, RouteTable
from orchestra.server.problems import RequestError
from orchestra.server.runs import find_step
from orchestra.workflows.model import REQUEST
from orchestra.workflows.python.steps import Agent, Step, Workflow

ROUTES = RouteTable()
AUTO: Final = "orchestra/auto"
"""The model that plans a request."""
CONVERSATION: Final = "conversation"
"""The value with the earlier turns of a request that is planned, and the input of a workflow that takes them."""
ANY_VALUE: Final[Schema] = {}
TEXT: Final[Schema] = {"type": "string"}
DOCUMENT: Final = schema_of(Document, "validation")
DOCUMENTS: Final = schema_of(list[Document], "validation")
TURNS: Final[Schema] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"role": TEXT, "content": TEXT},
        "required": ["role", "content"],
        "additionalProperties": False,
    },
}
"""Earlier messages, as an input takes them."""
ModelKind: TypeAlias = Literal["workflow", "agent", "router"]


class ModelItem(msgspec.Struct, frozen=True, kw_only=True):
    """A model in the list. `description`, `kind` and the schemas are additions to OpenAI's type."""

    id: str
    created: int
    object: Literal["model"] = "model"
    owned_by: str = "orchestra"
    kind: ModelKind = "workflow"
    description: str = ""
    input_schema: dict[str, Any] = {}
    output_schema: dict[str, Any] = {}


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """The models."""

    data: tuple[ModelItem, ...]
    object: Literal["list"] = "list"


@dataclass(frozen=True, slots=True)
class Target:
    """The workflow or agent that a model name means. A planned request has no step before its values are known."""

    name: str
    kind: ModelKind
    step: Step[..., Any] | None
    inputs: Mapping[str, Schema]
    required: frozenset[str]
    output: Schema

    def names_taking(self, value: Schema) -> list[str]:
        """Returns the inputs that take every value of a type; required ones, if there are any."""
        names = [
            name
            for name, schema in self.inputs.items()
            if schema != ANY_VALUE and assignability_error(value, schema) is None
        ]
        return [name for name in names if name in self.required] or names

    def build(self, call: Call[Any, Any], inputs: Mapping[str, Any], returns: Schema | None) -> Step[..., Any]:
        """Returns the step that runs with these inputs. Raises `InputError` R022 if a request to plan is empty."""
        if self.step is not None:
            return self.step
        values = {name: value for name, value in inputs.items() if name != REQUEST}
        has_turns = CONVERSATION in values
        options = PlanOptions(
            returns=dict(returns or {}),
            # The earlier turns are for reference only, so that a plan need not begin with them.
            grounded=bool(values.keys() - {CONVERSATION}),
            hearsay=(CONVERSATION,) if has_turns else (),
        )
        return request_workflow(call.orchestra, str(inputs.get(REQUEST, "")), values, options)


def find_target(call: Call[Any, Any], name: str) -> Target:
    """Returns the target of a model name. Raises `RequestError` S009 for another name."""
    if name == AUTO:
        return Target(AUTO, "router", None, {REQUEST: TEXT}, frozenset({REQUEST}), ANY_VALUE)
    step = find_step(call, name, "/model")
    if not isinstance(step, Workflow | Agent):
        raise RequestError("S009", f"{name!r} is a tool, not a model", hint="GET /v1/models", pointer="/model")
    program = call.orchestra.program(step)
    return Target(
        name,
        "workflow" if isinstance(step, Workflow) else "agent",
        step,
        {key: field.schema for key, field in program.inputs.items()},
        frozenset(key for key, field in program.inputs.items() if field.required),
        program.output_schema,
    )


@ROUTES.route("GET", "/v1/models", "read", ModelList)
async def list_models(call: Call) -> ModelList:
    """List the models: the workflows, the agents, and `orchestra/auto`, which plans a request."""
    names = dict.fromkeys((*call.orchestra.workflows(), *sorted(call.orchestra.registry.agents)))
    items = [ModelItem(id=AUTO, created=0, kind="router", description="Plans a request, and runs the plan.")]
    for name in names:
        try:
            items.append(_model_item(call, find_target(call, name)))
        except OrchestraError:  # It does not compile; `GET /api/workflows` says why.
            continue
    return ModelList(data=tuple(items))


@ROUTES.route("GET", "/v1/models/{model:path}", "read", ModelItem)
async def get_model(call: Call) -> ModelItem:
    """Show a model with the types of its inputs and of its output."""
    return _model_item(call, find_target(call, call.path["model"]))


def _model_item(call: Call[Any, Any], target: Target) -> ModelItem:
    description = "Plans a request, and runs the plan."
    if target.step is not None:
        program = call.orchestra.program(target.step)
        contract = call.orchestra.registry.agents.get(target.name)
        described = program.graph.description if program.graph is not None else ""
        description = described or (contract.description if contract is not None else "")
    return ModelItem(
        id=target.name,
        created=0,
        kind=target.kind,
        description=description,
        input_schema=dict(input_schema(target)),
        output_schema=dict(target.output),
    )


def input_schema(target: Target) -> Schema:
    """Returns the inputs of a target as one JSON Schema."""
    return bundle_definitions(object_type(target.inputs, [name for name in target.inputs if name in target.required]))
