"""The compiler: a frozen graph and a catalog in, a program out; or every fault, with its place and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestra.agent.contract import Catalog
from orchestra.agent.types import declared
from orchestra.errors import InputError
from orchestra.values.schema import ANY, Schema, bundled, mapped, nearest, nullable
from orchestra.values.types import parse_type
from orchestra.workflow import modifiers
from orchestra.workflow.drafts import Draft, drafted
from orchestra.workflow.expressions import compile_template
from orchestra.workflow.findings import Findings
from orchestra.workflow.nodes import AnyNode, Defaults, FirstOfNode, Graph
from orchestra.workflow.ordering import Uses, names_in, ordered, uses
from orchestra.workflow.program import CompiledNode, Expression, InputField, Program
from orchestra.workflow.reader import Places
from orchestra.workflow.syntax import KEYWORDS
from orchestra.workflow.wiring import fits


def compile_graph(graph: Graph, catalog: Catalog, places: Places | None = None) -> Program:
    """The program of a workflow. Raises `InputError`, or `InputErrors` with all faults (L050 to L060, L110 to L130)."""
    return _compile(graph, catalog, places, ())


def _compile(graph: Graph, catalog: Catalog, places: Places | None, above: tuple[str, ...]) -> Program:
    findings = Findings(places)
    compiler = Compiler(graph, catalog, findings, (*above, graph.name))
    inputs = compiler.inputs()
    types = {"input": _record({name: entry.schema for name, entry in inputs.items()})}
    body = compiler.body(graph.nodes, graph.output, types, ("nodes",), ("output",))
    findings.settle()
    return Program(
        graph.name,
        body.nodes,
        body.output,
        body.schema,
        inputs,
        graph=graph,
        budget=graph.budget,
        label=graph.label or "internal",
        warnings=tuple(findings.warnings),
    )


def _record(fields: Mapping[str, Schema]) -> Schema:
    return bundled(
        {"type": "object", "title": "input", "properties": dict(fields), "required": list(fields), "additionalProperties": False}
    )


@dataclass(frozen=True, slots=True)
class Body:
    """Compiled nodes with their output."""

    nodes: tuple[CompiledNode, ...]
    output: Expression
    schema: Schema


@dataclass
class Compiler:
    """One workflow under way. `above` are the names of the workflows that call it, itself last."""

    graph: Graph
    catalog: Catalog
    findings: Findings
    above: tuple[str, ...]
    sure: dict[str, bool] = field(default_factory=dict)
    """Whether a node is neither skipped nor withheld, by its name; failures apart."""
    models: dict[str, Schema] = field(default_factory=dict)

    @property
    def defaults(self) -> Defaults:
        """The modifiers for nodes that state none."""
        return self.graph.defaults or Defaults()

    def inputs(self) -> dict[str, InputField]:
        """The workflow's inputs, their types read, their defaults checked."""
        self.models = dict(self.catalog.models)
        with self.findings.collecting():
            self.models = declared(self.graph.types, self.models, lambda name: self.findings.at("types", name))
        found: dict[str, InputField] = {}
        for name, given in self.graph.input.items():
            self._name(name, ("input", name))
            schema: Schema = ANY
            with self.findings.collecting():
                schema = self.type(given.type, ("input", name))
                if given.optional and given.default is not None:
                    fits(
                        f"the default of {name!r}",
                        compile_template(given.default, {}).schema,
                        schema,
                        self.findings,
                        self._at("input", name),
                    )
            found[name] = InputField(schema, not given.optional, given.default, given.description)
        return found

    def type(self, text: str, path: tuple[str | int, ...]) -> Schema:
        """The schema of a type's text; raises `InputError` L040 or L041."""
        return parse_type(text, self.models, self._at(*path))

    def _at(self, *path: str | int, key: bool = False) -> Any:
        return self.findings.at(*path, key=key)

    def body(
        self,
        given: Mapping[str, AnyNode],
        output: Any,
        outer: Mapping[str, Schema],
        path: tuple[str | int, ...],
        output_path: tuple[str | int, ...],
    ) -> Body:
        """Nodes that see the names of `outer`, with what they give. Faults are noted, and types of what has them are unknown."""
        reads = {name: uses(node) for name, node in given.items()}
        for name, node in given.items():
            self._name(name, (*path, name), outer)
            self._after(name, node, given, path)
        order, cycle = ordered({name: frozenset(wanted.all & given.keys()) for name, wanted in reads.items()})
        if cycle:
            hint = "let one of them read something else, or make the repetition a `loop:`"
            self.findings.fault("L110", f"a cycle: {' -> '.join(reversed(cycle))}", self._at(*path, cycle[0], key=True), hint=hint)
            order += [name for name in given if name not in order]
        types = dict(outer)
        drafts: dict[str, Draft] = {}
        for name in order:
            draft = self._node(name, given[name], types, (*path, name), reads[name])
            drafts[name] = draft
            types[name] = mapped(draft.output) if given[name].each is not None else draft.output
        compiled: Expression = compile_template(None, {})
        with self.findings.collecting():
            compiled = compile_template(output, types, lambda part: self._at(*output_path, *part))
        self._unsure(given, reads, path)
        self._unread(given, reads, names_in(output), path)
        return Body(_assembled(given, order, drafts, reads), compiled, self._output_schema(compiled))

    def _output_schema(self, output: Expression) -> Schema:
        """The type of an output; a part that may be skipped or withheld may be null."""
        if output.parts is None:
            return output.schema
        parts = {key: part.schema if self.surely(part.references) else nullable(part.schema) for key, part in output.parts.items()}
        return {**_record(parts), "title": "output"}

    def surely(self, names: frozenset[str]) -> bool:
        """Whether all of these have a value, failures apart."""
        return all(self.sure.get(name, True) for name in names)

    def _node(self, name: str, node: AnyNode, types: Mapping[str, Schema], path: tuple[str | int, ...], reads: Uses) -> Draft:
        inner, each = modifiers.spread(self, node, types, path)
        draft = drafted(self, name, node, inner, path)
        draft = replace(draft, each=each)
        draft = modifiers.completed(self, node, draft, types, inner, path)
        tolerated = draft.kind == "first_of" and not any(self.surely(arm.references) for arm in draft.arms)
        held = node.when is None and (draft.acceptance is None or node.each is not None) and self.surely(reads.hard) and not tolerated
        fallback = draft.fallback
        self.sure[name] = held or (fallback is not None and self.surely(fallback.references))
        return draft

    def _name(self, name: str, path: tuple[str | int, ...], outer: Mapping[str, Schema] | None = None) -> None:
        place = self._at(*path, key=True)
        if name in KEYWORDS or name == "input":
            self.findings.fault("L115", f"{name!r} is a word of the expression language", place, hint=f"call it {name}_")
        elif outer and name in outer:
            self.findings.fault("L115", f"{name!r} hides another of that name", place, hint="give it a name of its own")

    def _after(self, name: str, node: AnyNode, given: Mapping[str, AnyNode], path: tuple[str | int, ...]) -> None:
        for index, wanted in enumerate(node.after):
            if wanted not in given:
                near = nearest(wanted, given)
                hint = f"did you mean {near!r}?" if near else f"nodes here: {', '.join(given)}"
                self.findings.fault("L111", f"there is no node {wanted!r} here", self._at(*path, name, "after", index), hint=hint)

    def _unsure(self, given: Mapping[str, AnyNode], reads: Mapping[str, Uses], path: tuple[str | int, ...]) -> None:
        """Notes choices without a sure arm that other nodes read as plain values (L120)."""
        for name, node in given.items():
            if isinstance(node, FirstOfNode) and not self.sure.get(name, True) and any(name in wanted.hard for wanted in reads.values()):
                hint = "add a last arm that is a plain value or a node without `when` and checks, or a `fallback:`"
                place = self._at(*path, name, "first_of", len(node.first_of) - 1)
                self.findings.fault("L120", f"all arms of {name!r} may be without a value, and other nodes read it", place, hint=hint)

    def _unread(self, given: Mapping[str, AnyNode], reads: Mapping[str, Uses], output: frozenset[str], path: tuple[str | int, ...]) -> None:
        """Warns of nodes that the output never needs, and that have no effect either."""
        needed = set(output)
        line = [name for name in given if name in needed or self._acts(given[name])]
        seen: set[str] = set()
        while line:
            here = line.pop()
            if here in seen:
                continue
            seen.add(here)
            line += [name for name in reads[here].all if name in given]
        for name in given:
            if name not in seen:
                self.findings.warn(f"nothing needs the node {name!r}", self._at(*path, name, key=True))

    def _acts(self, node: AnyNode) -> bool:
        contract = self.catalog.tools.get(getattr(node, "tool", ""))
        return contract is not None and contract.effect != "pure"

    def called(self, name: str, path: tuple[str | int, ...]) -> Program | None:
        """A workflow that is called by name, compiled; faults are noted (L111, L116)."""
        if name in self.above:
            way = " -> ".join((*self.above[self.above.index(name) :], name))
            self.findings.fault("L116", f"the workflow calls itself: {way}", self._at(*path), hint="use a `loop:`, which is bounded")
            return None
        graph = self.catalog.workflows.get(name)
        if graph is None:
            self.unknown("workflow", name, self.catalog.workflows, path)
            return None
        try:
            return _compile(graph, self.catalog, None, self.above)
        except InputError as error:
            why = f"in the workflow {name!r}"
            self.findings.fault(error.code, error.message, self._at(*path), hint=error.hint or f"orchestra validate {name}", why=why)
            return None

    def unknown(self, what: str, name: str, known: Any, path: tuple[str | int, ...]) -> None:
        """Notes that nothing has this name (L111), with the nearest that does."""
        names = sorted(known)
        near = nearest(name, names)
        hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(names[:12]) or 'none'}"
        self.findings.fault("L111", f"there is no {what} {name!r}", self._at(*path), hint=hint)


def _assembled(
    given: Mapping[str, AnyNode], order: list[str], drafts: Mapping[str, Draft], reads: Mapping[str, Uses]
) -> tuple[CompiledNode, ...]:
    """The drafts as nodes: names become indices, and heights are counted from the sinks."""
    index = {name: number for number, name in enumerate(order)}
    needs = {name: tuple(sorted(index[want] for want in reads[name].all if want in index and want != name)) for name in order}
    children: dict[int, list[int]] = {number: [] for number in range(len(order))}
    for name in order:
        for need in needs[name]:
            children[need].append(index[name])
    heights = [1] * len(order)
    for number in reversed(range(len(order))):
        heights[number] = 1 + max((heights[child] for child in children[number] if child > number), default=0)
    return tuple(
        drafts[name].node(
            index=number,
            name=name,
            source=given[name],
            needs=needs[name],
            children=tuple(children[number]),
            soft=frozenset(index[want] for want in reads[name].soft if want in index),
            height=heights[number],
        )
        for number, name in enumerate(order)
    )
