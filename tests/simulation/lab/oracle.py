"""The oracle: what a workflow means, as a recursion over its nodes, without time, order, or anything under way.

Given the answers that a run has on record, it says what every node must have ended in. It shares with the engine the compiled
program and the checks, and nothing else, so the two are right or wrong apart from each other.

    said = Oracle(program, Recorded.of(events)).consult()
    said.objections    # where the record is not what follows from its own answers
    said.outcome       # what the run must end in, as far as the record tells

Without a record, `Oracle(program, Answering(...))` gives what a run ends in when nothing goes wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.core.errors import OrchestraError
from orchestra.core.events import AttemptFinished, ChecksStarted
from orchestra.core.outcomes import Abstained, Failed, Outcome, Skipped, Value, blamed
from orchestra.core.protocols import Call, Source, sources
from orchestra.engine.kinds import checks
from orchestra.engine.state import Bindings, Scope, Unit
from orchestra.verification import acceptance, session
from orchestra.verification.entailment import Reply
from orchestra.workflows.program import CompiledNode, Program
from tests.simulation.lab.answers import Book, Recorded
from tests.simulation.lab.oracle_rules import (
    UNFIT,
    accepted,
    agent_for,
    alike,
    as_a_whole,
    attempts,
    evidence_of,
    first_arm,
    fits,
    or_fallback,
    result_of,
    short,
    shown_of,
    unfit,
    unstated,
)
from tests.simulation.lab.plan_oracle import Reading

TIME_IS_UP, NO_BUDGET, TOO_MANY, SAID_NO, TOO_FEW = "E006", "E005", "E004", "E016", "E034"


@dataclass(slots=True)
class Place:
    """Where a unit stands: the path of its scope, its node, and the `each` node that it is an element of."""

    scope: str
    node: CompiledNode
    owner: str = ""
    poor: bool = False
    """Whether a budget of tokens or calls is around it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A value that was not accepted, and what the checks said of it."""

    value: Any
    ruling: acceptance.Ruling

    @property
    def score(self) -> float | None:
        """That of the ruling."""
        return self.ruling.score


class Oracle:
    """Consulted once for one run."""

    def __init__(self, program: Program, book: Book) -> None:
        self.program, self.book = program, book
        self.recorded = book if isinstance(book, Recorded) else None
        self.objections: list[str] = []
        self.places: dict[str, Place] = {}
        """Every unit that the run has, as far as its record goes."""
        self.calls: dict[tuple[str, int], Call] = {}
        """Every call that the run may make."""
        self.siblings: dict[str, tuple[CompiledNode, ...]] = {}
        """The nodes of each scope that was opened, by its path."""
        self.programs: dict[str, Program] = {}
        """The program of each scope, by its path."""
        self.rescued: set[str] = set()
        """Units whose outcome is that of a call that the budget had no room for."""
        self.open: list[str] = []
        """Units that must have an outcome by their answers, and have none on record."""
        self.rounds: dict[str, int] = {}
        """By path: how often checks of a unit have asked agents."""
        self.given_up: set[str] = set()
        """Units whose time was up."""
        self.dropped: set[str] = set()
        """Steps of plans that nobody waits for: their plan was refused, another version followed, or its answer does not rest on them."""
        self.short: set[str] = set()
        """Lists that cannot have as many values as they need: nobody waits for the rest of their elements."""
        self.starts: dict[str, int | None] = {}
        """By path: the event after which a step of a plan may begin; None where it may not."""
        self.status = ""
        self.outcome: Outcome | None = None

    def consult(self) -> Oracle:
        """Goes through the program."""
        book = self.book
        outcomes, bindings = self.scope("", self.program, {"input": book.inputs}, poor=False)
        if all(outcome is not None for outcome in outcomes):
            lost = self._lost(outcomes)
            self.outcome = lost if lost is not None else result_of(self.program, outcomes, bindings)
            self.status = {Value: "done", Skipped: "abstained", Abstained: "abstained", Failed: "failed"}[type(self.outcome)]
            if isinstance(self.outcome, Failed) and self.outcome.code == NO_BUDGET:
                self.status = "budget"
        return self

    def _lost(self, outcomes: Sequence[Outcome | None]) -> Outcome | None:
        """A failure that nobody reads, or of a value that a person gave."""
        for node, outcome in zip(self.program.nodes, outcomes, strict=True):
            unread = not node.children and node.name not in self.program.output.references
            if isinstance(outcome, Failed) and (unread or outcome.code == UNFIT):
                return blamed(outcome, node.name)
        return None

    # Scopes and units

    def scope(self, path: str, program: Program, around: dict[str, Any], *, poor: bool) -> tuple[list[Outcome | None], dict[str, Any]]:
        """What the nodes of a scope must have ended in, and the names that they make."""
        budget = program.budget
        poor = poor or (budget is not None and (budget.tokens is not None or budget.calls is not None))
        self.siblings[path], self.programs[path] = program.nodes, program
        bindings = dict(around)
        outcomes: list[Outcome | None] = [None] * len(program.nodes)
        for node in program.nodes:
            outcome = self._node(path, program, node, outcomes, bindings, poor)
            outcomes[node.index] = outcome
            if isinstance(outcome, Value):
                bindings[node.name] = {"values": outcome.value} if node.each is not None else outcome.value
        return outcomes, bindings

    def _node(
        self, scope: str, program: Program, node: CompiledNode, outcomes: list[Outcome | None], bindings: dict[str, Any], poor: bool
    ) -> Outcome | None:
        path = scope + node.name
        if any(outcomes[need] is None for need in node.needs):
            if self.book.outcome(path) is not None:
                self.objections.append(f"I4 {path} has an outcome, and what it needs has none")
            return None
        self.places[path] = Place(scope, node, poor=poor)
        if (said := self.book.given.get(path)) is not None and not said.shown:
            kept = Failed(UNFIT, "", path) if said.whole and unfit(node, said.value, bindings) else Value(said.value)
            return self._agreed(path, node, bindings, kept)
        for need in node.needs:
            outcome = outcomes[need]
            tolerated = need in node.soft and not (isinstance(outcome, Failed) and outcome.code == UNFIT)
            if not tolerated and not isinstance(outcome, Value) and outcome is not None:
                return self._agreed(path, node, bindings, blamed(outcome, program.nodes[need].name))
        elements = node.each is not None and node.when is not None and node.variable in node.when.references
        try:
            if node.when is not None and not elements and not node.when.evaluate(bindings):
                return self._agreed(path, node, bindings, Skipped("", path))
            if node.each is None:
                wanted = self._unit(path, node, bindings, outcomes, program, poor)
            else:
                wanted = self._spread(path, scope, node, bindings, node.each.evaluate(bindings), poor)
        except OrchestraError as error:
            wanted = Failed(error.code, error.message, path)
        return self._agreed(path, node, bindings, wanted)

    def _spread(self, path: str, scope: str, node: CompiledNode, bindings: dict[str, Any], items: list[Any], poor: bool) -> Outcome | None:
        if len(items) > node.limit:
            return Failed(TOO_MANY, "", path)
        if isinstance(node.at_least, int) and len(items) < node.at_least:
            return Failed(TOO_FEW, "", path)
        if self.recorded is not None and self.recorded.counts.get(path, len(items)) != len(items):
            self.objections.append(f"I5 {path} has {len(items)} elements, and {self.recorded.counts[path]} on record")
        found: list[Outcome | None] = []
        for index, item in enumerate(items):
            inner, own = f"{path}[{index}]", {**bindings, node.variable: item}
            self.places[inner] = Place(scope, node, path, poor)
            try:
                if node.when is not None and node.variable in node.when.references and not node.when.evaluate(own):
                    wanted: Outcome | None = Skipped("", inner)
                else:
                    wanted = self._unit(inner, node, own, [], None, poor)
            except OrchestraError as error:
                wanted = Failed(error.code, error.message, inner)
            found.append(self._agreed(inner, node, own, wanted))
        if short(node, found):
            self.short.add(path)
            return Failed(TOO_FEW, "", path)
        if any(outcome is None for outcome in found):
            return None
        failures = [outcome for outcome in found if isinstance(outcome, Failed)]
        if failures and len(failures) == len(found):
            return blamed(failures[0], path)
        return Value([outcome.value for outcome in found if isinstance(outcome, Value)])

    def _agreed(self, path: str, node: CompiledNode, bindings: Mapping[str, Any], wanted: Outcome | None) -> Outcome | None:
        """What a unit must end in, held against what it did end in."""
        spread = node.each is not None and self.places[path].owner == ""
        itself = wanted
        wanted = wanted if spread else or_fallback(node, path, bindings, wanted)
        if self.recorded is None:
            return wanted
        had = self.recorded.outcomes.get(path)
        if had is None:
            if wanted is not None:
                self.open.append(path)
            return None
        if alike(had, wanted):
            instead = getattr(self.recorded.ends.get(path), "instead", None)
            excused = isinstance(instead, Failed) and instead.code in (TIME_IS_UP, NO_BUDGET)
            if instead is not None and not excused and not alike(instead, itself):
                self.objections.append(f"I5 {path} has its fallback for {instead}, and must have come to {itself}")
            return had
        if not spread and self._excused(path, node, bindings, had):
            return had
        self.objections.append(f"I5 {path} ended in {had}, and must have ended in {wanted}")
        return had

    def _excused(self, path: str, node: CompiledNode, bindings: Mapping[str, Any], had: Outcome) -> bool:
        """Whether time or money explain an outcome."""
        if self._timed(node) and alike(had, or_fallback(node, path, bindings, Failed(TIME_IS_UP, "", path))):
            self.given_up.add(path)
            return True
        spent = alike(had, or_fallback(node, path, bindings, Failed(NO_BUDGET, "", path)))
        if spent and node.body is not None and node.body.seconds is not None:
            self.given_up.add(path)
            return True
        if spent and node.kind == "agent" and self.places[path].poor:
            self.rescued.add(path)
            return True
        return False

    def _unit(
        self, path: str, node: CompiledNode, bindings: dict[str, Any], outcomes: list[Outcome | None], program: Program | None, poor: bool
    ) -> Outcome | None:
        match node.kind:
            case "agent" | "tool":
                return self._call(path, node, bindings)
            case "first_of":
                return self._settled(path, node, bindings, first_arm(node, bindings, outcomes, program))
            case "verify":
                return self._settled(path, node, bindings, Value(node.value.evaluate(bindings)) if node.value else Skipped("", path))
            case "ask":
                question = str(node.value.evaluate(bindings)) if node.value is not None else ""
                answer = self.book.answer(path, node, question)
                if self.recorded is not None and any(
                    asked.about == "answer" and asked.question != question for asked in self.recorded.asked.get(path, ())
                ):
                    self.objections.append(f"I5 {path} asked another question than {question!r}")
                if answer is None and (known := self.book.given.get(path)) is not None and known.shown == shown_of(node, question):
                    return Value(known.value)  # a person was asked the very same before
                if answer is not None and answer.declined:
                    return Abstained("", path)  # withheld, or what its fallback says
                return None if answer is None else self._settled(path, node, bindings, Value(answer.value))
            case "call":
                return self._settled(path, node, bindings, self._body(path, node, bindings, poor))
            case "loop":
                return self._settled(path, node, bindings, self._loop(path, node, bindings, poor))
            case "plan":
                return self._settled(path, node, bindings, Reading(self, path, node, bindings, poor=poor).outcome())
            case kind:
                return Failed("E002", f"no kind {kind}", path)

    def _body(self, path: str, node: CompiledNode, bindings: dict[str, Any], poor: bool) -> Outcome | None:
        body = node.body
        assert body is not None, "a call has a body"
        around = bindings
        if not body.lexical:
            given = node.inputs.evaluate(bindings) if node.inputs is not None else {}
            around = {"input": {name: given.get(name, entry.default) for name, entry in body.inputs.items()}}
        outcomes, inner = self.scope(f"{path}/", body, around, poor=poor)
        if body.one_of:
            self._chosen(path, node, bindings, outcomes)
        return None if any(outcome is None for outcome in outcomes) else result_of(body, outcomes, inner)

    def _chosen(self, path: str, node: CompiledNode, bindings: dict[str, Any], outcomes: Sequence[Outcome | None]) -> None:
        """Holds a choice of agents against the table that its file has."""
        agent = agent_for(node, bindings)
        for one, outcome in zip(node.body.nodes if node.body is not None else (), outcomes, strict=True):
            passed = isinstance(outcome, Skipped) and outcome.by == f"{path}/{one.name}"
            if outcome is not None and passed == (one.name == agent):
                self.objections.append(f"I5 {path} is for {agent}, and {one.name} ended in {outcome}")
        for begun in self.recorded.turns.get(path, ()) if self.recorded is not None else ():
            if not begun.because.startswith(f"{agent}, for "):
                self.objections.append(f"I5 {path} is for {agent}, and says {begun.because!r}")

    def _loop(self, path: str, node: CompiledNode, bindings: dict[str, Any], poor: bool) -> Outcome | None:
        body = node.body
        assert body is not None, "a loop has a body"
        assert node.until is not None, "a loop has an end"
        previous: Any = None
        for turn in range(1, node.at_most + 1):
            outcomes, inner = self.scope(f"{path}#{turn}/", body, {**bindings, "turn": turn, "previous": previous}, poor=poor)
            if any(outcome is None for outcome in outcomes):
                return None
            found = result_of(body, outcomes, inner)
            if not isinstance(found, Value) or turn == node.at_most or node.until.evaluate(inner):
                self._turns(path, turn)
                return found
            previous = body.output.evaluate(inner)
        return None

    def _turns(self, path: str, turns: int) -> None:
        if self.recorded is not None and len(self.recorded.turns.get(path, ())) > turns:
            self.objections.append(f"I5 {path} ends after {turns} turns, and began another")

    @staticmethod
    def result(program: Program, outcomes: Sequence[Outcome | None], bindings: Mapping[str, Any], path: str) -> Outcome:
        """What a plan or a question to a router gives, a failure of its output's own included."""
        try:
            return result_of(program, outcomes, bindings)
        except OrchestraError as error:
            return Failed(error.code, error.message, path)

    # Calls and checks

    def _call(self, path: str, node: CompiledNode, bindings: dict[str, Any]) -> Outcome | None:
        """Goes through the attempts, until one is the last."""
        contract, rules = node.contract, node.acceptance
        assert contract is not None, "a call names an agent or a tool"
        inputs = node.inputs.evaluate(bindings) if node.inputs is not None else {}
        evidence = evidence_of(node, bindings) if rules is not None else ()
        feedback: tuple[str, ...] = ()
        number, tier = 1, int(node.escalate is not None and bool(node.escalate.evaluate(bindings)))
        refused: Answer | None = None
        while True:
            call = Call(
                run=self.book.run, node=path, attempt=number, kind=contract.kind, name=contract.name, inputs=inputs,
                timeout=node.timeout, label=self.book.label, evidence=evidence, feedback=feedback, tier=tier,
                version=contract.digest, sample=node.sample,
            )  # fmt: skip
            self.calls[path, number] = call
            found = self.book.attempt(call)
            if found is None:
                if contract.effect == "once" and (said := self.book.happened(path)) is not None:
                    return self._settled(path, node, bindings, Value(said.value), number)
                once = contract.effect == "once"
                return Failed(SAID_NO, "", path) if once and self.book.refused_again(path) else None
            if found.error:
                hope = found.retryable and not (found.lasting and unstated(node))
                if not (hope and self._again(node, path, number, found.error, found.at)):
                    if tier and refused is not None:
                        if found.error == "F220" or not self._higher(node, tier):
                            return self._unaccepted(path, node, refused, refused.score if self.book.tiers else None)
                        tier += 1
                    elif tier and found.error in ("F202", "F220"):
                        tier = 0  # there is no larger model for it: its own is asked
                    else:
                        return Failed(found.error, found.reason, path)
            elif rules is None or not rules.checks:
                return Value(found.value, found.confidence)
            else:
                judged = Value(found.value, found.confidence)
                ruling = self._ruling(path, number, node, judged, evidence or sources(inputs), bindings)
                if ruling is None:
                    return None
                if ruling.accepted:
                    return accepted(found.value, ruling)
                told = ruling.reason if ruling.told is None else ruling.told
                feedback = (*feedback, told) if told else feedback
                refused = Answer(found.value, ruling)
                if self._unpaid(path, number):
                    return self._unaccepted(path, node, refused, refused.score)
                retry = "retry" in rules.otherwise and ruling.told != ""
                retry = retry and self._again(node, path, number, "V001", self._judged_at(path, number, found.at))
                if not (retry and not tier):
                    if not self._higher(node, tier):
                        return self._unaccepted(path, node, refused, refused.score)
                    tier += 1
            number += 1

    def _unpaid(self, path: str, number: int) -> bool:
        """Whether the budget for checks had nothing for an attempt: another one would find no more."""
        said = self.recorded.judged.get((path, number)) if self.recorded is not None else None
        return said is not None and said.unasked is not None

    def _higher(self, node: CompiledNode, tier: int) -> bool:
        """Whether a larger model than this one may be asked."""
        escalates = node.acceptance is not None and "escalate" in node.acceptance.otherwise and node.kind == "agent"
        return escalates and tier < (len(self.book.tiers) or 1)

    def _unaccepted(self, path: str, node: CompiledNode, refused: Answer, score: float | None) -> Outcome | None:
        """What becomes of a value that no model mends: a person gives another, or it is withheld."""
        if node.acceptance is None or "ask" not in node.acceptance.otherwise:
            return Abstained("", path, score)
        if self.recorded is not None:
            asked = [one for one in self.recorded.asked.get(path, ()) if one.about == "acceptance"]
            shown = [one.withheld for one in asked if one.withheld is not None]
            if len(asked) > 1 or any((one.value, one.verdicts) != (refused.value, refused.ruling.verdicts) for one in shown):
                self.objections.append(f"I8 a person was shown something else than the last value of {path}, or more than once")
        answer = self.book.correction(path, node)
        if answer is not None and answer.declined:
            return Abstained("", path, refused.ruling.score)  # as if no person had been asked
        return None if answer is None else Value(answer.value)

    def _judged_at(self, path: str, number: int, answered: float) -> float:
        """When an attempt was judged: later than it was answered, where its checks asked agents."""
        said = self.recorded.judged.get((path, number)) if self.recorded is not None else None
        return answered if said is None else said.at

    def _again(self, node: CompiledNode, path: str, number: int, code: str, at: float) -> bool:
        """Whether another attempt follows: there are some left, and time for them."""
        if number >= attempts(node, code):
            return False
        within = node.retry.within
        if within is None or self.recorded is None or (begun := self.recorded.begins.get(path)) is None:
            return True
        start = begun.at - (begun.usage.seconds if isinstance(begun, AttemptFinished) else 0.0)
        return at - start - self.recorded.away(begun, at) < within

    def _settled(self, path: str, node: CompiledNode, bindings: dict[str, Any], found: Outcome | None, number: int = 0) -> Outcome | None:
        rules = node.acceptance
        if rules is None or not rules.checks or not isinstance(found, Value):
            return found
        if rules.whole:
            return as_a_whole(found.value, path, self.recorded)
        rest = node.inputs.evaluate(bindings) if node.inputs is not None else []
        ruling = self._ruling(path, number, node, found, evidence_of(node, bindings) or sources(rest), bindings)
        if ruling is None:
            return None
        return accepted(found.value, ruling) if ruling.accepted else self._unaccepted(path, node, Answer(found.value, ruling), ruling.score)

    def _ruling(
        self, path: str, number: int, node: CompiledNode, found: Value, evidence: tuple[Source, ...], bindings: dict[str, Any]
    ) -> acceptance.Ruling | None:
        rules = node.acceptance
        assert rules is not None, "only what has checks is judged"
        situation = acceptance.Situation(
            value=found.value,
            schema=node.output,
            evidence=evidence,
            checks=rules.checks,
            accept=rules.accept,
            confidence=found.score,
            producer=node.contract,
            inputs=node.inputs.evaluate(bindings) if node.inputs is not None else {},
            judges=rules.judges,
            back_off="back_off" in rules.otherwise,
            combination=rules.combination,
        )
        stands = session.start(situation)
        while isinstance(stands, session.Asked):
            unasked = self._unasked(path, number)
            if unasked:
                stands = session.unasked(situation, stands, unasked)
                break
            replies = self._replies(path, number, node, stands, bindings)
            if replies is None:
                return None
            stands = session.go_on(situation, stands, replies)
        ruling = stands
        assert isinstance(ruling, acceptance.Ruling), "it asks no more"
        if self.recorded is not None:
            said = self.recorded.judged.get((path, number))
            if said is None:
                if self.recorded.outcome(path) is not None and not self._timed(node):
                    self.objections.append(f"I8 attempt {number} of {path} was not judged")
            elif (said.accepted, said.verdicts) != (ruling.accepted, ruling.verdicts):
                self.objections.append(f"I8 the checks on attempt {number} of {path} say otherwise: accepted is {ruling.accepted}")
            elif rules.combination is not None and not fits(said, rules.combination, rules.accept):
                self.objections.append(f"I8 attempt {number} of {path} has another score than its checks come to: {said.score}")
        return ruling

    def _unasked(self, path: str, number: int) -> str:
        """Why the budget for checks had nothing for an attempt's next questions; empty where they were asked, or never came to that."""
        said = self.recorded.judged.get((path, number)) if self.recorded is not None else None
        if self.recorded is None or said is None or said.unasked is None or (path, self.rounds.get(path, 0) + 1) in self.recorded.checks:
            return ""
        if self.program.budget is None or self.program.budget.check_tokens is None:
            self.objections.append(f"I6 {path} was not checked for want of a budget that nobody stated")
        return said.unasked.why

    def _replies(self, path: str, number: int, node: CompiledNode, asked: session.Asked, bindings: dict[str, Any]) -> list[Reply] | None:
        """What came of a check's questions; None where some have no end."""
        turn = self.rounds[path] = self.rounds.get(path, 0) + 1
        facts: dict[str, Any] = {"check": asked.check, "questions": asked.questions, "verdicts": asked.verdicts}
        if self.recorded is not None:
            said = self.recorded.checks.get((path, turn))
            if said is None:
                return None  # the run ended before, or its time was up; else its end will not be what it must
            if (said.check, said.questions, said.verdicts) != tuple(facts.values()):
                self.objections.append(f"I8 the {turn}. questions of {path} must have been others")
        event = ChecksStarted(seq=0, at=0.0, node=path, attempt=number, round=turn, **facts)
        within = Unit(path, Scope("", self.program, Bindings(), None, None), node, Bindings())
        outcomes, _ = self.scope(f"{path}?{turn}/", checks.program(within, event), bindings, poor=self.places[path].poor)
        if any(outcome is None for outcome in outcomes):
            return None
        return [checks.reply(outcome) for outcome in outcomes]

    @staticmethod
    def _timed(node: CompiledNode) -> bool:
        return node.timeout is not None and node.kind in ("call", "loop", "ask", "plan")
