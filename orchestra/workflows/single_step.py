"""Workflows of one node, which run a single agent or tool, and acceptance of an output as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestra.agents.card_types import project_models
from orchestra.core.errors import InputError
from orchestra.schema.fields import schema_has_format
from orchestra.schema.types import Schema, subschema
from orchestra.workflows.expressions.parser import escape_references
from orchestra.workflows.model import CONFIDENCE, AgentNode, Graph, Input
from orchestra.workflows.python.signatures import declare_type, models_in
from orchestra.workflows.python.steps import Agent, Step, Tool, Workflow

if TYPE_CHECKING:
    from orchestra.workflows.python.checks import AcceptThreshold


def with_acceptance(step: Step[..., Any], graph: Graph, accept: AcceptThreshold) -> Graph:
    """Returns the graph with an acceptance of its output: of a workflow as a whole, or of an agent by its certificate
    or from a score on.

    Raises `InputError` V029 for a tool, whose output has no confidence.
    """
    if isinstance(step, Workflow):
        return graph.model_copy(update={"accept": accept})
    name, node = next(iter(graph.nodes.items()))
    if not isinstance(step, Agent) or not isinstance(node, AgentNode):
        raise InputError(
            "V029", f"{step.name} is a tool, and its output has no confidence", hint="leave out the acceptance"
        )
    checks = step.contract.checks or (CONFIDENCE,)
    agent_node = node.model_copy(update={"accept": accept, "checks": checks, "otherwise": ("abstain",)})
    return graph.model_copy(update={"nodes": {name: agent_node}})


def single_step_graph(step: Step[..., Any]) -> Graph:
    """Returns the graph that runs one agent or tool."""
    contract = step.contract if isinstance(step, Agent | Tool) else None
    if contract is None:
        raise InputError("E012", f"{step!r} cannot be run", hint="pass a workflow, an agent or a tool")
    if schema_has_format(contract.input, "password"):
        message = f"{step.name} takes a secret, and what a run is given is written down"
        raise InputError("W018", message, hint="let the tool that needs it read it from where it is kept")
    required = contract.input.get("required", ())
    inputs: dict[str, Input] = {}
    types: dict[str, Schema] = {}
    all_models = {**project_models(), **models_in(contract.input)}
    for name, part in contract.input.get("properties", {}).items():
        text, _ = declare_type(subschema(contract.input, part), name, all_models, types)
        optional = name not in required
        inputs[name] = Input(
            type=text, optional=optional, default=escape_references(part.get("default")) if optional else None
        )
    inputs_by_name = {name: f"${{input.{name}}}" for name in inputs}
    node = {contract.kind: step.name, "with": inputs_by_name}
    return Graph.model_validate(
        {
            "name": _graph_name(step.name),
            "description": contract.description,
            "input": inputs,
            "types": types,
            "output": "${result}",
            "nodes": {"result": node},
        }
    )


def _graph_name(name: str) -> str:
    """Returns a valid workflow name for a tool, whose name may have other characters, such as `files.read` of an MCP
    server.
    """
    plain = "".join(char if char.isascii() and (char.isalnum() or char == "_") else "_" for char in name.lower())[:64]
    return plain if plain[:1].isalpha() else f"tool_{plain}"[:64]
