"""Offers: what a plan may be made of. Agents and tools with their types, the values at hand, the type wanted, and how large it may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from orchestra.agents.contract import Contract
from orchestra.router.constants import Occurrences
from orchestra.router.plan_syntax import ELEMENT, INPUT, WORD, Reference, Step
from orchestra.schema.assignability import assignable
from orchestra.schema.strict_json import canonical, digest
from orchestra.schema.types import Schema, branches, bundled, elements, item, under, union
from orchestra.schema.types import field as part
from orchestra.workflows.compile.tool_agents import acts, acts_unasked
from orchestra.workflows.model import PlanLimits
from orchestra.workflows.program import Program

DEEPEST = 3
"""Fields of fields that a reference reaches."""
MOST_PARTS = 40
"""Parts of one value that can be referred to at most."""


@dataclass(frozen=True)
class Skill:
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
    calls: int = 1
    """Calls that one call of it surely makes, as a budget counts them: none of a tool, nor of a workflow that may ask nobody."""
    acts: bool = False
    """Whether a call may change the world, and no person is asked before."""

    @property
    def computes(self) -> bool:
        """Whether it gives a sum, an `expression` with its value, as the check `recompute` reads it."""
        given = self.output.get("properties", {})
        return "expression" in given and "answer" in given and len(given) == 2

    @classmethod
    def of(cls, contract: Contract) -> Skill:
        """An agent or a tool."""
        fields = {name: under(contract.input, one) for name, one in contract.input.get("properties", {}).items()}
        required = frozenset(contract.input.get("required", ()))
        told = contract.output, contract.description, contract.sealed().digest, 1 if contract.kind == "agent" else 0
        return cls(contract.name, contract.kind, fields, required, *told, acts=acts(contract))

    @classmethod
    def of_workflow(cls, program: Program) -> Skill:
        """A workflow."""
        fields = {name: one.schema for name, one in program.inputs.items()}
        required = frozenset(name for name, one in program.inputs.items() if one.required)
        said = program.graph.description if program.graph is not None else ""
        told = program.output_schema, said, digest(canonical(_marks(program)))
        return cls(program.name, "call", fields, required, *told, min(1, len(program.asked)), acts=acts_unasked(program))


def _marks(program: Program) -> list[Any]:
    """What a workflow is: its graph, and the digests of all that it calls."""
    graph = program.graph.model_dump(mode="json", by_alias=True, exclude_defaults=True) if program.graph is not None else None
    contracts = [node.contract.sealed().digest for node in program.nodes if node.contract is not None]
    plans = [node.planning for node in program.nodes if node.planning is not None]
    planned = [one.sealed().digest for plan in plans for one in (*plan.skills, plan.router, plan.larger) if one is not None]
    called = [_marks(one.program) for plan in plans for one in plan.workflows.values()]
    return [graph, contracts, planned, [*called, *(_marks(node.body) for node in program.nodes if node.body is not None)]]


@dataclass(frozen=True, slots=True)
class Parts:
    """A request of several parts, and where in it they stand."""

    text: str
    spans: tuple[tuple[int, int], ...]
    computing: frozenset[str] = frozenset()
    """The skills that compute, and so do nothing about a part without a number."""

    def __iter__(self) -> Iterator[str]:
        return (self.text[start:end] for start, end in self.spans)


@dataclass(frozen=True)
class Offer:
    """What a plan may be made of."""

    skills: Mapping[str, Skill]
    """Agents, tools and workflows by name, in the order in which they are told."""
    values: Mapping[str, Schema] = field(default_factory=dict)
    """The inputs that a plan may read."""
    returns: Schema = field(default_factory=dict)
    """What is wanted; empty for anything, and then for more than one value too."""
    limits: PlanLimits = field(default_factory=PlanLimits)
    words: str = ""
    """The text that the plan's own texts are pieces of, which is to say the request; empty where a plan may state any text."""
    declines: bool = False
    """Whether the plan may be `return nothing`."""
    grounds: frozenset[str] = frozenset()
    """Inputs of which the first step reads one (`orchestra.router.grounding`)."""
    known: Mapping[str, Schema] = field(default_factory=dict)
    """The types of steps that have run, where their values tell more than their skills do."""
    derived: frozenset[str] = frozenset()
    """Inputs that are nobody's own words: those that steps of an earlier plan gave, and those that are said to be hearsay."""
    calls: int | None = None
    """The calls that are left for the steps, where somebody limits them."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How many elements the lists at hand have, by the references to them."""
    several: Parts | None = None
    """The parts of a request that has several, each of which gets a step (`orchestra.router.multi_part`)."""
    occurrences: Occurrences | None = None
    """The request, in which the constants of calls with effects occur (`orchestra.router.effects`); None where literals are allowed."""
    confirm: bool = False
    """Whether a person is asked before a plan makes calls with effects."""
    left_out: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Skills that there are and that a plan may not name all the same, each with a code and why: `is not on the shortlist`."""

    @classmethod
    def of(
        cls,
        skills: Iterable[Skill | Contract],
        values: Mapping[str, Schema],
        returns: Schema | None = None,
        *,
        limits: PlanLimits | None = None,
        words: str = "",
        declines: bool = False,
    ) -> Offer:
        """An offer of these skills."""
        known = [one if isinstance(one, Skill) else Skill.of(one) for one in skills]
        return cls({one.name: one for one in known}, dict(values), returns or {}, limits or PlanLimits(), words, declines)

    @cached_property
    def proof(self) -> Proof:
        """What was proved of its types so far; an offer is asked the same at every step."""
        return Proof()

    def brings(self, skill: str, *, each: bool) -> bool:
        """Whether what a skill gives, or a list of it, has a value of the type that is wanted."""
        scope = Scope(self, [Step("s1", skill, each=Reference(ELEMENT) if each else None)])
        return any(self.proof.misfit(kind, self.returns) is None for _, kind in scope.of_steps())

    def of_only(self, names: Sequence[str]) -> Offer:
        """The offer with these skills alone."""
        return replace(self, skills={name: self.skills[name] for name in names})

    def within(self, calls: int, given: Mapping[str, Any]) -> Offer:
        """The offer of a plan that has so many calls left, over these values at hand."""
        return replace(self, calls=calls, counts=dict(_counts(given)))


def _counts(given: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The lists among values, by the references to them, with how many elements they have: they, and those that are fields of them."""
    line: list[tuple[Reference, Any]] = [(Reference(INPUT, (name,)), value) for name, value in given.items()]
    for here, value in line:
        if isinstance(value, list):
            yield str(here), len(value)
        elif isinstance(value, Mapping) and len(here.path) <= DEEPEST:
            line += [(Reference(INPUT, (*here.path, name)), inner) for name, inner in value.items()]


_PLAIN = frozenset({"string", "integer", "number", "boolean"})


class Proof:
    """Which type can stand for which, remembered by what the types say."""

    def __init__(self) -> None:
        self._marks: dict[int, tuple[Schema, bytes]] = {}
        self._known: dict[tuple[bytes, bytes], str | None] = {}

    def mark(self, schema: Schema) -> bytes:
        """What tells a type from another one."""
        found = self._marks.get(id(schema))
        if found is None:
            found = self._marks[id(schema)] = (schema, canonical(schema))  # kept, so that its id stays its own
        return found[1]

    def misfit(self, producer: Schema, consumer: Schema) -> str | None:
        """Why a value of one type is none of another; None where every one is."""
        key = (self.mark(producer), self.mark(consumer))
        if key not in self._known:
            self._known[key] = assignable(producer, consumer)
        return self._known[key]


def parts(value: Reference, schema: Schema) -> Iterator[tuple[Reference, Schema]]:
    """A value and its parts that are surely there, those nearest to it first, each with its type."""
    line: list[tuple[Reference, Schema]] = [(value, schema)]
    told = 0
    while line and told < MOST_PARTS:
        here, kind = line.pop(0)
        yield here, kind
        told += 1
        if len(here.path) - len(value.path) < DEEPEST:
            line += _inside(here, kind)


def _inside(here: Reference, kind: Schema) -> Iterator[tuple[Reference, Schema]]:
    several = branches(kind)
    if len(several) != 1:
        return
    if several[0].get("type") == "array":
        first = item(kind, 0)
        if isinstance(first, dict) and not (here.path and isinstance(here.path[-1], int)):
            yield Reference(here.root, (*here.path, 0)), first
    for name in several[0].get("required", ()):
        inner = part(kind, name)
        if isinstance(inner, dict) and WORD.fullmatch(name):
            yield Reference(here.root, (*here.path, name)), inner


class Scope:
    """The values that a step can read: the inputs, and what the steps before it give."""

    def __init__(self, offer: Offer, steps: Sequence[Step] = ()) -> None:
        self.offer = offer
        self.inputs = dict(offer.values)
        self.steps: dict[str, Schema] = {}
        self.mapped = {step.name for step in steps if step.each is not None}
        for step in steps:
            self.add(step)

    def add(self, step: Step) -> None:
        """One more step; one of an unknown skill gives anything."""
        if step.name in self.offer.known:
            self.steps[step.name] = self.offer.known[step.name]
            return
        skill = self.offer.skills.get(step.skill)
        one = skill.output if skill is not None else {}
        self.steps[step.name] = bundled({"type": "array", "items": one}) if step.each else one

    @cached_property
    def _inputs(self) -> list[tuple[Reference, Schema]]:
        return [found for name, kind in self.inputs.items() for found in parts(Reference(INPUT, (name,)), kind)]

    def at_hand(self) -> list[tuple[Reference, Schema]]:
        """All that can be referred to, with its type: the inputs first, then the steps in their order."""
        return [*self._inputs, *self.of_steps()]

    def of_steps(self) -> list[tuple[Reference, Schema]]:
        """What the steps give, and its parts."""
        return [found for name, kind in self.steps.items() for found in parts(Reference(name), kind)]

    def lists(self) -> list[tuple[Reference, Schema]]:
        """The lists at hand, each with the type of its elements."""
        found = []
        for reference, kind in self.at_hand():
            several = branches(kind)
            inner = elements(kind) if len(several) == 1 and several[0].get("type") == "array" else ""
            if isinstance(inner, dict):
                found.append((reference, inner))
        return found

    def hearsay(self, value: Reference, kind: Schema, over: Reference | None = None) -> bool:
        """Whether a value of this type may be the words of a tool, a model or a document: what a step gave, or a part of a document. Of a
        closed type it only chooses among what its author has listed. `over` is the list at hand that `x` is an element of."""
        if value.root == ELEMENT:
            if over is None:
                return False  # of a list that the plan states
            value = Reference(over.root, (*over.path, 0, *value.path))
        if all(one.keys() & {"enum", "const"} or one.get("type") in ("boolean", "null") for one in branches(kind)):
            return False
        if value.root != INPUT or not value.path or value.path[0] in self.offer.derived:
            return True
        around = (self.type_of(Reference(INPUT, value.path[:length])) for length in range(1, len(value.path)))
        return any(isinstance(one, dict) and _documents(one) for one in around)

    def type_of(self, reference: Reference, element: Schema | None = None) -> Schema | str:
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
            kind = item(kind, one) if isinstance(one, int) else part(kind, one)
        return kind


class PossibleScope(Scope):
    """The values at hand where nobody knows yet what the earlier steps are: each may be a call of any skill."""

    def __init__(self, offer: Offer, names: Sequence[str]) -> None:
        super().__init__(offer)
        self._names = names

    def of_steps(self) -> list[tuple[Reference, Schema]]:
        """Each type that some skill gives, and lists of it, under each name."""
        outputs = {canonical(skill.output): skill.output for skill in self.offer.skills.values()}
        found: dict[tuple[str, bytes], tuple[Reference, Schema]] = {}
        for name in self._names:
            for output in outputs.values():
                for kind in (output, {"type": "array", "items": output}):
                    for reference, inner in parts(Reference(name), kind):
                        found.setdefault((str(reference), self.offer.proof.mark(inner)), (reference, inner))
        return list(found.values())


def _documents(kind: Schema) -> bool:
    """Whether a value may be a text with the name of where it comes from."""
    return any({"source", "text"} <= one.get("properties", {}).keys() for one in branches(kind))


def statable(kind: Schema) -> list[Schema]:
    """Of a type, what a plan may state as a constant: texts, numbers, truth values, choices, and lists of them. It makes up no records, and
    no lists of lists: these are tables, which is to say evidence."""
    return [one for one in branches(kind) if _statable(one)]


def _statable(kind: Schema) -> bool:
    if "enum" in kind or "const" in kind:
        return True
    if kind.get("type") == "array":
        inner = kind.get("items")
        if not isinstance(inner, dict) or "prefixItems" in kind:
            return False
        return all(one.get("type") != "array" and _statable(one) for one in branches(under(kind, inner)))
    return kind.get("type") in _PLAIN and kind.get("format") != "quote"


def element_of(stated: Sequence[Any]) -> Schema:
    """The type of an element of a list that a plan states: one of these values."""
    return union([{"const": one} for one in stated])


def free(kind: Schema) -> bool:
    """Whether a type is any text; where an offer has `words`, a plan states pieces of these only."""
    return kind.get("type") == "string" and not kind.keys() & {"enum", "const", "pattern", "format"}
