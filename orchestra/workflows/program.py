"""Programs: compiled workflows, as the engine runs them. Nodes refer to each other by index, so that the engine looks
up no names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from orchestra.agents.contract import Contract, Schema, ToolUse
from orchestra.core.errors import InputError
from orchestra.core.labels import Label
from orchestra.schema.json_schema import bundle_definitions, object_type, subschema
from orchestra.workflows.model import DEFAULT_RETRY, Action, AnyNode, AtLeast, Budget, Graph, PlanLimits, Retry

if TYPE_CHECKING:
    from orchestra.verification.certificates.claims_file import ClaimsCertificate
    from orchestra.verification.certificates.combination import Combination
    from orchestra.verification.certificates.file import Certificate

AgentIdentity: TypeAlias = tuple[str, str]
"""The name of an agent and the digest of its card."""


class Expression(Protocol):
    """A compiled template: JSON with CEL in its strings."""

    @property
    def references(self) -> frozenset[str]:
        """The names that it reads: `input`, node names, `as` variables, `turn`, `previous`."""

    @property
    def schema(self) -> Schema:
        """The type of its value."""

    @property
    def parts(self) -> Mapping[str, Expression] | None:
        """The entries of a mapping template, each as an expression; None for other templates."""

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """Returns the value. `bindings` contain at least the references. Raises `OrchestraError` (L-codes) if CEL fails
        at run time.
        """


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The conditions under which an attempt's value is accepted. `accept` is a score in [0, 1]; `certified` is resolved
    already.
    """

    checks: tuple[str, ...] = ()
    against: Expression | None = None
    accept: float = 0.5
    otherwise: tuple[Action, ...] = ("abstain",)
    certificate: Certificate | ClaimsCertificate | None = None
    """The certificate of `accept: certified`; `accept` is its threshold."""
    combination: Combination | None = None
    """The fitted combination of `score: combined`."""
    uses_model_checks: bool = False
    """Whether one of the checks calls an agent."""
    judges: Mapping[str, Contract] = field(default_factory=dict)
    """The agents, by name, that the checks may call besides the producer."""
    whole_workflow: bool = False
    """Whether the output of a workflow is judged as a whole: its confidence is the lowest of the values that it follows
    from.
    """


class PlanSettings(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The settings of a `plan` node: its router, and the capabilities that its plans may use."""

    goal: Expression
    values: Mapping[str, Expression]
    """The values that the plan may read besides its goal."""
    router: Contract | None
    """The planning agent; None if there is no agent of that name."""
    capabilities: tuple[Contract, ...]
    """The agents and tools that the plan may use."""
    workflows: Mapping[str, CalledWorkflow]
    """The workflows that the plan may use, by name."""
    models: Mapping[str, Schema]
    """The named types."""
    limits: PlanLimits
    repairs: int
    replans: int = 1
    """How many further plans may follow a failed one."""
    streaming: bool = True
    """Whether steps start before the plan is complete."""
    reachable: tuple[Contract, ...] = ()
    """The agents and tools that its capabilities may call in turn."""
    larger: Contract | None = None
    """The agent that continues after the router has used up its repairs."""
    votes: int = 1
    """The number of sampled plans among which a vote is taken."""
    cache: bool = True
    """Whether a plan of an earlier run may be reused."""
    stepwise: bool = True
    """Whether the router writes one line per request instead of the whole plan."""
    copied: bool = False
    """Whether the literal texts of a plan must be parts of its goal."""
    literals: bool = False
    """Whether calls with effects may be given constants that are not in the goal."""
    confirm: bool = True
    """Whether a person is asked before a plan makes calls with effects."""
    grounding_values: tuple[str, ...] = ()
    """The values of which the first step of the first plan must read one, if a capability can."""
    each_part: bool = False
    """Whether each part of a goal with several parts gets a step in the first plan."""
    rules: bool = False
    """Whether a goal of a known kind is planned by rule, without the planning agent."""
    hearsay: tuple[str, ...] = ()
    """The values that may contain untrusted text of third parties."""
    anyway: bool = False
    """Whether a plan is written for the feasible part of a goal even if the router finds that no capability serves
    it.
    """
    shortlist: int | None = None
    """The maximum number of capabilities that the router sees; None for all."""
    judges: tuple[Contract, ...] = ()
    """The agents that the checks on the capabilities' cards call."""
    blocked_agents: Mapping[str, Label] = {}
    """Set for a run: the agents that must not see its data, with their clearance."""
    blocked_tools: Mapping[str, Label] = {}
    """Set for a run: the tools that must not see its data, with their clearance."""
    call_limit: int | None = None
    """Set for a run: the calls of its budget; None without a limit."""
    prompt_tokens: int = 0
    """Set for a run: the prompt tokens that its planners have; 0 if unknown."""
    plan_only: bool = False
    """Set for a run: whether the node ends when its plan is accepted, with the text of the plan as its value."""

    @property
    def callable_workflows(self) -> Mapping[str, CalledWorkflow]:
        """The workflows that a run may call by its plans."""
        return {} if self.plan_only else self.workflows

    @property
    def callable_contracts(self) -> tuple[Contract, ...]:
        """The agents and tools that a run may call by its plans, without those of its planners."""
        return () if self.plan_only else (*self.capabilities, *self.reachable, *self.judges)

    def blocked_clearance(self, kind: str, name: str) -> Label | None:
        """Returns the clearance of an agent or tool that must not see the run's data; None for one that may."""
        return (self.blocked_tools if kind == "tool" else self.blocked_agents).get(name)


class NodeToolUse(msgspec.Struct, frozen=True, gc=False):
    """What an agent with tools may use at a node."""

    settings: ToolUse
    capabilities: tuple[Contract, ...]
    """The agents and tools that it may call itself, tools first."""
    reachable: tuple[Contract, ...]
    """All agents and tools that may be called during the node: its capabilities, their own callees, and the judges of
    their checks.
    """
    reads_only_inputs: bool
    """Whether it reads only inputs of the workflow, and no output of another node."""
    models: Mapping[str, Schema]
    """The named types."""


class CompiledNode(msgspec.Struct, frozen=True, gc=False):
    """One node, with everything resolved that can be resolved before a run.

    A program is a tree without cycles, so its structs are excluded from garbage collection (`gc=False`). The collector
    took a seventh of the compile time.
    """

    index: int
    name: str
    kind: str
    source: AnyNode
    output: Schema
    """The type of the node's value; under `each` the type of one element."""
    needs: tuple[int, ...]
    """The indices of the nodes that must finish first, because of references or `after`."""
    children: tuple[int, ...]
    has_soft_needs: bool
    """Whether it runs although one of its needs has no value: true for `first_of`, readers of `.values`, and bare
    `after`.
    """
    soft_needs: frozenset[int]
    """The needs that may end without a value."""
    height: int
    """The number of nodes on the longest path from here to a sink, this node included. The scheduler uses it as
    priority.
    """
    contract: Contract | None = None
    """The contract of the called agent or tool."""
    inputs: Expression | None = None
    when: Expression | None = None
    each: Expression | None = None
    variable: str = ""
    limit: int = 10_000
    concurrency: int | None = None
    at_least: AtLeast | None = None
    arms: tuple[Expression, ...] = ()
    """The arms of `first_of`, in written order."""
    body: Program | None = None
    """The body of `call` and `loop`."""
    until: Expression | None = None
    at_most: int = 1
    value: Expression | None = None
    """The value that a `verify` node checks, the question of an `ask` node, or the label of a choice of agents."""
    fallback: Expression | None = None
    retry: Retry = DEFAULT_RETRY
    timeout: float | None = None
    acceptance: Acceptance | None = None
    plan_settings: PlanSettings | None = None
    tool_use: NodeToolUse | None = None
    escalate: Expression | None = None
    """The condition under which the larger model is called at once."""
    sample: int = 0
    """The index of the sample that an agent is called for (`Call.sample`)."""

    @property
    def has_effects(self) -> bool:
        """Whether it may have an effect: it calls a tool with effects, asks a person, plans, or contains such a
        node.
        """
        if self.kind in ("ask", "plan") or (self.acceptance is not None and "ask" in self.acceptance.otherwise):
            return True
        if self.contract is not None and self.contract.effect != "pure":
            return True
        if self.tool_use is not None and any(contract.effect != "pure" for contract in self.tool_use.reachable):
            return True
        return self.body is not None and any(inner.has_effects for inner in self.body.nodes)


@dataclass(frozen=True, slots=True)
class InputField:
    """One input of a program: its type, and its default if `required` is false."""

    schema: Schema
    required: bool = True
    default: Any = None
    description: str = ""


@dataclass(frozen=True)
class Program:
    """A compiled workflow, or the body of a loop or block. Bodies see the bindings of the enclosing scope."""

    name: str
    nodes: tuple[CompiledNode, ...]
    """In topological order."""
    output: Expression
    output_schema: Schema
    inputs: Mapping[str, InputField]
    graph: Graph | None = None
    """The frozen source; None for bodies."""
    budget: Budget | None = None
    label: Label = "internal"
    warnings: tuple[str, ...] = ()
    sees_outer_scope: bool = False
    """Whether it sees the bindings of the enclosing scope (blocks and loops) or only its inputs (workflows)."""
    runs_one_node: bool = False
    """Whether exactly one node runs and the others are skipped, as in a choice of agents. The outcome of that node is
    the outcome.
    """

    @cached_property
    def influence(self) -> tuple[float, ...]:
        """For each node, the share of the relevant nodes that depend on it, itself included; 0 for an irrelevant node.

        A node is relevant if it leads to the output or to an effect.
        """
        rest = [0] * len(self.nodes)
        for node in reversed(self.nodes):
            below = 0
            for child in node.children:
                below |= rest[child]
            if below or node.has_effects or node.name in self.output.references:
                rest[node.index] = below | 1 << node.index
        leading = sum(map(bool, rest))
        return tuple(index.bit_count() / leading if index else 0.0 for index in rest)

    @cached_property
    def check_weights(self) -> tuple[tuple[float, float], ...]:
        """For each node with model checks, bodies included, the influence of one value and the number of values.

        A list counts as one value, since its length is unknown before the run.
        """
        weights: list[tuple[float, float]] = []
        for node, share in zip(self.nodes, self.influence, strict=True):
            if node.acceptance is not None and node.acceptance.uses_model_checks:
                weights.append((share, 1.0))
            if node.body is not None:
                weights += [(share * inner, count) for inner, count in node.body.check_weights]
        return tuple(weights)

    @property
    def time_limit(self) -> float | None:
        """The time limit of its budget in seconds."""
        return self.budget.seconds if self.budget is not None else None

    @cached_property
    def required_agents(self) -> tuple[AgentIdentity, ...]:
        """The agents that every run calls, with the digests of their cards. Nodes with a condition are left out."""
        return tuple(dict.fromkeys(_collect_agents(self, always=True)))

    @cached_property
    def possible_agents(self) -> tuple[AgentIdentity, ...]:
        """All agents that a run may call."""
        return tuple(dict.fromkeys(_collect_agents(self, always=False)))

    @cached_property
    def required_tools(self) -> tuple[Contract, ...]:
        """The tools that every run calls. Nodes with a condition are left out."""
        return tuple({required_tool.name: required_tool for required_tool in _required_tools(self)}.values())

    @cached_property
    def certified_acceptances(self) -> tuple[Acceptance, ...]:
        """The acceptances that use a certificate or a combination, in all programs that a run may enter."""
        accepting = [
            node.acceptance for part in reachable_programs(self) for node in part.nodes if node.acceptance is not None
        ]
        return tuple(acceptance for acceptance in accepting if acceptance.certificate or acceptance.combination)

    @cached_property
    def has_dynamic_calls(self) -> bool:
        """Whether a router or an agent with tools chooses calls at run time."""
        return any(
            node.plan_settings is not None or node.tool_use is not None
            for part in reachable_programs(self)
            for node in part.nodes
        )

    @cached_property
    def may_escalate(self) -> bool:
        """Whether one of its nodes may call a larger model."""
        return any(map(_may_escalate, self.nodes))

    @cached_property
    def need_counts(self) -> list[int]:
        """The number of needs of each node."""
        return [len(node.needs) for node in self.nodes]

    @cached_property
    def critical_path_length(self) -> int:
        """The number of nodes on the critical path."""
        return max((node.height for node in self.nodes), default=0)

    @cached_property
    def entry_nodes(self) -> list[CompiledNode]:
        """The nodes without needs."""
        return [node for node in self.nodes if not node.needs]


class CalleeInputs:
    """The inputs of a callee: an object schema, with each field as a separate type."""

    __slots__ = ("fields", "required", "schema")

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.fields: Mapping[str, Schema] = {
            name: subschema(schema, part) for name, part in schema.get("properties", {}).items()
        }
        self.required: tuple[str, ...] = tuple(schema.get("required", ()))


@dataclass(frozen=True)
class CalledWorkflow:
    """A compiled workflow that other workflows call."""

    program: Program
    always_present: bool
    """Whether it always returns a value unless a node fails."""
    has_effects: bool
    """Whether it may have an effect."""
    label: Label | None = None
    """The strictest label that it or a workflow below it states; None if there is none."""

    @cached_property
    def inputs(self) -> CalleeInputs:
        """The inputs as a type."""
        inputs = self.program.inputs
        fields = {name: entry.schema for name, entry in inputs.items()}
        return CalleeInputs(
            bundle_definitions(object_type(fields, [name for name, entry in inputs.items() if entry.required]))
        )


def reachable_programs(program: Program) -> Iterator[Program]:
    """Yields a program, the bodies of its nodes, and the workflows that its plans may call: each once, callers
    first.
    """
    yield from _walk_programs(program, set())


def _walk_programs(program: Program, visited: set[int]) -> Iterator[Program]:
    if id(program) in visited:
        return
    visited.add(id(program))
    yield program
    for node in program.nodes:
        if node.body is not None:
            yield from _walk_programs(node.body, visited)
        for callable_workflow in (
            node.plan_settings.callable_workflows.values() if node.plan_settings is not None else ()
        ):
            yield from _walk_programs(callable_workflow.program, visited)


def _collect_agents(program: Program, *, always: bool) -> Iterator[AgentIdentity]:
    for node in program.nodes:
        if always and node.when is not None:
            continue
        yield from _required_agents(node) if always else _possible_agents(node)
        if node.body is not None:
            yield from node.body.required_agents if always else node.body.possible_agents
        if node.plan_settings is not None and not always:
            for callable_workflow in node.plan_settings.callable_workflows.values():
                yield from callable_workflow.program.possible_agents


def _required_tools(program: Program) -> Iterator[Contract]:
    for node in program.nodes:
        if node.when is None:
            if node.contract is not None and node.contract.kind == "tool":
                yield node.contract
            if node.body is not None:
                yield from node.body.required_tools


def _required_agents(node: CompiledNode) -> Iterator[AgentIdentity]:
    """Yields the agents that a node always calls: its own or the router of its plan, and the judges of its checks."""
    contract = node.contract if node.plan_settings is None else node.plan_settings.router
    judges = node.acceptance.judges.values() if node.acceptance is not None else ()
    yield from (
        (called_contract.name, called_contract.digest)
        for called_contract in (contract, *judges)
        if called_contract is not None and called_contract.kind == "agent"
    )


def _possible_agents(node: CompiledNode) -> Iterator[AgentIdentity]:
    """Yields the agents that a node may call, without the workflows of its plan."""
    yield from _required_agents(node)
    contracts: tuple[Contract, ...] = node.tool_use.reachable if node.tool_use is not None else ()
    if (plan_settings := node.plan_settings) is not None:
        contracts += (
            *plan_settings.callable_contracts,
            *((plan_settings.larger,) if plan_settings.larger is not None else ()),
        )
    yield from ((contract.name, contract.digest) for contract in contracts if contract.kind == "agent")


def _may_escalate(node: CompiledNode) -> bool:
    if node.escalate is not None or (node.acceptance is not None and "escalate" in node.acceptance.otherwise):
        return True
    if node.plan_settings is not None and node.plan_settings.callable_workflows:
        return True
    capabilities = (
        node.plan_settings.callable_contracts
        if node.plan_settings is not None
        else node.tool_use.reachable
        if node.tool_use is not None
        else ()
    )
    return any("escalate" in capability.otherwise for capability in capabilities) or (
        node.body is not None and node.body.may_escalate
    )


def node_contracts(node: CompiledNode) -> Iterator[Contract]:
    """Yields the contracts of everything that a node calls or may call."""
    if node.contract is not None:
        yield node.contract
    if node.acceptance is not None:
        yield from node.acceptance.judges.values()
    if (plan_settings := node.plan_settings) is not None:
        yield from plan_settings.callable_contracts
        if plan_settings.router is not None:
            yield plan_settings.router
        if plan_settings.larger is not None:
            yield plan_settings.larger
    if node.tool_use is not None:
        yield from node.tool_use.reachable


def with_sample(program: Program, sample: int) -> Program:
    """Returns the program whose agents are called for this sample (`Call.sample`); the program itself for 0."""
    if not sample:
        return program
    nodes = tuple(
        msgspec.structs.replace(node, sample=sample) if node.kind == "agent" else node for node in program.nodes
    )
    return replace(program, nodes=nodes)


def stop_at_plan(program: Program) -> Program:
    """Returns the program of a request for a run that ends when the plan is accepted: no step of the plan is run, and
    no check judges it.

    Raises:
        InputError: R030: the program is not one `plan` node.
    """
    node = program.nodes[0] if len(program.nodes) == 1 else None
    if node is None or node.plan_settings is None or node.each is not None:
        hint = "pass what request_workflow(orchestra, request, values) returns"
        raise InputError("R030", f"the workflow {program.name!r} is not that of a request", hint=hint)
    planning = msgspec.structs.replace(node.plan_settings, plan_only=True)
    return replace(program, nodes=(msgspec.structs.replace(node, acceptance=None, plan_settings=planning),))
