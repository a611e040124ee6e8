"""The state of one compilation, and the look-ups that the compilers of nodes share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

from orchestra.agents.contract import Catalog, Contract
from orchestra.core.errors import InputError
from orchestra.core.labels import Label
from orchestra.schema.json_schema import (
    ANY,
    Schema,
)
from orchestra.schema.types import parse_type
from orchestra.workflows.compile.diagnostics import Findings, KeyPath, Types, WorkflowPart, join_names, suggestion
from orchestra.workflows.expressions.condition_analysis import (
    Conditions,
    combine_conditions,
)
from orchestra.workflows.model import (
    AgentNode,
    AnyNode,
    CallNode,
    Defaults,
    Graph,
    LoopNode,
    NodeBlock,
    PlanNode,
    ToolNode,
)
from orchestra.workflows.program import (
    CalledWorkflow,
    CalleeInputs,
    CompiledNode,
    Expression,
    Program,
)

MAX_CALLS = 32
"""The maximum depth of calls between workflows."""


TypeScope = dict[str, Schema]
"""The types of the visible names. One mapping serves a whole workflow: bodies add their names and remove them again."""


@dataclass(frozen=True, slots=True)
class CompiledBody:
    """Compiled nodes with their output."""

    nodes: tuple[CompiledNode, ...]
    output: Expression
    schema: Schema
    always_present: bool
    """Whether the output always has a value unless a node fails."""
    types: Types
    """The types of its nodes, as the enclosing scope sees them."""
    present_nodes: frozenset[str]
    """The nodes that always have a value unless a node fails."""
    has_effects: bool
    """Whether one of its nodes may have an effect."""

    def to_program(self, name: str) -> Program:
        """Returns the body as the program of a node."""
        return Program(name, self.nodes, self.output, self.schema, {}, sees_outer_scope=True)


BodyCompiler: TypeAlias = Callable[["CompileContext", Mapping[str, AnyNode], Any, TypeScope, KeyPath], CompiledBody]
"""The type of `compiler.compile_body`, passed as a callable so that the compilers of nodes can call it."""
WorkflowCompiler: TypeAlias = Callable[
    [Graph, Catalog, tuple[str, ...], dict[str, CalledWorkflow | None]], CalledWorkflow
]
"""Compiles a called workflow, given the names of its callers and the workflows compiled so far."""


@dataclass
class CompileContext:
    """The state of the compilation of one workflow. `call_stack` has the names of its callers, itself last."""

    graph: Graph
    catalog: Catalog
    findings: Findings
    call_stack: tuple[str, ...]
    body_compiler: BodyCompiler
    workflow_compiler: WorkflowCompiler
    workflows: dict[str, CalledWorkflow | None] = field(default_factory=dict)
    """The workflows called so far, by name; None for those with errors."""
    always_present: dict[str, bool] = field(default_factory=dict)
    """For each visible node, whether it always has a value unless a node fails."""
    presence_conditions: dict[str, Conditions | None] = field(default_factory=dict)
    """For nodes that may be skipped: the conditions under which they have a value; None if unknown."""
    labels: list[Label | None] = field(default_factory=list)
    """The labels of the workflows that are called here, or that a plan here may call."""
    enclosing_nodes: list[Mapping[str, AnyNode]] = field(default_factory=list)
    """The nodes of the enclosing bodies, innermost last."""
    models: dict[str, Schema] = field(default_factory=dict)
    loop_depth: int = 0
    """The number of enclosing loops."""
    node_count: int = 0
    edge_count: int = 0
    _inputs_cache: dict[int, CalleeInputs] = field(default_factory=dict)
    """Keyed by the `id` of a contract of the catalog."""
    sized_types: dict[int, Schema] = field(default_factory=dict)
    """Types that are known not to be too large, keyed by `id`."""
    _effects_cache: dict[int, bool] = field(default_factory=dict)
    """Whether a node has effects, keyed by the `id` of the node."""

    @cached_property
    def defaults(self) -> Defaults:
        """The modifiers of nodes that do not set them."""
        return self.graph.defaults or Defaults()

    def compile_body(self, nodes: Mapping[str, AnyNode], output: Any, types: TypeScope, path: KeyPath) -> CompiledBody:
        """Compiles the nodes and the output of a block or a loop; see `compiler.compile_body`."""
        return self.body_compiler(self, nodes, output, types, path)

    def callee_inputs(self, contract: Contract) -> CalleeInputs:
        """Returns the inputs of an agent or a tool."""
        if (cached_callee_inputs := self._inputs_cache.get(id(contract))) is None:
            cached_callee_inputs = self._inputs_cache[id(contract)] = CalleeInputs(contract.input)
        return cached_callee_inputs

    def resolve_type(self, text: str, path: KeyPath) -> Schema:
        """Returns the schema of a type expression; `ANY` for an invalid one, which is reported (L040, L041)."""
        try:
            return parse_type(text, self.models)
        except InputError:
            with self.findings.collect_errors():
                parse_type(text, self.models, self.findings.location_of(*path))
            return ANY

    def all_present(self, names: frozenset[str]) -> bool:
        """Whether all of these names have a value unless a node fails."""
        for name in names:  # noqa: SIM110  # `all` of a generator takes three times as long, and this is asked of every node
            if not self.always_present.get(name, True):
                return False
        return True

    def conditions_of(self, names: frozenset[str]) -> Conditions | None:
        """Returns the conditions under which all of these names have a value; None if unknown."""
        return combine_conditions(
            () if self.always_present.get(name, True) else self.presence_conditions.get(name) for name in sorted(names)
        )

    def is_in_scope(self, name: str, types: Types) -> bool:
        """Whether a name is defined in the enclosing scopes."""
        return name in types or any(name in nodes for nodes in self.enclosing_nodes)

    def has_effects(self, node: AnyNode) -> bool:
        """Whether a node, or a node inside it, may have an effect."""
        if (cached_effects := self._effects_cache.get(id(node))) is None:
            cached_effects = self._effects_cache[id(node)] = self._may_have_effects(node)
        return cached_effects

    def _may_have_effects(self, node: AnyNode) -> bool:
        match node:
            case ToolNode(tool=name):
                contract = self.catalog.tools.get(name)
                return contract is not None and contract.effect != "pure"
            case PlanNode(tools=tools, workflows=workflows):
                contracts = (self.catalog.tools[name] for name in tools if name in self.catalog.tools)
                return any(tool.effect != "pure" for tool in contracts) or any(
                    map(self._workflow_has_effects, workflows)
                )
            case AgentNode(tools=names):
                return any(name in self.catalog.tools and self.catalog.tools[name].effect != "pure" for name in names)
            case CallNode(call=NodeBlock(nodes=inner)) | LoopNode(loop=NodeBlock(nodes=inner)):
                return any(self.has_effects(inner_node) for inner_node in inner.values())
            case CallNode(call=str(name)):
                return self._workflow_has_effects(name)
            case _:
                return False

    def _workflow_has_effects(self, name: str) -> bool:
        called_workflow = self.workflows.get(name)
        return called_workflow is not None and called_workflow.has_effects

    def resolve_workflow(self, name: str, path: KeyPath) -> CalledWorkflow | None:
        """Returns a called workflow, compiled once; None if it has errors, which are reported (L106, L111, L116)."""
        location = self.findings.location_of(*path)
        if name in self.call_stack and name not in self.workflows:
            way = " -> ".join((*self.call_stack[self.call_stack.index(name) :], name))
            self.findings.error(
                "L116", f"the workflow calls itself: {way}", location, hint="use a `loop:`, which is bounded"
            )
            return None
        if len(self.call_stack) > MAX_CALLS:
            self.findings.error(
                "L106",
                f"more than {MAX_CALLS} workflows call each other",
                location,
                hint="call some of them beside each other",
            )
            return None
        if name not in self.workflows:
            self.workflows[name] = self._compile_workflow(name, path)
        elif self.workflows[name] is None:
            self.findings.error(
                "L111", f"the workflow {name!r} has faults", location, hint=f"orchestra validate {name}"
            )
        if (called_workflow := self.workflows[name]) is not None:
            self.labels.append(called_workflow.label)
        return called_workflow

    def _compile_workflow(self, name: str, path: KeyPath) -> CalledWorkflow | None:
        location = self.findings.location_of(*path)
        with self.findings.collect_errors():
            graph = self.catalog.workflows.get(name)
            if graph is None:
                self.report_unknown("workflow", name, self.catalog.workflows, path)
                return None
            try:
                return self.workflow_compiler(graph, self.catalog, self.call_stack, self.workflows)
            except InputError as error:
                error_location = str(error.location).partition(": ")[2] or "its file"
                reason = f"in the workflow {name!r}, at {error_location}" + (f": {error.why}" if error.why else "")
                if isinstance(location, WorkflowPart) and isinstance(error.location, WorkflowPart):
                    location = replace(location, called=error.location)
                self.findings.error(
                    error.code, error.message, location, hint=error.hint or f"orchestra validate {name}", why=reason
                )
        return None

    def report_unknown(self, what: str, name: str, known: Iterable[str], path: KeyPath) -> None:
        """Reports an unknown name (L111) with the nearest known one, or the error of an agent whose card is broken."""
        if what == "agent" and (error := self.catalog.broken.get(name)) is not None:
            self.findings.add_error(error)
            return
        names = sorted(known)
        module_hint = "; your own come from `modules` in orchestra.toml" if what == "tool" else ""
        hint = suggestion(name, names, f"there are: {join_names(names)}{module_hint}")
        self.findings.error("L111", f"there is no {what} {name!r}", self.findings.location_of(*path), hint=hint)
