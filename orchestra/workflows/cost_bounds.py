"""Upper bounds of the cost of a run before it starts: calls, and tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestra.agents.contract import Contract
from orchestra.core.errors import OrchestraError
from orchestra.workflows.analysis import MIN_ATTEMPTS, max_attempts
from orchestra.workflows.program import CompiledNode, PlanSettings, Program


@dataclass(frozen=True, slots=True)
class CostBound:
    """The maximum calls of one node. `output_tokens` and `tokens` are totals; `tokens` is None for a model of unknown
    context length.
    """

    node: str
    kind: str
    callee: str
    elements: int
    attempts: int
    output_tokens: int
    tokens: int | None
    choice: str = ""
    """For a choice of agents: the node that chooses. One of its agents is called."""

    @property
    def calls(self) -> int:
        """The maximum number of calls."""
        return self.elements * self.attempts


def compute_bounds(
    program: Program, given: Mapping[str, Any], contexts: Mapping[str, int], tiers: int = 1
) -> list[CostBound]:
    """Computes the bounds of the calls of a program node by node, bodies included.

    Args:
        contexts: By agent, the tokens that prompt and output of one call share.
        tiers: The number of larger models of the fleet.

    A list that depends only on the inputs is counted; any other list counts as its `limit`.
    """
    return list(_node_bounds(program, given, _ModelLimits(contexts, tiers), "", 1))


@dataclass(frozen=True, slots=True)
class _ModelLimits:
    """The limits of the models of a fleet."""

    contexts: Mapping[str, int]
    tiers: int


def _node_bounds(
    program: Program, inputs: Mapping[str, Any], models: _ModelLimits, above: str, times: int
) -> Iterator[CostBound]:
    for node in program.nodes:
        count = times * _element_count(node, inputs)
        path = f"{above}{node.name}"
        if node.body is not None:
            turns = node.at_most if node.kind == "loop" else 1
            inner = _node_bounds(
                node.body, inputs if node.body.sees_outer_scope else {}, models, f"{path}/", count * turns
            )
            yield from (replace(row, choice=path) for row in inner) if node.body.runs_one_node else inner
        elif node.plan_settings is not None:
            yield _planner_bound(path, node.plan_settings, count)
        elif node.tool_use is not None and node.contract is not None:
            tool_use = node.tool_use.settings
            yield _call_bound(path, node, node.contract, count * (tool_use.steps + tool_use.repairs + 2), models)
            for capability in node.tool_use.capabilities:
                yield _call_bound(
                    f"{path}/{capability.name}", node, capability, count * tool_use.steps * tool_use.width, models
                )
        elif node.contract is not None:
            yield _call_bound(path, node, node.contract, count, models)


def _planner_bound(path: str, plan_settings: PlanSettings, count: int) -> CostBound:
    """Bounds the requests to the planners of a plan node: one per step, plus the answer and the repairs, for each
    version and vote.

    If the router's last line is refused, the requests of the larger planner are added. The calls of the plan itself are
    unknown.
    """
    router, larger = plan_settings.router, plan_settings.larger
    max_steps = plan_settings.limits.steps + 1 + plan_settings.repairs  # of each planner
    rest = 0 if larger is None else plan_settings.repairs + 1  # of the larger planner
    plans = (1 + plan_settings.replans) * plan_settings.votes * MIN_ATTEMPTS
    longest = sorted((contract.max_output for contract in (router, larger) if contract is not None), reverse=True)
    output_tokens = max_steps * longest[0] + rest * longest[-1] if longest else 0
    return CostBound(
        path,
        "plan",
        router.name if router is not None else "",
        count,
        plans * (max_steps + rest),
        count * plans * output_tokens,
        None,
    )


def _call_bound(path: str, node: CompiledNode, contract: Contract, count: int, models: _ModelLimits) -> CostBound:
    attempts = max_attempts(node, models.tiers)
    calls = count * attempts
    context = models.contexts.get(contract.name) if contract.kind == "agent" else 0
    tokens = calls * context if context is not None else None
    if not contract.max_output:
        tokens = 0
    return CostBound(path, contract.kind, contract.name, count, attempts, calls * contract.max_output, tokens)


def _element_count(node: CompiledNode, inputs: Mapping[str, Any]) -> int:
    if node.each is None:
        return 1
    if node.each.references <= {"input"}:
        try:
            return min(len(node.each.evaluate({"input": inputs})), node.limit)
        except (OrchestraError, KeyError, TypeError):
            return node.limit
    return node.limit


def total(rows: list[CostBound], budget: int | None) -> tuple[int, int, int | None]:
    """Returns the maximum calls, output tokens, and total tokens. A token budget bounds the last. A choice counts its
    most expensive agent.
    """
    tokens = _sum_worst_case(rows, lambda row: math.inf if row.tokens is None else row.tokens)
    token_bound = min(tokens, budget if budget is not None else math.inf)
    calls, output_tokens = (
        _sum_worst_case(rows, lambda row: row.calls),
        _sum_worst_case(rows, lambda row: row.output_tokens),
    )
    return int(calls), int(output_tokens), None if token_bound == math.inf else int(token_bound)


def _sum_worst_case(rows: list[CostBound], of: Callable[[CostBound], float]) -> float:
    """Adds up the rows. The agents of one choice count as the most expensive one."""
    rows_by_choice: dict[str, dict[str, float]] = {}
    for row in rows:
        name = row.node.removeprefix(f"{row.choice}/").partition("/")[0] if row.choice else row.node
        agents = rows_by_choice.setdefault(row.choice or row.node, {})
        agents[name] = agents.get(name, 0) + of(row)
    return sum(max(agents.values()) for agents in rows_by_choice.values())
