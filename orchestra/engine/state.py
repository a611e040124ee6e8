"""The state of a run: scopes of nodes, units of work, and open decisions. `evolve` folds it, `decide` reads it."""

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
    """The names that an expression can read; names of the outer scope come second."""

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
    """The phase of a unit of work, in the order of its life. Never stored."""

    READY = auto()
    """Ready to start."""
    READING_PLAN_CACHE = auto()
    """The memo is read for a stored plan."""
    COUNTING_TOKENS = auto()
    """A server counts the tokens of its prompt."""
    WAITING_FOR_BUDGET = auto()
    """The budget is reserved by calls in flight."""
    RUNNING = auto()
    """An attempt is in flight."""
    ATTEMPT_SUCCEEDED = auto()
    """The last attempt returned a value."""
    ATTEMPT_FAILED = auto()
    """The last attempt returned an error."""
    BACKING_OFF = auto()
    """Waits for the time of its next attempt."""
    IN_DOUBT = auto()
    """An attempt that must happen once was in flight when the run was interrupted."""
    MAPPING = auto()
    """An `each` node whose elements run."""
    IN_BODY = auto()
    """Its body runs."""
    BODY_DONE = auto()
    """Its body has ended."""
    ASKING_PERSON = auto()
    """A person is asked."""
    ANSWERED_BY_PERSON = auto()
    """A person has answered."""
    CHECKS_QUEUED = auto()
    """Its checks have questions to agents and wait for the budget for checks."""
    CHECKING = auto()
    """Its checks ask agents."""
    CHECKED = auto()
    """The questions of its checks have ended."""
    JUDGED = auto()
    """The checks have judged its value."""
    DONE = auto()
    """It has an outcome, or its scope has ended."""


class WorkItem(msgspec.Struct, eq=False):
    """A unit of work: a node, or one element of a node under `each`. A struct, because every node of every run has
    one.
    """

    path: str
    scope: ExecutionScope
    node: CompiledNode
    bindings: ScopeBindings
    owner: WorkItem | None = None
    """The `each` node of which this is an element; `index` is its index there."""
    index: int = -1
    phase: Phase = Phase.READY
    attempt: int = 0
    started_at: float = 0.0
    """Wall-clock time of the first attempt."""
    tier: int = 0
    """The larger model of the last attempt, from 1; 0 for its own model."""
    next_tier: int = 0
    """The larger model of the next attempt, once that is decided."""
    escalations: tuple[EscalationStep, ...] = ()
    """The results of the larger models that were asked."""
    from_queue: bool = False
    """Whether it comes from the queue of a budget account."""
    reserved_tokens: int = -1
    """Tokens reserved for the attempt in flight; -1 if none are."""
    reserved_money: float = 0.0
    """Money reserved for the attempt in flight."""
    counted_tokens: int = -1
    """Tokens of its prompt as a server counted them; -1 if it did not."""
    last_attempt: AttemptFinished | None = None
    judgement: OutputJudged | None = None
    rejected_value: Any = None
    """The last value that its checks rejected."""
    question: QuestionAsked | None = None
    person_answer: QuestionAnswered | None = None
    feedback: tuple[str, ...] = ()
    due: float = 0.0
    """Wall-clock time of its next attempt, or its deadline."""
    map_progress: MapProgress | None = None
    body: ExecutionScope | None = None
    check_progress: CheckProgress | None = None
    """The current or last questions of its checks."""
    check_budget_decided: bool = False
    """Whether the budget for checks was decided for it."""
    turn: int = 0
    plan_progress: PlanProgress | None = None
    """Its plan if it is a `plan` node."""
    draft: PlanDraft | None = None
    """The calls of an agent with tools."""
    tool_results: tuple[Any, ...] = ()
    """The results of these calls."""
    router_usage: Usage = NO_USAGE
    """Usage of the questions to the router."""
    cached_plans: tuple[tuple[str, Any], ...] | None = None
    """Stored plans from the memo, once it was read: the run and its plan; without a run, the error. Not recorded: a
    resumed run reads again.
    """
    plan_request: tuple[Any, Any] | None = None
    """The request to its router and the version of the plan; computed once for all lines. Not recorded."""

    @property
    def is_map(self) -> bool:
        """Whether this is an `each` node, and not one of its elements."""
        return self.node.each is not None and self.owner is None


class EscalationStep(msgspec.Struct, frozen=True, gc=False):
    """The result of a larger model that a unit asked; with an error if it returned no value."""

    tier: int
    error: str = ""
    reason: str = ""


class MapProgress:
    """The elements of an `each` node.

    Of the `pending` elements, which have no outcome, `running` have started, and `check_budget_decided` have their
    budget for checks. `next_index` is the first element that has not started. `failures_left` more may end without a
    value, by the node's `at_least`; below zero the node fails, and further outcomes change nothing.
    """

    __slots__ = ("check_budget_decided", "failures_left", "items", "next_index", "outcomes", "pending", "running")

    def __init__(self, items: list[Any], at_least: AtLeast | None = None) -> None:
        self.items = items
        self.failures_left = 0 if at_least == "all" else len(items) - (at_least or 0)
        self.outcomes: list[Outcome | None] = [None] * len(items)
        self.pending = len(items)
        self.running = self.next_index = self.check_budget_decided = 0


class PlanSample(msgspec.Struct, eq=False):
    """One of several plans that are sampled in parallel and voted on."""

    draft: PlanDraft
    """The plan so far."""
    body: ExecutionScope
    """The current or last question."""
    result: Any = None
    """The result of the router's state machine for the last answer, once computed. Follows from recorded events."""


class PlanProgress:
    """The plan of a node, while it is written and run. The open question is the unit's `body`."""

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
        """The plan so far."""
        self.plan_scope: ExecutionScope | None = None
        """The scope of its steps; None if there are none yet, or if they are the last turn's body."""
        self.unused_values: dict[str, tuple[Any, Schema]] = {}
        """Values of this version that its answer does not use, by step, with their types."""
        self.carried_values: dict[str, tuple[Any, Schema]] = {}
        """Values of earlier versions, by the name under which this version reads them, with their types."""
        self.carried_calls: tuple[tuple[str, str], ...] = ()
        """The calls that returned them, as lines of this version, each with its name."""
        self.failed_calls: tuple[tuple[str, str], ...] = ()
        """Failed calls of earlier versions, as lines of this one, with the reasons."""
        self.used_effects: tuple[str, ...] = ()
        """Tools with effects that earlier versions called."""
        self.samples: dict[int, PlanSample] = {}
        """Plans that are sampled in parallel, by number from 1."""
        self.answered: list[int] = []
        """Samples whose question has ended, in the order of ending."""

    def mark_answered(self, scope: ExecutionScope) -> None:
        """Marks the sample whose question has ended."""
        self.answered += [number for number, sample in self.samples.items() if sample.body is scope]


class FinishedItems:
    """The units that ended inside a workflow whose whole output is judged."""

    __slots__ = ("person_values", "units")

    def __init__(self) -> None:
        self.units: dict[str, WorkItem] = {}
        """By path."""
        self.person_values: set[str] = set()
        """The paths of those whose value a person gave in place of a call: then no guarantee applies."""


class ExecutionScope:
    """A program in execution: the root, the body of a `call`, of a turn of a loop or of a question to the router, or a
    plan.
    """

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
        """Needs without an outcome, per node."""
        self.open_nodes = len(program.nodes)
        """Nodes without an outcome. In an incomplete plan, without the nodes that wait for its completion."""
        self.has_all_values = True
        """Whether every outcome so far is a value."""
        self.critical_path_length = program.critical_path_length
        self.expires_at = inf
        """The `RunState.active_seconds` at which its own budget of seconds ends."""
        self.deadline = deadline
        """The earliest deadline of the bodies around this scope, in `RunState.active_seconds`. Orders the ready heap.
        """
        self.finished_items: FinishedItems | None = unit.scope.finished_items if unit is not None else None
        """The units that ended inside the enclosing workflow whose whole output is judged; None if there is none."""
        if unit is not None and unit.node.acceptance is not None and unit.node.acceptance.whole_workflow:
            self.finished_items = FinishedItems()


def has_body_timeout(node: CompiledNode) -> bool:
    """Whether a node has a body with a time limit: its own timeout, or the seconds of a called workflow's budget. It
    runs from entering the body.
    """
    if node.timeout is None:
        return node.body is not None and node.body.time_limit is not None
    return node.body is not None or node.tool_use is not None or node.plan_settings is not None


class CheckProgress(msgspec.Struct, eq=False):
    """The questions of a check, and their scope."""

    started: ChecksStarted
    scope: ExecutionScope
    reserved_tokens: int = 0
    """Tokens reserved in the budget for checks."""
    used_tokens: int = 0
    """Tokens that the questions have used."""


class UsageCounter:
    """The usage of a run, summed in place."""

    __slots__ = ("assumed", "cached_tokens", "calls", "money", "output_tokens", "prompt_tokens", "resends", "seconds")

    def __init__(self) -> None:
        self.prompt_tokens = self.cached_tokens = self.output_tokens = self.calls = self.resends = self.assumed = 0
        self.seconds = self.money = 0.0

    def add(self, usage: Usage) -> None:
        """Adds the usage of a call."""
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
        """Returns the sum."""
        tokens = self.prompt_tokens, self.cached_tokens, self.output_tokens
        total_usage = Usage(*tokens, self.calls, self.seconds, self.resends, self.money, self.assumed)
        return total_usage if total_usage != NO_USAGE else NO_USAGE


def no_estimate(call: CallRequest) -> CallEstimate:
    """The estimate of workers that do not estimate."""
    return NO_ESTIMATE


class RunState:
    """The state of a run.

    Args:
        concurrency: Calls in flight at most.
        estimate: Estimates the cost of a call.
        keep_budgets: Whether budgets of tokens and calls are kept. A replay reads their consequences from the events.
    """

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
        """The fleet's larger models when the run began."""
        self.overrides: dict[str, Override] | None = None
        """Values that persons gave for nodes, by path."""
        self.root: ExecutionScope | None = None
        self.seq = 0
        self.last_event_at = 0.0
        """Wall-clock time of the last event."""
        self.active_seconds = 0.0
        """Seconds in which the run was executed; time in which it waited for a person or a process does not count."""
        self.epoch = 1
        self.last_message = 0
        """The number of the last inbox message that was handled."""
        self.units: dict[str, WorkItem] = {}
        self.abandoned: list[str] | None = None
        """Abandoned units whose timers and calls are not cancelled yet; None if there are none."""
        self.ready: list[tuple[float, int, int, WorkItem]] = []
        """A heap of units: least time left first, then longest path to a sink, then arrival."""
        self.arrivals = 0
        self.pending_decisions: list[tuple[WorkItem | None, Phase]] = []
        """Units that an event moved, with their new phase; None for the root."""
        self.running = 0
        self.concurrency = concurrency
        self.estimate = estimate
        self.keep_budgets = keep_budgets
        """Whether budgets of tokens and calls are kept."""
        self.check_budget: CheckBudget | None = None
        """The budget for checks, if there is one."""
        self.waiting_accounts: tuple[BudgetAccount[WorkItem], ...] = ()
        """The accounts with waiting units."""
        self.open_questions: dict[str, QuestionAsked] = {}
        self.usage_counter = UsageCounter()
        self.cancelled = False
        self.cancelled_by = ""
        self.finished: RunFinished | None = None

    def enqueue(self, unit: WorkItem) -> None:
        """Adds a unit to the ready heap."""
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
        """Lets the first unit of each queue try again, after budget was freed."""
        for account in accounts or self.waiting_accounts:
            line = account.queue
            while line and line[0].phase is not Phase.WAITING_FOR_BUDGET:
                line.popleft()
            if line:
                unit = line.popleft()
                unit.from_queue = True
                self.enqueue(unit)
            if not line and account in self.waiting_accounts:
                self.waiting_accounts = tuple(
                    waiting_account for waiting_account in self.waiting_accounts if waiting_account is not account
                )

    def request_decision(self, unit: WorkItem, phase: Phase) -> None:
        """Moves a unit to a phase that requires a decision."""
        unit.phase = phase
        self.pending_decisions.append((unit, phase))

    def open_scope(self, path: str, program: Program, bindings: ScopeBindings, unit: WorkItem | None) -> ExecutionScope:
        """Opens the scope of a program: nodes without needs are ready."""
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
        """Returns the earliest deadline of the bodies around `unit` and of `unit` itself, in `RunState.active_seconds`;
        `inf` without one. Units start earliest deadline first.
        """
        if unit is None:
            return inf
        if unit.due and has_body_timeout(unit.node):
            return min(unit.scope.deadline, self.active_seconds + unit.due - self.last_event_at)
        return unit.scope.deadline

    def admit(self, scope: ExecutionScope, node: CompiledNode) -> None:
        """Makes a node ready whose needs have outcomes."""
        path = scope.path + node.name
        self.units[path] = unit = WorkItem(path, scope, node, scope.bindings)
        self.arrivals += 1  # As in `enqueue`; a unit begins ready.
        heapq.heappush(self.ready, (scope.deadline, -node.height, self.arrivals, unit))

    def prune(self) -> None:
        """Removes outdated entries from the open decisions: after a fold of many events, each unit is there once."""
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
        """Whether nothing can happen before a person answers: no call is in flight, and no unit waits for a time."""
        return (
            bool(self.open_questions)
            and not self.running
            and all(unit.phase in _IDLE_PHASES for unit in self.units.values())
        )


_IDLE_PHASES = frozenset({Phase.ASKING_PERSON, Phase.IN_BODY, Phase.MAPPING, Phase.CHECKING})


def internal_error(message: str) -> OrchestraError:
    """Returns the error E002, a bug of the engine."""
    return OrchestraError(
        "E002",
        message,
        hint="a fault of Orchestra; please report it with what this prints: orchestra runs show RUN --json",
    )


def require_last_attempt(unit: WorkItem) -> AttemptFinished:
    """Returns the end of the last attempt. Raises `OrchestraError` E002 if there is none."""
    if unit.last_attempt is None:
        raise internal_error(f"{unit.path} has no answer")
    return unit.last_attempt


def require_judgement(unit: WorkItem) -> OutputJudged:
    """Returns the judgement of its checks. Raises `OrchestraError` E002 if there is none."""
    if unit.judgement is None:
        raise internal_error(f"{unit.path} was not judged")
    return unit.judgement


def require_acceptance(unit: WorkItem) -> Acceptance:
    """Returns the acceptance of its node. Raises `OrchestraError` E002 if it has none."""
    if unit.node.acceptance is None:
        raise internal_error(f"{unit.path} has no checks")
    return unit.node.acceptance
