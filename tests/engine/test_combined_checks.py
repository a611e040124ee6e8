"""Nodes with `score: combined`: doubts of agents are weighed; unknown verdicts and free failures are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestra.core.errors import InputError, InputErrors
from orchestra.core.events import OutputJudged
from orchestra.core.outcomes import AbstainedOutcome, ValueOutcome
from orchestra.core.protocols import CallResult
from orchestra.engine.replay import replay
from orchestra.verification.certificates.combination import CheckWeight, Combination, CombinationData
from orchestra.workflows.python.trace import to_python
from orchestra.workflows.yaml.reader import read
from orchestra.workflows.yaml.writer import write
from tests.engine.stage import Played, play, program
from tests.engine.test_checks import TOWER, WITH, chance
from tests.simulation.lab.invariants import AuditCase, audit
from tests.verification.samples import BONDS

CHECKS = ("quote", "confidence", "entailment", "rederive(second)")
FLOW = """
input: {text: str}
output: ${reading}
nodes:
  reading:
    agent: reader
    with: {question: when, context: "${input.text}"}
    checks: [quote, confidence, entailment, rederive(second)]
    against: ${input.text}
    score: combined
    accept: 0.7
"""
READ = {"answer": "1889", "quote": "completed in 1889"}


def combination(**weights: float) -> Combination:
    """A combination of the checks of `FLOW`: named checks have the given weight; the agreement of the second agent has
    weight 1 in both directions.
    """
    voices = (
        *(CheckWeight(check, weight=weight) for check, weight in weights.items()),
        CheckWeight("rederive(second)", passed=1.0, failed=-1.0),
    )
    data, told = CombinationData("rows", "d" * 32, 300, 200, 0), {"created_at": "2026-11-26", "dependencies": BONDS}
    told |= {"agent": "reader", "method": "regression", "checks": tuple(sorted(CHECKS)), "bias": 0.0}
    made = Combination(weights=voices, data=data, **told)  # type: ignore[arg-type]
    return made.with_digest()


KNOWN = replace(WITH, combinations={"reader": combination(confidence=1.0, entailment=1.0)})


def played(
    *, sure: float | None = 0.9, supported: Any = 0.9, second: Any = "1889", reading: Any = READ, text: str = FLOW
) -> Played:
    judged = chance(supported) if isinstance(supported, float) else supported
    answers = {"reader": CallResult(value=reading, confidence=sure), "entailment": judged, "second": second}
    return play(text, {"text": TOWER}, answers, catalog=KNOWN)


def said(run: Played) -> dict[str, str]:
    return {verdict.check: verdict.outcome for verdict in run.of(OutputJudged)[-1].verdicts}


@pytest.mark.parametrize(
    ("sure", "supported", "second", "accepted"),
    [
        (0.9, 0.9, "1889", True),
        (0.99, 0.3, "1889", True),  # the judge doubts it, and is outweighed
        (0.3, 0.99, "1889", True),  # `confidence` is one of several checks, and not compared with `accept` separately
        (0.99, 0.9, "1890", True),  # another agent found a different value
        (0.6, 0.3, "1889", False),
        (0.9, 0.3, "1890", False),
    ],
)
def test_combined_weighs_agent_verdicts(sure: float, supported: float, second: str, accepted: bool) -> None:
    run = played(sure=sure, supported=supported, second=second)
    assert isinstance(run.outcome, ValueOutcome if accepted else AbstainedOutcome)
    assert len(said(run)) == 4  # all checks ran, because each may still outweigh the others
    found = run.of(OutputJudged)[-1].score
    assert found == KNOWN.combinations["reader"].score(run.of(OutputJudged)[-1].verdicts)
    assert found is not None
    assert (found >= 0.7) == accepted
    if isinstance(run.outcome, ValueOutcome):
        assert run.outcome.score == found


def test_combined_missing_quote_fails_without_calls() -> None:
    run = played(sure=0.999, supported=0.999, reading={"answer": "1889", "quote": "completed in 1890"})
    assert isinstance(run.outcome, AbstainedOutcome)
    assert (run.of(OutputJudged)[-1].score, said(run)["quote"]) == (0.0, "fail")
    assert {call.name for call in run.workers.calls} == {"reader"}


@pytest.mark.parametrize("who", ["confidence", "entailment", "rederive(second)"])
def test_combined_unknown_never_passes_and_stops(who: str) -> None:
    silent: dict[str, dict[str, Any]] = {"confidence": {"sure": None}, "entailment": {"supported": chance(None, None)}}
    run = played(**silent.get(who, {"second": {"no": 1}}))
    assert isinstance(run.outcome, AbstainedOutcome)
    assert (said(run)[who], run.of(OutputJudged)[-1].score) == ("unknown", None)
    asked = {"confidence": set[str](), "entailment": {"entailment"}}.get(who, {"entailment", "second"})
    assert {call.name for call in run.workers.calls} - {"reader"} == asked


def test_combined_reason_has_score_and_verdicts() -> None:
    run = played(sure=0.6, supported=0.3)
    assert isinstance(run.outcome, AbstainedOutcome)
    assert run.outcome.reason.startswith(
        "a score of 0.636, of confidence 0.6, entailment 0.3, rederive(second) 1 together"
    )
    assert run.outcome.reason.endswith("does not reach 0.7")


@pytest.mark.parametrize("given", [{}, {"sure": 0.6, "supported": 0.3}, {"supported": chance(None, None)}])
def test_combined_replay_and_audit_agree(given: dict[str, Any]) -> None:
    run, compiled = played(**given), program(FLOW, KNOWN)
    found = replay(compiled, run.events)
    assert (found.first_difference, found.reason) == (None, "")
    assert audit(AuditCase(compiled, run.events)) == []


def test_combined_other_combination_changes_replay() -> None:
    run = played(sure=0.6, supported=0.8)
    other = replace(WITH, combinations={"reader": combination(confidence=9.0, entailment=-9.0)})
    assert isinstance(replay(program(FLOW, other), run.events).first_difference, OutputJudged)


def test_combined_key_round_trips_in_yaml_and_python() -> None:
    graph = read(f"schema: orchestra/v1\nname: one{FLOW}", "one.yaml").graph
    assert "score: combined" in write(graph)
    assert read(write(graph), "one.yaml").graph == graph
    assert "score=combined, accept=0.7" in to_python(graph)


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        ("score: combined", "score: lowest", "L103", "must be `combined`"),
        (
            "    checks: [quote, confidence, entailment, rederive(second)]\n    against: ${input.text}\n",
            "",
            "L117",
            "goes with `checks`",
        ),
        ("entailment, rederive(second)]", "entailment]", "V005", "uses the checks"),
        ("accept: 0.7", "otherwise: [back_off]", "L076", "keeps parts"),
    ],
)
def test_combined_invalid_refused_at_line(old: str, new: str, code: str, says: str) -> None:
    with pytest.raises((InputError, InputErrors)) as caught:
        program(FLOW.replace(old, new), KNOWN)
    faults = caught.value.errors if isinstance(caught.value, InputErrors) else [caught.value]
    assert any(fault.code == code and says in fault.message for fault in faults), [str(fault) for fault in faults]
