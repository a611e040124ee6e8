"""The meaning of a `plan` node for the oracle: the planner is run again line by line, and compared with the record.

It shares with the engine the router, which is pure, and the compiler. The progress of a plan at the failure of a step
depends on time. So where the record contains another version, the oracle only checks whether it is allowed and has the
required values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestra.agents.contract import Catalog
from orchestra.core.events import PlanDraft, TurnStarted
from orchestra.core.outcomes import FailedOutcome, Outcome, ValueOutcome
from orchestra.router.capabilities import Capabilities
from orchestra.router.constants import RequestIndex
from orchestra.router.grounding import grounded
from orchestra.router.multi_part import with_request_parts
from orchestra.router.plan import Plan, build_plan, partial_workflow, question_workflow, rebase_line, to_workflow
from orchestra.router.plan_syntax import PlanAnswer, PlanReference, PlanStep, parse_line
from orchestra.router.planner import (
    PlanFound,
    PlannerAction,
    PlannerQuestion,
    PlannerState,
    PlanNotFound,
    PlanRequest,
    advance,
    advance_unreadable,
    shorten_request,
    start,
)
from orchestra.router.rules import plan_by_rule
from orchestra.router.shortlist import shortlist
from orchestra.router.validation import validate_line
from orchestra.router.voting import count_votes
from orchestra.schema.types import Schema, bundle_definitions
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.model import Graph
from orchestra.workflows.program import CompiledNode, PlanSettings, Program, with_sample

if TYPE_CHECKING:
    from tests.simulation.lab.oracle import Oracle

NO_BUDGET = "E005"


@dataclass(slots=True)
class CarriedValues:
    """The values that a version of a plan takes from earlier ones."""

    values: dict[str, tuple[Any, Schema]] = field(default_factory=dict)
    made: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    acted: tuple[str, ...] = ()


@dataclass(slots=True)
class EvaluatedSteps:
    """The evaluated steps of one version."""

    outcomes: dict[str, Outcome | None]
    nodes: dict[str, CompiledNode]
    bindings: dict[str, Any]

    @property
    def failures(self) -> list[Outcome]:
        """The outcomes that are not values."""
        return [one for one in self.outcomes.values() if one is not None and not isinstance(one, ValueOutcome)]


class PlanOracle:
    """One `plan` node of a run, evaluated from its first question."""

    def __init__(
        self, oracle: Oracle, path: str, node: CompiledNode, bindings: Mapping[str, Any], *, has_budget: bool
    ) -> None:
        assert node.plan_settings is not None, "the node of a plan has what it plans with"
        self.oracle, self.path, self.node, self.planning, self.has_budget = (
            oracle,
            path,
            node,
            node.plan_settings,
            has_budget,
        )
        self.goal = node.plan_settings.goal.evaluate(bindings)
        self.given = {
            "request": self.goal,
            **{name: one.evaluate(bindings) for name, one in node.plan_settings.values.items()},
        }
        known = {name: one.schema for name, one in node.plan_settings.values.items()}
        self.types: dict[str, Schema] = {"request": node.plan_settings.goal.schema, **known}
        recorded = oracle.recorded
        self.turns: Sequence[TurnStarted] | None = None if recorded is None else recorded.turns.get(path, ())
        self.carried, self.version, self.turn = CarriedValues(), 1, 1
        self.by_rule = False

    def outcome(self) -> Outcome | None:
        """Returns the outcome of the plan; None if the record does not determine it."""
        made = plan_by_rule(self.goal, self._capabilities(), self.given) if self.planning.rules else None
        self.by_rule = made is not None
        if self.planning.router is None and made is None:
            return FailedOutcome("R007", "", self.path)
        state, wanted = start(self._request())
        if made is not None and not made.plan.steps:
            return FailedOutcome("R007", "", self.path)
        if (served := made.plan if made is not None else self._recalled_plan()) is not None:
            wanted = PlanFound(served)
        while True:
            if self._starts_new_version():
                if not self._start_version(self._evaluate_steps(state.steps), state.steps, complete=False):
                    return None
                state, wanted = start(self._request())
            if self.planning.votes > 1 and served is None:
                elected = VoteOracle(self, self._request()).winner()
                if not isinstance(elected, PlanFound | PlanNotFound):
                    return elected
                state, wanted = PlannerState(self._request()), elected
            served = None
            if isinstance(wanted, PlanNotFound):
                return self._no_plan_outcome(state.steps)
            if not self._matches_record(wanted, state.steps):
                return self._outcome_without_record(state.steps)
            if isinstance(wanted, PlannerQuestion):
                answer = self.router_answer(wanted.inputs)
                self.turn += 1
                if isinstance(answer, ValueOutcome):
                    state, wanted = advance(state, str(answer.value))
                elif (other := _retry_unreadable(state, answer)) is not None:
                    state, wanted = other
                elif answer is not None:
                    self._drop_unneeded(self._evaluate_steps(state.steps), set())
                    return answer
                elif not self._starts_new_version():
                    return self._outcome_without_record(state.steps)
                continue
            self.turn += 1
            run = self._evaluate_steps(wanted.plan.steps)
            found = self._plan_outcome(wanted, run)
            if found is None or isinstance(found, ValueOutcome) or not self._may_replan([found]):
                return found
            if not self._starts_new_version():
                return self._outcome_without_replan(run)
            if not self._start_version(run, wanted.plan.steps, complete=True):
                return None
            state, wanted = start(self._request())

    def _plan_outcome(self, wanted: PlanFound, run: EvaluatedSteps) -> Outcome | None:
        """Returns the outcome of a complete plan. Steps that its answer does not depend on are not awaited."""
        program = self._compile(to_workflow(wanted.plan, self._capabilities(), self.node.name))
        names = [one.name for one in program.nodes]
        self._drop_unneeded(run, set(names))
        ended = [run.outcomes[name] for name in names]
        return (
            None if any(one is None for one in ended) else self.oracle.result(program, ended, run.bindings, self.path)
        )

    # The record

    def plan_event(self) -> PlanDraft | None:
        """Returns the progress of the plan at this turn."""
        return self.turns[self.turn - 1].draft if self.turns is not None and self.turn <= len(self.turns) else None

    def _recalled_plan(self) -> Plan | None:
        """Returns the recorded plan that was reused from an earlier run. It must pass validation."""
        drafted = self.plan_event()
        if drafted is None or not drafted.reused_from:
            return None
        lines = [parse_line(line) for line in drafted.lines]
        found = build_plan(lines)
        steps = found.steps if found is not None else ()
        faults = [
            fault
            for number, line in enumerate(lines)
            for fault in validate_line(line, replace(self._capabilities(), request_parts=None), steps[:number])
        ]
        if found is None or not found.answer.values or faults or not self.planning.cache:
            self.oracle.objections.append(f"I5 {self.path} starts with a stored plan that is not allowed")
            return None
        return found

    def _starts_new_version(self) -> bool:
        """Whether another version starts here."""
        drafted = self.plan_event()
        return drafted is not None and drafted.version != self.version

    def _matches_record(self, wanted: PlannerQuestion | PlanFound, steps: Sequence[PlanStep]) -> bool:
        """Whether the record continues as the planner requires; True without a record."""
        if self.turns is None:
            return True
        drafted = self.plan_event()
        if drafted is None:
            return False
        lines = steps if isinstance(wanted, PlannerQuestion) else (*wanted.plan.steps, wanted.plan.answer)
        if drafted.lines != tuple(map(str, lines)):
            self.oracle.objections.append(
                f"I5 turn {self.turn} of {self.path} has other lines than its router's answers make"
            )
        return True

    def _outcome_without_record(self, steps: Sequence[PlanStep]) -> Outcome | None:
        """Returns the outcome at the end of the record."""
        return self._outcome_without_replan(self._evaluate_steps(steps))

    def _outcome_without_replan(self, run: EvaluatedSteps) -> Outcome | None:
        """Returns the outcome without a recorded further version: the run was cut off, or there is none."""
        recorded = self.oracle.recorded
        had = recorded.outcome(self.path) if recorded is not None else None
        if had is None or not run.failures or not self._may_replan(run.failures):
            return None
        self._drop_unneeded(run, set())
        return FailedOutcome("R008", "", self.path)

    def _no_plan_outcome(self, steps: Sequence[PlanStep]) -> Outcome:
        """Returns the outcome without a plan. Whether the engine knew of a failed step by then depends on time."""
        run = self._evaluate_steps(steps)
        self._drop_unneeded(run, set())
        recorded = self.oracle.recorded
        had = recorded.outcome(self.path) if recorded is not None else None
        late = (
            isinstance(had, FailedOutcome)
            and had.code == "R008"
            and bool(run.failures)
            and self._may_replan(run.failures)
        )
        return FailedOutcome("R008" if self.carried.failed or late else "R007", "", self.path)

    def _start_version(self, before: EvaluatedSteps, steps: Sequence[PlanStep], *, complete: bool) -> bool:
        """Starts another version: checks whether it is allowed, and with which values of the previous one."""
        drafted = self.plan_event()
        if drafted is None or drafted.version != self.version + 1:
            self.oracle.objections.append(
                f"I5 turn {self.turn} of {self.path} is of another version than {self.version + 1}"
            )
            return False
        if not complete and not (before.failures and self._may_replan(before.failures) and self.planning.streaming):
            self.oracle.objections.append(f"I5 version {drafted.version} of {self.path} starts without a failure")
        self._drop_unneeded(before, set())
        self._carry_over(before, drafted, steps)
        return True

    def _carry_over(self, before: EvaluatedSteps, drafted: PlanDraft, steps: Sequence[PlanStep]) -> None:
        scope = f"{self.path}@{self.version}/"
        values = {name: one.value for name, one in before.outcomes.items() if isinstance(one, ValueOutcome)}
        if set(drafted.carried_values.values()) != values.keys():
            self.oracle.objections.append(
                f"I5 version {drafted.version} of {self.path} does not have the finished values of the one before"
            )
        begun = self.oracle.recorded.starts if self.oracle.recorded is not None else {}
        acted = {
            node.contract.name
            for name, node in before.nodes.items()
            if node.contract is not None and node.contract.effect != "pure" and self._was_called(scope + name, begun)
        }
        if not acted <= set(drafted.used_effects):
            self.oracle.objections.append(
                f"I3 version {drafted.version} of {self.path} may repeat effects: {sorted(acted)}"
            )
        named = {step: name for name, step in drafted.carried_values.items()}
        made = tuple((str(rebase_line(step, named)), named[step.name]) for step in steps if step.name in named)
        fresh = {
            name: (values[step], _result_type(before.nodes[step]))
            for name, step in drafted.carried_values.items()
            if step in values
        }
        self.carried = CarriedValues(
            {**self.carried.values, **fresh}, (*self.carried.made, *made), drafted.failed_calls, drafted.used_effects
        )
        self.version = drafted.version

    def _was_called(self, path: str, begun: Mapping[str, Any]) -> bool:
        recorded = self.oracle.recorded
        return (
            path in begun
            and recorded is not None
            and any(node == path or node.startswith(f"{path}[") for node, _ in recorded.attempts)
        )

    def _may_replan(self, outcomes: Sequence[Outcome]) -> bool:
        poor = any(isinstance(one, FailedOutcome) and one.code == NO_BUDGET for one in outcomes)
        more = 1 if self.by_rule and self.version == 1 and self.planning.router is not None else 0
        return not poor and self.version <= self.planning.replans + more

    # Programs

    def _request(self) -> PlanRequest:
        planning, offer, goal = self.planning, self._capabilities(), str(self.goal)
        if planning.shortlist is not None:
            offer = shortlist(offer, goal, planning.shortlist)
        return PlanRequest(
            goal,
            offer,
            planning.repairs,
            planning.stepwise,
            failed_calls=self.carried.failed,
            completed_calls=self.carried.made,
        )

    def _capabilities(self) -> Capabilities:
        known = {**self.types, **{name: kind for name, (_, kind) in self.carried.values.items()}}
        skills = [one for one in self.planning.capabilities if one.name not in self.carried.acted]
        words = shorten_request(str(self.goal)) if self.planning.copied else ""
        declines = not self.planning.anyway
        offer = Capabilities.of(
            skills, known, self.node.output, limits=self.planning.limits, request_text=words, may_decline=declines
        )
        said = None if self.planning.literals else RequestIndex(shorten_request(str(self.goal)))
        derived = frozenset((*self.carried.values, *self.planning.hearsay))
        offer = replace(offer, untrusted_inputs=derived, request_index=said, confirm_effects=self.planning.confirm)
        if self.version > 1:
            return offer
        return with_request_parts(
            grounded(offer, self.planning.grounding_values),
            shorten_request(str(self.goal)) if self.planning.each_part else "",
        )

    def _compile(self, graph: Graph) -> Program:
        return compile_graph(graph, _catalog(self.planning))

    def router_answer(self, inputs: Mapping[str, str], sample: int = 0) -> Outcome | None:
        """Returns the router's answer to a question of one sample."""
        router = self.planning.router
        program = with_sample(
            self._compile(question_workflow(router.name if router is not None else "", inputs)), sample
        )
        outcomes, inner = self.oracle.scope(
            f"{self.path}#{self.turn}/", program, {"input": {}}, has_budget=self.has_budget
        )
        return None if any(one is None for one in outcomes) else self.oracle.result(program, outcomes, inner, self.path)

    def _evaluate_steps(self, steps: Sequence[PlanStep]) -> EvaluatedSteps:
        """Evaluates the steps of this version in their scope."""
        if not steps:
            return EvaluatedSteps({}, {}, {})
        self._check_first_step(steps[0])
        program = self._compile(partial_workflow(steps, self._capabilities(), self.node.name))
        given = {**self.given, **{name: value for name, (value, _) in self.carried.values.items()}}
        around = {"input": {name: given[name] for name in program.inputs}}
        outcomes, inner = self.oracle.scope(f"{self.path}@{self.version}/", program, around, has_budget=self.has_budget)
        run = EvaluatedSteps(
            {node.name: outcomes[node.index] for node in program.nodes},
            {node.name: node for node in program.nodes},
            inner,
        )
        self._set_earliest_starts(run)
        return run

    def _check_first_step(self, step: PlanStep) -> None:
        """Checks that the first step reads its input: all plans here have a tool that accepts any text."""
        texts = [
            name for name in self.planning.grounding_values if self.planning.values[name].schema == {"type": "string"}
        ]
        named = [
            value
            for value in (*step.arguments.values(), step.each)
            if isinstance(value, PlanReference) and "[" not in str(value)
        ]
        mine = [
            one for one in named if one.root == "input" and one.path and one.path[0] in self.planning.grounding_values
        ]
        over = step.each in mine and any(one.root == "x" for one in named)
        if self.version == 1 and texts and not over and all(one is step.each for one in mine):
            self.oracle.objections.append(
                f"I5 the plan of {self.path} starts with {step}, and must read one of {', '.join(texts)}"
            )

    def _drop_unneeded(self, run: EvaluatedSteps, used: set[str]) -> None:
        """Marks the steps that are not needed."""
        self.oracle.dropped |= {f"{self.path}@{self.version}/{name}" for name in run.outcomes.keys() - used}

    def _set_earliest_starts(self, run: EvaluatedSteps) -> None:
        """Computes from which event on each step may start: from the turn of its line; with an effect, or after one,
        once the plan is complete.
        """
        if self.turns is None:
            return
        turns = [event for event in self.turns if event.draft is not None and event.draft.version == self.version]
        held: set[int] = set()
        for node in run.nodes.values():
            if (node.contract is not None and node.contract.effect != "pure") or not held.isdisjoint(node.needs):
                held.add(node.index)
            stands = [event for event in turns if event.draft is not None and _has_step(node.name, event.draft)]
            late = node.index in held or not self.planning.streaming
            stands = [event for event in stands if not late or (event.draft is not None and _is_complete(event.draft))]
            self.oracle.earliest_starts[f"{self.path}@{self.version}/{node.name}"] = stands[0].seq if stands else None


class VoteOracle:
    """Samples of one version of a plan, each evaluated separately. The record states whose question each turn is."""

    def __init__(self, reading: PlanOracle, request: PlanRequest) -> None:
        self.reading, self.request, self.votes = reading, request, reading.planning.votes
        self.states: dict[int, tuple[PlannerState, PlannerAction | None]] = {}
        """Sample to the state of its planner and its next request; None while its question is open."""
        self.failed: dict[int, Outcome] = {}

    def winner(self) -> PlanFound | PlanNotFound | Outcome | None:
        """Returns the plan that most samples agree on, or the failure of the node; None if the record does not
        determine it.
        """
        if self.reading.turns is None:
            for number in range(1, self.votes + 1):
                while isinstance(self._next_wanted(number), PlannerQuestion):
                    self._take_turn(number)
        else:
            while (drafted := self.reading.plan_event()) is not None and drafted.sample:
                self._check_turn(drafted)
        if poor := [one for one in self.failed.values() if isinstance(one, FailedOutcome) and one.code == NO_BUDGET]:
            recorded = self.reading.oracle.recorded
            had = None if recorded is None else recorded.outcome(self.reading.path)
            return had if had in poor else poor[0]  # which of them was first depends on time
        ended = [self.states.get(number, (None, None))[1] for number in range(1, self.votes + 1)]
        if any(one is None or isinstance(one, PlannerQuestion) for one in ended):
            return self._no_votes(ended)
        if len(self.failed) == self.votes:
            return self.failed[1]
        return self._count_votes([one for one in ended if isinstance(one, PlanFound | PlanNotFound)])

    def _no_votes(self, ended: list[PlannerAction | None]) -> PlanNotFound | None:
        """Handles a record that ends before all samples have voted, or without any question."""
        first = start(self.request)[1]
        return first if isinstance(first, PlanNotFound) and not self.states else None

    def _count_votes(self, ended: Sequence[PlanFound | PlanNotFound]) -> PlanFound | PlanNotFound:
        nothing = Plan((), PlanAnswer(()))
        plans = [one.plan if isinstance(one, PlanFound) else nothing if one.is_declined else None for one in ended]
        won = count_votes(plans)
        chosen = None if won is None else plans[won.winner]
        if won is None or chosen is None or not chosen.answer.values:
            return PlanNotFound(())
        drafted, told = (
            self.reading.plan_event(),
            tuple(() if one is None else tuple(map(str, (*one.steps, one.answer))) for one in plans),
        )
        if drafted is not None and (drafted.sampled_plans, drafted.agreement) != (told, won.agreement):
            self.reading.oracle.objections.append(
                f"I5 {self.reading.path} has counted other votes than its samples have"
            )
        return PlanFound(chosen)

    def _next_wanted(self, number: int) -> PlannerAction | None:
        if number not in self.states:
            self.states[number] = start(self.request)
        return self.states[number][1]

    def _check_turn(self, drafted: PlanDraft) -> None:
        """Checks a recorded turn: it is the next question of a sample."""
        number, wanted = drafted.sample, self._next_wanted(drafted.sample)
        lines = tuple(map(str, self.states[number][0].steps))
        if (
            not isinstance(wanted, PlannerQuestion)
            or drafted.lines != lines
            or number > self.votes
            or not drafted.parallel
        ):
            self.reading.oracle.objections.append(
                f"I5 turn {self.reading.turn} of {self.reading.path} is not a question of sample {number}"
            )
        self._take_turn(number)

    def _take_turn(self, number: int) -> None:
        state, wanted = self.states[number]
        reading = self.reading
        # it is not awaited if the node ends before
        reading.oracle.dropped.add(f"{reading.path}#{reading.turn}/line")
        answer = reading.router_answer(wanted.inputs, number) if isinstance(wanted, PlannerQuestion) else None
        reading.turn += 1
        if isinstance(answer, ValueOutcome):
            self.states[number] = advance(state, str(answer.value))
        elif (other := _retry_unreadable(state, answer)) is not None:
            self.states[number] = other
        else:
            self.states[number] = state, None if answer is None else PlanNotFound(())
            self.failed |= {} if answer is None else {number: answer}


def _retry_unreadable(state: PlannerState, answer: Outcome | None) -> tuple[PlannerState, PlannerAction] | None:
    """Returns the next question after an unreadable answer; None if there is none, and for any other answer."""
    return advance_unreadable(state, answer.code, answer.reason) if isinstance(answer, FailedOutcome) else None


def _has_step(step: str, drafted: PlanDraft) -> bool:
    return any(line.startswith(f"{step} = ") for line in drafted.lines)


def _is_complete(drafted: PlanDraft) -> bool:
    return bool(drafted.lines) and drafted.lines[-1].startswith("return ")


def _result_type(node: CompiledNode) -> Schema:
    return node.output if node.each is None else bundle_definitions({"type": "array", "items": node.output})


def _catalog(planning: PlanSettings) -> Catalog:
    agents = {one.name: one for one in (*planning.judges, *planning.capabilities) if one.kind == "agent"}
    if planning.router is not None:
        agents.setdefault(planning.router.name, planning.router)
    tools = {one.name: one for one in (*planning.judges, *planning.capabilities) if one.kind == "tool"}
    return Catalog(agents, tools, models=planning.models)
