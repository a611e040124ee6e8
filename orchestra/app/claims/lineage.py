"""Lineage: which nodes produced a part of a run's output, found by references in the stored workflow. Pure.

References are followed back from the output's template: through calls, loops and plans, through `first_of` to the arm
that was taken, through code to its inputs. They end at an agent, a tool or a person.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import msgspec
from pydantic import ValidationError

from orchestra.core.events import Event, TurnStarted
from orchestra.core.outcomes import ValueOutcome
from orchestra.journal.history import History, NodeRow
from orchestra.workflows.compile.agent_choice import agent_nodes, choice_of
from orchestra.workflows.compile.ordering import referenced_names
from orchestra.workflows.expressions.parser import MAX_PLAIN_LENGTH, parse_plain_template
from orchestra.workflows.model import (
    AgentChoice,
    AgentNode,
    AnyNode,
    AskNode,
    CallNode,
    FirstOfNode,
    Graph,
    LoopNode,
    NodeBlock,
    PlanNode,
    ToolNode,
    VerifyNode,
)

MAX_VISITS = 10_000
"""Units visited for one part of an output, at most; a list of more is traced that far."""

PathSteps: TypeAlias = tuple[str | int, ...]
"""Fields and indices that lead to a part of a value."""
OriginKind: TypeAlias = Literal["agent", "tool", "ask", "judge"]
"""The kind of the origin: `judge` is a node that contains nodes, such as a call or a loop, whose own checks accepted
its value.
"""


@dataclass(frozen=True, slots=True, eq=False)
class OriginGroup:
    """Nodes that said the inputs of code; one group for all parts of an output from that code."""

    origins: tuple[NodeOrigin, ...] = ()


@dataclass(frozen=True, slots=True)
class PartOrigins:
    """The origins of a part of an output, in the order of the references."""

    exact: tuple[NodeOrigin, ...]
    """The nodes that passed it on unchanged."""
    derived: OriginGroup
    """Behind these, the nodes that said the inputs of code."""

    @property
    def origins(self) -> tuple[NodeOrigin, ...]:
        """All origins."""
        return (*self.exact, *self.derived.origins)


NO_ORIGINS = OriginGroup()


class NodeOrigin(msgspec.Struct, frozen=True):
    """A node that said a part of the output, or passed on what it was made of."""

    node: str
    steps: PathSteps
    """The part of the node's value, if `exact`."""
    exact: bool
    """Whether the part of the output is that part of the node's value unchanged; otherwise code has changed it."""
    kind: OriginKind
    covered: bool
    """Whether the checks of a later node have judged it."""


@dataclass(frozen=True, slots=True)
class _TemplateScope:
    """The names that a template reads."""

    prefix: str
    nodes: Mapping[str, AnyNode]
    output: Any = None
    outer: _TemplateScope | None = None
    """The outer scope: of a block, a loop, an element."""
    arguments: Mapping[str, Any] | None = None
    """The inputs of a called workflow, as templates of the scope `caller`."""
    caller: _TemplateScope | None = None
    element: tuple[str, str, int] | None = None
    """An element's variable, the template of the list, and its index."""
    previous: _TemplateScope | None = None
    """The turn before, in a loop."""
    unit: str = ""
    """The path of the element's unit."""

    @property
    def key(self) -> tuple[str, str]:
        """A key that is unique in the run."""
        return self.prefix, self.unit


@dataclass(frozen=True, slots=True)
class _TraceItem:
    scope: _TemplateScope
    template: Any
    steps: PathSteps
    exact: bool
    covered: bool

    def moved_to(self, scope: _TemplateScope, template: Any, steps: PathSteps) -> _TraceItem:
        """Returns the same scope at another template."""
        return _TraceItem(scope, template, steps, self.exact, self.covered)


@dataclass(slots=True)
class OutputLineage:
    """A run's workflow and its outcomes, for finding origins."""

    rows: Mapping[str, NodeRow]
    root: _TemplateScope | None
    """None if the workflow is not stored or cannot be read: then nothing can be traced."""
    workflows: Mapping[str, bytes]
    turns: Mapping[str, TurnStarted]
    """The last turn that began, by node."""
    elements: Mapping[str, list[int]]
    """The elements with values, by node under `each`."""
    _graphs: dict[str, Graph | None] = field(default_factory=dict)
    _bodies: dict[str, _TemplateScope | None] = field(default_factory=dict)
    """By the path of the node."""
    _groups: dict[tuple[Any, ...], OriginGroup] = field(default_factory=dict)
    """By what the paths have in common from where code begins."""

    @classmethod
    def of(cls, history: History, events: Iterable[Event], workflows: Mapping[str, bytes]) -> OutputLineage:
        """Builds the lineage of a run. `workflows` are its stored workflows: its own under an empty name, called ones
        under `workflow/NAME`.
        """
        turns = {event.node: event for event in events if isinstance(event, TurnStarted)}
        elements: dict[str, list[int]] = {}
        for row in history.rows:
            if (match := re.fullmatch(r"(.+)\[(\d+)\]", row.path)) and isinstance(row.outcome, ValueOutcome):
                elements.setdefault(match[1], []).append(int(match[2]))
        for indices in elements.values():
            indices.sort()
        lineage = cls({row.path: row for row in history.rows}, None, workflows, turns, elements)
        graph = lineage._stored_graph("")
        lineage.root = _TemplateScope("", graph.nodes, graph.output) if graph is not None else None
        return lineage

    def origins(self, steps: PathSteps) -> PartOrigins:
        """Returns the nodes that said a part of the output; none if no node did.

        While a part is passed on unchanged, its path does not fork. From where code changes it, the path is the same
        for all parts: it is followed once.
        """
        if self.root is None:
            return PartOrigins((), NO_ORIGINS)
        trace = _Trace(self)
        trace.queue.append(_TraceItem(self.root, self.root.output, steps, True, False))
        while trace.queue and len(trace.visited) < MAX_VISITS:
            item = trace.queue.popleft()
            references = tuple(_references(item))
            if not all(exact for _, _, exact in references):
                return PartOrigins(tuple(trace.found), self._group(item, references, len(trace.visited)))
            trace.follow(item, references)
        return PartOrigins(tuple(trace.found), NO_ORIGINS)

    def _group(self, item: _TraceItem, references: tuple[_Reference, ...], visits: int) -> OriginGroup:
        """Returns the origins behind a template whose value code changes, after some visits."""
        key = (item.scope.key, references, item.covered, visits)
        if (cached_group := self._groups.get(key)) is not None:
            return cached_group
        trace = _Trace(self)
        trace.follow(item, references)
        while trace.queue and visits + len(trace.visited) < MAX_VISITS:
            next_item = trace.queue.popleft()
            trace.follow(next_item, _references(next_item))
        new_group = self._groups[key] = OriginGroup(tuple(trace.found))
        return new_group

    def units(self, item: _TraceItem, node: AnyNode) -> Iterator[_Unit]:
        """Returns the unit of a node; under `each`, the element to which the steps lead, or all."""
        scope, steps, exact = item.scope, item.steps, item.exact
        path = scope.prefix + item.template
        if node.each is None or _is_given(self.rows.get(path)):
            yield _Unit(path, scope, steps, exact)
            return
        indices = self.elements.get(path, [])
        chosen_indices, is_exact_index = indices, False
        after: PathSteps = ()
        if (rest := _element_steps(steps)) is not None:
            at, after = rest
            chosen_indices, is_exact_index = indices[at : at + 1], exact
        for index in chosen_indices:
            unit = f"{path}[{index}]"
            inside = _TemplateScope(
                scope.prefix, {}, outer=scope, element=(node.as_ or "", node.each, index), unit=unit
            )
            yield _Unit(unit, inside, after, is_exact_index)

    def source_items(self, unit: _Unit, node: AnyNode) -> Iterator[_TraceItem]:
        """Yields what a node's value is made of, besides answers of agents, tools and persons."""
        scope, steps, exact = unit.scope, unit.steps, unit.exact
        match node:
            case ToolNode():
                yield _TraceItem(scope, node.with_, (), False, False)
            case FirstOfNode():
                arm = next(
                    (
                        arm
                        for arm in node.first_of
                        if all(self._is_value(scope, name) for name in referenced_names(arm))
                    ),
                    None,
                )
                yield _TraceItem(scope, node.fallback if arm is None else arm, steps, exact, False)
            case VerifyNode():
                yield _TraceItem(scope, node.verify, steps, exact, False)
            case AgentNode(agent=AgentChoice() as choice):
                if (ran := self._choice_scope(unit, node, choice)) is not None:
                    yield _TraceItem(ran, ran.output, steps, exact, False)
            case CallNode() | LoopNode() | PlanNode():
                if unit.path not in self._bodies:
                    self._bodies[unit.path] = self._body_scope(unit, node)
                if (body := self._bodies[unit.path]) is not None:
                    yield _TraceItem(body, body.output, steps, exact, False)
            case _:
                return

    def _body_scope(self, unit: _Unit, node: CallNode | LoopNode | PlanNode) -> _TemplateScope | None:
        """Returns the scope inside a body; of a loop or a plan that of its last turn."""
        turn = self.turns.get(unit.path)
        match node:
            case CallNode(call=NodeBlock() as block):
                return _TemplateScope(f"{unit.path}/", block.nodes, block.output, outer=unit.scope)
            case CallNode(call=str(name)):
                graph = self._stored_graph(f"workflow/{name}")
                return _called_scope(graph, f"{unit.path}/", node.with_, unit.scope) if graph is not None else None
            case LoopNode(loop=loop):
                scope: _TemplateScope | None = None
                for number in range(1, (turn.turn if turn is not None else 0) + 1):
                    scope = _TemplateScope(
                        f"{unit.path}#{number}/", loop.nodes, loop.output, outer=unit.scope, previous=scope
                    )
                return scope
            case PlanNode():
                graph = parse_graph(turn.draft.graph) if turn is not None and turn.draft is not None else None
                if graph is None or turn is None or turn.draft is None:
                    return None
                behind = f"@{turn.draft.version}" if turn.draft.version else f"#{turn.turn}"
                return _called_scope(graph, f"{unit.path}{behind}/", {"request": node.plan, **node.with_}, unit.scope)
            case _:
                return None

    def _choice_scope(self, unit: _Unit, node: AgentNode, choice: AgentChoice) -> _TemplateScope | None:
        """Returns the scope inside a choice of agents: of the agent that gave its value."""
        prefix = f"{unit.path}/"
        for name, agent_node in agent_nodes(node, choice).items():
            row = self.rows.get(prefix + name)
            if row is not None and isinstance(row.outcome, ValueOutcome):
                return _TemplateScope(prefix, {name: agent_node}, f"${{{name}}}", outer=unit.scope)
        return None

    def _is_value(self, scope: _TemplateScope, name: str) -> bool:
        """Whether a name has a value; inputs, elements and turns do."""
        current_scope: _TemplateScope | None = scope
        while current_scope is not None:
            if name in current_scope.nodes:
                row = self.rows.get(current_scope.prefix + name)
                return row is not None and isinstance(row.outcome, ValueOutcome)
            current_scope = current_scope.outer
        return True

    def _stored_graph(self, name: str) -> Graph | None:
        if name not in self._graphs:
            self._graphs[name] = parse_graph(self.workflows.get(name, b""))
        return self._graphs[name]


@dataclass(frozen=True, slots=True)
class _Unit:
    path: str
    scope: _TemplateScope
    steps: PathSteps
    exact: bool


class _Trace:
    """One search: what is still to be followed, and what was found."""

    def __init__(self, lineage: OutputLineage) -> None:
        self.lineage = lineage
        self.queue: deque[_TraceItem] = deque()
        self.visited: set[tuple[str, PathSteps, bool, bool]] = set()
        self.found: dict[NodeOrigin, None] = {}

    def follow(self, item: _TraceItem, references: Iterable[_Reference]) -> None:
        """Follows the names of a template."""
        for name, steps, exact in references:
            self._follow_name(_TraceItem(item.scope, name, steps, exact, item.covered))

    def _follow_name(self, item: _TraceItem) -> None:
        """Follows a name, from the scope outwards: an element, an input of a called workflow, the turn before, or a
        node.
        """
        name = item.template
        item_scope: _TemplateScope | None = item.scope
        while item_scope is not None:
            if item_scope.element is not None and item_scope.element[0] == name and item_scope.outer is not None:
                self.queue.append(
                    item.moved_to(item_scope.outer, item_scope.element[1], (item_scope.element[2], *item.steps))
                )
                return
            if name == "input" and item_scope.arguments is not None and item_scope.caller is not None:
                self.queue.append(item.moved_to(item_scope.caller, item_scope.arguments, item.steps))
                return
            if name == "previous" and item_scope.previous is not None:
                self.queue.append(item.moved_to(item_scope.previous, item_scope.previous.output, item.steps))
                return
            if (node := item_scope.nodes.get(name)) is not None:
                # It comes from all elements together, not from one of them unchanged.
                if item.exact and node.each is not None and _element_steps(item.steps) is None:
                    self.queue.append(_TraceItem(item_scope, f"${{{name}}}", (), False, item.covered))
                    return
                for unit in self.lineage.units(item.moved_to(item_scope, name, item.steps), node):
                    key = (unit.path, unit.steps, unit.exact, item.covered)
                    if key not in self.visited:
                        self.visited.add(key)
                        self._follow_unit(unit, node, item.covered)
                return
            item_scope = item_scope.outer

    def _follow_unit(self, unit: _Unit, node: AnyNode, is_covered: bool) -> None:
        row = self.lineage.rows.get(unit.path)
        if row is None or not isinstance(row.outcome, ValueOutcome):
            return
        if _is_given(row):  # A person's value has no origin in the run.
            self.found[NodeOrigin(unit.path, unit.steps, unit.exact, "ask", is_covered)] = None
            return
        if node.fallback is not None and _took_fallback(row):
            self.queue.append(_TraceItem(unit.scope, node.fallback, unit.steps, unit.exact, is_covered))
            return
        is_accepted = bool(row.attempts) and row.attempts[-1].accepted is True
        kind = _KINDS.get(type(node), "judge") if choice_of(node) is None else "judge"
        if kind != "judge" or is_accepted:
            self.found[NodeOrigin(unit.path, unit.steps, unit.exact, kind, is_covered)] = None
        for item in self.lineage.source_items(unit, node):
            self.queue.append(_TraceItem(item.scope, item.template, item.steps, item.exact, is_covered or is_accepted))


_KINDS: Mapping[type, OriginKind] = {AgentNode: "agent", ToolNode: "tool", AskNode: "ask"}


def _is_given(row: NodeRow | None) -> bool:
    """Whether a person gave the value of a node."""
    return row is not None and row.overridden_by is not None


def _took_fallback(row: NodeRow) -> bool:
    """Whether a node took its fallback: its last attempt failed, was rejected, or did not end."""
    if not row.attempts:
        return False
    last = row.attempts[-1]
    return last.accepted is False or (last.accepted is None and (bool(last.error) or last.seconds is None))


def _called_scope(graph: Graph, prefix: str, inputs: Mapping[str, Any], giver: _TemplateScope) -> _TemplateScope:
    return _TemplateScope(prefix, graph.nodes, graph.output, arguments=inputs, caller=giver)


def parse_graph(stored: Any) -> Graph | None:
    """Returns a stored workflow, from bytes or JSON; None if this version cannot read it."""
    if isinstance(stored, bytes):
        return _parse_stored_graph(stored)
    try:
        return Graph.model_validate(stored, strict=False).as_single_node
    except ValidationError:
        return None


@lru_cache(maxsize=64)
def _parse_stored_graph(data: bytes) -> Graph | None:
    try:
        return Graph.model_validate_json(data).as_single_node
    except ValidationError:
        return None


def _element_steps(steps: PathSteps) -> tuple[int, PathSteps] | None:
    """Returns the element of a node's list to which steps lead, and the steps inside; None if they lead to none."""
    rest = steps[1:] if steps[:1] == ("values",) else steps
    return (rest[0], rest[1:]) if rest and isinstance(rest[0], int) else None


_Reference: TypeAlias = tuple[str, PathSteps, bool]
"""A name that a template reads, the steps from there, and whether it is unchanged."""


def _references(item: _TraceItem) -> Iterator[_Reference]:
    """Yields the names that a part of a template reads, with the steps from there."""
    template, steps, exact = item.template, item.steps, item.exact
    while steps:
        if isinstance(template, Mapping):
            template, steps = template.get(str(steps[0])), steps[1:]
        elif isinstance(template, list | tuple) and isinstance(steps[0], int):
            template, steps = template[steps[0]] if steps[0] < len(template) else None, steps[1:]
        else:
            break
    if (
        isinstance(template, str)
        and len(template) <= MAX_PLAIN_LENGTH
        and (path := parse_plain_template(template)) is not None
    ):
        yield path.root, (*path.steps, *steps), exact
    else:
        for name in sorted(referenced_names(template)):
            yield name, (), False
