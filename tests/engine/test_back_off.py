"""Nodes that back off: parts without support in the evidence are removed from the value, and listed in the journal and
the result; the run replays.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestra.app.claims.claims import dropped_claims
from orchestra.core.events import AttemptFinished, Event, NodeFinished, OutputJudged, RunFinished, decode, encode
from orchestra.core.outcomes import AbstainedOutcome, ValueOutcome
from orchestra.core.protocols import CallError, CallEstimate, CallRequest
from orchestra.engine.replay import replay
from orchestra.engine.request import RunOptions, RunRequest
from orchestra.testing import VirtualClock, run_simulated
from orchestra.verification.certificates.claims_file import (
    ClaimsCertificate,
    ClaimScorer,
    ClaimsData,
    build_claims_certificate,
)
from orchestra.verification.certificates.conformal import CalibrationAnswer, ScoredPart, calibrate
from tests.engine.durable import Theatre
from tests.engine.stage import CATALOG, TEXT, Played, agent, listed, play, program, record
from tests.engine.test_checks import JUDGE, chance
from tests.simulation.lab.invariants import AuditCase, audit
from tests.verification.samples import BONDS

FLOW = """
input: {text: str}
output: ${said}
nodes:
  said:
    agent: teller
    with: {text: "${input.text}"}
    checks: [entailment]
    against: ${input.text}
    otherwise: [back_off, abstain]
"""
VERIFIED = """
input: {text: str}
output: ${checked}
nodes:
  said: {agent: teller, with: {text: "${input.text}"}}
  checked: {verify: "${said}", checks: [entailment], against: "${input.text}", otherwise: [back_off, abstain]}
"""
CERTIFIED = FLOW.replace("otherwise:", "accept: certified\n    otherwise:")
TOWER = "The tower was completed in 1889. It is located in Paris."
SAID = "It was completed in 1889. It is made of wood. It is located in Paris."
LIKELY = {"It was completed in 1889.": 0.9, "It is made of wood.": 0.2, "It is located in Paris.": 0.7}


def made(alpha: float = 0.2) -> ClaimsCertificate:
    rows = [CalibrationAnswer(f"{at}", (ScoredPart(0.5 + at / 1000, True), ScoredPart(0.9, False))) for at in range(40)]
    found = calibrate(rows, alpha, rounds=3)
    assert found.held_out is not None
    data = ClaimsData("rows.jsonl", "d" * 32, found.calibration, found.held_out.answers, 0)
    return build_claims_certificate(
        "teller", BONDS, ClaimScorer("entailment", "entailment", BONDS), found, data, "2026-11-26T00:00:00+00:00"
    )


WITH = replace(
    CATALOG,
    agents={
        **CATALOG.agents,
        "teller": agent("teller", record(text=TEXT), TEXT),
        "lister": agent("lister", record(text=TEXT), listed(TEXT)),
        "entailment": JUDGE,
    },
)


def judge(call: CallRequest) -> Any:
    return chance(LIKELY.get(call.inputs["claim"], 0.1))


def told(said: Any = SAID, text: str = FLOW, agent: str = "teller", **options: Any) -> Played:
    options.setdefault("catalog", WITH)
    return play(
        text.replace("teller", agent),
        {"text": TOWER},
        {agent: said, "entailment": judge, **options.pop("answers", {})},
        **options,
    )


def value(played: Played) -> Any:
    assert isinstance(played.outcome, ValueOutcome), played.outcome
    return played.outcome.value


@pytest.mark.parametrize("text", [FLOW, VERIFIED])
def test_back_off_unsupported_sentence_dropped(text: str) -> None:
    played = told(text=text)
    assert value(played) == "It was completed in 1889. It is located in Paris."
    assert isinstance(played.outcome, ValueOutcome)
    assert played.outcome.score == 0.7
    assert {TOWER[one.start : one.end] for one in played.outcome.evidence} == {TOWER}
    [event] = played.of(OutputJudged)
    [part] = event.verdicts[0].dropped
    assert (event.accepted, part.text, part.score, SAID[part.start : part.end].strip()) == (
        True,
        "It is made of wood.",
        0.2,
        "It is made of wood.",
    )
    compiled = program(text, WITH)
    assert audit(AuditCase(compiled, played.events)) == []
    assert replay(compiled, played.events).first_difference is None


def test_back_off_journal_has_original_and_reduced_value() -> None:
    played = told()
    events: list[Event] = [decode(encode(event)) for event in played.events]
    assert events == list(played.events)
    assert next(one for one in events if isinstance(one, AttemptFinished) and one.node == "said").value == SAID
    finished = next(one for one in events if isinstance(one, NodeFinished) and one.node == "said").outcome
    assert isinstance(finished, ValueOutcome)
    assert finished.value == value(played)


def test_back_off_result_lists_dropped_parts_and_reasons() -> None:
    [claim] = dropped_claims(told().events)
    assert (claim.path, claim.value, claim.nodes, claim.score, claim.dropped) == (
        "",
        "It is made of wood.",
        ("said",),
        0.2,
        True,
    )
    assert claim.unsupported == "dropped: the evidence does not state 'It is made of wood.'"
    assert [(one.check, one.outcome) for one in claim.verdicts] == [("entailment", "fail")]
    assert dropped_claims(told("It is located in Paris.").events) == ()


def test_back_off_list_elements_dropped() -> None:
    played = told(["It is made of wood.", "It is located in Paris."], agent="lister")
    assert value(played) == ["It is located in Paris."]
    assert [claim.path for claim in dropped_claims(played.events)] == ["[0]"]


def test_back_off_value_without_support_withheld() -> None:
    played = told("It is made of wood.")
    assert isinstance(played.outcome, AbstainedOutcome)
    assert "none of 1 parts is supported" in played.outcome.reason
    assert dropped_claims(played.events) == ()


def test_back_off_unreachable_judge_passes_nothing() -> None:
    played = told(answers={"entailment": lambda call: CallError(code="F212", reason="the server is gone")})
    assert isinstance(played.outcome, AbstainedOutcome)
    assert "the server is gone" in played.outcome.reason


def test_back_off_certificate_threshold_keeps_parts() -> None:
    found = made()
    assert found.threshold > 0.5
    known = replace(WITH, claims_certificates={"teller": found})
    acceptance = program(CERTIFIED, known).nodes[0].acceptance
    assert acceptance is not None
    assert (acceptance.accept, acceptance.certificate) == (found.threshold, found)
    just = {
        "It was completed in 1889.": 0.9,
        "It is made of wood.": found.threshold,
        "It is located in Paris.": found.threshold - 1e-9,
    }
    played = told(
        text=CERTIFIED, catalog=known, answers={"entailment": lambda call: chance(just[call.inputs["claim"]])}
    )
    assert value(played) == "It was completed in 1889. It is made of wood."
    assert played.of(OutputJudged)[0].guarantee == found.guarantee


def test_back_off_resume_at_every_event() -> None:
    whole, compiled = told(), program(FLOW, WITH)

    for cut in range(1, len(whole.events)):

        async def scene(clock: VirtualClock, cut: int = cut) -> tuple[RunFinished, Theatre]:
            theatre = Theatre(clock, {"teller": SAID, "entailment": judge})
            theatre.put(whole.events[:cut])
            run = await theatre.engine.resume(compiled, whole.events[0].run)  # type: ignore[union-attr]  # the first is a RunStarted
            finished = await run.wait()
            await theatre.engine.close()
            return finished, theatre

        assert run_simulated(scene)[0].outcome == whole.outcome, cut


@pytest.mark.parametrize(("said", "kept"), [(SAID, False), ("It is located in Paris.", True)])
def test_back_off_memo_stores_complete_answers_only(said: str, kept: bool) -> None:
    async def scene(clock: VirtualClock) -> dict[str, Any]:
        theatre = Theatre(clock, {"teller": said, "entailment": judge})
        theatre.workers.estimate = lambda call: CallEstimate(memo_key=call.name if call.name == "teller" else "")  # type: ignore[method-assign]
        run = theatre.engine.start(
            program(FLOW, WITH), RunRequest(inputs={"text": TOWER}, graph="0" * 32, options=RunOptions(memo=True))
        )
        await run.wait()
        await theatre.engine.close()
        return dict(theatre.store.memos)

    assert bool(run_simulated(scene)) is kept
