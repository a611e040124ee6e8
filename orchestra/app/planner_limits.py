"""What a fleet allows the plans of a run, determined before the run starts: which agents must not see its data, and how
much its planners can read.

Router and engine do not depend on the fleet. The limits are stored in the run's options, so that a resumed or replayed
run plans alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from orchestra.core.errors import InputError
from orchestra.core.labels import Label, is_allowed, join, meet
from orchestra.workflows.program import CompiledNode, NodeToolUse, PlanSettings, Program, reachable_programs

if TYPE_CHECKING:
    from orchestra.agents.card import Card
    from orchestra.agents.contract import Contract
    from orchestra.fleet.config import FleetConfig

PLANS = "plans"
"""The key in the run's options."""


class PlannerLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """The limits of a run's plans."""

    blocked_agents: dict[str, Label] = {}
    """Agents that must not see the run's data, with their clearance."""
    prompt_tokens: int = 0
    """Prompt tokens that fit every planner, without its own prompt; 0 if unknown."""
    enforce_calls: bool = False
    """Whether a plan that certainly needs more calls than the budget has is rejected. Not in older runs, nor if calls
    may be reused at no cost.
    """
    blocked_tools: dict[str, Label] = {}
    """Tools that must not see the run's data, likewise. Plans, and agents with tools, are not offered them."""


def planner_limits(
    fleet: FleetConfig | None, known: Mapping[str, Card], program: Program, label: Label, *, fresh: bool
) -> dict[str, Any]:
    """Returns what fleet and budget allow the plans of a program on data with this label, as the run's options store
    it; empty without limits. With `fresh`, no call is reused.
    """
    plans = [
        node.plan_settings
        for part in reachable_programs(program)
        for node in part.nodes
        if node.plan_settings is not None
    ]
    calls = fresh and any(
        part.budget is not None and part.budget.calls is not None for part in reachable_programs(program)
    )
    limits = (
        msgspec.structs.replace(_fleet_limits(fleet, known, program, plans, label), enforce_calls=calls)
        if plans
        else PlannerLimits()
    )
    limit_fields: dict[str, Any] = msgspec.to_builtins(
        msgspec.structs.replace(limits, blocked_tools=_blocked_tools(program, label))
    )
    return {PLANS: limit_fields} if limit_fields else {}


def _blocked_tools(program: Program, label: Label) -> dict[str, Label]:
    """Returns the tools that plans and agents with tools may call in a program, and that are not cleared for data with
    this label.
    """
    contracts = (
        contract
        for part in reachable_programs(program)
        for node in part.nodes
        for contract in _callable_contracts(node)
    )
    return {
        contract.name: contract.label
        for contract in contracts
        if contract.kind == "tool" and not is_allowed(label, contract.label)
    }


def _callable_contracts(node: CompiledNode) -> Iterator[Contract]:
    """Yields what a router or a model may choose to call at a node."""
    if node.tool_use is not None:
        yield from node.tool_use.capabilities
    if node.plan_settings is not None:
        yield from node.plan_settings.capabilities
        for workflow in node.plan_settings.workflows.values():
            yield from workflow.program.required_tools


def _fleet_limits(
    fleet: FleetConfig | None,
    cards_by_name: Mapping[str, Card],
    program: Program,
    plans: list[PlanSettings],
    label: Label,
) -> PlannerLimits:
    """Returns what the fleet allows; everything without a fleet."""
    if fleet is None:
        return PlannerLimits()
    cards = {name: card for name, _ in program.possible_agents if (card := cards_by_name.get(name)) is not None}
    clearances = {name: clearance(fleet, card) for name, card in cards.items()}
    planners = {contract.name for plan in plans for contract in (plan.router, plan.larger) if contract is not None}
    max_labels = {
        name: max_label
        for name, max_label in clearances.items()
        if not is_allowed(label, max_label) and name not in planners
    }
    return PlannerLimits(max_labels, prompt_room(fleet, [cards[name] for name in sorted(planners) if name in cards]))


def clearance(fleet: FleetConfig, card: Card) -> Label:
    """Returns the strictest label of data that an agent and one of its servers may see; for an ensemble, all members. A
    model that is not in the fleet restricts nothing.
    """
    parts = [card, *card.member_cards]
    return meet([label for part in parts for label in (part.label, *_server_labels(fleet, part))])


def _server_labels(fleet: FleetConfig, card: Card) -> Iterator[Label]:
    """Yields the strictest label for which one of an agent's servers is cleared."""
    names = fleet.servers_for(card.model) if card.kind == "model" and not card.member_cards else ()
    if names:
        yield join([fleet.servers[name].label for name in names])


def prompt_room(fleet: FleetConfig, planners: list[Card]) -> int:
    """Returns the prompt tokens that fit the smallest of these planners' servers; 0 if one is unknown."""
    contexts = [
        (card, fleet.servers[name].max_model_len or 0) for card in planners for name in fleet.servers_for(card.model)
    ]
    if not contexts or not all(context for _, context in contexts):
        return 0
    return max(
        1, min(context - card.max_output - (len(card.system) + len(card.template)) // 2 for card, context in contexts)
    )


def apply_limits(program: Program, told: Mapping[str, Any]) -> Program:
    """Applies the limits in a run's options to a program. Raises `InputError` E019 for invalid ones."""
    if PLANS not in told:
        return program
    try:
        return _limit_program(program, msgspec.convert(told[PLANS], PlannerLimits), None)
    except msgspec.ValidationError as error:
        raise InputError(
            "E019", f"the stored planner limits are not valid: {error}", hint="orchestra explain E019"
        ) from error


def _limit_program(program: Program, limits: PlannerLimits, calls: int | None) -> Program:
    call_limit = program.budget.calls if limits.enforce_calls and program.budget is not None else None
    least = min((limit for limit in (call_limit, calls) if limit is not None), default=None)
    return replace(program, nodes=tuple(_limit_node(node, limits, least) for node in program.nodes))


def _limit_node(node: CompiledNode, limits: PlannerLimits, calls: int | None) -> CompiledNode:
    body = node.body if node.body is None else _limit_program(node.body, limits, calls)
    planning = (
        node.plan_settings if node.plan_settings is None else _limit_plan_settings(node.plan_settings, limits, calls)
    )
    tool_use = node.tool_use if node.tool_use is None else _limit_tool_use(node.tool_use, limits)
    if body is node.body and planning is node.plan_settings and tool_use is node.tool_use:
        return node
    return msgspec.structs.replace(node, body=body, plan_settings=planning, tool_use=tool_use)


def _limit_tool_use(tool_use: NodeToolUse, limits: PlannerLimits) -> NodeToolUse:
    """Returns what an agent may use, without the tools that must not see the run's data."""
    skills = tuple(
        capability
        for capability in tool_use.capabilities
        if capability.kind != "tool" or capability.name not in limits.blocked_tools
    )
    return (
        tool_use
        if len(skills) == len(tool_use.capabilities)
        else msgspec.structs.replace(tool_use, capabilities=skills)
    )


def _limit_plan_settings(planning: PlanSettings, limits: PlannerLimits, calls: int | None) -> PlanSettings:
    workflows = {
        name: replace(workflow, program=_limit_program(workflow.program, limits, calls))
        for name, workflow in planning.workflows.items()
    }
    return msgspec.structs.replace(
        planning,
        workflows=workflows,
        blocked_agents=limits.blocked_agents,
        blocked_tools=limits.blocked_tools,
        prompt_tokens=limits.prompt_tokens,
        call_limit=calls,
    )


def needed_program(program: Program, inputs: Mapping[str, Any]) -> Program | None:
    """Returns what a run of one plan node needs servers for: the steps of a plan that a rule makes, else the program.
    None if it needs none, because a rule declines the request.
    """
    from orchestra.engine.kinds.plan import forecast_rule

    forecast = forecast_rule(program.nodes[0], inputs)
    return forecast.program if forecast.applies else program
