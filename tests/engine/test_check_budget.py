"""A budget for checks: it is spent where doubt times influence per token is greatest; a check without budget is
`unknown` with the reason.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestra.agents.contract import Catalog, Contract
from orchestra.core.events import ChecksStarted, OutputJudged, Usage
from orchestra.core.outcomes import AbstainedOutcome, ValueOutcome
from orchestra.core.protocols import NO_ESTIMATE, CallEstimate, CallRequest, CallResult
from orchestra.engine.replay import replay
from orchestra.testing import SimulatedWorkers, VirtualClock, run_simulated
from tests.engine.durable import Theatre
from tests.engine.stage import CATALOG, TEXT, Played, agent, play, program, record
from tests.simulation.lab.invariants import AuditCase, audit

NUMBER = {"type": "number"}
JUDGED = record(label={"enum": ["supported", "contradicted", "not stated"]}, p_supported=NUMBER, p_refute=NUMBER)
CHECKED = Catalog(
    agents={
        **CATALOG.agents,
        "entailment": agent("entailment", record(claim=TEXT, evidence=TEXT), JUDGED),
        "small": Contract("small", "agent", record(text=TEXT), TEXT, max_output=50),
    },
    tools=CATALOG.tools,
)
MAP = """
input: {texts: "list[str]"}
budget: {check_tokens: LIMIT}
output: ${read.values}
nodes:
  read:
    {agent: writer, each: "${input.texts}", as: text, with: {text: "${text}"}, checks: [entailment], against: "${text}",
     otherwise: [OTHERWISE]}
"""
CHAIN = """
input: {text: str}
budget: {check_tokens: LIMIT}
output: ${last}
nodes:
  aside: {agent: writer, with: {text: "${input.text}"}, checks: [entailment], against: "${input.text}", fallback: none}
  first: {agent: writer, with: {text: "${input.text}"}, checks: [entailment], against: "${input.text}"}
  second: {agent: small, with: {text: "${first}"}}
  third: {agent: small, with: {text: "${second}"}}
  last: {agent: small, with: {text: "${third} and ${aside}"}}
"""
SUPPORTED = {"label": "supported", "p_supported": 0.9, "p_refute": 0.0}


class Measured(SimulatedWorkers):
    """Workers with known costs: a question costs 100 tokens."""

    def estimate(self, call: CallRequest) -> CallEstimate:
        return CallEstimate(prompt_tokens=90, max_output=10) if call.kind == "agent" else NO_ESTIMATE


def sure(call: CallRequest) -> Any:
    """A writer whose confidence is the number in its text."""
    found, _, _ = call.inputs["text"].partition(" ")
    confidence = float(found) if found.replace(".", "").isdigit() else None
    return CallResult(
        value=f"it is {call.inputs['text']}",
        confidence=confidence,
        usage=Usage(prompt_tokens=20, output_tokens=5, calls=1),
    )


ANSWERS: dict[str, Any] = {
    "writer": sure,
    "small": lambda call: call.inputs["text"],
    "entailment": lambda call: CallResult(value=SUPPORTED, usage=Usage(prompt_tokens=90, output_tokens=10, calls=1)),
}
CHEAP = {
    "entailment": lambda call: CallResult(value=SUPPORTED, usage=Usage(prompt_tokens=45, output_tokens=5, calls=1))
}


def spent(
    flow: str,
    inputs: dict[str, Any],
    limit: int,
    otherwise: str = "abstain",
    answers: Any = (),
    catalog: Catalog = CHECKED,
    workers: type[Measured] = Measured,
    **simulation: Any,
) -> Played:
    """Runs a workflow with a budget for checks, then audits and replays its journal."""
    compiled = program(flow.replace("LIMIT", str(limit)).replace("OTHERWISE", otherwise), catalog)

    async def scene(clock: VirtualClock) -> Played:
        theatre = Theatre(clock)
        theatre.workers = troupe = workers({**ANSWERS, **dict(answers)}, clock=clock, **simulation)
        theatre.engine.workers = troupe
        run = theatre.start(compiled, inputs)
        finished = await run.wait()
        events = list(await run.history())
        await theatre.engine.close()
        return Played(finished, events, troupe, theatre.journal)

    played = run_simulated(scene)
    assert audit(AuditCase(compiled, played.events)) == []
    assert replay(compiled, played.events).reason == ""
    return played


def asked(played: Played) -> list[str]:
    return [event.node for event in played.of(ChecksStarted)]


def unasked(played: Played) -> list[OutputJudged]:
    return [event for event in played.of(OutputJudged) if event.skipped_checks is not None]


def texts(*doubts: float) -> dict[str, Any]:
    return {"texts": [f"{1 - doubt:.2f} n{number}" for number, doubt in enumerate(doubts)]}


def test_check_budget_custom_tool_is_free() -> None:
    own = replace(
        CHECKED,
        tools={
            **CHECKED.tools,
            "fair": Contract("fair", "tool", record(value=TEXT), {"type": "boolean"}).with_digest(),
        },
    )
    played = spent(
        MAP.replace("[entailment]", '["tool(fair)"]'), texts(0.1, 0.9), 1, answers={"fair": True}, catalog=own
    )
    assert (asked(played), unasked(played)) == (["read[0]", "read[1]"], [])


class Beside(Measured):
    """Local workers: the judge is an encoder, and no server counts its tokens."""

    def estimate(self, call: CallRequest) -> CallEstimate:
        return CallEstimate(uses_local_encoder=call.name == "entailment")


READ = {"entailment": lambda call: CallResult(value=SUPPORTED, usage=Usage(calls=1))}


def test_check_budget_counts_words_of_local_encoder() -> None:
    played = spent(MAP, texts(0.9, 0.9), 1, answers=READ, workers=Beside)
    assert (asked(played), len(unasked(played))) == ([], 2)
    assert "this one may take 10" in unasked(played)[0].verdicts[0].reason
    played = spent(MAP, texts(0.9, 0.9), 10, answers=READ, workers=Beside)
    assert (len(asked(played)), len(unasked(played))) == (1, 1)
    assert "0 of 10 tokens are left" in unasked(played)[0].verdicts[0].reason


def test_check_budget_least_sure_values_first() -> None:
    played = spent(MAP, texts(0.1, 0.9, 0.2, 0.8, 0.05), 230)
    assert {*asked(played)} >= {"read[1]", "read[3]"}
    assert "read[4]" not in asked(played)


def test_check_budget_unchecked_value_unknown_with_reason() -> None:
    played = spent(MAP, texts(0.1, 0.9), 100)
    (one,) = unasked(played)
    assert (one.node, one.accepted) == ("read[0]", False)
    assert [(verdict.check, verdict.outcome) for verdict in one.verdicts] == [("entailment", "unknown")]
    assert "budget for checks" in one.verdicts[0].reason
    assert isinstance(played.outcomes["read[0]"], AbstainedOutcome)
    assert isinstance(played.outcomes["read[1]"], ValueOutcome)


def test_check_budget_decision_figures_journaled() -> None:
    (one,) = spent(MAP, texts(0.25), 400).of(ChecksStarted)
    assert one.priority is not None
    assert (one.priority.uncertainty, one.priority.influence, one.priority.max_tokens) == (0.25, 1.0, 100)


def test_check_budget_most_influential_value_first() -> None:
    played = spent(CHAIN, {"text": "x"}, 100)
    assert asked(played) == ["first"]
    (one,) = unasked(played)
    assert one.node == "aside"
    assert one.skipped_checks.influence < played.of(ChecksStarted)[0].priority.influence  # type: ignore[union-attr]


def test_check_budget_sure_value_leaves_tokens_for_doubtful() -> None:
    """The values arrive in sequence, the sure ones first; a first-come rule would spend all tokens on them."""
    played = spent(
        MAP.replace("as: text,", "as: text, concurrency: 1,"),
        texts(0.02, 0.9, 0.04, 0.95, 0.03, 0.9, 0.02, 0.97),
        250,
        latency=1.0,
    )
    assert len(asked(played)) == 2
    assert {*asked(played)} <= {"read[1]", "read[3]", "read[5]", "read[7]"}


def test_check_budget_absent_checks_all() -> None:
    flow = MAP.replace("budget: {check_tokens: LIMIT}\n", "").replace("OTHERWISE", "abstain")
    played = play(flow, texts(0.1, 0.9), ANSWERS, catalog=CHECKED)
    assert asked(played) == ["read[0]", "read[1]"]
    assert all(event.priority is None for event in played.of(ChecksStarted))


@pytest.mark.parametrize("otherwise", ["retry, abstain", "retry, escalate, abstain"])
def test_check_budget_unchecked_value_not_retried(otherwise: str) -> None:
    played = spent(MAP, texts(0.5), 50, otherwise)
    assert [call.node for call in played.workers.calls] == ["read[0]"]


def test_check_budget_released_tokens_go_to_waiting_checks() -> None:
    """A check uses half of its reservation: three checks fit into 250 tokens in sequence, two at once."""
    played = spent(MAP, texts(0.5, 0.5, 0.5), 250, answers=CHEAP, latency=1.0)
    assert len(asked(played)) == 3
    assert not unasked(played)


def test_check_budget_kept_after_crash() -> None:
    compiled = program(MAP.replace("LIMIT", "200").replace("OTHERWISE", "abstain"), CHECKED)

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock)
        theatre.workers = Measured(ANSWERS, clock=clock, latency=(1.0, 9.0))
        theatre.engine.workers = theatre.workers
        run = theatre.start(compiled, texts(0.5, 0.9, 0.7, 0.2, 0.6))
        await clock.sleep(8)
        await theatre.crash()
        run = await theatre.engine.resume(compiled, run.id)
        await run.wait()
        events = list(await run.history())
        assert audit(AuditCase(compiled, events)) == []
        assert any(isinstance(event, ChecksStarted) for event in events)
        await theatre.engine.close()

    run_simulated(scene)
