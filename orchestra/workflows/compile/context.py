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
"""Workflows that call each other in a row, at most."""


TypeScope = dict[str, Schema]
"""The types of the names that can be read, by name. One mapping for a whole workflow: bodies add their names and take them away again."""


@dataclass(frozen=True, slots=True)
class CompiledBody:
    """Compiled nodes with their output."""

    nodes: tuple[CompiledNode, ...]
    output: Expression
    schema: Schema
    always_present: bool
    """Whether its output always is a value, failures apart."""
    types: Types
    """Of its nodes, as what stands beside them sees them."""
    present_nodes: frozenset[str]
    """Its nodes that always are a value, failures apart."""
    has_effects: bool
    """Whether one of its nodes may have an effect."""

    def to_program(self, name: str) -> Program:
        """The body as the program of a node."""
        return Program(name, self.nodes, self.output, self.schema, {}, sees_outer_scope=True)


BodyCompiler: TypeAlias = Callable[["CompileContext", Mapping[str, AnyNode], Any, TypeScope, KeyPath], CompiledBody]
"""Compiles nodes with their output: `compiler.compile_body`, passed as a callable so that node compilers can call it."""
WorkflowCompiler: TypeAlias = Callable[
    [Graph, Catalog, tuple[str, ...], dict[str, CalledWorkflow | None]], CalledWorkflow
]
"""Compiles a called workflow, given the names of the workflows above it and those compiled so far."""


@dataclass
class CompileContext:
    """One workflow under way. `above` are the names of the workflows that call it, itself last."""

    graph: Graph
    catalog: Catalog
    findings: Findings
    call_stack: tuple[str, ...]
    body_compiler: BodyCompiler
    workflow_compiler: WorkflowCompiler
    workflows: dict[str, CalledWorkflow | None] = field(default_factory=dict)
    """The workflows that were called so far, by name; None for those with faults."""
    always_present: dict[str, bool] = field(default_factory=dict)
    """Of the nodes that can be seen here: whether it is neither skipped nor withheld, failures apart."""
    presence_conditions: dict[str, Conditions | None] = field(default_factory=dict)
    """Of nodes that are not sure: the conditions under which they have a value, failures apart; None where that is not known."""
    labels: list[Label | None] = field(default_factory=list)
    """What the workflows state that are called here, or that a plan here may call."""
    enclosing_nodes: list[Mapping[str, AnyNode]] = field(default_factory=list)
    """The nodes of the bodies that are under way, the innermost last."""
    models: dict[str, Schema] = field(default_factory=dict)
    loop_depth: int = 0
    """Loops that are under way."""
    node_count: int = 0
    edge_count: int = 0
    _inputs_cache: dict[int, CalleeInputs] = field(default_factory=dict)
    """By the `id` of a contract of the catalog."""
    sized_types: dict[int, Schema] = field(default_factory=dict)
    """By their `id`: types that are not too large."""
    _effects_cache: dict[int, bool] = field(default_factory=dict)
    """By the `id` of a node of the graph: whether it acts."""

    @cached_property
    def defaults(self) -> Defaults:
        """The modifiers for nodes that state none."""
        return self.graph.defaults or Defaults()

    def compile_body(self, nodes: Mapping[str, AnyNode], output: Any, types: TypeScope, path: KeyPath) -> CompiledBody:
        """Compiles the nodes and the output of a block or a loop; see `compiler.compile_body`."""
        return self.body_compiler(self, nodes, output, types, path)

    def callee_inputs(self, contract: Contract) -> CalleeInputs:
        """What an agent or a tool takes."""
        if (found := self._inputs_cache.get(id(contract))) is None:
            found = self._inputs_cache[id(contract)] = CalleeInputs(contract.input)
        return found

    def resolve_type(self, text: str, path: KeyPath) -> Schema:
        """The schema of a type's text; anything where it is none, which is noted (L040, L041)."""
        try:
            return parse_type(text, self.models)
        except InputError:
            with self.findings.collect_errors():
                parse_type(text, self.models, self.findings.place_of(*path))
            return ANY

    def all_present(self, names: frozenset[str]) -> bool:
        """Whether all of these have a value, failures apart."""
        for name in names:  # noqa: SIM110  # `all` of a generator takes three times as long, and this is asked of every node
            if not self.always_present.get(name, True):
                return False
        return True

    def conditions_of(self, names: frozenset[str]) -> Conditions | None:
        """The conditions under which all of these have a value, failures apart; None where that is not known."""
        return combine_conditions(
            () if self.always_present.get(name, True) else self.presence_conditions.get(name) for name in sorted(names)
        )

    def is_in_scope(self, name: str, types: Types) -> bool:
        """Whether something around has this name."""
        return name in types or any(name in nodes for nodes in self.enclosing_nodes)

    def has_effects(self, node: AnyNode) -> bool:
        """Whether a node may have an effect, itself or inside."""
        if (found := self._effects_cache.get(id(node))) is None:
            found = self._effects_cache[id(node)] = self._may_have_effects(node)
        return found

    def _may_have_effects(self, node: AnyNode) -> bool:
        match node:
            case ToolNode(tool=name):
                contract = self.catalog.tools.get(name)
                return contract is not None and contract.effect != "pure"
            case PlanNode(tools=tools, workflows=workflows):
                known = (self.catalog.tools[name] for name in tools if name in self.catalog.tools)
                return any(tool.effect != "pure" for tool in known) or any(map(self._workflow_has_effects, workflows))
            case AgentNode(tools=names):
                return any(name in self.catalog.tools and self.catalog.tools[name].effect != "pure" for name in names)
            case CallNode(call=NodeBlock(nodes=inner)) | LoopNode(loop=NodeBlock(nodes=inner)):
                return any(self.has_effects(one) for one in inner.values())
            case CallNode(call=str(name)):
                return self._workflow_has_effects(name)
            case _:
                return False

    def _workflow_has_effects(self, name: str) -> bool:
        called = self.workflows.get(name)
        return called is not None and called.has_effects

    def resolve_workflow(self, name: str, path: KeyPath) -> CalledWorkflow | None:
        """A workflow that is called by name, compiled once, and whether it always gives a value; faults are noted (L106, L111, L116)."""
        place = self.findings.place_of(*path)
        if name in self.call_stack and name not in self.workflows:
            way = " -> ".join((*self.call_stack[self.call_stack.index(name) :], name))
            self.findings.error(
                "L116", f"the workflow calls itself: {way}", place, hint="use a `loop:`, which is bounded"
            )
            return None
        if len(self.call_stack) > MAX_CALLS:
            self.findings.error(
                "L106",
                f"more than {MAX_CALLS} workflows call each other",
                place,
                hint="call some of them beside each other",
            )
            return None
        if name not in self.workflows:
            self.workflows[name] = self._compile_workflow(name, path)
        elif self.workflows[name] is None:
            self.findings.error("L111", f"the workflow {name!r} has faults", place, hint=f"orchestra validate {name}")
        if (found := self.workflows[name]) is not None:
            self.labels.append(found.label)
        return found

    def _compile_workflow(self, name: str, path: KeyPath) -> CalledWorkflow | None:
        place = self.findings.place_of(*path)
        with self.findings.collect_errors():
            graph = self.catalog.workflows.get(name)
            if graph is None:
                self.report_unknown("workflow", name, self.catalog.workflows, path)
                return None
            try:
                return self.workflow_compiler(graph, self.catalog, self.call_stack, self.workflows)
            except InputError as error:
                where = str(error.location).partition(": ")[2] or "its file"
                why = f"in the workflow {name!r}, at {where}" + (f": {error.why}" if error.why else "")
                if isinstance(place, WorkflowPart) and isinstance(error.location, WorkflowPart):
                    place = replace(place, called=error.location)
                self.findings.error(
                    error.code, error.message, place, hint=error.hint or f"orchestra validate {name}", why=why
                )
        return None

    def report_unknown(self, what: str, name: str, known: Iterable[str], path: KeyPath) -> None:
        """Notes that nothing has this name (L111), with the nearest that does; or what is wrong with an agent that cannot be used."""
        if what == "agent" and (error := self.catalog.broken.get(name)) is not None:
            self.findings.add_error(error)
            return
        names = sorted(known)
        own = "; your own come from `modules` in orchestra.toml" if what == "tool" else ""
        hint = suggestion(name, names, f"there are: {join_names(names)}{own}")
        self.findings.error("L111", f"there is no {what} {name!r}", self.findings.place_of(*path), hint=hint)
