"""The compiler: a frozen graph and a catalog in, a program out; or every fault, with its place and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from orchestra.agents.card_types import TYPE_NAME_HINT, invalid_type_name, resolve_types
from orchestra.agents.contract import Catalog, Contract
from orchestra.core.errors import InputError
from orchestra.core.labels import Label, join
from orchestra.schema.json_schema import ANY, Schema, bundle_definitions, map_result_type, nullable, object_type
from orchestra.schema.types import RESERVED_TYPE_NAMES, Validator, parse_type
from orchestra.workflows.compile import modifiers
from orchestra.workflows.compile.assemble import assemble_nodes, null_expression, type_size_error
from orchestra.workflows.compile.diagnostics import Findings, TooManyErrors, WorkflowPart
from orchestra.workflows.compile.inputs import CalleeInputs, KeyPath, Types, check_assignable, join_names, suggestion, try_compile
from orchestra.workflows.compile.nodes import NodeDraft, TypeScope
from orchestra.workflows.compile.ordering import NodeReferences, node_references, referenced_names, topological_order
from orchestra.workflows.expressions.coverage import Conditions, combine_conditions, names_tested_absent, parse_conditions
from orchestra.workflows.expressions.evaluation import ListExpression
from orchestra.workflows.expressions.parser import KEYWORDS
from orchestra.workflows.model import AgentNode, AnyNode, CallNode, Defaults, FirstOfNode, Graph, LoopNode, NodeBlock, PlanNode, ToolNode
from orchestra.workflows.program import CompiledNode, Expression, InputField, Program
from orchestra.workflows.yaml.reader import MAX_EDGES, MAX_NODES, SourcePlaces

MAX_CALLS = 32
"""Workflows that call each other in a row, at most."""
MAX_LOOPS = 4
"""Loops inside each other, at most: for the type of `previous` each body is gone through up to three times."""


_RESERVED_NAMES = KEYWORDS | {"input"}


def compile_graph(
    graph: Graph, catalog: Catalog, places: SourcePlaces | None = None, *, called: Mapping[str, CalledWorkflow] | None = None
) -> Program:
    """The program of a workflow. `called` are workflows that are compiled already, by the names under which this one calls them.

    Raises `InputError`, or `InputErrors` with all faults (L040 to L063, L105 to L121, A002).
    """
    return _compile_graph(graph, catalog, places, (), dict(called or {})).program


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
        return CalleeInputs(bundle_definitions(object_type(fields, [name for name, entry in inputs.items() if entry.required])))


def _compile_graph(
    graph: Graph, catalog: Catalog, places: SourcePlaces | None, above: tuple[str, ...], programs: dict[str, CalledWorkflow | None]
) -> CalledWorkflow:
    """A workflow, with what its callers must know of it."""
    findings = Findings(graph.name, places)
    compiler = Compiler(graph, catalog, findings, (*above, graph.name), programs)
    inputs: Mapping[str, InputField] = {}
    body = CompiledBody((), null_expression(), {}, True, {}, frozenset(), False)
    try:
        inputs = compiler.compile_inputs()
        given = {"title": "input", **object_type({name: entry.schema for name, entry in inputs.items()})}
        body = compiler.compile_body(graph.nodes, graph.output, {"input": bundle_definitions(given)}, ())
        if graph.accept is not None:
            body = modifiers.enclose_workflow(compiler, graph, body)
    except TooManyErrors:
        pass
    findings.raise_errors()
    warnings = tuple(findings.warnings)
    stated = [label for label in (graph.label, *compiler.labels) if label is not None]
    label = join((graph.label or "internal", *stated))
    program = Program(
        graph.name, body.nodes, body.output, body.schema, inputs, graph=graph, budget=graph.budget, label=label, warnings=warnings
    )
    return CalledWorkflow(program, body.always_present, body.has_effects, join(stated) if stated else None)


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


@dataclass
class Compiler:
    """One workflow under way. `above` are the names of the workflows that call it, itself last."""

    graph: Graph
    catalog: Catalog
    findings: Findings
    call_stack: tuple[str, ...]
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
    _sized_types: dict[int, Schema] = field(default_factory=dict)
    """By their `id`: types that are not too large."""
    _effects_cache: dict[int, bool] = field(default_factory=dict)
    """By the `id` of a node of the graph: whether it acts."""

    @cached_property
    def defaults(self) -> Defaults:
        """The modifiers for nodes that state none."""
        return self.graph.defaults or Defaults()

    def callee_inputs(self, contract: Contract) -> CalleeInputs:
        """What an agent or a tool takes."""
        if (found := self._inputs_cache.get(id(contract))) is None:
            found = self._inputs_cache[id(contract)] = CalleeInputs(contract.input)
        return found

    def compile_inputs(self) -> dict[str, InputField]:
        """The workflow's inputs, their types read, their defaults checked."""
        if self.graph.name in KEYWORDS:
            hint = f"call it {self.graph.name}_"
            self.findings.error(
                "L115", f"{self.graph.name!r} is a word of the expression language", self.findings.place_of("name"), hint=hint
            )
        self.models = dict(self.catalog.models)
        for name, body in self.graph.types.items():
            self._declare_type(name, body)
        found: dict[str, InputField] = {}
        for name, given in self.graph.input.items():
            self._check_name(name, ("input", name))
            schema = self.resolve_type(given.type, ("input", name))
            default = try_compile(given.default, {}, self.findings, ("input", name)) if given.optional else None
            if default is not None and schema != ANY:
                check_assignable(f"the default of {name!r}", default.schema, schema, self.findings, ("input", name))
            value = default.evaluate({}) if default is not None else None
            found[name] = InputField(schema, not given.optional, value, given.description)
        return found

    def _declare_type(self, name: str, body: Mapping[str, Any]) -> None:
        """Makes a type of `types:` known; one with a fault stands for anything, so that its fault is told once."""
        if not name.isidentifier() or name in RESERVED_TYPE_NAMES:
            self.findings.error("L105", invalid_type_name(name), self.findings.place_of("types", name, key=True), hint=TYPE_NAME_HINT)
            return
        self.models[name] = ANY
        with self.findings.collect_errors():
            found = resolve_types({name: body}, self.models, lambda part: self.findings.place_of("types", name, part))[name]
            if too_large := type_size_error(found):
                place = self.findings.place_of("types", name, key=True)
                raise InputError("L106", f"the type {name} {too_large}", location=place, hint="leave a part open: dict[str, T]")
            try:
                Validator(found)
            except InputError as error:
                raise InputError(
                    error.code, f"{name}: {error.message}", location=self.findings.place_of("types", name), hint=error.hint, why=error.why
                ) from None
            self.models[name] = found

    def resolve_type(self, text: str, path: KeyPath) -> Schema:
        """The schema of a type's text; anything where it is none, which is noted (L040, L041)."""
        try:
            return parse_type(text, self.models)
        except InputError:
            with self.findings.collect_errors():
                parse_type(text, self.models, self.findings.place_of(*path))
            return ANY

    def compile_body(self, given: Mapping[str, AnyNode], output: Any, types: TypeScope, base: KeyPath) -> CompiledBody:
        """Nodes that see the names of `types`, with what they give. Faults are noted, and what has them gives anything.

        `types` is as before at the end.
        """
        path = (*base, "nodes")
        reads = {name: node_references(node) for name, node in given.items()}
        self._check_size(reads, path)
        hidden = {name: types[name] for name in given if name in types}
        for name, node in given.items():
            if name in _RESERVED_NAMES or name in types or (self.enclosing_nodes and self.is_in_scope(name, types)):
                self._check_name(name, (*path, name), types)
            if node.after:
                self._check_after(node, given, (*path, name))
        self.enclosing_nodes.append(given)
        names = frozenset(given)
        wants = {name: wanted.all if wanted.all <= names else wanted.all & names for name, wanted in reads.items()}
        order, cycle = topological_order(wants)
        if cycle:
            self._report_cycle(cycle, path)
            waiting = [name for name in given if name not in set(order)]
            types.update(dict.fromkeys(waiting, ANY))
            order += waiting
        drafts: dict[str, NodeDraft] = {}
        for name in order:
            draft = drafts[name] = modifiers.compile_node(self, name, given[name], types, reads[name], (*path, name))
            schema = types[name] = map_result_type(draft.output) if given[name].each is not None else draft.output
            if id(schema) not in self._sized_types:
                self._limit_type_size(types, name, path)
        made = self._compile_output(output, types, (*base, "output"))
        self._check_optional_choices(given, reads, drafts, path)
        acting = [name for name, node in given.items() if self.has_effects(node)]
        self._warn_unused(given, wants, referenced_names(output).union(acting), path)
        self._warn_unconditional_effects(acting, given, wants, output, path)
        self.enclosing_nodes.pop()
        found = {name: types.pop(name) for name in order}
        types.update(hidden)
        parts = made.parts
        always_present = (
            self.all_present(made.references) if parts is None else any(self.all_present(part.references) for part in parts.values())
        )
        schema = self._output_schema(made)
        certain = frozenset(name for name in given if self.always_present.pop(name))
        return CompiledBody(assemble_nodes(given, order, drafts, reads, wants), made, schema, always_present, found, certain, bool(acting))

    def _check_size(self, reads: Mapping[str, NodeReferences], path: KeyPath) -> None:
        if self.loop_depth > MAX_LOOPS:
            hint = "make one of them a workflow of its own, and `call` it"
            self.findings.abort("L106", f"more than {MAX_LOOPS} loops inside each other", self.findings.place_of(*path), hint=hint)
        self.node_count += len(reads)
        self.edge_count += sum([len(wanted.all) for wanted in reads.values()])
        # The body of a loop that reads `previous` is gone through three times at most.
        for what, count, most in (("nodes", self.node_count, MAX_NODES * 3), ("references", self.edge_count, MAX_EDGES * 3)):
            if count > (most if self.loop_depth else most // 3):
                hint = "move a part into a workflow of its own, and `call` it"
                said = (
                    f"more than {most // 3:,} {what}" if not self.loop_depth else f"more than {most:,} {what}, counting loops within loops"
                )
                self.findings.abort("L106", said, self.findings.place_of(*path), hint=hint)

    def _limit_type_size(self, types: TypeScope, name: str, path: KeyPath) -> None:
        if too_large := type_size_error(types[name]):
            hint = "pass on the parts that are needed, and not all of it"
            self.findings.error("L106", f"the type of {name!r} {too_large}", self.findings.place_of(*path, name, key=True), hint=hint)
            types[name] = ANY
        else:
            self._sized_types[id(types[name])] = types[name]

    def _report_cycle(self, cycle: list[str], path: KeyPath) -> None:
        way = list(reversed(cycle))
        if len(way) > 9:
            way = [*way[:4], "...", *way[-4:]]
        hint = "let one of them read something else, or make the repetition a `loop:`"
        self.findings.error("L110", f"a cycle: {' -> '.join(way)}", self.findings.place_of(*path, cycle[0], key=True), hint=hint)

    def _compile_output(self, output: Any, types: Types, path: KeyPath) -> Expression:
        made = try_compile(output, types, self.findings, path)
        if made is None:
            return null_expression()
        if not made.references:
            place = self.findings.place_of(*path)
            hint = 'output: ${node}, or a mapping: {answer: "${node}"}'
            self.findings.error("L121", "the output refers to nothing", place, hint=hint)
        return made

    def _output_schema(self, output: Expression) -> Schema:
        """The type of an output; a part that may be skipped or withheld may be null."""
        if isinstance(output, ListExpression):
            return output.tuple_schema([self._part_schema(item) for item in output.items])
        if output.parts is None:
            return output.schema
        return bundle_definitions({"title": "output", **object_type({key: self._part_schema(part) for key, part in output.parts.items()})})

    def _part_schema(self, part: Expression) -> Schema:
        return part.schema if self.all_present(part.references) else nullable(part.schema)

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

    def _check_name(self, name: str, path: KeyPath, types: Types | None = None) -> None:
        place_of, said = self.findings.place_of, ""
        if name in KEYWORDS:
            said = f"{name!r} is a word of the expression language"
        elif name == "input":
            said = "`input` is what the workflow's inputs are read from"
        elif types is not None and self.is_in_scope(name, types):
            said = f"{name!r} hides another of that name"
        if said:
            self.findings.error("L115", said, place_of(*path, key=True), hint=f"call it {name}_")

    def _check_after(self, node: AnyNode, given: Mapping[str, AnyNode], path: KeyPath) -> None:
        for index, wanted in enumerate(node.after):
            if wanted not in given:
                said = f"there is no node {wanted!r} here"
                self.findings.error(
                    "L111",
                    said,
                    self.findings.place_of(*path, "after", index),
                    hint=suggestion(wanted, given, f"nodes here: {join_names(given)}"),
                )

    def _check_optional_choices(
        self, given: Mapping[str, AnyNode], reads: Mapping[str, NodeReferences], drafts: Mapping[str, NodeDraft], path: KeyPath
    ) -> None:
        """Notes choices without a sure arm that other nodes read as plain values (L120)."""
        choices = [name for name, node in given.items() if isinstance(node, FirstOfNode) and node.each is None]
        wanted = frozenset().union(*(one.hard for one in reads.values())) if choices else ()
        for name in choices:
            if name in wanted and not drafts[name].always_present and not self.always_present[name]:
                hint = "add a last arm that is a plain value or a node without `when` and checks, or a `fallback:`"
                place = self.findings.place_of(*path, name, "first_of", len(drafts[name].arms) - 1)
                self.findings.error("L120", f"all arms of {name!r} may be without a value, and other nodes read it", place, hint=hint)

    def _warn_unused(self, given: Mapping[str, AnyNode], wants: Mapping[str, frozenset[str]], used: frozenset[str], path: KeyPath) -> None:
        """Warns of nodes that are not used, and that nothing used needs. Used are those that the output reads or that have an effect."""
        line = [name for name in given if name in used]
        seen = set(line)
        while line:
            new = wants[line.pop()] - seen
            seen |= new
            line += new
        for name in given if len(seen) < len(given) else ():
            if name not in seen:
                self.findings.warn(f"nothing needs the node {name!r}", self.findings.place_of(*path, name, key=True))

    def _warn_unconditional_effects(
        self, acting: Sequence[str], given: Mapping[str, AnyNode], wants: Mapping[str, frozenset[str]], output: Any, path: KeyPath
    ) -> None:
        """Warns of effects that happen in any case, though all that reads them is a `first_of` behind other arms, or a `fallback`."""
        readers: dict[str, list[str]] = {name: [] for name in acting}
        for reader, wanted in wants.items() if readers else ():
            for name in wanted:
                if name in readers:
                    readers[name].append(reader)
        returned = referenced_names(output)
        for name, found in readers.items():
            if len(found) == 1 and name not in returned and self.always_present.get(name, True):
                self._warn_effect_as_fallback(name, found[0], given[found[0]], path)
        choices = {name: node.first_of for name, node in given.items() if isinstance(node, FirstOfNode)} if acting else {}
        for name in acting if choices else ():
            self._warn_effects_after_failure(name, given[name].when, choices, path)

    def _warn_effects_after_failure(self, name: str, when: str | None, choices: Mapping[str, Sequence[Any]], path: KeyPath) -> None:
        """Warns of an effect that stands in for what may be withheld: it happens too where that failed."""
        own = parse_conditions([when[2:-1]]) if when is not None and when.startswith("${") and when.endswith("}") else None
        for other in names_tested_absent(own or (), choices.get):
            if not self.always_present.get(other, True) and self.presence_conditions.get(other) is None:
                said = f"{name!r} has effects and runs where {other!r} is withheld, and where it failed too"
                self.findings.warn(f"{said}; to tell them apart: docs/reference/language.md, A choice", self.findings.place_of(*path, name, "when"))

    def _warn_effect_as_fallback(self, name: str, by: str, reader: AnyNode, path: KeyPath) -> None:
        key = "fallback"
        soft = reader.fallback is not None and name in referenced_names(reader.fallback)
        if isinstance(reader, FirstOfNode):
            soft, key = soft or name not in referenced_names(reader.first_of[0]), key if soft else "first_of"
        if soft and name not in reader.after:
            said = f"{name!r} has effects and runs whatever happens, though {by!r} has it only as what stands in"
            self.findings.warn(f"{said}: give it a `when` (docs/reference/language.md, A choice)", self.findings.place_of(*path, by, key))

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
            self.findings.error("L116", f"the workflow calls itself: {way}", place, hint="use a `loop:`, which is bounded")
            return None
        if len(self.call_stack) > MAX_CALLS:
            self.findings.error(
                "L106", f"more than {MAX_CALLS} workflows call each other", place, hint="call some of them beside each other"
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
                return _compile_graph(graph, self.catalog, None, self.call_stack, self.workflows)
            except InputError as error:
                where = str(error.location).partition(": ")[2] or "its file"
                why = f"in the workflow {name!r}, at {where}" + (f": {error.why}" if error.why else "")
                if isinstance(place, WorkflowPart) and isinstance(error.location, WorkflowPart):
                    place = replace(place, called=error.location)
                self.findings.error(error.code, error.message, place, hint=error.hint or f"orchestra validate {name}", why=why)
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
