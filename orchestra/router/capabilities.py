"""Offers: what a plan may be made of. Agents and tools with their types, the values at hand, the type wanted, and how large it may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from orchestra.agents.contract import Contract
from orchestra.router.constants import RequestIndex
from orchestra.router.plan_syntax import ELEMENT, IDENTIFIER, INPUT, PlanReference, PlanStep
from orchestra.schema.assignability import assignability_error
from orchestra.schema.strict_json import canonical, digest
from orchestra.schema.types import Schema, bundle_definitions, element_type, item_type, subschema, union, union_members
from orchestra.schema.types import field_type as part
from orchestra.workflows.compile.tool_agents import acts_before_approval, needs_permission
from orchestra.workflows.model import PlanLimits
from orchestra.workflows.program import Program

MAX_DEPTH = 3
"""Fields of fields that a reference reaches."""
MAX_PARTS = 40
"""Parts of one value that can be referred to at most."""


@dataclass(frozen=True)
class Capability:
    """An agent, a tool or a workflow, as a plan sees it: what it takes, by name, and what it gives."""

    name: str
    kind: Literal["agent", "tool", "call"]
    """The key of its node in the workflow language."""
    fields: Mapping[str, Schema]
    required: frozenset[str]
    output: Schema
    description: str = ""
    digest: str = ""
    """Of what it does: an agent's card, a tool's contract, a workflow with all that it calls."""
    min_calls: int = 1
    """Calls that one call of it surely makes, as a budget counts them: none of a tool, nor of a workflow that may ask nobody."""
    has_effects: bool = False
    """Whether a call may change the world, and no person is asked before."""

    @property
    def computes(self) -> bool:
        """Whether it gives a sum, an `expression` with its value, as the check `recompute` reads it."""
        given = self.output.get("properties", {})
        return "expression" in given and "answer" in given and len(given) == 2

    @classmethod
    def from_contract(cls, contract: Contract) -> Capability:
        """An agent or a tool."""
        fields = {name: subschema(contract.input, one) for name, one in contract.input.get("properties", {}).items()}
        required = frozenset(contract.input.get("required", ()))
        told = (
            contract.output,
            contract.description,
            contract.with_digest().digest,
            1 if contract.kind == "agent" else 0,
        )
        return cls(contract.name, contract.kind, fields, required, *told, has_effects=needs_permission(contract))

    @classmethod
    def from_workflow(cls, program: Program) -> Capability:
        """A workflow."""
        fields = {name: one.schema for name, one in program.inputs.items()}
        required = frozenset(name for name, one in program.inputs.items() if one.required)
        said = program.graph.description if program.graph is not None else ""
        told = program.output_schema, said, digest(canonical(_workflow_identity(program)))
        return cls(
            program.name,
            "call",
            fields,
            required,
            *told,
            min(1, len(program.required_agents)),
            has_effects=acts_before_approval(program),
        )


def _workflow_identity(program: Program) -> list[Any]:
    """What a workflow is: its graph, and the digests of all that it calls."""
    graph = (
        program.graph.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if program.graph is not None
        else None
    )
    contracts = [node.contract.with_digest().digest for node in program.nodes if node.contract is not None]
    plans = [node.plan_settings for node in program.nodes if node.plan_settings is not None]
    planned = [
        one.with_digest().digest
        for plan in plans
        for one in (*plan.capabilities, plan.router, plan.larger)
        if one is not None
    ]
    called = [_workflow_identity(one.program) for plan in plans for one in plan.workflows.values()]
    return [
        graph,
        contracts,
        planned,
        [*called, *(_workflow_identity(node.body) for node in program.nodes if node.body is not None)],
    ]


@dataclass(frozen=True, slots=True)
class RequestParts:
    """A request of several parts, and where in it they stand."""

    text: str
    spans: tuple[tuple[int, int], ...]
    computing: frozenset[str] = frozenset()
    """The skills that compute, and so do nothing about a part without a number."""

    def __iter__(self) -> Iterator[str]:
        return (self.text[start:end] for start, end in self.spans)


@dataclass(frozen=True)
class Capabilities:
    """What a plan may be made of."""

    by_name: Mapping[str, Capability]
    """Agents, tools and workflows by name, in the order in which they are told."""
    inputs: Mapping[str, Schema] = field(default_factory=dict)
    """The inputs that a plan may read."""
    output_type: Schema = field(default_factory=dict)
    """What is wanted; empty for anything, and then for more than one value too."""
    limits: PlanLimits = field(default_factory=PlanLimits)
    request_text: str = ""
    """The text that the plan's own texts are pieces of, which is to say the request; empty where a plan may state any text."""
    may_decline: bool = False
    """Whether the plan may be `return nothing`."""
    grounds: frozenset[str] = frozenset()
    """Inputs of which the first step reads one (`orchestra.router.grounding`)."""
    observed_types: Mapping[str, Schema] = field(default_factory=dict)
    """The types of steps that have run, where their values tell more than their skills do."""
    untrusted_inputs: frozenset[str] = frozenset()
    """Inputs that are nobody's own words: those that steps of an earlier plan gave, and those that are said to be hearsay."""
    calls_left: int | None = None
    """The calls that are left for the steps, where somebody limits them."""
    list_lengths: Mapping[str, int] = field(default_factory=dict)
    """How many elements the lists at hand have, by the references to them."""
    request_parts: RequestParts | None = None
    """The parts of a request that has several, each of which gets a step (`orchestra.router.multi_part`)."""
    request_index: RequestIndex | None = None
    """The request, in which the constants of calls with effects occur (`orchestra.router.effects`); None where literals are allowed."""
    confirm_effects: bool = False
    """Whether a person is asked before a plan makes calls with effects."""
    excluded: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Skills that there are and that a plan may not name all the same, each with a code and why: `is not on the shortlist`."""

    @classmethod
    def of(
        cls,
        capabilities: Iterable[Capability | Contract],
        inputs: Mapping[str, Schema],
        output_type: Schema | None = None,
        *,
        limits: PlanLimits | None = None,
        request_text: str = "",
        may_decline: bool = False,
    ) -> Capabilities:
        """An offer of these skills."""
        known = [one if isinstance(one, Capability) else Capability.from_contract(one) for one in capabilities]
        return cls(
            {one.name: one for one in known},
            dict(inputs),
            output_type or {},
            limits or PlanLimits(),
            request_text,
            may_decline,
        )

    @cached_property
    def assignability(self) -> AssignabilityCache:
        """What was proved of its types so far; an offer is asked the same at every step."""
        return AssignabilityCache()

    def produces_output(self, capability: str, *, each: bool) -> bool:
        """Whether what a skill gives, or a list of it, has a value of the type that is wanted."""
        scope = PlanScope(self, [PlanStep("s1", capability, each=PlanReference(ELEMENT) if each else None)])
        return any(self.assignability.mismatch(kind, self.output_type) is None for _, kind in scope.step_values())

    def restricted_to(self, names: Sequence[str]) -> Capabilities:
        """The offer with these skills alone."""
        return replace(self, by_name={name: self.by_name[name] for name in names})

    def with_budget(self, calls: int, given: Mapping[str, Any]) -> Capabilities:
        """The offer of a plan that has so many calls left, over these values at hand."""
        return replace(self, calls_left=calls, list_lengths=dict(_list_lengths(given)))


def _list_lengths(given: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The lists among values, by the references to them, with how many elements they have: they, and those that are fields of them."""
    line: list[tuple[PlanReference, Any]] = [(PlanReference(INPUT, (name,)), value) for name, value in given.items()]
    for here, value in line:
        if isinstance(value, list):
            yield str(here), len(value)
        elif isinstance(value, Mapping) and len(here.path) <= MAX_DEPTH:
            line += [(PlanReference(INPUT, (*here.path, name)), inner) for name, inner in value.items()]


_SCALAR_TYPES = frozenset({"string", "integer", "number", "boolean"})


class AssignabilityCache:
    """Which type can stand for which, remembered by what the types say."""

    def __init__(self) -> None:
        self._keys: dict[int, tuple[Schema, bytes]] = {}
        self._known: dict[tuple[bytes, bytes], str | None] = {}

    def schema_key(self, schema: Schema) -> bytes:
        """What tells a type from another one."""
        found = self._keys.get(id(schema))
        if found is None:
            found = self._keys[id(schema)] = (schema, canonical(schema))  # kept, so that its id stays its own
        return found[1]

    def mismatch(self, producer: Schema, consumer: Schema) -> str | None:
        """Why a value of one type is none of another; None where every one is."""
        key = (self.schema_key(producer), self.schema_key(consumer))
        if key not in self._known:
            self._known[key] = assignability_error(producer, consumer)
        return self._known[key]


def reachable_parts(value: PlanReference, schema: Schema) -> Iterator[tuple[PlanReference, Schema]]:
    """A value and its parts that are surely there, those nearest to it first, each with its type."""
    line: list[tuple[PlanReference, Schema]] = [(value, schema)]
    told = 0
    while line and told < MAX_PARTS:
        here, kind = line.pop(0)
        yield here, kind
        told += 1
        if len(here.path) - len(value.path) < MAX_DEPTH:
            line += _child_parts(here, kind)


def _child_parts(here: PlanReference, kind: Schema) -> Iterator[tuple[PlanReference, Schema]]:
    several = union_members(kind)
    if len(several) != 1:
        return
    if several[0].get("type") == "array":
        first = item_type(kind, 0)
        if isinstance(first, dict) and not (here.path and isinstance(here.path[-1], int)):
            yield PlanReference(here.root, (*here.path, 0)), first
    for name in several[0].get("required", ()):
        inner = part(kind, name)
        if isinstance(inner, dict) and IDENTIFIER.fullmatch(name):
            yield PlanReference(here.root, (*here.path, name)), inner


class PlanScope:
    """The values that a step can read: the inputs, and what the steps before it give."""

    def __init__(self, capabilities: Capabilities, steps: Sequence[PlanStep] = ()) -> None:
        self.capabilities = capabilities
        self.inputs = dict(capabilities.inputs)
        self.steps: dict[str, Schema] = {}
        self.mapped_steps = {step.name for step in steps if step.each is not None}
        for step in steps:
            self.add(step)

    def add(self, step: PlanStep) -> None:
        """One more step; one of an unknown skill gives anything."""
        if step.name in self.capabilities.observed_types:
            self.steps[step.name] = self.capabilities.observed_types[step.name]
            return
        capability = self.capabilities.by_name.get(step.capability)
        one = capability.output if capability is not None else {}
        self.steps[step.name] = bundle_definitions({"type": "array", "items": one}) if step.each else one

    @cached_property
    def _inputs(self) -> list[tuple[PlanReference, Schema]]:
        return [
            found
            for name, kind in self.inputs.items()
            for found in reachable_parts(PlanReference(INPUT, (name,)), kind)
        ]

    def available_values(self) -> list[tuple[PlanReference, Schema]]:
        """All that can be referred to, with its type: the inputs first, then the steps in their order."""
        return [*self._inputs, *self.step_values()]

    def step_values(self) -> list[tuple[PlanReference, Schema]]:
        """What the steps give, and its parts."""
        return [found for name, kind in self.steps.items() for found in reachable_parts(PlanReference(name), kind)]

    def lists(self) -> list[tuple[PlanReference, Schema]]:
        """The lists at hand, each with the type of its elements."""
        found = []
        for reference, kind in self.available_values():
            several = union_members(kind)
            inner = element_type(kind) if len(several) == 1 and several[0].get("type") == "array" else ""
            if isinstance(inner, dict):
                found.append((reference, inner))
        return found

    def is_untrusted(self, value: PlanReference, kind: Schema, over: PlanReference | None = None) -> bool:
        """Whether a value of this type may be the words of a tool, a model or a document: what a step gave, or a part of a document. Of a
        closed type it only chooses among what its author has listed. `over` is the list at hand that `x` is an element of."""
        if value.root == ELEMENT:
            if over is None:
                return False  # of a list that the plan states
            value = PlanReference(over.root, (*over.path, 0, *value.path))
        if all(one.keys() & {"enum", "const"} or one.get("type") in ("boolean", "null") for one in union_members(kind)):
            return False
        if value.root != INPUT or not value.path or value.path[0] in self.capabilities.untrusted_inputs:
            return True
        around = (self.type_of(PlanReference(INPUT, value.path[:length])) for length in range(1, len(value.path)))
        return any(isinstance(one, dict) and _is_document(one) for one in around)

    def type_of(self, reference: PlanReference, element: Schema | None = None) -> Schema | str:
        """The type of what a reference names, or why it names nothing. `element` is the type of `x`, where there is one."""
        path = reference.path
        kind: Schema | str
        if reference.root == INPUT:
            if not path or path[0] not in self.inputs:
                known = ", ".join(f"{INPUT}.{name}" for name in self.inputs)
                return f"there is no {INPUT}{'.' + str(path[0]) if path else ' as such'} (known: {known or 'none'})"
            kind, path = self.inputs[str(path[0])], path[1:]
        elif reference.root == ELEMENT and element is not None:
            kind = element
        elif reference.root in self.steps:
            kind = self.steps[reference.root]
        else:
            return f"there is no {reference.root} before this step (known: {', '.join([INPUT, *self.steps])})"
        for one in path:
            if isinstance(kind, str):
                return kind
            kind = item_type(kind, one) if isinstance(one, int) else part(kind, one)
        return kind


class PossiblePlanScope(PlanScope):
    """The values at hand where nobody knows yet what the earlier steps are: each may be a call of any skill."""

    def __init__(self, capabilities: Capabilities, names: Sequence[str]) -> None:
        super().__init__(capabilities)
        self._names = names

    def step_values(self) -> list[tuple[PlanReference, Schema]]:
        """Each type that some skill gives, and lists of it, under each name."""
        outputs = {canonical(capability.output): capability.output for capability in self.capabilities.by_name.values()}
        found: dict[tuple[str, bytes], tuple[PlanReference, Schema]] = {}
        for name in self._names:
            for output in outputs.values():
                for kind in (output, {"type": "array", "items": output}):
                    for reference, inner in reachable_parts(PlanReference(name), kind):
                        found.setdefault(
                            (str(reference), self.capabilities.assignability.schema_key(inner)), (reference, inner)
                        )
        return list(found.values())


def _is_document(kind: Schema) -> bool:
    """Whether a value may be a text with the name of where it comes from."""
    return any({"source", "text"} <= one.get("properties", {}).keys() for one in union_members(kind))


def statable_types(kind: Schema) -> list[Schema]:
    """Of a type, what a plan may state as a constant: texts, numbers, truth values, choices, and lists of them. It makes up no records, and
    no lists of lists: these are tables, which is to say evidence."""
    return [one for one in union_members(kind) if _is_statable(one)]


def _is_statable(kind: Schema) -> bool:
    if "enum" in kind or "const" in kind:
        return True
    if kind.get("type") == "array":
        inner = kind.get("items")
        if not isinstance(inner, dict) or "prefixItems" in kind:
            return False
        return all(one.get("type") != "array" and _is_statable(one) for one in union_members(subschema(kind, inner)))
    return kind.get("type") in _SCALAR_TYPES and kind.get("format") != "quote"


def literal_element_type(stated: Sequence[Any]) -> Schema:
    """The type of an element of a list that a plan states: one of these values."""
    return union([{"const": one} for one in stated])


def is_free_text(kind: Schema) -> bool:
    """Whether a type is any text; where `request_text` is set, a plan states pieces of it only."""
    return kind.get("type") == "string" and not kind.keys() & {"enum", "const", "pattern", "format"}
