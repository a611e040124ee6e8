"""Built-in tools of the router, which the workflow `planner` calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestra.router import PlanStyle
from orchestra.workflows.python.steps import tool


class ToolPrompt(BaseModel):
    """The prompt of a planner: the formatted tools, and the grammar of its reply."""

    model_config = ConfigDict(frozen=True)

    tools: str
    grammar: str


class ToolPlan(BaseModel):
    """A plan over any tools: nodes `{tool, arguments}` or `{step}`, and edges as pairs of node numbers from 0, the
    producer first.
    """

    model_config = ConfigDict(frozen=True)

    nodes: list[dict[str, Any]]
    edges: list[list[int]]


@tool(effect="pure", label="restricted")
def offer_tools(
    task: str,
    tools: Sequence[str | dict[str, Any]],
    tables: Mapping[str, Any] | None = None,
    style: PlanStyle | None = None,
) -> ToolPrompt:
    """Returns the tools most relevant to a task, formatted for a planner, and the grammar of the plans over them.

    Raises `InputError` A016 for tools that cannot be distinguished.
    """
    from orchestra.router import tool_plans

    request_tools = tool_plans.shortlist(task, tool_plans.parse_tools(tools))
    return ToolPrompt(
        tools=tool_plans.describe_tools(task, request_tools, tables),
        grammar=tool_plans.build_grammar(request_tools, style),
    )


@tool(effect="pure", label="restricted")
def read_plan(lines: str, tools: Sequence[str | dict[str, Any]], style: PlanStyle | None = None) -> ToolPlan:
    """Returns the graph that a planner wrote. Raises `InputError` R001 or R002 for lines that are no plan over these
    tools.
    """
    from orchestra.router import tool_plans

    return ToolPlan.model_validate(tool_plans.parse_graph(lines, tool_plans.parse_tools(tools), style))


TOOLS = (offer_tools, read_plan)
"""All of them. They are available in every project."""
