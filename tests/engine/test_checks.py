"""Checks that call agents: their calls are budgeted, journaled and replayed, and an unknown verdict never passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from orchestra.agents.contract import Catalog, Schema
from orchestra.app.result import build_result, identity
from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    ChecksStarted,
    NodeFinished,
    OutputJudged,
    RunFinished,
    RunResumed,
    Usage,
)
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, ValueOutcome
from orchestra.core.protocols import CallError, CallEstimate, CallRequest, CallResult
from orchestra.engine.replay import replay
from orchestra.engine.request import RunRequest
from orchestra.journal.history import History
from orchestra.testing import Faults, SimulatedWorkers, VirtualClock, run_simulated
from orchestra.workflows.program import with_sample
from tests.engine.durable import Theatre, resumed
from tests.engine.stage import CATALOG, TEXT, Played, agent, play, program, record
from tests.simulation.lab.invariants import AuditCase, audit

CHANCE: Schema = {"type": ["number", "null"]}
JUDGED = record(label={"enum": ["supported", "contradicted", "not stated"]}, p_supported=CHANCE, p_refute=CHANCE)
JUDGE = agent("entailment", record(claim=TEXT, evidence=TEXT), JUDGED)
WITH: Catalog = replace(
    CATALOG,
    agents={
        **CATALOG.agents,
        "entailment": JUDGE,
        "strict": replace(JUDGE, name="strict"),
        "second": agent("second", record(question=TEXT, context=TEXT), TEXT),
        "blind": agent("blind", record(question=TEXT, evidence=TEXT), TEXT),
    },
)
TOWER = "The tower was completed in 1889. It is located in Paris."


def chance(supported: float | None, refuted: float | None = 0.0, label: str = "supported") -> dict[str, Any]:
    return {"label": label, "p_supported": supported, "p_refute": refuted}


def read(checks: str, answers: dict[str, Any], more: str = "", text: str = TOWER, **options: Any) -> Played:
    flow = f"""
input: {{text: str}}
output: ${{reading}}
nodes:
  reading: {{agent: reader, with: {{question: when, context: "${{input.text}}"}}, checks: {checks}, against: "${{input.text}}", {more}}}
"""  # noqa: E501
    return play(flow, {"text": text}, answers, catalog=WITH, **options)


def verdicts(played: Played, node: str = "reading") -> list[tuple[str, str]]:
    return [(verdict.check, verdict.outcome) for verdict in played.of(OutputJudged, node)[-1].verdicts]


def reasons(played: Played) -> str:
    assert isinstance(played.outcome, AbstainedOutcome)
    return played.outcome.reason


def sound(played: Played, text: str, **more: Any) -> None:
    """Asserts that the audit finds no fault and that the current engine makes the same decisions."""
    compiled = program(text, WITH)
    assert audit(AuditCase(compiled, played.events, **more)) == []
    found = replay(compiled, played.events)
    assert (found.first_difference, found.reason) == (None, "")


# Questions and verdicts


def test_check_supported_claim_has_probability_and_span() -> None:
    played = read("[quote, entailment]", {"entailment": chance(0.9)})
    assert isinstance(played.outcome, ValueOutcome)
    assert (played.outcome.value["answer"], played.outcome.score) == ("1889", 0.9)
    rests = played.outcome.evidence[-1]
    assert (rests.check, rests.field, TOWER[rests.start : rests.end]) == ("entailment", "answer", TOWER)
    asked = next(call for call in played.workers.calls if call.name == "entailment")
    assert (asked.node, asked.inputs) == ("reading?1/entailment_0", {"claim": "1889", "evidence": TOWER})


@pytest.mark.parametrize(
    ("answer", "outcome", "reason"),
    [
        (chance(0.3), "fail", "the evidence does not state '1889'"),
        (chance(0.4, 0.6), "fail", "contradicts '1889'"),
        (chance(None, None), "unknown", "returned no probabilities"),
        (chance(0.9, 0.9), "unknown", "are not probabilities"),
        (chance(7.0), "unknown", "are not probabilities"),
        ({"nonsense": True}, "unknown", "E009"),
        (lambda call: CallError(code="M001", reason="no JSON", retryable=True), "unknown", "M001 no JSON"),
        (lambda call: CallError(code="F212", reason="the server is gone"), "unknown", "F212 the server is gone"),
    ],
)
def test_check_unsupported_or_unknown_not_accepted(answer: Any, outcome: str, reason: str) -> None:
    played = read("[quote, entailment]", {"entailment": answer})
    assert verdicts(played) == [("quote", "pass"), ("entailment", outcome)]
    assert reason in reasons(played)


def test_check_late_verdict_unknown_asked_at_most_twice() -> None:
    played = read(
        "[entailment]",
        {"entailment": chance(0.9)},
        "timeout: 5",
        latency=lambda call, _: 60.0 if call.name == "entailment" else 1.0,
    )
    assert verdicts(played) == [("entailment", "unknown")]
    assert "E006" in reasons(played)
    assert played.workers.counts["entailment"] == 2


def test_check_without_node_timeout_still_times_out() -> None:
    played = read(
        "[entailment]",
        {"entailment": chance(0.9)},
        latency=lambda call, _: 10_000.0 if call.name == "entailment" else 1.0,
    )
    assert verdicts(played) == [("entailment", "unknown")]


def test_check_free_failure_calls_no_agent() -> None:
    played = read(
        "[entailment, quote]", {"reader": {"answer": "1889", "quote": "completed in 1890"}, "entailment": chance(0.9)}
    )
    assert verdicts(played) == [("quote", "fail")]
    assert not played.workers.counts["entailment"]
    assert not played.of(ChecksStarted)


def test_check_free_unknown_calls_no_agent() -> None:
    answers = {"reader": {"answer": "HK$1889", "quote": "completed in 1889"}, "entailment": chance(0.9)}
    played = read("[entailment, numbers]", answers, text="It cost $1889 to build.")
    assert verdicts(played) == [("numbers", "unknown")]
    assert not played.workers.counts["entailment"]


def test_check_agent_does_not_judge_itself() -> None:
    own = replace(JUDGE, name="own", model_identity="m")
    catalog = replace(WITH, agents={**WITH.agents, "own": own, "entailment": replace(JUDGE, model_identity="m")})
    text = """
input: {text: str}
output: ${a}
nodes:
  a: {agent: own, with: {claim: x, evidence: y}, checks: [entailment], against: "${input.text}"}
"""
    compiled = program(text, catalog)
    assert any("calls the agent that it judges" in warning for warning in compiled.warnings)
    played = play(text, {"text": TOWER}, {"own": chance(0.9), "entailment": chance(0.9)}, catalog=catalog)
    assert "the agent that produced the value" in reasons(played)
    assert not played.workers.counts["entailment"]


def test_check_named_judge_used() -> None:
    played = read('["entailment(strict)"]', {"strict": chance(0.2), "entailment": chance(0.9)})
    assert verdicts(played) == [("entailment(strict)", "fail")]
    assert (played.workers.counts["strict"], played.workers.counts["entailment"]) == (1, 0)


def test_check_objection_given_to_next_attempt() -> None:
    def judge(call: CallRequest) -> dict[str, Any]:
        return chance(0.9 if call.inputs["claim"] == "in 1889" else 0.1)

    def reader(call: CallRequest) -> dict[str, Any]:
        return {"answer": "in 1889" if call.feedback else "1889", "quote": "completed in 1889"}

    played = read("[entailment]", {"reader": reader, "entailment": judge}, "otherwise: [retry, abstain]")
    assert isinstance(played.outcome, ValueOutcome)
    assert [event.round for event in played.of(ChecksStarted)] == [1, 2]
    assert "does not state '1889'" in played.workers.calls[2].feedback[0]


def test_check_every_claim_with_every_piece_weakest_counts() -> None:
    text = """
input: {text: str}
output: ${a}
nodes:
  a: {agent: writer, with: {text: "${input.text}"}, checks: [entailment], against: "${input.text}"}
"""
    long = " ".join(f"Sentence number {index} of the long story ends here." for index in range(200))

    def judge(call: CallRequest) -> dict[str, Any]:
        return chance(0.8 if "number 150 " in call.inputs["evidence"] else 0.1)

    played = play(text, {"text": long}, {"writer": "number 150 is there", "entailment": judge}, catalog=WITH)
    assert played.workers.counts["entailment"] > 3
    assert isinstance(played.outcome, ValueOutcome)
    assert played.outcome.score == 0.8
    sound(played, text)


# Combined checks


@pytest.mark.parametrize(
    ("quote", "supported", "outcome", "asked"),
    [
        ("completed in 1889", 0.9, "pass", 0),
        ("made up", 0.9, "pass", 1),
        ("made up", 0.1, "fail", 1),
        ("made up", None, "unknown", 1),
    ],
)
def test_check_any_of_asks_costly_check_last(quote: str, supported: float | None, outcome: str, asked: int) -> None:
    answers = {"reader": {"answer": "1889", "quote": quote}, "entailment": chance(supported)}
    played = read('["quote | entailment"]', answers)
    assert verdicts(played) == [("quote | entailment", outcome)]
    assert played.workers.counts["entailment"] == asked
    assert isinstance(played.outcome, ValueOutcome) is (outcome == "pass")


def test_check_unknown_asks_second_agent() -> None:
    played = read('["entailment | entailment(strict)"]', {"entailment": chance(None, None), "strict": chance(0.7)})
    assert isinstance(played.outcome, ValueOutcome)
    assert [event.check for event in played.of(ChecksStarted)] == ["entailment", "entailment(strict)"]
    parts = played.of(OutputJudged)[-1].verdicts[0].parts
    assert [(part.check, part.outcome) for part in parts] == [("entailment", "unknown"), ("entailment(strict)", "pass")]


# Retries


@pytest.mark.parametrize(
    ("second", "outcome"),
    [
        ("the year 1889", "fail"),
        ("1889.", "pass"),
        ("1890", "fail"),
        (lambda call: CallError(code="F212", reason="gone"), "unknown"),
    ],
)
def test_check_independent_agent_must_agree(second: Any, outcome: str) -> None:
    played = read('["rederive(second)"]', {"second": second})
    assert verdicts(played) == [("rederive(second)", outcome)]
    asked = next(call for call in played.workers.calls if call.name == "second")
    assert (asked.node, asked.inputs) == ("reading?1/rederive_0", {"question": "when", "context": TOWER})


def test_check_evidence_from_other_node() -> None:
    played = read('["rederive(blind)"]', {"blind": "1889"})
    assert next(call.inputs for call in played.workers.calls if call.name == "blind") == {
        "question": "when",
        "evidence": TOWER,
    }


def test_check_samples_agree_or_unknown() -> None:
    def reader(call: CallRequest) -> dict[str, Any]:
        return {"answer": "1887" if call.sample == 2 else "1889", "quote": "completed in 1889"}

    played = read("[agree(3)]", {"reader": reader})
    assert verdicts(played) == [("agree(3)", "pass")]
    samples = [call for call in played.workers.calls if call.sample]
    assert [(call.node, call.sample) for call in samples] == [
        (f"reading?1/agree_{index}", index + 1) for index in range(3)
    ]
    assert all(call.evidence == played.workers.calls[0].evidence for call in samples)
    dissent = read("[agree(3)]", {"reader": lambda call: {"answer": f"188{call.sample}", "quote": "completed in 1889"}})
    assert verdicts(dissent) == [("agree(3)", "unknown")]


def test_check_samples_of_sample_have_other_seeds() -> None:
    flow = """
input: {text: str}
output: ${reading}
nodes:
  reading: {agent: reader, with: {question: when, context: "${input.text}"}, checks: [agree(3)]}
"""

    async def scene(clock: VirtualClock) -> list[int]:
        theatre = Theatre(clock, {"reader": {"answer": "1889", "quote": "completed in 1889"}})
        await theatre.start(with_sample(program(flow, WITH), 2), {"text": TOWER}).wait()
        await theatre.engine.close()
        return [call.sample for call in theatre.workers.calls]

    first, *others = run_simulated(scene)
    assert (first, sorted(others)) == (2, [3, 4, 5])


def test_check_agreement_decides_unknown_only() -> None:
    opened = read('["entailment | agree(2)"]', {"entailment": chance(None, None)})
    assert verdicts(opened) == [("entailment | agree(2)", "pass")]
    denied = read('["entailment | agree(2)"]', {"entailment": chance(0.1)})
    assert verdicts(denied) == [("entailment | agree(2)", "fail")]
    assert denied.workers.counts["reader"] == 1


# Positions of checks


EVERYWHERE = """
input: {text: str}
output: {readings: "${readings.values}", judged: "${judged}", block: "${block}", looped: "${looped}"}
nodes:
  words: {tool: split, with: {text: "a b c"}}
  readings:
    agent: reader
    each: ${words}
    as: word
    concurrency: 2
    with: {question: "${word}", context: "${input.text}"}
    checks: [quote, "entailment | entailment(strict)"]
    against: ${input.text}
    otherwise: [retry, abstain]
  judged: {verify: "${readings.values}", checks: [entailment], against: "${input.text}"}
  block:
    call: {nodes: {inner: {agent: writer, with: {text: inside}}}, output: "${inner}"}
    checks: [entailment]
    against: ${input.text}
    timeout: 300
  looped:
    loop:
      nodes: {next: {tool: grow, with: {text: "${previous}"}}}
      output: ${next}
      until: ${turn > 1}
      at_most: 3
    checks: [entailment]
    against: ${input.text}
"""
EVERYWHERE_ANSWERS: dict[str, Any] = {
    "entailment": lambda call: chance(None, None) if call.inputs["claim"] == "1889" else chance(0.75),
    "strict": chance(0.7),
}


def everywhere(seed: int = 0, **options: Any) -> Played:
    return play(EVERYWHERE, {"text": TOWER}, EVERYWHERE_ANSWERS, seed=seed, catalog=WITH, **options)


def test_check_elements_composites_bodies_judged() -> None:
    played = play(
        EVERYWHERE,
        {"text": TOWER},
        {"entailment": chance(0.75), "strict": chance(0.7)},
        catalog=WITH,
    )
    assert isinstance(played.outcome, ValueOutcome)
    assert played.outcome.value["looped"] == "xx"
    assert played.outcome.score == 0.75
    paths = {call.node for call in played.workers.calls}
    assert {
        "readings[2]?1/entailment_0",
        "judged?1/entailment_2",
        "block?1/entailment_0",
        "looped?1/entailment_0",
    } <= paths
    sound(played, EVERYWHERE)


def test_history_lists_check_calls_under_node() -> None:
    played = everywhere()
    history = History.of(played.events)
    row = history.row("readings[1]?1")
    assert row is not None
    assert (row.kind, row.depth, row.status) == ("check", 2, "value")
    inner = history.row("readings[1]?2/entailment_0")
    assert inner is not None
    assert (inner.kind, inner.name) == ("call", "strict")


def test_body_timeout_includes_checks() -> None:
    text = """
input: {text: str}
output: ${block}
nodes:
  block:
    call: {nodes: {inner: {agent: writer, with: {text: inside}}}, output: "${inner}"}
    checks: [entailment]
    against: ${input.text}
    timeout: 5
"""
    slow = play(text, {"text": TOWER}, {"entailment": chance(0.9)}, catalog=WITH, latency=3.0)
    assert isinstance(slow.outcome, FailedOutcome)
    assert slow.outcome.code == "E006"
    assert [call.name for call in slow.workers.cancelled] == ["entailment"]
    sound(slow, text)


class Priced(SimulatedWorkers):
    """Workers whose calls have a known maximum of sixty tokens, and cost twenty."""

    def estimate(self, call: CallRequest) -> CallEstimate:
        return CallEstimate(prompt_tokens=10, max_output=50, min_output=5)


def priced(budget: str, answers: dict[str, Any]) -> Played:
    text = f"""
input: {{text: str}}
output: ${{reading}}
budget: {budget}
nodes:
  reading: {{agent: reader, with: {{question: when, context: "${{input.text}}"}}, checks: [entailment], against: "${{input.text}}"}}
"""  # noqa: E501
    compiled = program(text, WITH)

    def cost(value: Any) -> CallResult:
        return CallResult(value=value, usage=Usage(prompt_tokens=10, output_tokens=10, calls=1, seconds=1.0))

    script = {name: cost(value) for name, value in answers.items()}

    async def scene(clock: VirtualClock) -> Played:
        from orchestra.engine.engine import Engine
        from orchestra.journal.memory import MemoryJournal

        journal, workers = MemoryJournal(), Priced(script, clock=clock)
        engine = Engine(clock, journal, workers)
        run = engine.start(compiled, RunRequest(inputs={"text": TOWER}, graph="0" * 32))
        finished = await run.wait()
        await engine.close()
        return Played(finished, list(run.log), workers, journal)

    played = run_simulated(scene)
    assert audit(AuditCase(compiled, played.events)) == []
    return played


READER = {"answer": "1889", "quote": "completed in 1889"}


def test_check_calls_reserved_in_budget() -> None:
    played = priced("{tokens: 200, calls: 2}", {"reader": READER, "entailment": chance(0.9)})
    assert isinstance(played.outcome, ValueOutcome)
    started = [event for event in played.of(AttemptStarted) if event.name == "entailment"]
    assert [event.reserved for event in started] == [60]
    assert played.finished.usage.calls == 2


@pytest.mark.parametrize("budget", ["{calls: 1}", "{tokens: 30}"])
def test_check_without_budget_left_unknown(budget: str) -> None:
    played = priced(budget, {"reader": READER, "entailment": chance(0.9)})
    assert verdicts(played) == [("entailment", "unknown")]
    assert "E005" in reasons(played)


# Interruption, resume, replay


FAULTS = Faults(refused=0.15, invalid=0.1, slow=0.1, attempts=1)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.floats(0, 1))
def test_check_resume_at_any_event_gives_same_end(seed: int, cut: float) -> None:
    played = everywhere(seed, latency=(0.1, 2.0), faults=FAULTS)
    before = list(played.events[: max(1, int(cut * (len(played.events) - 1)))])
    compiled = program(EVERYWHERE, WITH)

    finished, events, theatre = resumed(
        compiled, before, EVERYWHERE_ANSWERS, latency=(0.1, 2.0), faults=FAULTS, seed=seed
    )
    assert finished.outcome == played.finished.outcome
    assert isinstance(events[len(before)], RunResumed)
    ended = {
        event.node
        for event in before
        if isinstance(event, NodeFinished) or (isinstance(event, AttemptFinished) and event.final)
    }
    assert not ended & {call.node for call in theatre.workers.calls}
    assert audit(AuditCase(compiled, events, clock_jumped=True)) == []


def test_check_resume_at_every_event_of_one_run() -> None:
    played = everywhere(3, latency=(0.1, 2.0))
    compiled = program(EVERYWHERE, WITH)
    for cut in range(1, len(played.events)):

        async def scene(clock: VirtualClock, cut: int = cut) -> RunFinished:
            theatre = Theatre(clock, EVERYWHERE_ANSWERS, seed=3, latency=(0.1, 2.0))
            theatre.put(played.events[:cut])
            run = await theatre.engine.resume(compiled, played.events[0].run)  # type: ignore[union-attr]  # the first is a RunStarted
            finished = await run.wait()
            await theatre.engine.close()
            return finished

        assert run_simulated(scene, 3).outcome == played.finished.outcome, cut


def test_replay_reports_forged_verdict() -> None:
    played = read("[entailment]", {"entailment": chance(0.1)})
    at = next(index for index, event in enumerate(played.events) if isinstance(event, OutputJudged))
    judged = played.events[at]
    assert isinstance(judged, OutputJudged)
    good = structs.replace(judged.verdicts[0], outcome="pass", score=1.0)
    events = [*played.events[:at], structs.replace(judged, accepted=True, score=1.0, verdicts=(good,), reason="")]
    text = """
input: {text: str}
output: ${reading}
nodes:
  reading: {agent: reader, with: {question: when, context: "${input.text}"}, checks: [entailment], against: "${input.text}"}
"""  # noqa: E501
    assert replay(program(text, WITH), events).reason == "the checks return other verdicts today"
    asked = next(index for index, event in enumerate(played.events) if isinstance(event, ChecksStarted))
    event = played.events[asked]
    assert isinstance(event, ChecksStarted)
    other = structs.replace(event.questions[0], inputs={"claim": "easy", "evidence": "easy"})
    forged = [*played.events[:asked], structs.replace(event, questions=(other,))]
    assert replay(program(text, WITH), forged).reason == "the checks would ask something else today"
    assert any(finding.startswith("I8") for finding in audit(AuditCase(program(text, WITH), forged)))


def test_ledger_includes_cost_of_judge() -> None:
    asked = CallResult(value=chance(0.9), usage=Usage(prompt_tokens=90, output_tokens=1, calls=1, money=0.25))
    made = CallResult(
        value={"answer": "1889", "quote": "completed in 1889"},
        usage=Usage(prompt_tokens=50, output_tokens=9, calls=1, money=0.5),
    )
    played = read("[entailment]", {"reader": lambda call: made, "entailment": lambda call: asked})
    ledger = build_result(played.finished, played.events, "run", identity, {}).usage_by_node
    assert {node: usage.money for node, usage in ledger.items()} == {"reading": 0.5, "reading?1/entailment_0": 0.25}
    assert played.finished.usage.money == 0.75
