"""The state of a run: scopes of nodes, units of work, and what waits for a decision. Folded by `evolve`, read by `decide`."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from enum import IntEnum, auto
from math import inf
from typing import Any

import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.core.events import (
    NO_USAGE,
    AttemptFinished,
    ChecksStarted,
    OutputJudged,
    Override,
    PlanDraft,
    QuestionAnswered,
    QuestionAsked,
    RunFinished,
    Usage,
)
from orchestra.core.labels import Label
from orchestra.core.outcomes import Outcome
from orchestra.core.protocols import NO_ESTIMATE, CallEstimate, CallRequest
from orchestra.engine.budgets import BudgetAccount, has_limits
from orchestra.schema.types import Schema
from orchestra.verification.check_budget import CheckBudget
from orchestra.workflows.model import AtLeast
from orchestra.workflows.program import Acceptance, CompiledNode, Program


class ScopeBindings(dict[str, Any]):
    """The names that an expression can read, with those of the surrounding scope behind them."""

    __slots__ = ("outer",)

    def __init__(self, outer: ScopeBindings | None = None, **names: Any) -> None:
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
    READING_PLAN_CACHE = auto()
    """The memo is asked for a plan that has served before."""
    COUNTING_TOKENS = auto()
    """A server counts the tokens of its prompt."""
    WAITING_FOR_BUDGET = auto()
    """The budget has no room until calls that are under way come back."""
    RUNNING = auto()
    """An attempt is in flight."""
    ATTEMPT_SUCCEEDED = auto()
    """An attempt came back with a value."""
    ATTEMPT_FAILED = auto()
    """An attempt came back without one."""
    BACKING_OFF = auto()
    """Waits for the due time of its next attempt."""
    IN_DOUBT = auto()
    """An attempt that must happen once was under way when the run was interrupted."""
    MAPPING = auto()
    """An `each` node with elements under way."""
    IN_BODY = auto()
    """A body is under way."""
    BODY_DONE = auto()
    """A body has come to its end."""
    ASKING_PERSON = auto()
    """A person is asked."""
    ANSWERED_BY_PERSON = auto()
    """A person has answered."""
    CHECKS_QUEUED = auto()
    """Its checks would ask agents, and wait for the budget for checks."""
    CHECKING = auto()
    """Its checks ask agents."""
    CHECKED = auto()
    """What they asked has come back, or never will."""
    JUDGED = auto()
    """The checks have spoken."""
    DONE = auto()
    """It has its outcome, or what it stood in has ended."""


class WorkItem(msgspec.Struct, eq=False):
    """A unit of work: a node, or one element of a node under `each`. A struct, because one is made for each node of each run."""

    path: str
    scope: ExecutionScope
    node: CompiledNode
    bindings: ScopeBindings
    owner: WorkItem | None = None
    """The `each` node that this is an element of; `index` is its place there."""
    index: int = -1
    phase: Phase = Phase.READY
    attempt: int = 0
    started_at: float = 0.0
    """Wall-clock time of its first attempt."""
    tier: int = 0
    """Which larger model its last attempt asked, from 1; 0 for its own."""
    next_tier: int = 0
    """Which one its next attempt shall ask, where that is decided."""
    escalations: tuple[EscalationStep, ...] = ()
    """What came of each larger model that was asked."""
    from_queue: bool = False
    """Whether it comes from the line of those that wait for room in the budget."""
    reserved_tokens: int = -1
    """Tokens reserved for the attempt in flight; -1 where nothing was reserved."""
    reserved_money: float = 0.0
    """Money reserved for it."""
    counted_tokens: int = -1
    """Tokens of its prompt as a server counted them; -1 where nobody did."""
    last_attempt: AttemptFinished | None = None
    judgement: OutputJudged | None = None
    rejected_value: Any = None
    """The last value of an attempt that its checks did not accept."""
    question: QuestionAsked | None = None
    person_answer: QuestionAnswered | None = None
    feedback: tuple[str, ...] = ()
    due: float = 0.0
    """Wall-clock time of its next attempt, or at which its time is up."""
    map_progress: MapProgress | None = None
    body: ExecutionScope | None = None
    check_progress: CheckProgress | None = None
    """What its checks ask agents, or asked last."""
    check_budget_decided: bool = False
    """Whether the budget for checks has met it."""
    turn: int = 0
    plan_progress: PlanProgress | None = None
    """Its plan, where it is a `plan` node."""
    draft: PlanDraft | None = None
    """What an agent with tools has called."""
    tool_results: tuple[Any, ...] = ()
    """What these calls gave."""
    router_usage: Usage = NO_USAGE
    """What the questions to the router have cost."""
    cached_plans: tuple[tuple[str, Any], ...] | None = None
    """What the memo holds for its plan, once it was asked: runs, and what they left; without a run, why it could not be read. No fact: a
    run that is resumed asks again."""
    plan_request: tuple[Any, Any] | None = None
    """What its router is asked for, and of which version of the plan: worked out once for all of its lines. No fact."""

    @property
    def is_map(self) -> bool:
        """Whether this is the node of an `each`, and not one of its elements."""
        return self.node.each is not None and self.owner is None


class EscalationStep(msgspec.Struct, frozen=True, gc=False):
    """A larger model that a unit asked for: with an error where it gave no value."""

    tier: int
    error: str = ""
    reason: str = ""


class MapProgress:
    """The elements of an `each` node.

    Of those without an outcome (`pending`), `running` have started, and for `check_budget_decided` the budget for checks is decided.
    `next_index` is the first that has not started. `failures_left` more may end without a value, by the node's `at_least`; below zero it
    cannot be met any more, and further outcomes change nothing.
    """

    __slots__ = ("check_budget_decided", "failures_left", "items", "next_index", "outcomes", "pending", "running")

    def __init__(self, items: list[Any], at_least: AtLeast | None = None) -> None:
        self.items = items
        self.failures_left = 0 if at_least == "all" else len(items) - (at_least or 0)
        self.outcomes: list[Outcome | None] = [None] * len(items)
        self.pending = len(items)
        self.running = self.next_index = self.check_budget_decided = 0


class PlanSample(msgspec.Struct, eq=False):
    """One of several plans that are made side by side, to be voted on."""

    draft: PlanDraft
    """How far it is."""
    body: ExecutionScope
    """The question that is open, or that was answered last."""
    result: Any = None
    """What the router's machine makes of the answer, once that was asked for; it follows from the facts."""


class PlanProgress:
    """The plan of a node, while it is being written and run. The question that is open is the unit's `body`."""

    __slots__ = (
        "answered",
        "carried_calls",
        "carried_values",
        "draft",
        "failed_calls",
        "plan_scope",
        "samples",
        "unused_values",
        "used_effects",
    )

    def __init__(self, draft: PlanDraft) -> None:
        self.draft = draft
        """How far it is."""
        self.plan_scope: ExecutionScope | None = None
        """Where its steps run; None as long as there are none, and where they are the last turn's body."""
        self.unused_values: dict[str, tuple[Any, Schema]] = {}
        """By step, with their types: values of this version that its answer does not rest on."""
        self.carried_values: dict[str, tuple[Any, Schema]] = {}
        """Values of earlier versions, with their types, by the name under which this one reads them."""
        self.carried_calls: tuple[tuple[str, str], ...] = ()
        """The calls that gave them, as lines of this version, each with that name."""
        self.failed_calls: tuple[tuple[str, str], ...] = ()
        """Calls that failed in earlier versions, as lines of this one, and why."""
        self.used_effects: tuple[str, ...] = ()
        """Tools with effects that earlier versions have called."""
        self.samples: dict[int, PlanSample] = {}
        """Plans that are made side by side, by number from 1."""
        self.answered: list[int] = []
        """Those whose question is not open any more, in the order in which they came to that."""

    def mark_answered(self, scope: ExecutionScope) -> None:
        """A question has its answer."""
        self.answered += [number for number, sample in self.samples.items() if sample.body is scope]


class FinishedItems:
    """What has ended inside a workflow that is judged as a whole."""

    __slots__ = ("has_person_value", "units")

    def __init__(self) -> None:
        self.units: dict[str, WorkItem] = {}
        """By path."""
        self.has_person_value = False
        """Whether a person has said what one of them gives: no promise is about that."""


class ExecutionScope:
    """A program under way: the root, the body of a `call`, of one turn of a loop or of a question to the router, or a plan."""

    __slots__ = (
        "account",
        "bindings",
        "critical_path_length",
        "deadline",
        "expires_at",
        "finished_items",
        "has_all_values",
        "missing_needs",
        "open_nodes",
        "outcomes",
        "path",
        "program",
        "unit",
    )  # fmt: skip

    def __init__(
        self,
        path: str,
        program: Program,
        bindings: ScopeBindings,
        unit: WorkItem | None,
        account: BudgetAccount[WorkItem] | None,
        deadline: float = inf,
    ) -> None:
        self.path, self.program, self.bindings, self.unit, self.account = path, program, bindings, unit, account
        self.outcomes: list[Outcome | None] = [None] * len(program.nodes)
        self.missing_needs = program.need_counts.copy()
        """Needs that have no outcome yet, per node."""
        self.open_nodes = len(program.nodes)
        """Nodes that have no outcome yet; of a plan that is not whole those that need not wait until it is."""
        self.has_all_values = True
        """Whether every outcome so far is a value."""
        self.critical_path_length = program.critical_path_length
        self.expires_at = inf
        """At which `RunState.active_seconds` the seconds of its own budget are over."""
        self.deadline = deadline
        """The earliest deadline of the bodies around this scope, on the clock of `RunState.active_seconds`; orders the ready heap."""
        self.finished_items: FinishedItems | None = unit.scope.finished_items if unit is not None else None
        """What has ended inside the workflow around it that is judged as a whole; None where none is."""
        if unit is not None and unit.node.acceptance is not None and unit.node.acceptance.whole_workflow:
            self.finished_items = FinishedItems()


def has_body_timeout(node: CompiledNode) -> bool:
    """Whether a node has a body, and a time for it, its own or that of a called workflow's budget, which runs from when it is entered."""
    if node.timeout is None:
        return node.body is not None and node.body.time_limit is not None
    return node.body is not None or node.tool_use is not None or node.plan_settings is not None


class CheckProgress(msgspec.Struct, eq=False):
    """Questions of a check, and the scope in which they are asked."""

    started: ChecksStarted
    scope: ExecutionScope
    reserved_tokens: int = 0
    """Tokens of the budget for checks."""
    used_tokens: int = 0
    """Tokens that the questions have taken."""


class UsageCounter:
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
            self.assumed += usage.estimated_tokens

    def total(self) -> Usage:
        """The sum."""
        tokens = self.prompt_tokens, self.cached_tokens, self.output_tokens
        found = Usage(*tokens, self.calls, self.seconds, self.resends, self.money, self.assumed)
        return found if found != NO_USAGE else NO_USAGE


def no_estimate(call: CallRequest) -> CallEstimate:
    """Of workers that say nothing about a call."""
    return NO_ESTIMATE


class RunState:
    """Everything that is known of a run. `concurrency` bounds the calls in flight; `estimate` says what a call may cost."""

    __slots__ = (
        "abandoned",
        "active_seconds",
        "arrivals",
        "cancelled",
        "cancelled_by",
        "check_budget",
        "concurrency",
        "epoch",
        "estimate",
        "finished",
        "keep_budgets",
        "label",
        "last_event_at",
        "last_message",
        "open_questions",
        "overrides",
        "pending_decisions",
        "ready",
        "root",
        "run",
        "running",
        "seq",
        "tiers",
        "units",
        "usage_counter",
        "waiting_accounts",
    )  # fmt: skip

    def __init__(
        self,
        concurrency: int = 1 << 30,
        estimate: Callable[[CallRequest], CallEstimate] = no_estimate,
        *,
        keep_budgets: bool = True,
    ) -> None:
        self.run = ""
        self.label: Label = "internal"
        self.tiers: tuple[str, ...] = ()
        """The fleet's larger models, as the run began."""
        self.overrides: dict[str, Override] | None = None
        """By path: what a person gave in the place of what the step would come to."""
        self.root: ExecutionScope | None = None
        self.seq = 0
        self.last_event_at = 0.0
        """Wall-clock time of the last event."""
        self.active_seconds = 0.0
        """Seconds of wall clock in which the run was under way; time in which it waited for a person or for a process is not counted."""
        self.epoch = 1
        self.last_message = 0
        """The number of the last inbox message that was read."""
        self.units: dict[str, WorkItem] = {}
        self.abandoned: list[str] | None = None
        """Units that were abandoned, until somebody has seen to their alarms and calls; None where there are none."""
        self.ready: list[tuple[float, int, int, WorkItem]] = []
        """A heap: what has the least time left first, then the longest way to a sink, then in order of arrival."""
        self.arrivals = 0
        self.pending_decisions: list[tuple[WorkItem | None, Phase]] = []
        """Units that a fact has moved, with the phase that they were moved to; None for the root."""
        self.running = 0
        self.concurrency = concurrency
        self.estimate = estimate
        self.keep_budgets = keep_budgets
        """Whether budgets of tokens and calls are kept; a replay takes what they brought about from the facts."""
        self.check_budget: CheckBudget | None = None
        """The budget for checks, where there is one."""
        self.waiting_accounts: tuple[BudgetAccount[WorkItem], ...] = ()
        """The accounts in which units wait for budget."""
        self.open_questions: dict[str, QuestionAsked] = {}
        self.usage_counter = UsageCounter()
        self.cancelled = False
        self.cancelled_by = ""
        self.finished: RunFinished | None = None

    def enqueue(self, unit: WorkItem) -> None:
        """Puts a unit among those that may start."""
        unit.phase = Phase.READY
        self.arrivals += 1
        heapq.heappush(self.ready, (unit.scope.deadline, -unit.node.height, self.arrivals, unit))

    def wait_for_budget(self, unit: WorkItem, account: BudgetAccount[WorkItem], *, first: bool) -> None:
        """Adds a unit to the queue of an account; at the front if it comes from there."""
        unit.phase = Phase.WAITING_FOR_BUDGET
        if not account.queue:
            self.waiting_accounts = (*self.waiting_accounts, account)
        if first:
            account.queue.appendleft(unit)
        else:
            account.queue.append(unit)

    def resume_waiting(self, *accounts: BudgetAccount[WorkItem]) -> None:
        """There may be room: the first in each line may try; when it has got some, or will get none, the next."""
        for account in accounts or self.waiting_accounts:
            line = account.queue
            while line and line[0].phase is not Phase.WAITING_FOR_BUDGET:
                line.popleft()
            if line:
                unit = line.popleft()
                unit.from_queue = True
                self.enqueue(unit)
            if not line and account in self.waiting_accounts:
                self.waiting_accounts = tuple(other for other in self.waiting_accounts if other is not account)

    def request_decision(self, unit: WorkItem, phase: Phase) -> None:
        """Notes a phase that asks for a decision."""
        unit.phase = phase
        self.pending_decisions.append((unit, phase))

    def open_scope(self, path: str, program: Program, bindings: ScopeBindings, unit: WorkItem | None) -> ExecutionScope:
        """A program begins: its nodes without needs may start."""
        outer = unit.scope.account if unit is not None else None
        budget = program.budget
        account = (
            BudgetAccount(budget, outer) if self.keep_budgets and budget is not None and has_limits(budget) else outer
        )
        scope = ExecutionScope(path, program, bindings, unit, account, self.nearest_deadline(unit))
        if program.time_limit is not None:
            scope.expires_at = self.active_seconds + program.time_limit
            if unit is not None:
                scope.deadline = min(scope.deadline, scope.expires_at)
        for node in program.entry_nodes:
            self.admit(scope, node)
        return scope

    def nearest_deadline(self, unit: WorkItem | None) -> float:
        """The earliest deadline of the bodies around `unit` and inside it, on the clock of `RunState.active_seconds`; `inf` without one.
        Units are started earliest deadline first."""
        if unit is None:
            return inf
        if unit.due and has_body_timeout(unit.node):
            return min(unit.scope.deadline, self.active_seconds + unit.due - self.last_event_at)
        return unit.scope.deadline

    def admit(self, scope: ExecutionScope, node: CompiledNode) -> None:
        """A node's needs are there."""
        path = scope.path + node.name
        self.units[path] = unit = WorkItem(path, scope, node, scope.bindings)
        self.arrivals += 1  # as `enqueue` does; a unit begins as one that may start
        heapq.heappush(self.ready, (scope.deadline, -node.height, self.arrivals, unit))

    def prune(self) -> None:
        """Leaves of what waits for a decision only what still does: after a fold of many events, each unit once."""
        self.abandoned = None
        agenda = {
            (id(unit), phase): (unit, phase)
            for unit, phase in self.pending_decisions
            if unit is None or unit.phase is phase
        }
        self.pending_decisions = list(agenda.values())
        ready = {id(entry[3]): entry for entry in self.ready if entry[3].phase is Phase.READY}
        self.ready = list(ready.values())
        heapq.heapify(self.ready)

    @property
    def is_idle(self) -> bool:
        """Whether nothing can happen before a person answers: no call is under way, and no unit waits for a time."""
        return (
            bool(self.open_questions)
            and not self.running
            and all(unit.phase in _IDLE_PHASES for unit in self.units.values())
        )


_IDLE_PHASES = frozenset({Phase.ASKING_PERSON, Phase.IN_BODY, Phase.MAPPING, Phase.CHECKING})


def internal_error(message: str) -> OrchestraError:
    """The error E002, of which no user is guilty."""
    return OrchestraError(
        "E002",
        message,
        hint="a fault of Orchestra; please report it with what this prints: orchestra runs show RUN --json",
    )


def require_last_attempt(unit: WorkItem) -> AttemptFinished:
    """The last attempt's end. Raises `OrchestraError` E002 where there is none."""
    if unit.last_attempt is None:
        raise internal_error(f"{unit.path} has no answer")
    return unit.last_attempt


def require_judgement(unit: WorkItem) -> OutputJudged:
    """What the checks said of its value. Raises `OrchestraError` E002 where it was not judged."""
    if unit.judgement is None:
        raise internal_error(f"{unit.path} was not judged")
    return unit.judgement


def require_acceptance(unit: WorkItem) -> Acceptance:
    """The checks of its node, and what follows from them. Raises `OrchestraError` E002 where it has none."""
    if unit.node.acceptance is None:
        raise internal_error(f"{unit.path} has no checks")
    return unit.node.acceptance
