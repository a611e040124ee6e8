"""The routes of what there is: workflows, agents, tools, the fleet, costs; and the check of an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from orchestra.agents.card import Card
from orchestra.agents.contract import Contract
from orchestra.app.run_detail import UsageTotal
from orchestra.app.workflow_graph import WorkflowGraph, workflow_graph
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import Verdict
from orchestra.core.tags import parse_tags
from orchestra.engine.request import RunOptions
from orchestra.journal.costs import CostTotal
from orchestra.schema.json_schema import format_field, format_type, object_type
from orchestra.schema.strict_yaml import load_yaml
from orchestra.server.endpoints import Call, NoBody, Page, RouteTable
from orchestra.server.principals import require_public_tags
from orchestra.server.problems import RequestError
from orchestra.server.runs import find_step, parse_time
from orchestra.workflows.analysis import walk_programs
from orchestra.workflows.drawing import draw, mermaid
from orchestra.workflows.program import Program, node_contracts
from orchestra.workflows.python.steps import Workflow

ROUTES = RouteTable()
MAX_CARD_BYTES = 1 << 20


class WorkflowItem(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow in a list."""

    name: str
    description: str
    inputs: dict[str, str]
    output: str
    own: bool
    """Whether it belongs to the project, and not to the package."""
    error: str
    """Why it does not compile; empty if it does."""


class WorkflowDetail(WorkflowItem, frozen=True, kw_only=True):
    """A workflow."""

    label: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    graph: WorkflowGraph
    drawing: str
    mermaid: str
    agents: tuple[str, ...]
    tools: tuple[str, ...]
    asks: bool
    """Whether it may ask a person."""
    effects: bool
    """Whether it may have effects."""


class AgentItem(msgspec.Struct, frozen=True, kw_only=True):
    """An agent in a list."""

    name: str
    kind: str
    description: str
    label: str
    inputs: dict[str, str]
    output: str
    model: str | None
    adapter: str | None
    checks: tuple[str, ...]
    digest: str
    error: str
    """Why its card cannot be used; empty if it can."""


class AgentDetail(AgentItem, frozen=True, kw_only=True):
    """An agent with its card."""

    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    template: str
    """Its prompt."""
    card: str
    """The text of its card, as Markdown."""
    evaluation: Any
    """Its measured quality, as stored beside the card; null without one."""
    members: tuple[str, ...]
    tools: tuple[str, ...]


class ToolItem(msgspec.Struct, frozen=True, kw_only=True):
    """A tool in a list."""

    name: str
    effect: str
    label: str
    description: str
    version: str


class ToolDetail(ToolItem, frozen=True, kw_only=True):
    """A tool."""

    input_schema: dict[str, Any]
    output_schema: dict[str, Any]


class FleetQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whether endpoints are asked."""

    probe: bool = False


class CostsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which costs, and how they are grouped."""

    by: str = "workflow"
    since: str = ""
    until: str = ""
    workflow: str = ""
    tag: tuple[str, ...] = ()


class ServerItem(msgspec.Struct, frozen=True, kw_only=True):
    """A server of the fleet. `address` and `supervisor_report` are empty without the scope `admin`."""

    name: str
    kind: str
    model: str
    address: str
    state: str
    breaker: str
    in_flight: int
    waiting: int
    limit: int
    error: str
    reason: str
    hint: str
    last_answered: float | None
    last_failed: float | None
    supervisor_report: dict[str, Any]
    can_serve: bool


class FleetReport(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet."""

    fleet: str
    running: bool
    can_serve: bool
    missing: tuple[str, ...]
    servers: tuple[ServerItem, ...]
    models: dict[str, tuple[str, ...]]


class CostSum(msgspec.Struct, frozen=True, kw_only=True):
    """Costs of one group."""

    group: dict[str, str]
    runs: int
    usage: UsageTotal
    money: float | None
    """None if no price of a call that costs money is known."""
    reused: int
    open: int
    unpriced: dict[str, int]


class CostSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Costs of runs by group."""

    by: tuple[str, ...]
    rows: tuple[CostSum, ...]
    total: CostSum
    unfinished: int
    reused_plans: int
    saved: UsageTotal
    unread: tuple[str, ...]


class CheckBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An answer, and the evidence that it is held against."""

    answer: Any
    against: Any
    checks: tuple[str, ...] | None = None
    accept: Annotated[float, Meta(ge=0, le=1)] | None = None
    inputs: dict[str, Any] = {}
    confidence: Annotated[float, Meta(ge=0, le=1)] | None = None
    back_off: bool = False


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """The decision about an answer, and the verdicts from which it follows."""

    accepted: bool
    score: float | None
    reason: str
    verdicts: tuple[Verdict, ...]
    guarantee: str
    remaining: Any
    """The answer without the parts that `back_off` removed."""


# Workflows


@ROUTES.route("GET", "/api/workflows", "read", Page[WorkflowItem])
async def list_workflows(call: Call) -> Page[WorkflowItem]:
    """List the workflows of the project and of the package."""
    return Page(items=tuple(_workflow_item(call, name) for name in call.orchestra.workflows()))


def _workflow_item(call: Call[Any, Any], name: str) -> WorkflowItem:
    try:
        return WorkflowItem(**_workflow_fields(call, name, call.orchestra.program(call.orchestra.find(name))))
    except InputError as error:
        fault = f"{error.code}: {error.message}"
        return WorkflowItem(name=name, description="", inputs={}, output="", own=_is_own(call, name), error=fault)


def _is_own(call: Call[Any, Any], name: str) -> bool:
    return name not in call.orchestra.settings.resources("workflows") or name in {
        path.stem for path in call.orchestra.settings.own_resources("workflows")
    }


def _workflow_fields(call: Call[Any, Any], name: str, program: Program) -> dict[str, Any]:
    return {
        "name": name,
        "description": program.graph.description if program.graph is not None else "",
        "inputs": {key: format_type(field.schema) for key, field in program.inputs.items()},
        "output": format_type(program.output_schema),
        "own": _is_own(call, name),
        "error": "",
    }


@ROUTES.route("GET", "/api/workflows/{name}", "read", WorkflowDetail)
async def get_workflow(call: Call) -> WorkflowDetail:
    """Show a workflow: its types as JSON Schemas, its graph, and what it calls."""
    name = call.path["name"]
    step = find_step(call, name, "")
    if not isinstance(step, Workflow):
        raise RequestError("S009", f"{name!r} is not a workflow", hint="GET /api/workflows")
    program = call.orchestra.program(step)
    contracts = [
        contract for part in walk_programs(program) for node in part.nodes for contract in node_contracts(node)
    ]
    required = [key for key, field in program.inputs.items() if field.required]
    return WorkflowDetail(
        **_workflow_fields(call, name, program),
        label=program.label,
        input_schema=object_type({key: field.schema for key, field in program.inputs.items()}, required),
        output_schema=program.output_schema,
        graph=workflow_graph(program),
        drawing=draw(program),
        mermaid=mermaid(program),
        agents=tuple(dict.fromkeys(contract.name for contract in contracts if contract.kind == "agent")),
        tools=tuple(dict.fromkeys(contract.name for contract in contracts if contract.kind == "tool")),
        asks=any(node.kind == "ask" for part in walk_programs(program) for node in part.nodes),
        effects=any(node.has_effects for node in program.nodes),
    )


# Agents and tools


def _agent_fields(name: str, contract: Contract | None, card: Card | None, error: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": card.kind if card is not None else "python" if contract is not None else "",
        "description": contract.description if contract is not None else "",
        "label": contract.label if contract is not None else "",
        "inputs": _fields(contract.input) if contract is not None else {},
        "output": format_type(contract.output) if contract is not None else "",
        "model": card.model if card is not None and card.kind in ("model", "encoder") else None,
        "adapter": str(card.adapter) if card is not None and card.adapter else None,
        "checks": contract.checks if contract is not None else (),
        "digest": contract.digest if contract is not None else "",
        "error": error,
    }


def _fields(schema: Mapping[str, Any]) -> dict[str, str]:
    return {name: format_field(dict(schema), name) for name in schema.get("properties", {})}


@ROUTES.route("GET", "/api/agents", "read", Page[AgentItem])
async def list_agents(call: Call) -> Page[AgentItem]:
    """List the agents of the project and of the package."""
    registry = call.orchestra.registry
    items = [
        AgentItem(**_agent_fields(name, registry.agents[name], registry.cards.get(name), ""))
        for name in sorted(registry.agents)
    ]
    items += [
        AgentItem(**_agent_fields(name, None, None, f"{error.code}: {error.message}"))
        for name, error in sorted(registry.broken.items())
    ]
    return Page(items=tuple(items))


@ROUTES.route("GET", "/api/agents/{name}", "read", AgentDetail)
async def get_agent(call: Call) -> AgentDetail:
    """Show an agent: its types, its prompt, its card and its evaluation."""
    registry, name = call.orchestra.registry, call.path["name"]
    if (contract := registry.agents.get(name)) is None:
        raise RequestError("S009", f"there is no agent {name[:100]!r}", hint="GET /api/agents")
    card = registry.cards.get(name)
    return AgentDetail(
        **_agent_fields(name, contract, card, ""),
        input_schema=contract.input,
        output_schema=contract.output,
        template=card.template if card is not None else "",
        card=_read_beside(card, "card.md"),
        evaluation=_evaluation(card),
        members=tuple(card.members) if card is not None else (),
        tools=tuple(card.tools) if card is not None else (),
    )


def _read_beside(card: Card | None, name: str) -> str:
    """Returns a text beside a card; empty if there is none."""
    path = card.folder / name if card is not None and card.folder is not None else None
    if path is None or not path.is_file() or path.stat().st_size > MAX_CARD_BYTES:
        return ""
    return path.read_text("utf-8", "replace")


def _evaluation(card: Card | None) -> Any:
    text = _read_beside(card, "evaluation.yaml")
    try:
        return load_yaml(text, "evaluation.yaml").value if text else None
    except OrchestraError:
        return None


def _tool_fields(contract: Contract) -> dict[str, Any]:
    return {key: getattr(contract, key) for key in ToolItem.__struct_fields__}


@ROUTES.route("GET", "/api/tools", "read", Page[ToolItem])
async def list_tools(call: Call) -> Page[ToolItem]:
    """List the tools with their effects."""
    tools = sorted(call.orchestra.registry.tools.items())
    return Page(items=tuple(ToolItem(**_tool_fields(tool.contract)) for _, tool in tools))


@ROUTES.route("GET", "/api/tools/{name}", "read", ToolDetail)
async def get_tool(call: Call) -> ToolDetail:
    """Show a tool with its types."""
    if (tool := call.orchestra.registry.tools.get(call.path["name"])) is None:
        raise RequestError("S009", f"there is no tool {call.path['name'][:100]!r}", hint="GET /api/tools")
    contract = tool.contract
    return ToolDetail(**_tool_fields(contract), input_schema=contract.input, output_schema=contract.output)


# Fleet, costs, checks


@ROUTES.route("GET", "/api/fleet", "read", FleetReport, query=FleetQuery)
async def get_fleet(call: Call[NoBody, FleetQuery]) -> FleetReport:
    """Show the servers of the fleet: state, load, errors."""
    status = await call.orchestra.fleet_status(probe=call.query.probe)
    shows_all = call.principal.allows("admin")
    servers = []
    for server in status.servers:
        fields = {field.name: getattr(server, field.name) for field in dataclasses.fields(server)}
        if not shows_all:
            fields |= {"address": "", "supervisor_report": {}}
        fields["supervisor_report"] = dict(fields["supervisor_report"])
        servers.append(ServerItem(**fields, can_serve=server.can_serve))
    return FleetReport(
        fleet=status.fleet,
        running=status.running,
        can_serve=status.can_serve,
        missing=status.missing,
        servers=tuple(servers),
        models={model: tuple(names) for model, names in status.models.items()},
    )


@ROUTES.route("GET", "/api/costs", "read", CostSummary, query=CostsQuery)
async def get_costs(call: Call[NoBody, CostsQuery]) -> CostSummary:
    """Sum the costs of the tenant's runs, by workflow, agent, model, server, day, month, label, status or tag."""
    query, tags = call.query, parse_tags(call.query.tag)
    require_public_tags(tags, "tag")
    keys = [key.strip() for key in query.by.split(",")]
    for key in keys:
        require_public_tags({key.removeprefix("tag:"): ""}, "by")
    report = await call.orchestra.costs(
        keys,
        since=parse_time(query.since, "since"),
        until=parse_time(query.until, "until"),
        workflow=query.workflow,
        tags={**tags, **call.principal.filter},
    )
    return CostSummary(
        by=report.group_by,
        rows=tuple(_cost_sum(row.group, row.cost) for row in report.rows),
        total=_cost_sum({}, report.total),
        unfinished=report.unfinished,
        reused_plans=report.reused_plans,
        saved=UsageTotal.of(report.saved_usage),
        unread=tuple(unreadable_run.run for unreadable_run in report.unreadable) if call.principal.sees_all else (),
    )


def _cost_sum(group: dict[str, str], cost: CostTotal) -> CostSum:
    return CostSum(
        group=group,
        runs=cost.runs,
        usage=UsageTotal.of(cost.usage),
        money=cost.money,
        reused=cost.reused,
        open=cost.open,
        unpriced=cost.unpriced,
    )


@ROUTES.route("POST", "/api/check", "run", CheckReport, body=CheckBody, while_draining=False)
async def check(call: Call[CheckBody]) -> CheckReport:
    """Check any answer against evidence, also one of another framework.

    `quote`, `numbers`, `recompute` and `format` call no model; other checks ask agents, each question as a run.
    """
    body = call.body
    async with call.services.budgets.share(RunOptions(tags=call.principal.marks)) as options:
        ruling = await call.orchestra.options(tags=options.tags, budget=options.budget).check(
            body.answer,
            against=body.against,
            checks=body.checks,
            accept=body.accept,
            inputs=body.inputs,
            confidence=body.confidence,
            back_off=body.back_off,
        )
    return CheckReport(
        accepted=ruling.accepted,
        score=ruling.score,
        reason=ruling.reason,
        verdicts=ruling.verdicts,
        guarantee=ruling.guarantee,
        remaining=ruling.remaining(body.answer),
    )
