"""Lineage: which nodes said a part of a run's output, found by its references in the frozen workflow. Pure.

From the output's template the references are followed back: through calls, loops and plans, through `first_of` to the arm that was
taken, through code to what it was given. The way ends at what asked somebody: an agent, a tool, a person.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
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
"""Units that are looked at for one part of an output, at most; a list that was put together of more is traced as far as that."""

PathSteps: TypeAlias = tuple[str | int, ...]
"""Fields and indices that lead to a part of a value."""
OriginKind: TypeAlias = Literal["agent", "tool", "ask", "judge"]
"""Who said it: `judge` is a node of nodes, such as a call or a loop, whose own checks accepted its value."""


@dataclass(frozen=True, slots=True, eq=False)
class OriginGroup:
    """Nodes that said what code has worked on: the same one for all parts of an output that come from there."""

    origins: tuple[NodeOrigin, ...] = ()


@dataclass(frozen=True, slots=True)
class PartOrigins:
    """Who said a part of an output, in the order in which the references lead to them."""

    exact: tuple[NodeOrigin, ...]
    """The nodes that handed it on as it stands."""
    derived: OriginGroup
    """Behind these, those that said what code has worked on."""

    @property
    def origins(self) -> tuple[NodeOrigin, ...]:
        """All of them."""
        return (*self.exact, *self.derived.origins)


NO_ORIGINS = OriginGroup()


class NodeOrigin(msgspec.Struct, frozen=True):
    """A node that said a part of the output, or that handed on what it was made of."""

    node: str
    steps: PathSteps
    """Which part of the node's value it is, where `exact`."""
    exact: bool
    """Whether the part of the output is that part of the node's value as it stands; code has worked on it where not."""
    kind: OriginKind
    covered: bool
    """Whether the checks of a node further on have judged what became of it."""


@dataclass(frozen=True, slots=True)
class _TemplateScope:
    """The names that a template sees."""

    prefix: str
    nodes: Mapping[str, AnyNode]
    output: Any = None
    outer: _TemplateScope | None = None
    """Whose names are seen too: of a block, a loop, an element."""
    arguments: Mapping[str, Any] | None = None
    """The inputs of a called workflow, as templates of the scope `caller`."""
    caller: _TemplateScope | None = None
    element: tuple[str, str, int] | None = None
    """An element's variable, the template of the list, and its index in it."""
    previous: _TemplateScope | None = None
    """The turn before, in a loop."""
    unit: str = ""
    """The path of the element's unit."""

    @property
    def key(self) -> tuple[str, str]:
        """What no other scope of the run has."""
        return self.prefix, self.unit


@dataclass(frozen=True, slots=True)
class _TraceItem:
    scope: _TemplateScope
    template: Any
    steps: PathSteps
    exact: bool
    covered: bool

    def moved_to(self, scope: _TemplateScope, template: Any, steps: PathSteps) -> _TraceItem:
        """The same, followed on from somewhere else."""
        return _TraceItem(scope, template, steps, self.exact, self.covered)


@dataclass(slots=True)
class OutputLineage:
    """A run's workflow and its outcomes, ready to be asked who said what."""

    rows: Mapping[str, NodeRow]
    root: _TemplateScope | None
    """None where the workflow is not stored, or cannot be read: then nothing can be traced."""
    workflows: Mapping[str, bytes]
    turns: Mapping[str, TurnStarted]
    """By node: the last turn that began."""
    elements: Mapping[str, list[int]]
    """By node under `each`: the elements that are values, which is what its list is made of."""
    _graphs: dict[str, Graph | None] = field(default_factory=dict)
    _bodies: dict[str, _TemplateScope | None] = field(default_factory=dict)
    """By the path of the node."""
    _groups: dict[tuple[Any, ...], OriginGroup] = field(default_factory=dict)
    """By what the ways have in common on which code works from there on."""

    @classmethod
    def of(cls, history: History, events: Iterable[Event], workflows: Mapping[str, bytes]) -> OutputLineage:
        """`workflows` are the frozen ones as a run stores them: its own under an empty name, called ones under `workflow/NAME`."""
        turns = {event.node: event for event in events if isinstance(event, TurnStarted)}
        elements: dict[str, list[int]] = {}
        for row in history.rows:
            if (found := re.fullmatch(r"(.+)\[(\d+)\]", row.path)) and isinstance(row.outcome, ValueOutcome):
                elements.setdefault(found[1], []).append(int(found[2]))
        for indices in elements.values():
            indices.sort()
        made = cls({row.path: row for row in history.rows}, None, workflows, turns, elements)
        graph = made._stored_graph("")
        made.root = _TemplateScope("", graph.nodes, graph.output) if graph is not None else None
        return made

    def origins(self, steps: PathSteps) -> PartOrigins:
        """The nodes that said a part of the output; none for what no node said.

        As long as a part is handed on as it stands, the way does not fork. From where code works on it, the way is the same for all parts
        that come there: it is gone once.
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
        """Who is behind a template that is worked on, after so many visits."""
        key = (item.scope.key, references, item.covered, visits)
        if (known := self._groups.get(key)) is not None:
            return known
        trace = _Trace(self)
        trace.follow(item, references)
        while trace.queue and visits + len(trace.visited) < MAX_VISITS:
            following = trace.queue.popleft()
            trace.follow(following, _references(following))
        found = self._groups[key] = OriginGroup(tuple(trace.found))
        return found

    def units(self, item: _TraceItem, node: AnyNode) -> Iterator[_Unit]:
        """The unit of a node; of one under `each` the element that the steps lead to, or all."""
        scope, steps, exact = item.scope, item.steps, item.exact
        path = scope.prefix + item.template
        if node.each is None or _is_given(self.rows.get(path)):
            yield _Unit(path, scope, steps, exact)
            return
        indices = self.elements.get(path, [])
        chosen, same = indices, False
        after: PathSteps = ()
        if (rest := _element_steps(steps)) is not None:
            at, after = rest
            chosen, same = indices[at : at + 1], exact
        for index in chosen:
            unit = f"{path}[{index}]"
            inside = _TemplateScope(
                scope.prefix, {}, outer=scope, element=(node.as_ or "", node.each, index), unit=unit
            )
            yield _Unit(unit, inside, after, same)

    def source_items(self, unit: _Unit, node: AnyNode) -> Iterator[_TraceItem]:
        """What a node's value is made of, beside what it asked somebody."""
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
        """The names inside a body; of a loop or a plan those of its last turn."""
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
                graph = _parse_graph(turn.draft.graph) if turn is not None and turn.draft is not None else None
                if graph is None or turn is None or turn.draft is None:
                    return None
                behind = f"@{turn.draft.version}" if turn.draft.version else f"#{turn.turn}"
                return _called_scope(graph, f"{unit.path}{behind}/", {"request": node.plan, **node.with_}, unit.scope)
            case _:
                return None

    def _choice_scope(self, unit: _Unit, node: AgentNode, choice: AgentChoice) -> _TemplateScope | None:
        """The names inside a choice of agents: the one that gave its value."""
        prefix = f"{unit.path}/"
        for name, one in agent_nodes(node, choice).items():
            row = self.rows.get(prefix + name)
            if row is not None and isinstance(row.outcome, ValueOutcome):
                return _TemplateScope(prefix, {name: one}, f"${{{name}}}", outer=unit.scope)
        return None

    def _is_value(self, scope: _TemplateScope, name: str) -> bool:
        """Whether a name has a value; inputs, elements and turns do."""
        here: _TemplateScope | None = scope
        while here is not None:
            if name in here.nodes:
                row = self.rows.get(here.prefix + name)
                return row is not None and isinstance(row.outcome, ValueOutcome)
            here = here.outer
        return True

    def _stored_graph(self, name: str) -> Graph | None:
        if name not in self._graphs:
            self._graphs[name] = _parse_graph(self.workflows.get(name, b""))
        return self._graphs[name]


@dataclass(frozen=True, slots=True)
class _Unit:
    path: str
    scope: _TemplateScope
    steps: PathSteps
    exact: bool


class _Trace:
    """One way back: what is still to be followed, and what has been found."""

    def __init__(self, lineage: OutputLineage) -> None:
        self.lineage = lineage
        self.queue: deque[_TraceItem] = deque()
        self.visited: set[tuple[str, PathSteps, bool, bool]] = set()
        self.found: dict[NodeOrigin, None] = {}

    def follow(self, item: _TraceItem, references: Iterable[_Reference]) -> None:
        """What the names of a template stand for."""
        for name, steps, exact in references:
            self._follow_name(_TraceItem(item.scope, name, steps, exact, item.covered))

    def _follow_name(self, item: _TraceItem) -> None:
        """What a name stands for, from the scope outwards: an element, an input of a called workflow, a turn before, or a node."""
        name = item.template
        here: _TemplateScope | None = item.scope
        while here is not None:
            if here.element is not None and here.element[0] == name and here.outer is not None:
                self.queue.append(item.moved_to(here.outer, here.element[1], (here.element[2], *item.steps)))
                return
            if name == "input" and here.arguments is not None and here.caller is not None:
                self.queue.append(item.moved_to(here.caller, here.arguments, item.steps))
                return
            if name == "previous" and here.previous is not None:
                self.queue.append(item.moved_to(here.previous, here.previous.output, item.steps))
                return
            if (node := here.nodes.get(name)) is not None:
                # It comes from all elements together, not from one of them unchanged.
                if item.exact and node.each is not None and _element_steps(item.steps) is None:
                    self.queue.append(_TraceItem(here, f"${{{name}}}", (), False, item.covered))
                    return
                for unit in self.lineage.units(item.moved_to(here, name, item.steps), node):
                    key = (unit.path, unit.steps, unit.exact, item.covered)
                    if key not in self.visited:
                        self.visited.add(key)
                        self._follow_unit(unit, node, item.covered)
                return
            here = here.outer

    def _follow_unit(self, unit: _Unit, node: AnyNode, covered: bool) -> None:
        row = self.lineage.rows.get(unit.path)
        if row is None or not isinstance(row.outcome, ValueOutcome):
            return
        if _is_given(row):  # what a person says is made of nothing that the run knows
            self.found[NodeOrigin(unit.path, unit.steps, unit.exact, "ask", covered)] = None
            return
        if node.fallback is not None and _took_fallback(row):
            self.queue.append(_TraceItem(unit.scope, node.fallback, unit.steps, unit.exact, covered))
            return
        judged = bool(row.attempts) and row.attempts[-1].accepted is True
        kind = _KINDS.get(type(node), "judge") if choice_of(node) is None else "judge"
        if kind != "judge" or judged:
            self.found[NodeOrigin(unit.path, unit.steps, unit.exact, kind, covered)] = None
        for item in self.lineage.source_items(unit, node):
            self.queue.append(_TraceItem(item.scope, item.template, item.steps, item.exact, covered or judged))


_KINDS: Mapping[type, OriginKind] = {AgentNode: "agent", ToolNode: "tool", AskNode: "ask"}


def _is_given(row: NodeRow | None) -> bool:
    """Whether a person said what a node gave."""
    return row is not None and row.overridden_by is not None


def _took_fallback(row: NodeRow) -> bool:
    """Whether a node with a fallback took it: its last attempt erred, was not accepted, or came to no end."""
    if not row.attempts:
        return False
    last = row.attempts[-1]
    return last.accepted is False or (last.accepted is None and (bool(last.error) or last.seconds is None))


def _called_scope(graph: Graph, prefix: str, given: Mapping[str, Any], giver: _TemplateScope) -> _TemplateScope:
    return _TemplateScope(prefix, graph.nodes, graph.output, arguments=given, caller=giver)


def _parse_graph(stored: Any) -> Graph | None:
    """A frozen workflow as it was stored, as bytes or as JSON; None for one that this version cannot read."""
    try:
        return (
            Graph.model_validate_json(stored)
            if isinstance(stored, bytes)
            else Graph.model_validate(stored, strict=False)
        ).as_single_node
    except ValidationError:
        return None


def _element_steps(steps: PathSteps) -> tuple[int, PathSteps] | None:
    """The element of a node's list that steps lead to, and the steps inside; None where they lead to none."""
    rest = steps[1:] if steps[:1] == ("values",) else steps
    return (rest[0], rest[1:]) if rest and isinstance(rest[0], int) else None


_Reference: TypeAlias = tuple[str, PathSteps, bool]
"""A name that a template reads, where it goes on from there, and whether as it stands."""


def _references(item: _TraceItem) -> Iterator[_Reference]:
    """The names that a part of a template reads, and where from there it goes on."""
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
