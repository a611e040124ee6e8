"""The oracle: the meaning of a workflow as a recursion over its nodes, without time, order or concurrency.

From the recorded answers of a run it derives the outcome of every node. It shares with the engine only the compiled
program and the checks, so the errors of the two are independent.

    oracle = Oracle(program, RunRecord.from_events(events)).evaluate()
    oracle.objections         # contradictions between the record and its own answers
    oracle.outcome            # the required outcome of the run, as far as the record determines it

Without a record, `Oracle(program, FaultlessAnswers(...))` gives the outcome of a run without faults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.core.errors import OrchestraError
from orchestra.core.events import AttemptFinished, ChecksStarted
from orchestra.core.outcomes import (
    AbstainedOutcome,
    FailedOutcome,
    Outcome,
    SkippedOutcome,
    ValueOutcome,
    inherit_outcome,
)
from orchestra.core.protocols import CallRequest, EvidenceSource, collect_sources
from orchestra.engine.kinds import checks
from orchestra.engine.state import ExecutionScope, ScopeBindings, WorkItem
from orchestra.verification import acceptance, session
from orchestra.verification.entailment import JudgeReply
from orchestra.workflows.program import CompiledNode, Program
from tests.simulation.lab.answers import AnswerSource, RunRecord
from tests.simulation.lab.oracle_rules import (
    UNFIT_VALUE,
    accepted_value,
    apply_fallback,
    chosen_agent,
    evidence_of,
    first_arm_outcome,
    has_default_retry,
    is_short,
    is_unfit,
    matches_combination,
    max_attempts,
    program_outcome,
    question_digest,
    same_outcome,
    workflow_verdict,
)
from tests.simulation.lab.plan_oracle import PlanOracle

TIMED_OUT, NO_BUDGET, TOO_MANY, DECLINED, TOO_FEW = "E006", "E005", "E004", "E016", "E034"


@dataclass(slots=True)
class ItemPlace:
    """The place of a unit: the path of its scope, its node, and its `each` node."""

    scope: str
    node: CompiledNode
    owner: str = ""
    has_budget: bool = False
    """Whether an enclosing budget of tokens or calls applies."""


@dataclass(frozen=True, slots=True)
class RejectedValue:
    """A rejected value, and the result of its checks."""

    value: Any
    ruling: acceptance.VerificationResult

    @property
    def score(self) -> float | None:
        """The score of the ruling."""
        return self.ruling.score


class Oracle:
    """Evaluates one run once."""

    def __init__(self, program: Program, source: AnswerSource) -> None:
        self.program, self.source = program, source
        self.recorded = source if isinstance(source, RunRecord) else None
        self.objections: list[str] = []
        self.places: dict[str, ItemPlace] = {}
        """All units of the run, as far as it is recorded."""
        self.calls: dict[tuple[str, int], CallRequest] = {}
        """All calls that the run may make."""
        self.siblings: dict[str, tuple[CompiledNode, ...]] = {}
        """Path of an opened scope to its nodes."""
        self.programs: dict[str, Program] = {}
        """Path of a scope to its program."""
        self.budget_failures: set[str] = set()
        """Units whose outcome is that of a call above the budget."""
        self.missing_outcomes: list[str] = []
        """Units that must have an outcome by their answers, and have none on record."""
        self.check_rounds: dict[str, int] = {}
        """Path to the number of rounds of questions of checks."""
        self.timed_out: set[str] = set()
        """Units with a timeout."""
        self.dropped: set[str] = set()
        """Steps of plans that are not needed: the plan was refused or replaced, or its answer does not depend on
        them.
        """
        self.short_lists: set[str] = set()
        """Lists that cannot have enough values, so that their other elements are not awaited."""
        self.earliest_starts: dict[str, int | None] = {}
        """Path to the event after which a step of a plan may start; None if it may not."""
        self.status = ""
        self.outcome: Outcome | None = None

    def evaluate(self) -> Oracle:
        """Evaluates the program."""
        book = self.source
        outcomes, bindings = self.scope("", self.program, {"input": book.inputs}, has_budget=False)
        if all(outcome is not None for outcome in outcomes):
            lost = self._unread_failure(outcomes)
            self.outcome = lost if lost is not None else program_outcome(self.program, outcomes, bindings)
            self.status = {
                ValueOutcome: "done",
                SkippedOutcome: "abstained",
                AbstainedOutcome: "abstained",
                FailedOutcome: "failed",
            }[type(self.outcome)]
            if isinstance(self.outcome, FailedOutcome) and self.outcome.code == NO_BUDGET:
                self.status = "budget"
        return self

    def _unread_failure(self, outcomes: Sequence[Outcome | None]) -> Outcome | None:
        """Returns a failure that no node reads, or of a value that a person set."""
        for node, outcome in zip(self.program.nodes, outcomes, strict=True):
            unread = not node.children and node.name not in self.program.output.references
            if isinstance(outcome, FailedOutcome) and (unread or outcome.code == UNFIT_VALUE):
                return inherit_outcome(outcome, node.name)
        return None

    # Scopes and units

    def scope(
        self, path: str, program: Program, around: dict[str, Any], *, has_budget: bool
    ) -> tuple[list[Outcome | None], dict[str, Any]]:
        """Returns the required outcomes of a scope's nodes, and the names that they define."""
        budget = program.budget
        has_budget = has_budget or (budget is not None and (budget.tokens is not None or budget.calls is not None))
        self.siblings[path], self.programs[path] = program.nodes, program
        bindings = dict(around)
        outcomes: list[Outcome | None] = [None] * len(program.nodes)
        for node in program.nodes:
            outcome = self._node(path, program, node, outcomes, bindings, has_budget)
            outcomes[node.index] = outcome
            if isinstance(outcome, ValueOutcome):
                bindings[node.name] = {"values": outcome.value} if node.each is not None else outcome.value
        return outcomes, bindings

    def _node(
        self,
        scope: str,
        program: Program,
        node: CompiledNode,
        outcomes: list[Outcome | None],
        bindings: dict[str, Any],
        has_budget: bool,
    ) -> Outcome | None:
        path = scope + node.name
        if any(outcomes[need] is None for need in node.needs):
            if self.source.outcome(path) is not None:
                self.objections.append(f"I4 {path} has an outcome before its dependencies")
            return None
        self.places[path] = ItemPlace(scope, node, has_budget=has_budget)
        if (said := self.source.given.get(path)) is not None and not said.question_digest:
            kept = (
                FailedOutcome(UNFIT_VALUE, "", path)
                if said.requires_all and is_unfit(node, said.value, bindings)
                else ValueOutcome(said.value)
            )
            return self._check_outcome(path, node, bindings, kept)
        for need in node.needs:
            outcome = outcomes[need]
            tolerated = need in node.soft_needs and not (
                isinstance(outcome, FailedOutcome) and outcome.code == UNFIT_VALUE
            )
            if not tolerated and not isinstance(outcome, ValueOutcome) and outcome is not None:
                return self._check_outcome(path, node, bindings, inherit_outcome(outcome, program.nodes[need].name))
        elements = node.each is not None and node.when is not None and node.variable in node.when.references
        try:
            if node.when is not None and not elements and not node.when.evaluate(bindings):
                return self._check_outcome(path, node, bindings, SkippedOutcome("", path))
            if node.each is None:
                wanted = self._work_item(path, node, bindings, outcomes, program, has_budget)
            else:
                wanted = self._map(path, scope, node, bindings, node.each.evaluate(bindings), has_budget)
        except OrchestraError as error:
            wanted = FailedOutcome(error.code, error.message, path)
        return self._check_outcome(path, node, bindings, wanted)

    def _map(
        self, path: str, scope: str, node: CompiledNode, bindings: dict[str, Any], items: list[Any], has_budget: bool
    ) -> Outcome | None:
        if len(items) > node.limit:
            return FailedOutcome(TOO_MANY, "", path)
        if isinstance(node.at_least, int) and len(items) < node.at_least:
            return FailedOutcome(TOO_FEW, "", path)
        if self.recorded is not None and self.recorded.counts.get(path, len(items)) != len(items):
            self.objections.append(
                f"I5 {path} has {len(items)} elements, and {self.recorded.counts[path]} are recorded"
            )
        found: list[Outcome | None] = []
        for index, item in enumerate(items):
            inner, own = f"{path}[{index}]", {**bindings, node.variable: item}
            self.places[inner] = ItemPlace(scope, node, path, has_budget)
            try:
                if node.when is not None and node.variable in node.when.references and not node.when.evaluate(own):
                    wanted: Outcome | None = SkippedOutcome("", inner)
                else:
                    wanted = self._work_item(inner, node, own, [], None, has_budget)
            except OrchestraError as error:
                wanted = FailedOutcome(error.code, error.message, inner)
            found.append(self._check_outcome(inner, node, own, wanted))
        if is_short(node, found):
            self.short_lists.add(path)
            return FailedOutcome(TOO_FEW, "", path)
        if any(outcome is None for outcome in found):
            return None
        failures = [outcome for outcome in found if isinstance(outcome, FailedOutcome)]
        if failures and len(failures) == len(found):
            return inherit_outcome(failures[0], path)
        return ValueOutcome([outcome.value for outcome in found if isinstance(outcome, ValueOutcome)])

    def _check_outcome(
        self, path: str, node: CompiledNode, bindings: Mapping[str, Any], wanted: Outcome | None
    ) -> Outcome | None:
        """Compares the required outcome of a unit with the recorded one."""
        spread = node.each is not None and self.places[path].owner == ""
        itself = wanted
        wanted = wanted if spread else apply_fallback(node, path, bindings, wanted)
        if self.recorded is None:
            return wanted
        had = self.recorded.outcomes.get(path)
        if had is None:
            if wanted is not None:
                self.missing_outcomes.append(path)
            return None
        if same_outcome(had, wanted):
            instead = getattr(self.recorded.ends.get(path), "original_outcome", None)
            excused = isinstance(instead, FailedOutcome) and instead.code in (TIMED_OUT, NO_BUDGET)
            if instead is not None and not excused and not same_outcome(instead, itself):
                self.objections.append(f"I5 {path} has its fallback for {instead}, expected {itself}")
            return had
        if not spread and self._is_excused(path, node, bindings, had):
            return had
        self.objections.append(f"I5 {path} ended in {had}, expected {wanted}")
        return had

    def _is_excused(self, path: str, node: CompiledNode, bindings: Mapping[str, Any], had: Outcome) -> bool:
        """Whether a timeout or a budget explains an outcome."""
        if self._has_timeout(node) and same_outcome(
            had, apply_fallback(node, path, bindings, FailedOutcome(TIMED_OUT, "", path))
        ):
            self.timed_out.add(path)
            return True
        spent = same_outcome(had, apply_fallback(node, path, bindings, FailedOutcome(NO_BUDGET, "", path)))
        if spent and node.body is not None and node.body.time_limit is not None:
            self.timed_out.add(path)
            return True
        if spent and node.kind == "agent" and self.places[path].has_budget:
            self.budget_failures.add(path)
            return True
        return False

    def _work_item(
        self,
        path: str,
        node: CompiledNode,
        bindings: dict[str, Any],
        outcomes: list[Outcome | None],
        program: Program | None,
        has_budget: bool,
    ) -> Outcome | None:
        match node.kind:
            case "agent" | "tool":
                return self._call(path, node, bindings)
            case "first_of":
                return self._verified(path, node, bindings, first_arm_outcome(node, bindings, outcomes, program))
            case "verify":
                return self._verified(
                    path,
                    node,
                    bindings,
                    ValueOutcome(node.value.evaluate(bindings)) if node.value else SkippedOutcome("", path),
                )
            case "ask":
                question = str(node.value.evaluate(bindings)) if node.value is not None else ""
                answer = self.source.answer(path, node, question)
                if self.recorded is not None and any(
                    asked.kind == "answer" and asked.question != question for asked in self.recorded.asked.get(path, ())
                ):
                    self.objections.append(f"I5 {path} asked another question than {question!r}")
                if (
                    answer is None
                    and (known := self.source.given.get(path)) is not None
                    and known.question_digest == question_digest(node, question)
                ):
                    return ValueOutcome(known.value)  # a person answered the same question before
                if answer is not None and answer.decline_reason:
                    return AbstainedOutcome("", path)  # withheld, or the result of its fallback
                return None if answer is None else self._verified(path, node, bindings, ValueOutcome(answer.value))
            case "call":
                return self._verified(path, node, bindings, self._body(path, node, bindings, has_budget))
            case "loop":
                return self._verified(path, node, bindings, self._loop(path, node, bindings, has_budget))
            case "plan":
                return self._verified(
                    path, node, bindings, PlanOracle(self, path, node, bindings, has_budget=has_budget).outcome()
                )
            case kind:
                return FailedOutcome("E002", f"no kind {kind}", path)

    def _body(self, path: str, node: CompiledNode, bindings: dict[str, Any], has_budget: bool) -> Outcome | None:
        body = node.body
        assert body is not None, "a call has a body"
        around = bindings
        if not body.sees_outer_scope:
            given = node.inputs.evaluate(bindings) if node.inputs is not None else {}
            around = {"input": {name: given.get(name, entry.default) for name, entry in body.inputs.items()}}
        outcomes, inner = self.scope(f"{path}/", body, around, has_budget=has_budget)
        if body.runs_one_node:
            self._check_agent_choice(path, node, bindings, outcomes)
        return None if any(outcome is None for outcome in outcomes) else program_outcome(body, outcomes, inner)

    def _check_agent_choice(
        self, path: str, node: CompiledNode, bindings: dict[str, Any], outcomes: Sequence[Outcome | None]
    ) -> None:
        """Compares a choice of agents with the table of its file."""
        agent = chosen_agent(node, bindings)
        for one, outcome in zip(node.body.nodes if node.body is not None else (), outcomes, strict=True):
            passed = isinstance(outcome, SkippedOutcome) and outcome.origin == f"{path}/{one.name}"
            if outcome is not None and passed == (one.name == agent):
                self.objections.append(f"I5 {path} is for {agent}, and {one.name} ended in {outcome}")
        for begun in self.recorded.turns.get(path, ()) if self.recorded is not None else ():
            if not begun.choice_reason.startswith(f"{agent}, for "):
                self.objections.append(f"I5 {path} is for {agent}, and states {begun.choice_reason!r}")

    def _loop(self, path: str, node: CompiledNode, bindings: dict[str, Any], has_budget: bool) -> Outcome | None:
        body = node.body
        assert body is not None, "a loop has a body"
        assert node.until is not None, "a loop has an end"
        previous: Any = None
        for turn in range(1, node.at_most + 1):
            outcomes, inner = self.scope(
                f"{path}#{turn}/", body, {**bindings, "turn": turn, "previous": previous}, has_budget=has_budget
            )
            if any(outcome is None for outcome in outcomes):
                return None
            found = program_outcome(body, outcomes, inner)
            if not isinstance(found, ValueOutcome) or turn == node.at_most or node.until.evaluate(inner):
                self._check_turns(path, turn)
                return found
            previous = body.output.evaluate(inner)
        return None

    def _check_turns(self, path: str, turns: int) -> None:
        if self.recorded is not None and len(self.recorded.turns.get(path, ())) > turns:
            self.objections.append(f"I5 {path} ends after {turns} turns, and began another")

    @staticmethod
    def result(program: Program, outcomes: Sequence[Outcome | None], bindings: Mapping[str, Any], path: str) -> Outcome:
        """Returns the result of a plan or a router question, including a failure of its output."""
        try:
            return program_outcome(program, outcomes, bindings)
        except OrchestraError as error:
            return FailedOutcome(error.code, error.message, path)

    # Calls and checks

    def _call(self, path: str, node: CompiledNode, bindings: dict[str, Any]) -> Outcome | None:
        """Evaluates the attempts up to the last one."""
        contract, rules = node.contract, node.acceptance
        assert contract is not None, "a call names an agent or a tool"
        inputs = node.inputs.evaluate(bindings) if node.inputs is not None else {}
        evidence = evidence_of(node, bindings) if rules is not None else ()
        feedback: tuple[str, ...] = ()
        number, tier = 1, int(node.escalate is not None and bool(node.escalate.evaluate(bindings)))
        refused: RejectedValue | None = None
        while True:
            call = CallRequest(
                run=self.source.run, node=path, attempt=number, kind=contract.kind, name=contract.name, inputs=inputs,
                timeout=node.timeout, label=self.source.label, evidence=evidence, feedback=feedback, tier=tier,
                version=contract.digest, sample=node.sample,
            )  # fmt: skip
            self.calls[path, number] = call
            found = self.source.attempt(call)
            if found is None:
                if contract.effect == "once" and (said := self.source.reported_result(path)) is not None:
                    return self._verified(path, node, bindings, ValueOutcome(said.value), number)
                once = contract.effect == "once"
                return FailedOutcome(DECLINED, "", path) if once and self.source.declined_repeat(path) else None
            if found.error:
                hope = found.retryable and not (found.permanent and has_default_retry(node))
                if not (hope and self._may_retry(node, path, number, found.error, found.at)):
                    if tier and refused is not None:
                        if found.error == "F220" or not self._can_escalate(node, tier):
                            return self._rejected_outcome(
                                path, node, refused, refused.score if self.source.tiers else None
                            )
                        tier += 1
                    elif tier and found.error in ("F202", "F220"):
                        tier = 0  # there is no larger model for it, so its own is used
                    else:
                        return FailedOutcome(found.error, found.reason, path)
            elif rules is None or not rules.checks:
                return ValueOutcome(found.value, found.confidence)
            else:
                judged = ValueOutcome(found.value, found.confidence)
                ruling = self._ruling(path, number, node, judged, evidence or collect_sources(inputs), bindings)
                if ruling is None:
                    return None
                if ruling.accepted:
                    return accepted_value(found.value, ruling)
                told = ruling.reason if ruling.feedback is None else ruling.feedback
                feedback = (*feedback, told) if told else feedback
                refused = RejectedValue(found.value, ruling)
                if self._lacked_check_budget(path, number):
                    return self._rejected_outcome(path, node, refused, refused.score)
                retry = "retry" in rules.otherwise and ruling.feedback != ""
                retry = retry and self._may_retry(node, path, number, "V001", self._judged_at(path, number, found.at))
                if not (retry and not tier):
                    if not self._can_escalate(node, tier):
                        return self._rejected_outcome(path, node, refused, refused.score)
                    tier += 1
            number += 1

    def _lacked_check_budget(self, path: str, number: int) -> bool:
        """Whether the check budget did not cover an attempt. Another attempt would not be covered either."""
        said = self.recorded.judged.get((path, number)) if self.recorded is not None else None
        return said is not None and said.skipped_checks is not None

    def _can_escalate(self, node: CompiledNode, tier: int) -> bool:
        """Whether a larger model than this one may be called."""
        escalates = node.acceptance is not None and "escalate" in node.acceptance.otherwise and node.kind == "agent"
        return escalates and tier < (len(self.source.tiers) or 1)

    def _rejected_outcome(
        self, path: str, node: CompiledNode, refused: RejectedValue, score: float | None
    ) -> Outcome | None:
        """Returns the outcome of a finally rejected value: a person's value, or withheld."""
        if node.acceptance is None or "ask" not in node.acceptance.otherwise:
            return AbstainedOutcome("", path, score)
        if self.recorded is not None:
            asked = [one for one in self.recorded.asked.get(path, ()) if one.kind == "acceptance"]
            shown = [one.withheld for one in asked if one.withheld is not None]
            if len(asked) > 1 or any(
                (one.value, one.verdicts) != (refused.value, refused.ruling.verdicts) for one in shown
            ):
                self.objections.append(f"I8 a person was not shown the last value of {path}, or more than once")
        answer = self.source.correction(path, node)
        if answer is not None and answer.decline_reason:
            return AbstainedOutcome("", path, refused.ruling.score)  # as if no person had been asked
        return None if answer is None else ValueOutcome(answer.value)

    def _judged_at(self, path: str, number: int, answered: float) -> float:
        """Returns the time when an attempt was judged: after its answer, if its checks called agents."""
        said = self.recorded.judged.get((path, number)) if self.recorded is not None else None
        return answered if said is None else said.at

    def _may_retry(self, node: CompiledNode, path: str, number: int, code: str, at: float) -> bool:
        """Whether another attempt follows: attempts and time are left."""
        if number >= max_attempts(node, code):
            return False
        within = node.retry.within
        if within is None or self.recorded is None or (begun := self.recorded.starts.get(path)) is None:
            return True
        start = begun.at - (begun.usage.seconds if isinstance(begun, AttemptFinished) else 0.0)
        return at - start - self.recorded.unattended_seconds(begun, at) < within

    def _verified(
        self, path: str, node: CompiledNode, bindings: dict[str, Any], found: Outcome | None, number: int = 0
    ) -> Outcome | None:
        rules = node.acceptance
        if rules is None or not rules.checks or not isinstance(found, ValueOutcome):
            return found
        if rules.whole_workflow:
            return workflow_verdict(found.value, path, self.recorded)
        rest = node.inputs.evaluate(bindings) if node.inputs is not None else []
        ruling = self._ruling(path, number, node, found, evidence_of(node, bindings) or collect_sources(rest), bindings)
        if ruling is None:
            return None
        return (
            accepted_value(found.value, ruling)
            if ruling.accepted
            else self._rejected_outcome(path, node, RejectedValue(found.value, ruling), ruling.score)
        )

    def _ruling(
        self,
        path: str,
        number: int,
        node: CompiledNode,
        found: ValueOutcome,
        evidence: tuple[EvidenceSource, ...],
        bindings: dict[str, Any],
    ) -> acceptance.VerificationResult | None:
        rules = node.acceptance
        assert rules is not None, "only what has checks is judged"
        situation = acceptance.VerificationRequest(
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
        while isinstance(stands, session.ChecksPending):
            unasked = self._unasked_reason(path, number)
            if unasked:
                stands = session.finish_without_asking(situation, stands, unasked)
                break
            replies = self._replies(path, number, node, stands, bindings)
            if replies is None:
                return None
            stands = session.advance(situation, stands, replies)
        ruling = stands
        assert isinstance(ruling, acceptance.VerificationResult), "it asks no more"
        if self.recorded is not None:
            said = self.recorded.judged.get((path, number))
            if said is None:
                if self.recorded.outcome(path) is not None and not self._has_timeout(node):
                    self.objections.append(f"I8 attempt {number} of {path} was not judged")
            elif (said.accepted, said.verdicts) != (ruling.accepted, ruling.verdicts):
                self.objections.append(
                    f"I8 the checks on attempt {number} of {path} give another ruling: accepted is {ruling.accepted}"
                )
            elif rules.combination is not None and not matches_combination(said, rules.combination, rules.accept):
                self.objections.append(f"I8 attempt {number} of {path} has another score than its checks: {said.score}")
        return ruling

    def _unasked_reason(self, path: str, number: int) -> str:
        """Returns why the check budget did not cover the next questions of an attempt; empty if it did, or there were
        none.
        """
        said = self.recorded.judged.get((path, number)) if self.recorded is not None else None
        if (
            self.recorded is None
            or said is None
            or said.skipped_checks is None
            or (path, self.check_rounds.get(path, 0) + 1) in self.recorded.checks
        ):
            return ""
        if self.program.budget is None or self.program.budget.check_tokens is None:
            self.objections.append(f"I6 {path} was not checked because of a budget that does not exist")
        return said.skipped_checks.skip_reason

    def _replies(
        self, path: str, number: int, node: CompiledNode, asked: session.ChecksPending, bindings: dict[str, Any]
    ) -> list[JudgeReply] | None:
        """Returns the results of a check's questions; None if some have no end."""
        turn = self.check_rounds[path] = self.check_rounds.get(path, 0) + 1
        facts: dict[str, Any] = {"check": asked.check, "questions": asked.questions, "verdicts": asked.verdicts}
        if self.recorded is not None:
            said = self.recorded.checks.get((path, turn))
            if said is None:
                return None  # the run ended or timed out before; otherwise its recorded end is wrong
            if (said.check, said.questions, said.verdicts) != tuple(facts.values()):
                self.objections.append(f"I8 the {turn}. questions of {path} are wrong")
        event = ChecksStarted(seq=0, at=0.0, node=path, attempt=number, round=turn, **facts)
        within = WorkItem(path, ExecutionScope("", self.program, ScopeBindings(), None, None), node, ScopeBindings())
        outcomes, _ = self.scope(
            f"{path}?{turn}/", checks.program(within, event), bindings, has_budget=self.places[path].has_budget
        )
        if any(outcome is None for outcome in outcomes):
            return None
        return [checks.to_reply(outcome) for outcome in outcomes]

    @staticmethod
    def _has_timeout(node: CompiledNode) -> bool:
        return node.timeout is not None and node.kind in ("call", "loop", "ask", "plan")
