"""Capabilities: what a plan may use. Agents, tools and workflows with their types, the available values, the output
type, and the limits.
"""

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
"""Maximum depth of fields that a reference reaches."""
MAX_PARTS = 40
"""Maximum number of parts of one value that can be referenced."""


@dataclass(frozen=True)
class Capability:
    """An agent, a tool or a workflow as the planner sees it: its parameters by name, and its output."""

    name: str
    kind: Literal["agent", "tool", "call"]
    """Key of its node in the workflow language."""
    fields: Mapping[str, Schema]
    required: frozenset[str]
    output: Schema
    description: str = ""
    digest: str = ""
    """Digest of its implementation: an agent's card, a tool's contract, or a workflow with everything that it calls."""
    min_calls: int = 1
    """Minimum number of agent calls per call, for the budget: 0 for a tool, and for a workflow that may call no agent.
    """
    has_effects: bool = False
    """Whether a call has effects without asking a person first."""

    @property
    def computes(self) -> bool:
        """Whether the output is an `expression` with its `answer`, as the check `recompute` expects."""
        properties = self.output.get("properties", {})
        return "expression" in properties and "answer" in properties and len(properties) == 2

    @classmethod
    def from_contract(cls, contract: Contract) -> Capability:
        """Builds the capability of an agent or a tool."""
        fields = {
            name: subschema(contract.input, field_schema)
            for name, field_schema in contract.input.get("properties", {}).items()
        }
        required = frozenset(contract.input.get("required", ()))
        attributes = (
            contract.output,
            contract.description,
            contract.with_digest().digest,
            1 if contract.kind == "agent" else 0,
        )
        return cls(contract.name, contract.kind, fields, required, *attributes, has_effects=needs_permission(contract))

    @classmethod
    def from_workflow(cls, program: Program) -> Capability:
        """Builds the capability of a workflow."""
        fields = {name: input_field.schema for name, input_field in program.inputs.items()}
        required = frozenset(name for name, input_field in program.inputs.items() if input_field.required)
        description = program.graph.description if program.graph is not None else ""
        attributes = program.output_schema, description, digest(canonical(_workflow_identity(program)))
        return cls(
            program.name,
            "call",
            fields,
            required,
            *attributes,
            min(1, len(program.required_agents)),
            has_effects=acts_before_approval(program),
        )


def _workflow_identity(program: Program) -> list[Any]:
    """Identity of a workflow: its graph, and the digests of everything that it calls."""
    graph = (
        program.graph.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if program.graph is not None
        else None
    )
    contracts = [node.contract.with_digest().digest for node in program.nodes if node.contract is not None]
    plans = [node.plan_settings for node in program.nodes if node.plan_settings is not None]
    digests = [
        contract.with_digest().digest
        for plan in plans
        for contract in (*plan.capabilities, plan.router, plan.larger)
        if contract is not None
    ]
    identities = [_workflow_identity(workflow.program) for plan in plans for workflow in plan.workflows.values()]
    return [
        graph,
        contracts,
        digests,
        [*identities, *(_workflow_identity(node.body) for node in program.nodes if node.body is not None)],
    ]


@dataclass(frozen=True, slots=True)
class RequestParts:
    """A request with several parts, and their spans in its text."""

    text: str
    spans: tuple[tuple[int, int], ...]
    computing: frozenset[str] = frozenset()
    """Capabilities that compute. They cannot serve a part without a number."""

    def __iter__(self) -> Iterator[str]:
        return (self.text[start:end] for start, end in self.spans)


@dataclass(frozen=True)
class Capabilities:
    """Everything that a plan may use."""

    by_name: Mapping[str, Capability]
    """Agents, tools and workflows by name, in the order in which the planner sees them."""
    inputs: Mapping[str, Schema] = field(default_factory=dict)
    """Inputs that a plan may read."""
    output_type: Schema = field(default_factory=dict)
    """Output type. An empty schema allows any value, and several of them."""
    limits: PlanLimits = field(default_factory=PlanLimits)
    request_text: str = ""
    """The request, if texts in the plan must be substrings of it; empty if a plan may state any text."""
    may_decline: bool = False
    """Whether the plan may be `return nothing`."""
    grounds: frozenset[str] = frozenset()
    """Inputs of which the first step must read one (`orchestra.router.grounding`)."""
    observed_types: Mapping[str, Schema] = field(default_factory=dict)
    """Types of completed steps, if their values are more specific than the declared output."""
    untrusted_inputs: frozenset[str] = frozenset()
    """Inputs with untrusted content: outputs of an earlier plan's steps, and inputs declared untrusted."""
    calls_left: int | None = None
    """Agent calls left for the steps; None without a limit."""
    list_lengths: Mapping[str, int] = field(default_factory=dict)
    """Lengths of the available lists, by reference."""
    request_parts: RequestParts | None = None
    """Parts of a request with several parts, each of which needs a step (`orchestra.router.multi_part`)."""
    request_index: RequestIndex | None = None
    """Index of the request, in which the constants of calls with effects must occur (`orchestra.router.effects`); None
    if literals are allowed.
    """
    confirm_effects: bool = False
    """Whether a person confirms the calls with effects of a plan."""
    excluded: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Known capabilities that a plan may not use, each with an error code and the reason, such as `is not on the
    shortlist`.
    """

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
        """Builds the capabilities of a plan from contracts."""
        all_capabilities = [
            capability if isinstance(capability, Capability) else Capability.from_contract(capability)
            for capability in capabilities
        ]
        return cls(
            {capability.name: capability for capability in all_capabilities},
            dict(inputs),
            output_type or {},
            limits or PlanLimits(),
            request_text,
            may_decline,
        )

    @cached_property
    def assignability(self) -> AssignabilityCache:
        """Cache of type comparisons. The same ones recur at every step."""
        return AssignabilityCache()

    def produces_output(self, capability: str, *, each: bool) -> bool:
        """Whether the output of a capability, or a list of it, contains a value of the output type."""
        scope = PlanScope(self, [PlanStep("s1", capability, each=PlanReference(ELEMENT) if each else None)])
        return any(self.assignability.mismatch(kind, self.output_type) is None for _, kind in scope.step_values())

    def restricted_to(self, names: Sequence[str]) -> Capabilities:
        """Returns a copy with only these capabilities."""
        return replace(self, by_name={name: self.by_name[name] for name in names})

    def with_budget(self, calls: int, given: Mapping[str, Any]) -> Capabilities:
        """Returns a copy for a plan with this many calls left, over these input values."""
        return replace(self, calls_left=calls, list_lengths=dict(_list_lengths(given)))


def _list_lengths(inputs: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yields the lists in values and their fields, by reference, with their lengths."""
    line: list[tuple[PlanReference, Any]] = [(PlanReference(INPUT, (name,)), value) for name, value in inputs.items()]
    for reference, value in line:
        if isinstance(value, list):
            yield str(reference), len(value)
        elif isinstance(value, Mapping) and len(reference.path) <= MAX_DEPTH:
            line += [(PlanReference(INPUT, (*reference.path, name)), inner) for name, inner in value.items()]


_SCALAR_TYPES = frozenset({"string", "integer", "number", "boolean"})


class AssignabilityCache:
    """Caches whether one type is assignable to another, by the content of the types."""

    def __init__(self) -> None:
        self._keys: dict[int, tuple[Schema, bytes]] = {}
        self._known: dict[tuple[bytes, bytes], str | None] = {}

    def schema_key(self, schema: Schema) -> bytes:
        """Canonical bytes of a type."""
        cached_key = self._keys.get(id(schema))
        if cached_key is None:
            # keeps the object alive, so that its id stays unique
            cached_key = self._keys[id(schema)] = (schema, canonical(schema))
        return cached_key[1]

    def mismatch(self, producer: Schema, consumer: Schema) -> str | None:
        """Returns why a value of one type is not assignable to another; None if it is."""
        key = (self.schema_key(producer), self.schema_key(consumer))
        if key not in self._known:
            self._known[key] = assignability_error(producer, consumer)
        return self._known[key]


def reachable_parts(value: PlanReference, schema: Schema) -> Iterator[tuple[PlanReference, Schema]]:
    """Yields a value and its parts that are certainly present, with their types, shallow ones first."""
    line: list[tuple[PlanReference, Schema]] = [(value, schema)]
    part_count = 0
    while line and part_count < MAX_PARTS:
        reference, kind = line.pop(0)
        yield reference, kind
        part_count += 1
        if len(reference.path) - len(value.path) < MAX_DEPTH:
            line += _child_parts(reference, kind)


def _child_parts(reference: PlanReference, kind: Schema) -> Iterator[tuple[PlanReference, Schema]]:
    branches = union_members(kind)
    if len(branches) != 1:
        return
    if branches[0].get("type") == "array":
        first = item_type(kind, 0)
        if isinstance(first, dict) and not (reference.path and isinstance(reference.path[-1], int)):
            yield PlanReference(reference.root, (*reference.path, 0)), first
    for name in branches[0].get("required", ()):
        inner = part(kind, name)
        if isinstance(inner, dict) and IDENTIFIER.fullmatch(name):
            yield PlanReference(reference.root, (*reference.path, name)), inner


class PlanScope:
    """The values that a step can read: inputs, and the outputs of earlier steps."""

    def __init__(self, capabilities: Capabilities, steps: Sequence[PlanStep] = ()) -> None:
        self.capabilities = capabilities
        self.inputs = dict(capabilities.inputs)
        self.steps: dict[str, Schema] = {}
        self.mapped_steps = {step.name for step in steps if step.each is not None}
        for step in steps:
            self.add(step)

    def add(self, step: PlanStep) -> None:
        """Adds a step. The output of an unknown capability may be anything."""
        if step.name in self.capabilities.observed_types:
            self.steps[step.name] = self.capabilities.observed_types[step.name]
            return
        capability = self.capabilities.by_name.get(step.capability)
        output = capability.output if capability is not None else {}
        self.steps[step.name] = bundle_definitions({"type": "array", "items": output}) if step.each else output

    @cached_property
    def _inputs(self) -> list[tuple[PlanReference, Schema]]:
        return [
            reachable_part
            for name, kind in self.inputs.items()
            for reachable_part in reachable_parts(PlanReference(INPUT, (name,)), kind)
        ]

    def available_values(self) -> list[tuple[PlanReference, Schema]]:
        """All values that can be referenced, with their types: inputs first, then steps in order."""
        return [*self._inputs, *self.step_values()]

    def step_values(self) -> list[tuple[PlanReference, Schema]]:
        """Outputs of the steps and their parts."""
        return [
            reachable_part
            for name, kind in self.steps.items()
            for reachable_part in reachable_parts(PlanReference(name), kind)
        ]

    def lists(self) -> list[tuple[PlanReference, Schema]]:
        """Available lists, each with the type of its elements."""
        lists = []
        for reference, kind in self.available_values():
            branches = union_members(kind)
            inner = element_type(kind) if len(branches) == 1 and branches[0].get("type") == "array" else ""
            if isinstance(inner, dict):
                lists.append((reference, inner))
        return lists

    def is_untrusted(self, value: PlanReference, kind: Schema, over: PlanReference | None = None) -> bool:
        """Whether a value may contain text of a tool, a model or a document: it is a step's output or part of a
        document. A closed type only selects among values that its author listed.

        Args:
            over: The available list that `x` is an element of.
        """
        if value.root == ELEMENT:
            if over is None:
                return False  # an element of a list that the plan states
            value = PlanReference(over.root, (*over.path, 0, *value.path))
        if all(
            branch.keys() & {"enum", "const"} or branch.get("type") in ("boolean", "null")
            for branch in union_members(kind)
        ):
            return False
        if value.root != INPUT or not value.path or value.path[0] in self.capabilities.untrusted_inputs:
            return True
        around = (self.type_of(PlanReference(INPUT, value.path[:length])) for length in range(1, len(value.path)))
        return any(isinstance(enclosing_type, dict) and _is_document(enclosing_type) for enclosing_type in around)

    def type_of(self, reference: PlanReference, element: Schema | None = None) -> Schema | str:
        """The type of a reference, or why the reference is invalid. `element` is the type of `x`, if there is one."""
        path = reference.path
        kind: Schema | str
        if reference.root == INPUT:
            if not path or path[0] not in self.inputs:
                input_names = ", ".join(f"{INPUT}.{name}" for name in self.inputs)
                return (
                    f"there is no {INPUT}{'.' + str(path[0]) if path else ' as such'} (known: {input_names or 'none'})"
                )
            kind, path = self.inputs[str(path[0])], path[1:]
        elif reference.root == ELEMENT and element is not None:
            kind = element
        elif reference.root in self.steps:
            kind = self.steps[reference.root]
        else:
            return f"there is no {reference.root} before this step (known: {', '.join([INPUT, *self.steps])})"
        for key in path:
            if isinstance(kind, str):
                return kind
            kind = item_type(kind, key) if isinstance(key, int) else part(kind, key)
        return kind


class PossiblePlanScope(PlanScope):
    """The available values if the earlier steps are unknown: each may be a call of any capability."""

    def __init__(self, capabilities: Capabilities, names: Sequence[str]) -> None:
        super().__init__(capabilities)
        self._names = names

    def step_values(self) -> list[tuple[PlanReference, Schema]]:
        """Every output type, and lists of it, under each step name."""
        outputs = {canonical(capability.output): capability.output for capability in self.capabilities.by_name.values()}
        values: dict[tuple[str, bytes], tuple[PlanReference, Schema]] = {}
        for name in self._names:
            for output in outputs.values():
                for kind in (output, {"type": "array", "items": output}):
                    for reference, inner in reachable_parts(PlanReference(name), kind):
                        values.setdefault(
                            (str(reference), self.capabilities.assignability.schema_key(inner)), (reference, inner)
                        )
        return list(values.values())


def _is_document(kind: Schema) -> bool:
    """Whether a value may be a text with its source."""
    return any({"source", "text"} <= branch.get("properties", {}).keys() for branch in union_members(kind))


def statable_types(kind: Schema) -> list[Schema]:
    """The members of a type that a plan may state as a constant: texts, numbers, booleans, enums, and lists of them. A
    plan may not state records or lists of lists, because these are tables, and so evidence.
    """
    return [branch for branch in union_members(kind) if _is_statable(branch)]


def _is_statable(kind: Schema) -> bool:
    if "enum" in kind or "const" in kind:
        return True
    if kind.get("type") == "array":
        inner = kind.get("items")
        if not isinstance(inner, dict) or "prefixItems" in kind:
            return False
        return all(
            branch.get("type") != "array" and _is_statable(branch) for branch in union_members(subschema(kind, inner))
        )
    return kind.get("type") in _SCALAR_TYPES and kind.get("format") != "quote"


def literal_element_type(stated: Sequence[Any]) -> Schema:
    """Element type of a list that a plan states: an enum of these values."""
    return union([{"const": value} for value in stated])


def is_free_text(kind: Schema) -> bool:
    """Whether a type is any text. With `request_text` a plan may state only substrings of it."""
    return kind.get("type") == "string" and not kind.keys() & {"enum", "const", "pattern", "format"}
