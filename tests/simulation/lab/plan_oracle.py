"""What a `plan` node means, for the oracle: the router's machine asked again, line by line, and the record held against it.

With the engine it shares the router, which is pure, and the compiler. How far a plan had come when a step of it failed is a matter of
time; so where the record says that another version began, the oracle asks only whether it might, and whether it has what it must have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestra.agents.contract import Catalog
from orchestra.core.events import Drafted, TurnStarted
from orchestra.core.outcomes import Failed, Outcome, Value
from orchestra.router.capabilities import Offer
from orchestra.router.constants import Occurrences
from orchestra.router.grounding import grounded
from orchestra.router.multi_part import parted
from orchestra.router.plan import Plan, plan_of, question, rewritten, so_far, workflow
from orchestra.router.plan_syntax import Answer, Reference, Step, read
from orchestra.router.planner import Ask, Drafting, Planned, Request, Unplanned, Wanted, go_on, go_on_without, shortened, start
from orchestra.router.shortlist import shortlist
from orchestra.router.validation import judge
from orchestra.router.voting import vote
from orchestra.schema.types import Schema, bundled
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.model import Graph
from orchestra.workflows.program import CompiledNode, Planning, Program, sampled

if TYPE_CHECKING:
    from tests.simulation.lab.oracle import Oracle

NO_BUDGET = "E005"


@dataclass(slots=True)
class Told:
    """What a version of a plan has from those before it."""

    values: dict[str, tuple[Any, Schema]] = field(default_factory=dict)
    made: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    acted: tuple[str, ...] = ()


@dataclass(slots=True)
class Run:
    """The steps of one version, evaluated."""

    outcomes: dict[str, Outcome | None]
    nodes: dict[str, CompiledNode]
    bindings: dict[str, Any]

    @property
    def lost(self) -> list[Outcome]:
        """Outcomes that are no values."""
        return [one for one in self.outcomes.values() if one is not None and not isinstance(one, Value)]


class Reading:
    """One `plan` node of a run, gone through from its first question on."""

    def __init__(self, oracle: Oracle, path: str, node: CompiledNode, bindings: Mapping[str, Any], *, poor: bool) -> None:
        assert node.planning is not None, "the node of a plan has what it plans with"
        self.oracle, self.path, self.node, self.planning, self.poor = oracle, path, node, node.planning, poor
        self.goal = node.planning.goal.evaluate(bindings)
        self.given = {"request": self.goal, **{name: one.evaluate(bindings) for name, one in node.planning.values.items()}}
        known = {name: one.schema for name, one in node.planning.values.items()}
        self.types: dict[str, Schema] = {"request": node.planning.goal.schema, **known}
        recorded = oracle.recorded
        self.turns: Sequence[TurnStarted] | None = None if recorded is None else recorded.turns.get(path, ())
        self.told, self.version, self.turn = Told(), 1, 1

    def outcome(self) -> Outcome | None:
        """What the plan comes to; None where the record does not tell."""
        if self.planning.router is None:
            return Failed("R007", "", self.path)
        state, wanted = start(self._request())
        if (served := self._served()) is not None:
            wanted = Planned(served)
        while True:
            if self._goes_on():
                if not self._jump(self._steps(state.steps), state.steps, whole=False):
                    return None
                state, wanted = start(self._request())
            if self.planning.votes > 1 and served is None:
                elected = Poll(self, self._request()).elected()
                if not isinstance(elected, Planned | Unplanned):
                    return elected
                state, wanted = Drafting(self._request()), elected
            served = None
            if isinstance(wanted, Unplanned):
                return self._refused(state.steps)
            if not self._on_record(wanted, state.steps):
                return self._cut_off(state.steps)
            if isinstance(wanted, Ask):
                answer = self.ask(wanted.inputs)
                self.turn += 1
                if isinstance(answer, Value):
                    state, wanted = go_on(state, str(answer.value))
                elif (other := _unread(state, answer)) is not None:
                    state, wanted = other
                elif answer is not None:
                    self._drop(self._steps(state.steps), set())
                    return answer
                elif not self._goes_on():
                    return self._cut_off(state.steps)
                continue
            self.turn += 1
            run = self._steps(wanted.plan.steps)
            found = self._came_to(wanted, run)
            if found is None or isinstance(found, Value) or not self._may_replan([found]):
                return found
            if not self._goes_on():
                return self._no_other(run)
            if not self._jump(run, wanted.plan.steps, whole=True):
                return None
            state, wanted = start(self._request())

    def _came_to(self, wanted: Planned, run: Run) -> Outcome | None:
        """What a plan that is whole gives: none of the steps that its answer does not rest on is waited for."""
        program = self._compiled(workflow(wanted.plan, self._offer(), self.node.name))
        names = [one.name for one in program.nodes]
        self._drop(run, set(names))
        ended = [run.outcomes[name] for name in names]
        return None if any(one is None for one in ended) else self.oracle.result(program, ended, run.bindings, self.path)

    # The record

    def event(self) -> Drafted | None:
        """How far the plan was at this turn."""
        return self.turns[self.turn - 1].drafted if self.turns is not None and self.turn <= len(self.turns) else None

    def _served(self) -> Plan | None:
        """The plan that the record begins with because it had served before: a fact, and it must pass the gates."""
        drafted = self.event()
        if drafted is None or not drafted.recalled:
            return None
        lines = [read(line) for line in drafted.lines]
        found = plan_of(lines)
        steps = found.steps if found is not None else ()
        faults = [fault for number, line in enumerate(lines) for fault in judge(line, replace(self._offer(), several=None), steps[:number])]
        if found is None or not found.answer.values or faults or not self.planning.cache:
            self.oracle.objections.append(f"I5 {self.path} begins with a stored plan that it may not have")
            return None
        return found

    def _goes_on(self) -> bool:
        """Whether another version begins here."""
        drafted = self.event()
        return drafted is not None and drafted.version != self.version

    def _on_record(self, wanted: Ask | Planned, steps: Sequence[Step]) -> bool:
        """Whether the record goes on, and as the router's machine wants. Without a record it does."""
        if self.turns is None:
            return True
        drafted = self.event()
        if drafted is None:
            return False
        lines = steps if isinstance(wanted, Ask) else (*wanted.plan.steps, wanted.plan.answer)
        if drafted.lines != tuple(map(str, lines)):
            self.oracle.objections.append(f"I5 turn {self.turn} of {self.path} has other lines than its router's answers make")
        return True

    def _cut_off(self, steps: Sequence[Step]) -> Outcome | None:
        """Nothing more is on record."""
        return self._no_other(self._steps(steps))

    def _no_other(self, run: Run) -> Outcome | None:
        """There is no record of another version: because the run was cut off, or because there is none."""
        recorded = self.oracle.recorded
        had = recorded.outcome(self.path) if recorded is not None else None
        if had is None or not run.lost or not self._may_replan(run.lost):
            return None
        self._drop(run, set())
        return Failed("R008", "", self.path)

    def _refused(self, steps: Sequence[Step]) -> Outcome:
        """There is no plan. Where a step had failed, whether the engine knew that by then is a matter of time."""
        run = self._steps(steps)
        self._drop(run, set())
        recorded = self.oracle.recorded
        had = recorded.outcome(self.path) if recorded is not None else None
        late = isinstance(had, Failed) and had.code == "R008" and bool(run.lost) and self._may_replan(run.lost)
        return Failed("R008" if self.told.failed or late else "R007", "", self.path)

    def _jump(self, before: Run, steps: Sequence[Step], *, whole: bool) -> bool:
        """Another version begins: whether it may, and with what it has from the one that is given up."""
        drafted = self.event()
        if drafted is None or drafted.version != self.version + 1:
            self.oracle.objections.append(f"I5 turn {self.turn} of {self.path} is of another version than {self.version + 1}")
            return False
        if not whole and not (before.lost and self._may_replan(before.lost) and self.planning.streaming):
            self.oracle.objections.append(f"I5 version {drafted.version} of {self.path} begins, and nothing had failed")
        self._drop(before, set())
        self._inherit(before, drafted, steps)
        return True

    def _inherit(self, before: Run, drafted: Drafted, steps: Sequence[Step]) -> None:
        scope = f"{self.path}@{self.version}/"
        values = {name: one.value for name, one in before.outcomes.items() if isinstance(one, Value)}
        if set(drafted.carried.values()) != values.keys():
            self.oracle.objections.append(f"I5 version {drafted.version} of {self.path} has not what the one before had finished")
        begun = self.oracle.recorded.begins if self.oracle.recorded is not None else {}
        acted = {
            node.contract.name
            for name, node in before.nodes.items()
            if node.contract is not None and node.contract.effect != "pure" and self._called(scope + name, begun)
        }
        if not acted <= set(drafted.acted):
            self.oracle.objections.append(f"I3 version {drafted.version} of {self.path} may call again what acted: {sorted(acted)}")
        named = {step: name for name, step in drafted.carried.items()}
        made = tuple((str(rewritten(step, named)), named[step.name]) for step in steps if step.name in named)
        fresh = {name: (values[step], _type(before.nodes[step])) for name, step in drafted.carried.items() if step in values}
        self.told = Told({**self.told.values, **fresh}, (*self.told.made, *made), drafted.failed, drafted.acted)
        self.version = drafted.version

    def _called(self, path: str, begun: Mapping[str, Any]) -> bool:
        recorded = self.oracle.recorded
        return path in begun and recorded is not None and any(node == path or node.startswith(f"{path}[") for node, _ in recorded.attempts)

    def _may_replan(self, outcomes: Sequence[Outcome]) -> bool:
        poor = any(isinstance(one, Failed) and one.code == NO_BUDGET for one in outcomes)
        return not poor and self.version <= self.planning.replans

    # Programs

    def _request(self) -> Request:
        planning, offer, goal = self.planning, self._offer(), str(self.goal)
        if planning.shortlist is not None:
            offer = shortlist(offer, goal, planning.shortlist)
        return Request(goal, offer, planning.repairs, planning.stepwise, failed=self.told.failed, made=self.told.made)

    def _offer(self) -> Offer:
        known = {**self.types, **{name: kind for name, (_, kind) in self.told.values.items()}}
        skills = [one for one in self.planning.skills if one.name not in self.told.acted]
        words = shortened(str(self.goal)) if self.planning.copied else ""
        declines = not self.planning.anyway
        offer = Offer.of(skills, known, self.node.output, limits=self.planning.limits, words=words, declines=declines)
        said = None if self.planning.literals else Occurrences(shortened(str(self.goal)))
        derived = frozenset((*self.told.values, *self.planning.hearsay))
        offer = replace(offer, derived=derived, occurrences=said, confirm=self.planning.confirm)
        if self.version > 1:
            return offer
        return parted(grounded(offer, self.planning.grounds), shortened(str(self.goal)) if self.planning.each_part else "")

    def _compiled(self, graph: Graph) -> Program:
        return compile_graph(graph, _catalog(self.planning))

    def ask(self, inputs: Mapping[str, str], sample: int = 0) -> Outcome | None:
        """What the router answered to a question, of one of several samples."""
        router = self.planning.router
        program = sampled(self._compiled(question(router.name if router is not None else "", inputs)), sample)
        outcomes, inner = self.oracle.scope(f"{self.path}#{self.turn}/", program, {"input": {}}, poor=self.poor)
        return None if any(one is None for one in outcomes) else self.oracle.result(program, outcomes, inner, self.path)

    def _steps(self, steps: Sequence[Step]) -> Run:
        """The steps of this version, evaluated in their scope."""
        if not steps:
            return Run({}, {}, {})
        self._begins(steps[0])
        program = self._compiled(so_far(steps, self._offer(), self.node.name))
        given = {**self.given, **{name: value for name, (value, _) in self.told.values.items()}}
        around = {"input": {name: given[name] for name in program.inputs}}
        outcomes, inner = self.oracle.scope(f"{self.path}@{self.version}/", program, around, poor=self.poor)
        run = Run({node.name: outcomes[node.index] for node in program.nodes}, {node.name: node for node in program.nodes}, inner)
        self._windows(run)
        return run

    def _begins(self, step: Step) -> None:
        """The first step reads what it is to read: all plans here have a tool that takes any text."""
        texts = [name for name in self.planning.grounds if self.planning.values[name].schema == {"type": "string"}]
        named = [value for value in (*step.arguments.values(), step.each) if isinstance(value, Reference) and "[" not in str(value)]
        mine = [one for one in named if one.root == "input" and one.path and one.path[0] in self.planning.grounds]
        over = step.each in mine and any(one.root == "x" for one in named)
        if self.version == 1 and texts and not over and all(one is step.each for one in mine):
            self.oracle.objections.append(f"I5 the plan of {self.path} begins with {step}, and was to read one of {', '.join(texts)}")

    def _drop(self, run: Run, used: set[str]) -> None:
        """Nobody waits for the steps that are not used."""
        self.oracle.dropped |= {f"{self.path}@{self.version}/{name}" for name in run.outcomes.keys() - used}

    def _windows(self, run: Run) -> None:
        """Between which events each step may begin: from the turn on in which its line stands, and one with an effect, or behind one, once
        the plan is whole."""
        if self.turns is None:
            return
        turns = [event for event in self.turns if event.drafted is not None and event.drafted.version == self.version]
        held: set[int] = set()
        for node in run.nodes.values():
            if (node.contract is not None and node.contract.effect != "pure") or not held.isdisjoint(node.needs):
                held.add(node.index)
            stands = [event for event in turns if event.drafted is not None and _stands(node.name, event.drafted)]
            late = node.index in held or not self.planning.streaming
            stands = [event for event in stands if not late or (event.drafted is not None and _whole(event.drafted))]
            self.oracle.starts[f"{self.path}@{self.version}/{node.name}"] = stands[0].seq if stands else None


class Poll:
    """Samples of one version of a plan, each gone through by itself; the record says whose question each turn is."""

    def __init__(self, reading: Reading, request: Request) -> None:
        self.reading, self.request, self.votes = reading, request, reading.planning.votes
        self.states: dict[int, tuple[Drafting, Wanted | None]] = {}
        """Of each sample: where its machine stands, and what it wants; None while its question is open."""
        self.failed: dict[int, Outcome] = {}

    def elected(self) -> Planned | Unplanned | Outcome | None:
        """The plan that most samples agree on; the failure that ends the node; None where the record does not tell."""
        if self.reading.turns is None:
            for number in range(1, self.votes + 1):
                while isinstance(self._wanted(number), Ask):
                    self._turn(number)
        else:
            while (drafted := self.reading.event()) is not None and drafted.sample:
                self._told(drafted)
        if poor := [one for one in self.failed.values() if isinstance(one, Failed) and one.code == NO_BUDGET]:
            recorded = self.reading.oracle.recorded
            had = None if recorded is None else recorded.outcome(self.reading.path)
            return had if had in poor else poor[0]  # which of them came first is a matter of time
        ended = [self.states.get(number, (None, None))[1] for number in range(1, self.votes + 1)]
        if any(one is None or isinstance(one, Ask) for one in ended):
            return self._nothing(ended)
        if len(self.failed) == self.votes:
            return self.failed[1]
        return self._counted([one for one in ended if isinstance(one, Planned | Unplanned)])

    def _nothing(self, ended: list[Wanted | None]) -> Unplanned | None:
        """The record ends before all have; or no question could be asked at all."""
        first = start(self.request)[1]
        return first if isinstance(first, Unplanned) and not self.states else None

    def _counted(self, ended: Sequence[Planned | Unplanned]) -> Planned | Unplanned:
        nothing = Plan((), Answer(()))
        plans = [one.plan if isinstance(one, Planned) else nothing if one.declined else None for one in ended]
        won = vote(plans)
        chosen = None if won is None else plans[won.chosen]
        if won is None or chosen is None or not chosen.answer.values:
            return Unplanned(())
        drafted, told = self.reading.event(), tuple(() if one is None else tuple(map(str, (*one.steps, one.answer))) for one in plans)
        if drafted is not None and (drafted.plans, drafted.agreement) != (told, won.agreement):
            self.reading.oracle.objections.append(f"I5 {self.reading.path} has counted other votes than its samples have")
        return Planned(chosen)

    def _wanted(self, number: int) -> Wanted | None:
        if number not in self.states:
            self.states[number] = start(self.request)
        return self.states[number][1]

    def _told(self, drafted: Drafted) -> None:
        """A turn on record: the next question of a sample, and no other one."""
        number, wanted = drafted.sample, self._wanted(drafted.sample)
        lines = tuple(map(str, self.states[number][0].steps))
        if not isinstance(wanted, Ask) or drafted.lines != lines or number > self.votes or not drafted.beside:
            self.reading.oracle.objections.append(f"I5 turn {self.reading.turn} of {self.reading.path} is no question of sample {number}")
        self._turn(number)

    def _turn(self, number: int) -> None:
        state, wanted = self.states[number]
        reading = self.reading
        reading.oracle.dropped.add(f"{reading.path}#{reading.turn}/line")  # nobody waits for it where the node ends before
        answer = reading.ask(wanted.inputs, number) if isinstance(wanted, Ask) else None
        reading.turn += 1
        if isinstance(answer, Value):
            self.states[number] = go_on(state, str(answer.value))
        elif (other := _unread(state, answer)) is not None:
            self.states[number] = other
        else:
            self.states[number] = state, None if answer is None else Unplanned(())
            self.failed |= {} if answer is None else {number: answer}


def _unread(state: Drafting, answer: Outcome | None) -> tuple[Drafting, Wanted] | None:
    """What is asked next where an answer could not be read; None where nothing is, and of any other answer."""
    return go_on_without(state, answer.code, answer.reason) if isinstance(answer, Failed) else None


def _stands(step: str, drafted: Drafted) -> bool:
    return any(line.startswith(f"{step} = ") for line in drafted.lines)


def _whole(drafted: Drafted) -> bool:
    return bool(drafted.lines) and drafted.lines[-1].startswith("return ")


def _type(node: CompiledNode) -> Schema:
    return node.output if node.each is None else bundled({"type": "array", "items": node.output})


def _catalog(planning: Planning) -> Catalog:
    agents = {one.name: one for one in (*planning.judges, *planning.skills) if one.kind == "agent"}
    if planning.router is not None:
        agents.setdefault(planning.router.name, planning.router)
    tools = {one.name: one for one in (*planning.judges, *planning.skills) if one.kind == "tool"}
    return Catalog(agents, tools, models=planning.models)
