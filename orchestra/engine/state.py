"""The state of a run: scopes of nodes, units of work, and what waits for a decision. Folded by `evolve`, read by `decide`."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from orchestra.events import NOTHING, AttemptFinished, Judged, RunFinished, Usage
from orchestra.values.labels import Label
from orchestra.values.outcome import Outcome
from orchestra.workflow.nodes import Budget
from orchestra.workflow.program import CompiledNode, Program


class Bindings(dict[str, Any]):
    """The names that an expression can read, with those of the surrounding scope behind them."""

    __slots__ = ("outer",)

    def __init__(self, outer: Bindings | None = None, **names: Any) -> None:
        super().__init__(**names)
        self.outer = outer

    def __missing__(self, name: str) -> Any:
        if self.outer is None:
            raise KeyError(name)
        return self.outer[name]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (self.outer is not None and name in self.outer)


class Phase(IntEnum):
    """Where a unit of work stands."""

    READY = 0
    """May start."""
    RUNNING = 1
    """An attempt is in flight."""
    ANSWERED = 2
    """An attempt came back with a value."""
    ERRED = 3
    """An attempt came back without one."""
    JUDGED = 4
    """The checks have spoken."""
    PAUSED = 5
    """Waits for the due time of its next attempt."""
    EXPANDED = 6
    """An `each` node with elements under way."""
    INSIDE = 7
    """A body is under way."""
    EMERGED = 8
    """A body has come to its end."""
    DONE = 9


class Unit:
    """A unit of work: a node, or one element of a node under `each`."""

    __slots__ = (
        "answer", "attempt", "bindings", "body", "busy", "due", "elements", "escalated", "feedback", "index", "items", "judged", "next",
        "node", "owner", "path", "pending", "phase", "scope", "turn",
    )  # fmt: skip

    def __init__(self, path: str, scope: Scope, node: CompiledNode, bindings: Bindings, owner: Unit | None = None, index: int = -1) -> None:
        self.path, self.scope, self.node, self.bindings = path, scope, node, bindings
        self.owner = owner
        """The `each` node that this is an element of; `index` is its place there."""
        self.index = index
        self.phase = Phase.READY
        self.attempt = 0
        self.escalated = False
        self.answer: AttemptFinished | None = None
        self.judged: Judged | None = None
        self.feedback: tuple[str, ...] = ()
        self.due = 0.0
        self.items: list[Any] = []
        self.elements: list[Outcome | None] = []
        self.pending = 0
        """Elements without an outcome; of them `busy` have begun, and `next` is the first that has not."""
        self.busy = 0
        self.next = 0
        self.body: Scope | None = None
        self.turn = 0

    @property
    def spread(self) -> bool:
        """Whether this is the node of an `each`, and not one of its elements."""
        return self.node.each is not None and self.owner is None


class Scope:
    """A program under way: the root, or the body of a `call` or of one turn of a loop."""

    __slots__ = ("bindings", "left", "longest", "open", "outcomes", "path", "program", "unit")

    def __init__(self, path: str, program: Program, bindings: Bindings, unit: Unit | None) -> None:
        self.path, self.program, self.bindings, self.unit = path, program, bindings, unit
        self.outcomes: list[Outcome | None] = [None] * len(program.nodes)
        self.left = [len(node.needs) for node in program.nodes]
        """Needs that have no outcome yet, per node."""
        self.open = len(program.nodes)
        """Nodes that have no outcome yet."""
        self.longest = max((node.height for node in program.nodes), default=0)


class State:
    """Everything that is known of a run. `limit` bounds the calls in flight."""

    __slots__ = (
        "agenda",
        "budget",
        "cancelled",
        "finished",
        "label",
        "limit",
        "order",
        "ready",
        "root",
        "run",
        "running",
        "seq",
        "units",
        "usage",
    )

    def __init__(self, limit: int = 1 << 30) -> None:
        self.run = ""
        self.label: Label = "internal"
        self.budget: Budget | None = None
        self.root: Scope | None = None
        self.seq = 0
        self.units: dict[str, Unit] = {}
        self.ready: list[tuple[int, int, Unit]] = []
        """A heap: the longest way to a sink first, then in order of arrival."""
        self.order = 0
        self.agenda: deque[tuple[Unit | None, Phase]] = deque()
        """Units that a fact has moved, with the phase that they were moved to; None for the root."""
        self.running = 0
        self.limit = limit
        self.usage: Usage = NOTHING
        self.cancelled = False
        self.finished: RunFinished | None = None

    def enqueue(self, unit: Unit) -> None:
        """Puts a unit among those that may start."""
        unit.phase = Phase.READY
        self.order += 1
        heapq.heappush(self.ready, (-unit.node.height, self.order, unit))

    def move(self, unit: Unit, phase: Phase) -> None:
        """Notes a phase that asks for a decision."""
        unit.phase = phase
        self.agenda.append((unit, phase))

    def open_scope(self, path: str, program: Program, bindings: Bindings, unit: Unit | None) -> Scope:
        """A program begins: its nodes without needs may start."""
        scope = Scope(path, program, bindings, unit)
        for node in program.nodes:
            if not node.needs:
                self.admit(scope, node)
        return scope

    def admit(self, scope: Scope, node: CompiledNode) -> None:
        """A node's needs are there."""
        unit = Unit(scope.path + node.name, scope, node, scope.bindings)
        self.units[unit.path] = unit
        self.enqueue(unit)

    def active(self) -> Iterator[Unit]:
        """The units that have begun and have no outcome."""
        return (unit for unit in self.units.values() if unit.phase is not Phase.READY)
