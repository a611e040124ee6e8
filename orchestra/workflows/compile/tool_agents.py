"""Compiles agents with tools: resolves the tools and agents that they may call, and checks the calls with effects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

from orchestra.agents.contract import SAFE_EFFECTS, Contract, ToolUse
from orchestra.schema.json_schema import subschema
from orchestra.workflows.compile.context import CompileContext
from orchestra.workflows.compile.diagnostics import KeyPath, join_names, suggestion
from orchestra.workflows.compile.ordering import referenced_names
from orchestra.workflows.expressions.evaluation import ListExpression
from orchestra.workflows.expressions.parser import KEYWORDS
from orchestra.workflows.model import AgentNode, AnyNode, CallNode, PlanNode
from orchestra.workflows.program import CalledWorkflow, CompiledNode, NodeToolUse, Program


def compile_tool_use(context: CompileContext, node: AgentNode, contract: Contract, path: KeyPath) -> NodeToolUse | None:
    """Returns what an agent may use at a node; None if it has no tools or invalid ones. Reports errors (A019 to A021,
    L115).
    """
    tool_use, findings = contract.tool_use, context.findings
    if tool_use is None:
        hint = "leave `tools` out, or list them on the card"
        findings.error(
            "A021",
            f"the card of {contract.name} has no tools",
            findings.location_of(*path, "tools", key=True),
            hint=hint,
        )
        return None
    before = len(findings.errors)
    _check_input_names(context, contract, path)
    contracts: dict[str, Contract] = {}
    capabilities = _collect_capabilities(context, contract, contracts, (contract.name,), (*path, "agent"))
    plain = _reads_only_inputs(node, node.with_)
    _check_permitted_tools(context, node, tool_use, plain, path)
    if len(findings.errors) > before:
        return None
    offered_capabilities = tuple(
        capability for capability in capabilities if not needs_permission(capability) or capability.name in node.tools
    )
    callees = tuple(contracts.values())
    return NodeToolUse(
        tool_use,
        offered_capabilities,
        (*callees, *card_judges(context, callees, (*path, "agent"))),
        plain,
        context.models,
    )


def reachable_contracts(
    context: CompileContext, capabilities: Iterable[Contract], path: KeyPath
) -> tuple[Contract, ...]:
    """Returns what the agents among some capabilities may call, transitively. Reports unknown names (A019, A020)."""
    contracts: dict[str, Contract] = {}
    for capability in capabilities:
        if capability.tool_use is not None:
            _collect_capabilities(context, capability, contracts, (capability.name,), path)
    return tuple(contracts.values())


def card_judges(context: CompileContext, capabilities: Iterable[Contract], path: KeyPath) -> tuple[Contract, ...]:
    """Returns the agents and tools that the checks on the capabilities' cards call.

    A missing or unsuitable judge is only a warning, since the capability may never be called.
    """
    contracts: dict[str, Contract] = {}
    for capability in capabilities:
        if capability.checks:
            from orchestra.verification.session import find_judge, judge_names

            for name in judge_names(capability.checks):
                judge = find_judge(name, context.catalog.agents, context.catalog.tools)
                if reason := _judge_mismatch(capability, judge):
                    message = f"a call of {capability.name} would fail: the check {name} of its card {reason}"
                    context.findings.warn(message, context.findings.location_of(*path))
                if judge is not None:
                    contracts[name] = judge
    return tuple(contracts.values())


def _judge_mismatch(capability: Contract, judge: Contract | None) -> str:
    """Returns why a check of a capability's card cannot judge its output; empty if it can as far as is known here."""
    from orchestra.verification import custom_checks

    if judge is None:
        return "refers to an unknown agent or tool"
    if judge.kind == "agent":
        return ""
    fields, required = capability.input.get("properties", {}), capability.input.get("required", ())
    producer_types = custom_checks.producer_types(
        capability, {name: subschema(capability.input, part) for name, part in fields.items() if name in required}
    )
    return (
        f"cannot judge it: {reason}"
        if (reason := custom_checks.signature_error(judge, capability.output, producer_types))
        else ""
    )


def needs_permission(contract: Contract) -> bool:
    """Whether a node must permit it explicitly, in addition to the card."""
    return contract.kind == "tool" and contract.effect not in SAFE_EFFECTS


def acts_before_approval(program: Program) -> bool:
    """Whether a workflow may have an effect before a person approved it."""
    return any(
        (node.contract is not None and needs_permission(node.contract)) or _is_model_driven(node)
        for node in _nodes_before_approval(program)
    )


def _nodes_before_approval(program: Program) -> Iterator[CompiledNode]:
    """Yields the nodes of a workflow, bodies included, that may run before a person has answered."""
    approved_nodes = _nodes_after_approval(program)
    for node in program.nodes:
        if _waits_for(node, approved_nodes):
            continue
        yield node
        if node.body is not None:
            yield from _nodes_before_approval(node.body)


def _nodes_after_approval(program: Program) -> set[int]:
    """Returns the nodes that have a value only after a person answered. A node with a `fallback` always has one."""
    approved_nodes: set[int] = set()
    for node in program.nodes:
        if node.fallback is None and (_waits_for(node, approved_nodes) or _asks_person(node)):
            approved_nodes.add(node.index)
    return approved_nodes


def _waits_for(node: CompiledNode, approved_nodes: Set[int]) -> bool:
    return any(need in approved_nodes and need not in node.soft_needs for need in node.needs)


def _asks_person(node: CompiledNode) -> bool:
    """Whether it asks a person, directly or in a called workflow whose whole output depends on the answer.

    A question under `each` does not count: the list may be empty, or its elements skipped.
    """
    if node.each is not None or node.kind == "ask":
        return node.each is None
    if node.kind != "call" or node.body is None or node.body.runs_one_node:
        return False
    output, names = node.body.output, {node.body.nodes[index].name for index in _nodes_after_approval(node.body)}
    parts = output.items if isinstance(output, ListExpression) else tuple((output.parts or {}).values())
    return all(part.references & names for part in parts or (output,))


def _is_model_driven(node: CompiledNode) -> bool:
    """Whether a model, of an agent with tools or of a router, chooses effects."""
    if node.plan_settings is not None and any(
        acts_before_approval(workflow.program) for workflow in node.plan_settings.workflows.values()
    ):
        return True
    contracts = (
        node.tool_use.capabilities
        if node.tool_use is not None
        else node.plan_settings.capabilities
        if node.plan_settings is not None
        else ()
    )
    return any(map(needs_permission, contracts))


def check_called_workflow(context: CompileContext, node: CallNode, program: Program, path: KeyPath) -> None:
    """Reports a call of a workflow in which a model chooses effects based on outputs of other nodes (L123)."""
    if (
        context.catalog.stored
        or _reads_only_inputs(node, node.with_)
        or not any(map(_is_model_driven, _nodes_before_approval(program)))
    ):
        return
    message = f"a model chooses effects in {program.name} from its inputs, which are here outputs of other nodes"
    hint = "give it the workflow's inputs alone, or ask a person in it first"
    context.findings.error("L123", message, context.findings.location_of(*path, "call"), hint=hint)


def _reads_only_inputs(node: AnyNode, *input_templates: Any) -> bool:
    """Whether a node reads only inputs of the workflow, and no output of another node."""
    return node.each is None and referenced_names(list(input_templates)) <= {"input"}


def check_plan_effects(
    context: CompileContext,
    node: PlanNode,
    capabilities: Iterable[Contract],
    workflows: Mapping[str, CalledWorkflow],
    path: KeyPath,
) -> None:
    """Reports capabilities with effects of a plan whose router reads outputs of other nodes (L123; DESIGN §11)."""
    if context.catalog.stored or _reads_only_inputs(node, node.plan, node.with_):
        return
    findings = context.findings
    effect_names = {capability.name for capability in capabilities if needs_permission(capability)} | {
        name for name, workflow in workflows.items() if acts_before_approval(workflow.program)
    }
    for key, names in (("tools", node.tools), ("workflows", node.workflows)):
        for number, name in enumerate(names):
            if name in effect_names:
                message = f"{name} has effects, and the plan is made here of what other nodes have made"
                hint = (
                    "pass only the workflow's inputs, list a workflow that asks a person first, or use a separate node"
                )
                findings.error("L123", message, findings.location_of(*path, key, number), hint=hint)


def _check_input_names(context: CompileContext, contract: Contract, path: KeyPath) -> None:
    for name in contract.input.get("properties", {}):
        if name in KEYWORDS:
            message = f"{contract.name}: an agent with tools cannot have an input that is called {name!r}"
            context.findings.error(
                "L115", message, context.findings.location_of(*path, "agent"), hint=f"call it {name}_"
            )


def _check_permitted_tools(
    context: CompileContext, node: AgentNode, tool_use: ToolUse, plain: bool, path: KeyPath
) -> None:
    """Checks the tools with effects of a node: they are on the card, and the agent reads only workflow inputs (DESIGN
    §11).
    """
    findings = context.findings
    for number, name in enumerate(node.tools):
        location = findings.location_of(*path, "tools", number)
        contract = context.catalog.tools.get(name)
        if name not in tool_use.tools:
            hint = suggestion(name, tool_use.tools, f"it has: {join_names(tool_use.tools)}")
            findings.error("A021", f"the card of {node.agent} has no tool {name!r}", location, hint=hint)
        elif contract is not None and needs_permission(contract) and not plain:
            message = f"{name} has effects, and {node.agent} reads here what other nodes have made"
            hint = "give the agent the workflow's inputs alone, or let a node of its own call the tool"
            findings.error("A021", message, location, hint=hint)


def _collect_capabilities(
    context: CompileContext, contract: Contract, contracts: dict[str, Contract], above: tuple[str, ...], path: KeyPath
) -> list[Contract]:
    """Returns the tools and agents that a card may call. Adds them and their own callees to `contracts`."""
    catalog, findings, tool_use = context.catalog, context.findings, contract.tool_use
    capabilities: list[Contract] = []
    for kind, names, contracts_by_name in (
        ("tool", tool_use.tools if tool_use else (), catalog.tools),
        ("agent", tool_use.agents if tool_use else (), catalog.agents),
    ):
        for name in names:
            location = findings.location_of(*path)
            if name in above:
                way = " -> ".join((*above[above.index(name) :], name))
                hint = f"take {name!r} out of `agents:` of {above[-1]}"
                findings.error("A020", f"the agent {name!r} would ask itself: {way}", location, hint=hint)
            elif kind == "agent" and name in catalog.broken:
                findings.add_error(catalog.broken[name])
            elif (candidate := contracts_by_name.get(name)) is None:
                other_kind = "an agent" if name in catalog.agents else "a tool" if name in catalog.tools else ""
                hint = f"list it under `{'agents' if kind == 'tool' else 'tools'}:`" if other_kind else ""
                message = f"{name!r} is {other_kind}" if other_kind else f"there is no {kind} {name!r}"
                near = suggestion(name, contracts_by_name, f"there are: {join_names(sorted(contracts_by_name))}")
                findings.error("A019", f"{above[-1]}: {message}", location, hint=hint or near)
            else:
                capabilities.append(candidate)
                if f"{kind}/{name}" not in contracts:
                    contracts[f"{kind}/{name}"] = candidate
                    if candidate.tool_use is not None:
                        _collect_capabilities(context, candidate, contracts, (*above, name), path)
    return capabilities
