"""The state of a run: scopes of nodes, units of work, and what waits for a decision. Folded by `evolve`, read by `decide`."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from enum import IntEnum, auto
from math import inf
from typing import Any

import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.core.events import NOTHING, Answered, Asked, AttemptFinished, ChecksStarted, Drafted, GivenValue, Judged, RunFinished, Usage
from orchestra.core.labels import Label
from orchestra.core.outcomes import Outcome
from orchestra.core.protocols import UNMEASURED, Call, Measure
from orchestra.engine.budgets import Purse, limited
from orchestra.schema.types import Schema
from orchestra.verification.check_budget import Allotment
from orchestra.workflows.model import AtLeast
from orchestra.workflows.program import Acceptance, CompiledNode, Program


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
    """Where a unit of work stands, in the order of its life. It is never stored."""

    READY = auto()
    """May start."""
    RECALLING = auto()
    """The memo is asked for a plan that has served before."""
    COUNTING = auto()
    """A server counts the tokens of its prompt."""
    STARVED = auto()
    """The budget has no room until calls that are under way come back."""
    RUNNING = auto()
    """An attempt is in flight."""
    ANSWERED = auto()
    """An attempt came back with a value."""
    ERRED = auto()
    """An attempt came back without one."""
    PAUSED = auto()
    """Waits for the due time of its next attempt."""
    DOUBTFUL = auto()
    """An attempt that must happen once was under way when the run was interrupted."""
    EXPANDED = auto()
    """An `each` node with elements under way."""
    INSIDE = auto()
    """A body is under way."""
    EMERGED = auto()
    """A body has come to its end."""
    ASKED = auto()
    """A person is asked."""
    REPLIED = auto()
    """A person has answered."""
    QUEUED = auto()
    """Its checks would ask agents, and wait for the budget for checks."""
    CHECKING = auto()
    """Its checks ask agents."""
    CHECKED = auto()
    """What they asked has come back, or never will."""
    JUDGED = auto()
    """The checks have spoken."""
    DONE = auto()
    """It has its outcome, or what it stood in has ended."""


class Unit(msgspec.Struct, eq=False):
    """A unit of work: a node, or one element of a node under `each`. A struct, because one is made for each node of each run."""

    path: str
    scope: Scope
    node: CompiledNode
    bindings: Bindings
    owner: Unit | None = None
    """The `each` node that this is an element of; `index` is its place there."""
    index: int = -1
    phase: Phase = Phase.READY
    attempt: int = 0
    began: float = 0.0
    """Wall-clock time of its first attempt."""
    tier: int = 0
    """Which larger model its last attempt asked, from 1; 0 for its own."""
    wanted: int = 0
    """Which one its next attempt shall ask, where that is decided."""
    climbed: tuple[Rung, ...] = ()
    """What came of each larger model that was asked."""
    fed: bool = False
    """Whether it comes from the line of those that wait for room in the budget."""
    reserved: int = -1
    """Tokens reserved for the attempt in flight; -1 where nothing was reserved."""
    promised: float = 0.0
    """Money reserved for it."""
    measured: int = -1
    """Tokens of its prompt as a server counted them; -1 where nobody did."""
    answer: AttemptFinished | None = None
    judged: Judged | None = None
    offered: Any = None
    """The last value of an attempt that its checks did not accept."""
    asked: Asked | None = None
    reply: Answered | None = None
    feedback: tuple[str, ...] = ()
    due: float = 0.0
    """Wall-clock time of its next attempt, or at which its time is up."""
    spreading: Spreading | None = None
    body: Scope | None = None
    checking: Checking | None = None
    """What its checks ask agents, or asked last."""
    staked: bool = False
    """Whether the budget for checks has met it."""
    turn: int = 0
    writing: Writing | None = None
    """Its plan, where it is a `plan` node."""
    drafted: Drafted | None = None
    """What an agent with tools has called."""
    found: tuple[Any, ...] = ()
    """What these calls gave."""
    spent: Usage = NOTHING
    """What the questions to the router have cost."""
    known: tuple[tuple[str, Any], ...] | None = None
    """What the memo holds for its plan, once it was asked: runs, and what they left; without a run, why it could not be read. No fact: a
    run that is resumed asks again."""
    request: tuple[Any, Any] | None = None
    """What its router is asked for, and of which version of the plan: worked out once for all of its lines. No fact."""

    @property
    def spread(self) -> bool:
        """Whether this is the node of an `each`, and not one of its elements."""
        return self.node.each is not None and self.owner is None


class Rung(msgspec.Struct, frozen=True, gc=False):
    """A larger model that a unit asked for: with an error where it gave no value."""

    tier: int
    error: str = ""
    reason: str = ""


class Spreading:
    """The elements of an `each` node: of those without an outcome (`pending`) `busy` have begun, and the budget for checks has met
    `staked`; `next` is the first that has not begun. So many more as `spare` may be without a value, by the node's `at_least`; below
    zero that cannot be met any more, and what comes then changes nothing."""

    __slots__ = ("busy", "items", "next", "outcomes", "pending", "spare", "staked")

    def __init__(self, items: list[Any], at_least: AtLeast | None = None) -> None:
        self.items = items
        self.spare = 0 if at_least == "all" else len(items) - (at_least or 0)
        self.outcomes: list[Outcome | None] = [None] * len(items)
        self.pending = len(items)
        self.busy = self.next = self.staked = 0


class Sample(msgspec.Struct, eq=False):
    """One of several plans that are made side by side, to be voted on."""

    drafted: Drafted
    """How far it is."""
    body: Scope
    """The question that is open, or that was answered last."""
    ended: Any = None
    """What the router's machine makes of the answer, once that was asked for; it follows from the facts."""


class Writing:
    """The plan of a node, while it is being written and run. The question that is open is the unit's `body`."""

    __slots__ = ("acted", "answered", "carried", "drafted", "failed", "made", "plan", "samples", "spare")

    def __init__(self, drafted: Drafted) -> None:
        self.drafted = drafted
        """How far it is."""
        self.plan: Scope | None = None
        """Where its steps run; None as long as there are none, and where they are the last turn's body."""
        self.spare: dict[str, tuple[Any, Schema]] = {}
        """By step, with their types: values of this version that its answer does not rest on."""
        self.carried: dict[str, tuple[Any, Schema]] = {}
        """Values of earlier versions, with their types, by the name under which this one reads them."""
        self.made: tuple[tuple[str, str], ...] = ()
        """The calls that gave them, as lines of this version, each with that name."""
        self.failed: tuple[tuple[str, str], ...] = ()
        """Calls that failed in earlier versions, as lines of this one, and why."""
        self.acted: tuple[str, ...] = ()
        """Tools with effects that earlier versions have called."""
        self.samples: dict[int, Sample] = {}
        """Plans that are made side by side, by number from 1."""
        self.answered: list[int] = []
        """Those whose question is not open any more, in the order in which they came to that."""

    def closed(self, scope: Scope) -> None:
        """A question has its answer."""
        self.answered += [number for number, sample in self.samples.items() if sample.body is scope]


class Ended:
    """What has ended inside a workflow that is judged as a whole."""

    __slots__ = ("given", "units")

    def __init__(self) -> None:
        self.units: dict[str, Unit] = {}
        """By path."""
        self.given = False
        """Whether a person has said what one of them gives: no promise is about that."""


class Scope:
    """A program under way: the root, the body of a `call`, of one turn of a loop or of a question to the router, or a plan."""

    __slots__ = (
        "bindings", "due", "ended", "expires", "left", "longest", "open", "outcomes", "path", "program", "purse", "unit", "whole",
    )  # fmt: skip

    def __init__(self, path: str, program: Program, bindings: Bindings, unit: Unit | None, purse: Purse | None, due: float = inf) -> None:
        self.path, self.program, self.bindings, self.unit, self.purse = path, program, bindings, unit, purse
        self.outcomes: list[Outcome | None] = [None] * len(program.nodes)
        self.left = program.waits.copy()
        """Needs that have no outcome yet, per node."""
        self.open = len(program.nodes)
        """Nodes that have no outcome yet; of a plan that is not whole those that need not wait until it is."""
        self.whole = True
        """Whether every outcome so far is a value."""
        self.longest = program.longest
        self.expires = inf
        """At which `State.active` the seconds of its own budget are over."""
        self.due = due
        """The earliest deadline of the bodies around this scope, on the clock of `State.active`; orders the ready heap."""
        self.ended: Ended | None = unit.scope.ended if unit is not None else None
        """What has ended inside the workflow around it that is judged as a whole; None where none is."""
        if unit is not None and unit.node.acceptance is not None and unit.node.acceptance.whole:
            self.ended = Ended()


def hurried(node: CompiledNode) -> bool:
    """Whether a node has a body, and a time for it, its own or that of a called workflow's budget, which runs from when it is entered."""
    if node.timeout is None:
        return node.body is not None and node.body.seconds is not None
    return node.body is not None or node.using is not None or node.planning is not None


class Checking(msgspec.Struct, eq=False):
    """Questions of a check, and the scope in which they are asked."""

    asked: ChecksStarted
    scope: Scope
    reserved: int = 0
    """Tokens of the budget for checks."""
    took: int = 0
    """Tokens that the questions have taken."""


class Tally:
    """What a run has used, added up in place."""

    __slots__ = ("assumed", "cached_tokens", "calls", "money", "output_tokens", "prompt_tokens", "resends", "seconds")

    def __init__(self) -> None:
        self.prompt_tokens = self.cached_tokens = self.output_tokens = self.calls = self.resends = self.assumed = 0
        self.seconds = self.money = 0.0

    def add(self, usage: Usage) -> None:
        """One more call."""
        self.calls += usage.calls
        self.seconds += usage.seconds
        if usage.prompt_tokens or usage.output_tokens or usage.resends:
            self.prompt_tokens += usage.prompt_tokens
            self.cached_tokens += usage.cached_tokens
            self.output_tokens += usage.output_tokens
            self.resends += usage.resends
            self.money += usage.money
            self.assumed += usage.assumed

    def usage(self) -> Usage:
        """The sum."""
        tokens = self.prompt_tokens, self.cached_tokens, self.output_tokens
        found = Usage(*tokens, self.calls, self.seconds, self.resends, self.money, self.assumed)
        return found if found != NOTHING else NOTHING


def unmeasured(call: Call) -> Measure:
    """Of workers that say nothing about a call."""
    return UNMEASURED


class State:
    """Everything that is known of a run. `limit` bounds the calls in flight; `measure` says what a call may cost."""

    __slots__ = (
        "active", "agenda", "allotment", "asked", "at", "budgeted", "cancelled", "cancelled_by", "epoch", "finished", "given", "gone",
        "label", "letters", "limit", "lines", "measure", "order", "ready", "root", "run", "running", "seq", "tally", "tiers", "units",
    )  # fmt: skip

    def __init__(self, limit: int = 1 << 30, measure: Callable[[Call], Measure] = unmeasured, *, budgeted: bool = True) -> None:
        self.run = ""
        self.label: Label = "internal"
        self.tiers: tuple[str, ...] = ()
        """The fleet's larger models, as the run began."""
        self.given: dict[str, GivenValue] | None = None
        """By path: what a person gave in the place of what the step would come to."""
        self.root: Scope | None = None
        self.seq = 0
        self.at = 0.0
        """Wall-clock time of the last event."""
        self.active = 0.0
        """Seconds of wall clock in which the run was under way; time in which it waited for a person or for a process is not counted."""
        self.epoch = 1
        self.letters = 0
        """The number of the last letter of the inbox that was opened."""
        self.units: dict[str, Unit] = {}
        self.gone: list[str] | None = None
        """Units that were abandoned, until somebody has seen to their alarms and calls; None where there are none."""
        self.ready: list[tuple[float, int, int, Unit]] = []
        """A heap: what has the least time left first, then the longest way to a sink, then in order of arrival."""
        self.order = 0
        self.agenda: list[tuple[Unit | None, Phase]] = []
        """Units that a fact has moved, with the phase that they were moved to; None for the root."""
        self.running = 0
        self.limit = limit
        self.measure = measure
        self.budgeted = budgeted
        """Whether budgets of tokens and calls are kept; a replay takes what they brought about from the facts."""
        self.allotment: Allotment | None = None
        """The budget for checks, where there is one."""
        self.lines: tuple[Purse, ...] = ()
        """The purses in which units wait for room."""
        self.asked: dict[str, Asked] = {}
        self.tally = Tally()
        self.cancelled = False
        self.cancelled_by = ""
        self.finished: RunFinished | None = None

    def enqueue(self, unit: Unit) -> None:
        """Puts a unit among those that may start."""
        unit.phase = Phase.READY
        self.order += 1
        heapq.heappush(self.ready, (unit.scope.due, -unit.node.height, self.order, unit))

    def starve(self, unit: Unit, purse: Purse, *, first: bool) -> None:
        """Puts a unit in line for room in a purse; to its front where it comes from there."""
        unit.phase = Phase.STARVED
        if not purse.line:
            self.lines = (*self.lines, purse)
        if first:
            purse.line.appendleft(unit)
        else:
            purse.line.append(unit)

    def feed(self, *purses: Purse) -> None:
        """There may be room: the first in each line may try; when it has got some, or will get none, the next."""
        for purse in purses or self.lines:
            line = purse.line
            while line and line[0].phase is not Phase.STARVED:
                line.popleft()
            if line:
                unit = line.popleft()
                unit.fed = True
                self.enqueue(unit)
            if not line and purse in self.lines:
                self.lines = tuple(other for other in self.lines if other is not purse)

    def move(self, unit: Unit, phase: Phase) -> None:
        """Notes a phase that asks for a decision."""
        unit.phase = phase
        self.agenda.append((unit, phase))

    def open_scope(self, path: str, program: Program, bindings: Bindings, unit: Unit | None) -> Scope:
        """A program begins: its nodes without needs may start."""
        outer = unit.scope.purse if unit is not None else None
        budget = program.budget
        purse = Purse(budget, outer) if self.budgeted and budget is not None and limited(budget) else outer
        scope = Scope(path, program, bindings, unit, purse, self.nearest(unit))
        if program.seconds is not None:
            scope.expires = self.active + program.seconds
            if unit is not None:
                scope.due = min(scope.due, scope.expires)
        for node in program.first:
            self.admit(scope, node)
        return scope

    def nearest(self, unit: Unit | None) -> float:
        """The earliest deadline of the bodies around whatever runs inside `unit`, on the clock of `State.active`; `inf` without one. Units
        are started earliest deadline first."""
        if unit is None:
            return inf
        if unit.due and hurried(unit.node):
            return min(unit.scope.due, self.active + unit.due - self.at)
        return unit.scope.due

    def admit(self, scope: Scope, node: CompiledNode) -> None:
        """A node's needs are there."""
        path = scope.path + node.name
        self.units[path] = unit = Unit(path, scope, node, scope.bindings)
        self.order += 1  # as `enqueue` does; a unit begins as one that may start
        heapq.heappush(self.ready, (scope.due, -node.height, self.order, unit))

    def tidy(self) -> None:
        """Leaves of what waits for a decision only what still does: after a fold of many events, each unit once."""
        self.gone = None
        agenda = {(id(unit), phase): (unit, phase) for unit, phase in self.agenda if unit is None or unit.phase is phase}
        self.agenda = list(agenda.values())
        ready = {id(entry[3]): entry for entry in self.ready if entry[3].phase is Phase.READY}
        self.ready = list(ready.values())
        heapq.heapify(self.ready)

    @property
    def idle(self) -> bool:
        """Whether nothing can happen before a person answers: no call is under way, and no unit waits for a time."""
        return bool(self.asked) and not self.running and all(unit.phase in _STILL for unit in self.units.values())


_STILL = frozenset({Phase.ASKED, Phase.INSIDE, Phase.EXPANDED, Phase.CHECKING})


def contradiction(said: str) -> OrchestraError:
    """The error E002, of which no user is guilty."""
    return OrchestraError("E002", said, hint="a fault of Orchestra; please report it with what this prints: orchestra runs show RUN --json")


def answer_of(unit: Unit) -> AttemptFinished:
    """The last attempt's end. Raises `OrchestraError` E002 where there is none."""
    if unit.answer is None:
        raise contradiction(f"{unit.path} has no answer")
    return unit.answer


def ruling_of(unit: Unit) -> Judged:
    """What the checks said of its value. Raises `OrchestraError` E002 where it was not judged."""
    if unit.judged is None:
        raise contradiction(f"{unit.path} was not judged")
    return unit.judged


def acceptance_of(unit: Unit) -> Acceptance:
    """The checks of its node, and what follows from them. Raises `OrchestraError` E002 where it has none."""
    if unit.node.acceptance is None:
        raise contradiction(f"{unit.path} has no checks")
    return unit.node.acceptance
