"""Programs: compiled workflows, as the engine runs them. Integers and adjacency, no names to look up in the hot loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from orchestra.agents.contract import Contract, Schema, ToolUse
from orchestra.core.labels import Label
from orchestra.schema.json_schema import bundle_definitions, object_type, subschema
from orchestra.workflows.model import DEFAULT_RETRY, Action, AnyNode, AtLeast, Budget, Graph, PlanLimits, Retry

if TYPE_CHECKING:
    from orchestra.verification.certificates.claims_file import ClaimsCertificate
    from orchestra.verification.certificates.combination import Combination
    from orchestra.verification.certificates.file import Certificate

AgentIdentity: TypeAlias = tuple[str, str]
"""An agent's name, and the digest of its card."""


class Expression(Protocol):
    """A compiled template: JSON whose strings may hold CEL."""

    @property
    def references(self) -> frozenset[str]:
        """The names that it reads: `input`, node names, `as` variables, `turn`, `previous`."""

    @property
    def schema(self) -> Schema:
        """The type of what it gives."""

    @property
    def parts(self) -> Mapping[str, Expression] | None:
        """Of a template that is a mapping: its entries, each an expression of its own; None for any other."""

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """Its value; `bindings` has at least its references. Raises `OrchestraError` (L-codes) where CEL fails at run time."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """When an attempt's value becomes the node's value. `accept` is a score in [0, 1]; `certified` was resolved or refused."""

    checks: tuple[str, ...] = ()
    against: Expression | None = None
    accept: float = 0.5
    otherwise: tuple[Action, ...] = ("abstain",)
    certificate: Certificate | ClaimsCertificate | None = None
    """What `certified` was resolved to: `accept` is its threshold."""
    combination: Combination | None = None
    """What `score: combined` was resolved to."""
    uses_model_checks: bool = False
    """Whether one of the checks asks agents."""
    judges: Mapping[str, Contract] = field(default_factory=dict)
    """The agents that they may ask beside the producer, by name."""
    whole_workflow: bool = False
    """Whether a workflow is judged as a whole: it is as sure as the least sure of what its output follows from."""


class PlanSettings(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a `plan` node's router is asked, and what it may use."""

    goal: Expression
    values: Mapping[str, Expression]
    """What the plan may read beside its goal."""
    router: Contract | None
    """The agent that plans; None where there is none of its name."""
    capabilities: tuple[Contract, ...]
    """The agents and tools that the plan may use."""
    workflows: Mapping[str, CalledWorkflow]
    """The workflows that it may use, by name."""
    models: Mapping[str, Schema]
    """The types that are known by name."""
    limits: PlanLimits
    repairs: int
    replans: int = 1
    """How often another plan may follow one that failed."""
    streaming: bool = True
    """Whether its steps start while it is being written."""
    reachable: tuple[Contract, ...] = ()
    """What its skills may call in their turn."""
    larger: Contract | None = None
    """The agent that goes on where the router's repairs are used up."""
    votes: int = 1
    """Plans that are sampled, and voted on."""
    cache: bool = True
    """Whether a plan that has served may serve again."""
    stepwise: bool = True
    """Whether the router is asked for one line at a time, and not for the whole plan at once."""
    copied: bool = False
    """Whether the texts that a plan states are pieces of its goal."""
    literals: bool = False
    """Whether calls with effects may be given constants that are not in the goal."""
    confirm: bool = True
    """Whether a person is asked before a plan makes calls with effects."""
    grounding_values: tuple[str, ...] = ()
    """The values of which the first step of its first plan reads one, where some skill can."""
    each_part: bool = False
    """Whether each part of a goal that has several gets a step of its first plan."""
    hearsay: tuple[str, ...] = ()
    """The values that may be somebody else's words."""
    anyway: bool = False
    """Whether what can be done is planned even where the router finds that nothing serves the goal."""
    shortlist: int | None = None
    """Skills that the router is shown at most; None for all."""
    judges: tuple[Contract, ...] = ()
    """The agents that checks of the skills' cards ask."""
    blocked_agents: Mapping[str, Label] = {}
    """Of a run: the agents that must not see its data, and what they are cleared for."""
    blocked_tools: Mapping[str, Label] = {}
    """Of a run: likewise the tools."""
    call_limit: int | None = None
    """Of a run: the calls that its budget has, where it limits them."""
    prompt_tokens: int = 0
    """Of a run: tokens that its planners have for what they are told; 0 where that is not known."""

    def blocked_clearance(self, kind: str, name: str) -> Label | None:
        """What an agent or a tool is cleared for that must not see the run's data; None for one that may."""
        return (self.blocked_tools if kind == "tool" else self.blocked_agents).get(name)


class NodeToolUse(msgspec.Struct, frozen=True, gc=False):
    """What an agent with tools may use at a node."""

    settings: ToolUse
    capabilities: tuple[Contract, ...]
    """What it may call itself, its tools first."""
    reachable: tuple[Contract, ...]
    """All that may be called in its course: its skills, what they may call in their turn, and whom checks of their cards ask."""
    reads_only_inputs: bool
    """Whether its inputs are those of the workflow, and nothing that another node has made."""
    models: Mapping[str, Schema]
    """The types that are known by name."""


class CompiledNode(msgspec.Struct, frozen=True, gc=False):
    """One node, with everything resolved that can be resolved before a run.

    A program is a tree. The collector finds no cycle in it, and what it need not look at is out of its count too (`gc=False`, also of
    paths and the like): looking took a seventh of the time of compiling.
    """

    index: int
    name: str
    kind: str
    source: AnyNode
    output: Schema
    """Type of the node's value; under `each` the type of one element's value."""
    needs: tuple[int, ...]
    """Indices of the nodes of the same program that must have finished before it: references and `after`."""
    children: tuple[int, ...]
    has_soft_needs: bool
    """Whether it runs although needs ended in a non-value: `first_of` does; so do readers of `.values` and bare `after`."""
    soft_needs: frozenset[int]
    """The needs whose non-value it does not inherit."""
    height: int
    """Nodes on the longest way from here to a sink, itself included: the critical path, for priority."""
    contract: Contract | None = None
    """Of the agent or tool that it calls."""
    inputs: Expression | None = None
    when: Expression | None = None
    each: Expression | None = None
    variable: str = ""
    limit: int = 10_000
    concurrency: int | None = None
    at_least: AtLeast | None = None
    arms: tuple[Expression, ...] = ()
    """Of `first_of`, in written order."""
    body: Program | None = None
    """Of `call` and `loop`."""
    until: Expression | None = None
    at_most: int = 1
    value: Expression | None = None
    """What a `verify` node judges, what an `ask` node asks, and the label by which a choice of agents goes."""
    fallback: Expression | None = None
    retry: Retry = DEFAULT_RETRY
    timeout: float | None = None
    acceptance: Acceptance | None = None
    plan_settings: PlanSettings | None = None
    tool_use: NodeToolUse | None = None
    escalate: Expression | None = None
    """Of an agent: whether the larger model is asked at once."""
    sample: int = 0
    """Of an agent: which of several samples its answers are (`Call.sample`)."""

    @property
    def has_effects(self) -> bool:
        """Whether it may have an effect: calls what has one, asks a person, lets a router plan, or has such a node within."""
        if self.kind in ("ask", "plan") or (self.acceptance is not None and "ask" in self.acceptance.otherwise):
            return True
        if self.contract is not None and self.contract.effect != "pure":
            return True
        if self.tool_use is not None and any(one.effect != "pure" for one in self.tool_use.reachable):
            return True
        return self.body is not None and any(inner.has_effects for inner in self.body.nodes)


@dataclass(frozen=True, slots=True)
class InputField:
    """One input of a program: its type, and its default where `required` is false."""

    schema: Schema
    required: bool = True
    default: Any = None
    description: str = ""


@dataclass(frozen=True)
class Program:
    """A compiled workflow, or the body of a loop or a block; bodies see the bindings of what surrounds them."""

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
    """Whether it sees the bindings around it (blocks and loops), or only its inputs (workflows)."""
    runs_one_node: bool = False
    """Whether one of its nodes runs and the others are skipped, as a choice of agents has it: what that one ends in is its outcome."""

    @cached_property
    def influence(self) -> tuple[float, ...]:
        """By node: the share of the nodes that lead to the output, or to an effect, that rest on it, itself among them; 0 for one that does
        not lead there."""
        rest = [0] * len(self.nodes)
        for node in reversed(self.nodes):
            below = 0
            for child in node.children:
                below |= rest[child]
            if below or node.has_effects or node.name in self.output.references:
                rest[node.index] = below | 1 << node.index
        leading = sum(map(bool, rest))
        return tuple(found.bit_count() / leading if found else 0.0 for found in rest)

    @cached_property
    def check_weights(self) -> tuple[tuple[float, float], ...]:
        """What its checks will ask about, as far as that is known before it runs: of each node whose checks ask agents, those in bodies
        among them, the influence of one value and how many there will be. Of a list nobody knows the length, and it counts as one."""
        found: list[tuple[float, float]] = []
        for node, share in zip(self.nodes, self.influence, strict=True):
            if node.acceptance is not None and node.acceptance.uses_model_checks:
                found.append((share, 1.0))
            if node.body is not None:
                found += [(share * inner, count) for inner, count in node.body.check_weights]
        return tuple(found)

    @property
    def time_limit(self) -> float | None:
        """How long it may be under way, by its budget."""
        return self.budget.seconds if self.budget is not None else None

    @cached_property
    def required_agents(self) -> tuple[AgentIdentity, ...]:
        """The agents that its nodes ask whatever comes, with the digests of their cards; those behind a condition are left out."""
        return tuple(dict.fromkeys(_collect_agents(self, always=True)))

    @cached_property
    def possible_agents(self) -> tuple[AgentIdentity, ...]:
        """All agents that may be asked in its course."""
        return tuple(dict.fromkeys(_collect_agents(self, always=False)))

    @cached_property
    def required_tools(self) -> tuple[Contract, ...]:
        """The tools that its nodes call whatever comes; those behind a condition are left out."""
        return tuple({one.name: one for one in _required_tools(self)}.values())

    @cached_property
    def certified_acceptances(self) -> tuple[Acceptance, ...]:
        """How nodes accept that go by a certificate or a combination, in all programs that may run in its course."""
        accepting = [
            node.acceptance for part in reachable_programs(self) for node in part.nodes if node.acceptance is not None
        ]
        return tuple(one for one in accepting if one.certificate or one.combination)

    @cached_property
    def has_dynamic_calls(self) -> bool:
        """Whether a router, or the model of an agent with tools, chooses calls in its course."""
        return any(
            node.plan_settings is not None or node.tool_use is not None
            for part in reachable_programs(self)
            for node in part.nodes
        )

    @cached_property
    def may_escalate(self) -> bool:
        """Whether one of its nodes may ask a larger model."""
        return any(map(_may_escalate, self.nodes))

    @cached_property
    def need_counts(self) -> list[int]:
        """How many needs each node has."""
        return [len(node.needs) for node in self.nodes]

    @cached_property
    def critical_path_length(self) -> int:
        """Nodes on the critical path."""
        return max((node.height for node in self.nodes), default=0)

    @cached_property
    def entry_nodes(self) -> list[CompiledNode]:
        """The nodes that need no other."""
        return [node for node in self.nodes if not node.needs]


class CalleeInputs:
    """What a callee takes: an object schema, with each field as a type of its own."""

    __slots__ = ("fields", "required", "schema")

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.fields: Mapping[str, Schema] = {
            name: subschema(schema, part) for name, part in schema.get("properties", {}).items()
        }
        self.required: tuple[str, ...] = tuple(schema.get("required", ()))


@dataclass(frozen=True)
class CalledWorkflow:
    """A workflow that others call."""

    program: Program
    always_present: bool
    """Whether it always gives a value, failures apart."""
    has_effects: bool
    """Whether it may have an effect."""
    label: Label | None = None
    """The strictest that it, or a workflow that it may call, states; None where none states one."""

    @cached_property
    def inputs(self) -> CalleeInputs:
        """Its inputs."""
        inputs = self.program.inputs
        fields = {name: entry.schema for name, entry in inputs.items()}
        return CalleeInputs(
            bundle_definitions(object_type(fields, [name for name, entry in inputs.items() if entry.required]))
        )


def reachable_programs(program: Program) -> Iterator[Program]:
    """A program, the bodies of its nodes, and the workflows that its plans may call: each once, what calls before what is called."""
    yield from _walk_programs(program, set())


def _walk_programs(program: Program, seen: set[int]) -> Iterator[Program]:
    if id(program) in seen:
        return
    seen.add(id(program))
    yield program
    for node in program.nodes:
        if node.body is not None:
            yield from _walk_programs(node.body, seen)
        for called in node.plan_settings.workflows.values() if node.plan_settings is not None else ():
            yield from _walk_programs(called.program, seen)


def _collect_agents(program: Program, *, always: bool) -> Iterator[AgentIdentity]:
    for node in program.nodes:
        if always and node.when is not None:
            continue
        yield from _required_agents(node) if always else _possible_agents(node)
        if node.body is not None:
            yield from node.body.required_agents if always else node.body.possible_agents
        for called in node.plan_settings.workflows.values() if node.plan_settings is not None and not always else ():
            yield from called.program.possible_agents


def _required_tools(program: Program) -> Iterator[Contract]:
    for node in program.nodes:
        if node.when is None:
            if node.contract is not None and node.contract.kind == "tool":
                yield node.contract
            if node.body is not None:
                yield from node.body.required_tools


def _required_agents(node: CompiledNode) -> Iterator[AgentIdentity]:
    """The agents that a node asks whatever comes: its own, or the router of its plan, and the judges of its checks."""
    contract = node.contract if node.plan_settings is None else node.plan_settings.router
    judges = node.acceptance.judges.values() if node.acceptance is not None else ()
    yield from ((one.name, one.digest) for one in (contract, *judges) if one is not None and one.kind == "agent")


def _possible_agents(node: CompiledNode) -> Iterator[AgentIdentity]:
    """The agents that a node may ask, its plan's workflows left out."""
    yield from _required_agents(node)
    more: tuple[Contract, ...] = node.tool_use.reachable if node.tool_use is not None else ()
    if (plan_settings := node.plan_settings) is not None:
        more += (
            *plan_settings.capabilities,
            *plan_settings.reachable,
            *plan_settings.judges,
            *((plan_settings.larger,) if plan_settings.larger is not None else ()),
        )
    yield from ((contract.name, contract.digest) for contract in more if contract.kind == "agent")


def _may_escalate(node: CompiledNode) -> bool:
    if node.escalate is not None or (node.acceptance is not None and "escalate" in node.acceptance.otherwise):
        return True
    if node.plan_settings is not None and node.plan_settings.workflows:
        return True
    capabilities = (
        node.plan_settings.capabilities
        if node.plan_settings is not None
        else node.tool_use.reachable
        if node.tool_use is not None
        else ()
    )
    return any("escalate" in one.otherwise for one in capabilities) or (
        node.body is not None and node.body.may_escalate
    )


def node_contracts(node: CompiledNode) -> Iterator[Contract]:
    """What a node calls, or may call: a plan is made of more than one."""
    if node.contract is not None:
        yield node.contract
    if node.acceptance is not None:
        yield from node.acceptance.judges.values()
    if (plan_settings := node.plan_settings) is not None:
        yield from plan_settings.capabilities
        yield from plan_settings.reachable
        yield from plan_settings.judges
        if plan_settings.router is not None:
            yield plan_settings.router
        if plan_settings.larger is not None:
            yield plan_settings.larger
    if node.tool_use is not None:
        yield from node.tool_use.reachable


def with_sample(program: Program, sample: int) -> Program:
    """The program with the agents of its nodes asked for this sample (`Call.sample`); itself for 0."""
    if not sample:
        return program
    nodes = tuple(
        msgspec.structs.replace(node, sample=sample) if node.kind == "agent" else node for node in program.nodes
    )
    return replace(program, nodes=nodes)
