"""The compiler: a frozen graph and a catalog in, a program out; or every fault, with its place and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from orchestra.agents.card_types import NAMED, declared, misnamed
from orchestra.agents.contract import Catalog, Contract
from orchestra.core.errors import InputError
from orchestra.core.labels import Label, join
from orchestra.schema.json_schema import ANY, Schema, bundled, mapped, nullable, record
from orchestra.schema.types import WORDS, Validator, parse_type
from orchestra.workflows.compile import modifiers
from orchestra.workflows.compile.assemble import assembled, excess, nothing
from orchestra.workflows.compile.diagnostics import Enough, Findings, Part
from orchestra.workflows.compile.inputs import Path, Takes, Types, compiled, fits, listed, meant
from orchestra.workflows.compile.nodes import Draft, Names
from orchestra.workflows.compile.ordering import Uses, names_in, ordered, uses
from orchestra.workflows.expressions.coverage import Conditions, asked_of, conditions, together
from orchestra.workflows.expressions.evaluation import Listing
from orchestra.workflows.expressions.parser import KEYWORDS
from orchestra.workflows.model import AgentNode, AnyNode, Block, CallNode, Defaults, FirstOfNode, Graph, LoopNode, PlanNode, ToolNode
from orchestra.workflows.program import CompiledNode, Expression, InputField, Program
from orchestra.workflows.yaml.reader import MAX_EDGES, MAX_NODES, Places

MAX_CALLS = 32
"""Workflows that call each other in a row, at most."""
MAX_LOOPS = 4
"""Loops inside each other, at most: for the type of `previous` each body is gone through up to three times."""


_TAKEN = KEYWORDS | {"input"}


def compile_graph(graph: Graph, catalog: Catalog, places: Places | None = None, *, called: Mapping[str, Called] | None = None) -> Program:
    """The program of a workflow. `called` are workflows that are compiled already, by the names under which this one calls them.

    Raises `InputError`, or `InputErrors` with all faults (L040 to L063, L105 to L121, A002).
    """
    return _compile(graph, catalog, places, (), dict(called or {})).program


@dataclass(frozen=True)
class Called:
    """A workflow that others call."""

    program: Program
    sure: bool
    """Whether it always gives a value, failures apart."""
    acts: bool
    """Whether it may have an effect."""
    label: Label | None = None
    """The strictest that it, or a workflow that it may call, states; None where none states one."""

    @cached_property
    def takes(self) -> Takes:
        """Its inputs."""
        inputs = self.program.inputs
        fields = {name: entry.schema for name, entry in inputs.items()}
        return Takes(bundled(record(fields, [name for name, entry in inputs.items() if entry.required])))


def _compile(graph: Graph, catalog: Catalog, places: Places | None, above: tuple[str, ...], programs: dict[str, Called | None]) -> Called:
    """A workflow, with what its callers must know of it."""
    findings = Findings(graph.name, places)
    compiler = Compiler(graph, catalog, findings, (*above, graph.name), programs)
    inputs: Mapping[str, InputField] = {}
    body = Body((), nothing(), {}, True, {}, frozenset(), False)
    try:
        inputs = compiler.inputs()
        given = {"title": "input", **record({name: entry.schema for name, entry in inputs.items()})}
        body = compiler.body(graph.nodes, graph.output, {"input": bundled(given)}, ())
        if graph.accept is not None:
            body = modifiers.whole(compiler, graph, body)
    except Enough:
        pass
    findings.settle()
    warnings = tuple(findings.warnings)
    stated = [label for label in (graph.label, *compiler.labels) if label is not None]
    label = join((graph.label or "internal", *stated))
    program = Program(
        graph.name, body.nodes, body.output, body.schema, inputs, graph=graph, budget=graph.budget, label=label, warnings=warnings
    )
    return Called(program, body.sure, body.acts, join(stated) if stated else None)


@dataclass(frozen=True, slots=True)
class Body:
    """Compiled nodes with their output."""

    nodes: tuple[CompiledNode, ...]
    output: Expression
    schema: Schema
    sure: bool
    """Whether its output always is a value, failures apart."""
    types: Types
    """Of its nodes, as what stands beside them sees them."""
    certain: frozenset[str]
    """Its nodes that always are a value, failures apart."""
    acts: bool
    """Whether one of its nodes may have an effect."""

    def program(self, name: str) -> Program:
        """The body as the program of a node."""
        return Program(name, self.nodes, self.output, self.schema, {}, lexical=True)


@dataclass
class Compiler:
    """One workflow under way. `above` are the names of the workflows that call it, itself last."""

    graph: Graph
    catalog: Catalog
    findings: Findings
    above: tuple[str, ...]
    programs: dict[str, Called | None] = field(default_factory=dict)
    """The workflows that were called so far, by name; None for those with faults."""
    sure: dict[str, bool] = field(default_factory=dict)
    """Of the nodes that can be seen here: whether it is neither skipped nor withheld, failures apart."""
    given: dict[str, Conditions | None] = field(default_factory=dict)
    """Of nodes that are not sure: the conditions under which they have a value, failures apart; None where that is not known."""
    labels: list[Label | None] = field(default_factory=list)
    """What the workflows state that are called here, or that a plan here may call."""
    around: list[Mapping[str, AnyNode]] = field(default_factory=list)
    """The nodes of the bodies that are under way, the innermost last."""
    models: dict[str, Schema] = field(default_factory=dict)
    loops: int = 0
    """Loops that are under way."""
    nodes: int = 0
    edges: int = 0
    _takes: dict[int, Takes] = field(default_factory=dict)
    """By the `id` of a contract of the catalog."""
    _small: dict[int, Schema] = field(default_factory=dict)
    """By their `id`: types that are not too large."""
    _acts: dict[int, bool] = field(default_factory=dict)
    """By the `id` of a node of the graph: whether it acts."""

    @cached_property
    def defaults(self) -> Defaults:
        """The modifiers for nodes that state none."""
        return self.graph.defaults or Defaults()

    def takes(self, contract: Contract) -> Takes:
        """What an agent or a tool takes."""
        if (found := self._takes.get(id(contract))) is None:
            found = self._takes[id(contract)] = Takes(contract.input)
        return found

    def inputs(self) -> dict[str, InputField]:
        """The workflow's inputs, their types read, their defaults checked."""
        if self.graph.name in KEYWORDS:
            hint = f"call it {self.graph.name}_"
            self.findings.fault("L115", f"{self.graph.name!r} is a word of the expression language", self.findings.at("name"), hint=hint)
        self.models = dict(self.catalog.models)
        for name, body in self.graph.types.items():
            self._declare(name, body)
        found: dict[str, InputField] = {}
        for name, given in self.graph.input.items():
            self._name(name, ("input", name))
            schema = self.type(given.type, ("input", name))
            default = compiled(given.default, {}, self.findings, ("input", name)) if given.optional else None
            if default is not None and schema != ANY:
                fits(f"the default of {name!r}", default.schema, schema, self.findings, ("input", name))
            value = default.evaluate({}) if default is not None else None
            found[name] = InputField(schema, not given.optional, value, given.description)
        return found

    def _declare(self, name: str, body: Mapping[str, Any]) -> None:
        """Makes a type of `types:` known; one with a fault stands for anything, so that its fault is told once."""
        if not name.isidentifier() or name in WORDS:
            self.findings.fault("L105", misnamed(name), self.findings.at("types", name, key=True), hint=NAMED)
            return
        self.models[name] = ANY
        with self.findings.collecting():
            found = declared({name: body}, self.models, lambda part: self.findings.at("types", name, part))[name]
            if too_large := excess(found):
                place = self.findings.at("types", name, key=True)
                raise InputError("L106", f"the type {name} {too_large}", place=place, hint="leave a part open: dict[str, T]")
            try:
                Validator(found)
            except InputError as error:
                raise InputError(
                    error.code, f"{name}: {error.message}", place=self.findings.at("types", name), hint=error.hint, why=error.why
                ) from None
            self.models[name] = found

    def type(self, text: str, path: Path) -> Schema:
        """The schema of a type's text; anything where it is none, which is noted (L040, L041)."""
        try:
            return parse_type(text, self.models)
        except InputError:
            with self.findings.collecting():
                parse_type(text, self.models, self.findings.at(*path))
            return ANY

    def body(self, given: Mapping[str, AnyNode], output: Any, types: Names, base: Path) -> Body:
        """Nodes that see the names of `types`, with what they give. Faults are noted, and what has them gives anything.

        `types` is as before at the end.
        """
        path = (*base, "nodes")
        reads = {name: uses(node) for name, node in given.items()}
        self._measure(reads, path)
        hidden = {name: types[name] for name in given if name in types}
        for name, node in given.items():
            if name in _TAKEN or name in types or (self.around and self.sees(name, types)):
                self._name(name, (*path, name), types)
            if node.after:
                self._after(node, given, (*path, name))
        self.around.append(given)
        names = frozenset(given)
        wants = {name: wanted.all if wanted.all <= names else wanted.all & names for name, wanted in reads.items()}
        order, cycle = ordered(wants)
        if cycle:
            self._cycle(cycle, path)
            waiting = [name for name in given if name not in set(order)]
            types.update(dict.fromkeys(waiting, ANY))
            order += waiting
        drafts: dict[str, Draft] = {}
        for name in order:
            draft = drafts[name] = modifiers.modified(self, name, given[name], types, reads[name], (*path, name))
            schema = types[name] = mapped(draft.output) if given[name].each is not None else draft.output
            if id(schema) not in self._small:
                self._bounded(types, name, path)
        made = self._output(output, types, (*base, "output"))
        self._unsure(given, reads, drafts, path)
        acting = [name for name, node in given.items() if self.acts(node)]
        self._unread(given, wants, names_in(output).union(acting), path)
        self._anyway(acting, given, wants, output, path)
        self.around.pop()
        found = {name: types.pop(name) for name in order}
        types.update(hidden)
        parts = made.parts
        sure = self.surely(made.references) if parts is None else any(self.surely(part.references) for part in parts.values())
        schema = self._output_schema(made)
        certain = frozenset(name for name in given if self.sure.pop(name))
        return Body(assembled(given, order, drafts, reads, wants), made, schema, sure, found, certain, bool(acting))

    def _measure(self, reads: Mapping[str, Uses], path: Path) -> None:
        if self.loops > MAX_LOOPS:
            hint = "make one of them a workflow of its own, and `call` it"
            self.findings.only("L106", f"more than {MAX_LOOPS} loops inside each other", self.findings.at(*path), hint=hint)
        self.nodes += len(reads)
        self.edges += sum([len(wanted.all) for wanted in reads.values()])
        # The body of a loop that reads `previous` is gone through three times at most.
        for what, count, most in (("nodes", self.nodes, MAX_NODES * 3), ("references", self.edges, MAX_EDGES * 3)):
            if count > (most if self.loops else most // 3):
                hint = "move a part into a workflow of its own, and `call` it"
                said = f"more than {most // 3:,} {what}" if not self.loops else f"more than {most:,} {what}, counting loops within loops"
                self.findings.only("L106", said, self.findings.at(*path), hint=hint)

    def _bounded(self, types: Names, name: str, path: Path) -> None:
        if too_large := excess(types[name]):
            hint = "pass on the parts that are needed, and not all of it"
            self.findings.fault("L106", f"the type of {name!r} {too_large}", self.findings.at(*path, name, key=True), hint=hint)
            types[name] = ANY
        else:
            self._small[id(types[name])] = types[name]

    def _cycle(self, cycle: list[str], path: Path) -> None:
        way = list(reversed(cycle))
        if len(way) > 9:
            way = [*way[:4], "...", *way[-4:]]
        hint = "let one of them read something else, or make the repetition a `loop:`"
        self.findings.fault("L110", f"a cycle: {' -> '.join(way)}", self.findings.at(*path, cycle[0], key=True), hint=hint)

    def _output(self, output: Any, types: Types, path: Path) -> Expression:
        made = compiled(output, types, self.findings, path)
        if made is None:
            return nothing()
        if not made.references:
            place = self.findings.at(*path)
            hint = 'output: ${node}, or a mapping: {answer: "${node}"}'
            self.findings.fault("L121", "the output refers to nothing", place, hint=hint)
        return made

    def _output_schema(self, output: Expression) -> Schema:
        """The type of an output; a part that may be skipped or withheld may be null."""
        if isinstance(output, Listing):
            return output.of([self._part_schema(item) for item in output.items])
        if output.parts is None:
            return output.schema
        return bundled({"title": "output", **record({key: self._part_schema(part) for key, part in output.parts.items()})})

    def _part_schema(self, part: Expression) -> Schema:
        return part.schema if self.surely(part.references) else nullable(part.schema)

    def surely(self, names: frozenset[str]) -> bool:
        """Whether all of these have a value, failures apart."""
        for name in names:  # noqa: SIM110  # `all` of a generator takes three times as long, and this is asked of every node
            if not self.sure.get(name, True):
                return False
        return True

    def conditions(self, names: frozenset[str]) -> Conditions | None:
        """The conditions under which all of these have a value, failures apart; None where that is not known."""
        return together(() if self.sure.get(name, True) else self.given.get(name) for name in sorted(names))

    def sees(self, name: str, types: Types) -> bool:
        """Whether something around has this name."""
        return name in types or any(name in nodes for nodes in self.around)

    def _name(self, name: str, path: Path, types: Types | None = None) -> None:
        place_of, said = self.findings.at, ""
        if name in KEYWORDS:
            said = f"{name!r} is a word of the expression language"
        elif name == "input":
            said = "`input` is what the workflow's inputs are read from"
        elif types is not None and self.sees(name, types):
            said = f"{name!r} hides another of that name"
        if said:
            self.findings.fault("L115", said, place_of(*path, key=True), hint=f"call it {name}_")

    def _after(self, node: AnyNode, given: Mapping[str, AnyNode], path: Path) -> None:
        for index, wanted in enumerate(node.after):
            if wanted not in given:
                said = f"there is no node {wanted!r} here"
                self.findings.fault(
                    "L111", said, self.findings.at(*path, "after", index), hint=meant(wanted, given, f"nodes here: {listed(given)}")
                )

    def _unsure(self, given: Mapping[str, AnyNode], reads: Mapping[str, Uses], drafts: Mapping[str, Draft], path: Path) -> None:
        """Notes choices without a sure arm that other nodes read as plain values (L120)."""
        choices = [name for name, node in given.items() if isinstance(node, FirstOfNode) and node.each is None]
        wanted = frozenset().union(*(one.hard for one in reads.values())) if choices else ()
        for name in choices:
            if name in wanted and not drafts[name].sure and not self.sure[name]:
                hint = "add a last arm that is a plain value or a node without `when` and checks, or a `fallback:`"
                place = self.findings.at(*path, name, "first_of", len(drafts[name].arms) - 1)
                self.findings.fault("L120", f"all arms of {name!r} may be without a value, and other nodes read it", place, hint=hint)

    def _unread(self, given: Mapping[str, AnyNode], wants: Mapping[str, frozenset[str]], used: frozenset[str], path: Path) -> None:
        """Warns of nodes that are not used, and that nothing used needs. Used are those that the output reads or that have an effect."""
        line = [name for name in given if name in used]
        seen = set(line)
        while line:
            new = wants[line.pop()] - seen
            seen |= new
            line += new
        for name in given if len(seen) < len(given) else ():
            if name not in seen:
                self.findings.warn(f"nothing needs the node {name!r}", self.findings.at(*path, name, key=True))

    def _anyway(
        self, acting: Sequence[str], given: Mapping[str, AnyNode], wants: Mapping[str, frozenset[str]], output: Any, path: Path
    ) -> None:
        """Warns of effects that happen in any case, though all that reads them is a `first_of` behind other arms, or a `fallback`."""
        readers: dict[str, list[str]] = {name: [] for name in acting}
        for reader, wanted in wants.items() if readers else ():
            for name in wanted:
                if name in readers:
                    readers[name].append(reader)
        returned = names_in(output)
        for name, found in readers.items():
            if len(found) == 1 and name not in returned and self.sure.get(name, True):
                self._soft(name, found[0], given[found[0]], path)
        choices = {name: node.first_of for name, node in given.items() if isinstance(node, FirstOfNode)} if acting else {}
        for name in acting if choices else ():
            self._after_failures(name, given[name].when, choices, path)

    def _after_failures(self, name: str, when: str | None, choices: Mapping[str, Sequence[Any]], path: Path) -> None:
        """Warns of an effect that stands in for what may be withheld: it happens too where that failed."""
        own = conditions([when[2:-1]]) if when is not None and when.startswith("${") and when.endswith("}") else None
        for other in asked_of(own or (), choices.get):
            if not self.sure.get(other, True) and self.given.get(other) is None:
                said = f"{name!r} has effects and runs where {other!r} is withheld, and where it failed too"
                self.findings.warn(
                    f"{said}; to tell them apart: docs/reference/language.md, A choice", self.findings.at(*path, name, "when")
                )

    def _soft(self, name: str, by: str, reader: AnyNode, path: Path) -> None:
        key = "fallback"
        soft = reader.fallback is not None and name in names_in(reader.fallback)
        if isinstance(reader, FirstOfNode):
            soft, key = soft or name not in names_in(reader.first_of[0]), key if soft else "first_of"
        if soft and name not in reader.after:
            said = f"{name!r} has effects and runs whatever happens, though {by!r} has it only as what stands in"
            self.findings.warn(f"{said}: give it a `when` (docs/reference/language.md, A choice)", self.findings.at(*path, by, key))

    def acts(self, node: AnyNode) -> bool:
        """Whether a node may have an effect, itself or inside."""
        if (found := self._acts.get(id(node))) is None:
            found = self._acts[id(node)] = self._may_act(node)
        return found

    def _may_act(self, node: AnyNode) -> bool:
        match node:
            case ToolNode(tool=name):
                contract = self.catalog.tools.get(name)
                return contract is not None and contract.effect != "pure"
            case PlanNode(tools=tools, workflows=workflows):
                known = (self.catalog.tools[name] for name in tools if name in self.catalog.tools)
                return any(tool.effect != "pure" for tool in known) or any(map(self._calls_what_acts, workflows))
            case AgentNode(tools=names):
                return any(name in self.catalog.tools and self.catalog.tools[name].effect != "pure" for name in names)
            case CallNode(call=Block(nodes=inner)) | LoopNode(loop=Block(nodes=inner)):
                return any(self.acts(one) for one in inner.values())
            case CallNode(call=str(name)):
                return self._calls_what_acts(name)
            case _:
                return False

    def _calls_what_acts(self, name: str) -> bool:
        called = self.programs.get(name)
        return called is not None and called.acts

    def called(self, name: str, path: Path) -> Called | None:
        """A workflow that is called by name, compiled once, and whether it always gives a value; faults are noted (L106, L111, L116)."""
        place = self.findings.at(*path)
        if name in self.above and name not in self.programs:
            way = " -> ".join((*self.above[self.above.index(name) :], name))
            self.findings.fault("L116", f"the workflow calls itself: {way}", place, hint="use a `loop:`, which is bounded")
            return None
        if len(self.above) > MAX_CALLS:
            self.findings.fault(
                "L106", f"more than {MAX_CALLS} workflows call each other", place, hint="call some of them beside each other"
            )
            return None
        if name not in self.programs:
            self.programs[name] = self._called(name, path)
        elif self.programs[name] is None:
            self.findings.fault("L111", f"the workflow {name!r} has faults", place, hint=f"orchestra validate {name}")
        if (found := self.programs[name]) is not None:
            self.labels.append(found.label)
        return found

    def _called(self, name: str, path: Path) -> Called | None:
        place = self.findings.at(*path)
        with self.findings.collecting():
            graph = self.catalog.workflows.get(name)
            if graph is None:
                self.unknown("workflow", name, self.catalog.workflows, path)
                return None
            try:
                return _compile(graph, self.catalog, None, self.above, self.programs)
            except InputError as error:
                where = str(error.place).partition(": ")[2] or "its file"
                why = f"in the workflow {name!r}, at {where}" + (f": {error.why}" if error.why else "")
                if isinstance(place, Part) and isinstance(error.place, Part):
                    place = replace(place, called=error.place)
                self.findings.fault(error.code, error.message, place, hint=error.hint or f"orchestra validate {name}", why=why)
        return None

    def unknown(self, what: str, name: str, known: Iterable[str], path: Path) -> None:
        """Notes that nothing has this name (L111), with the nearest that does; or what is wrong with an agent that cannot be used."""
        if what == "agent" and (error := self.catalog.broken.get(name)) is not None:
            self.findings.note(error)
            return
        names = sorted(known)
        own = "; your own come from `modules` in orchestra.toml" if what == "tool" else ""
        hint = meant(name, names, f"there are: {listed(names)}{own}")
        self.findings.fault("L111", f"there is no {what} {name!r}", self.findings.at(*path), hint=hint)
