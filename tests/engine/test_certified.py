"""Nodes that accept by a certificate: its threshold applies, and first answers have its guarantee, also after a
resume.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestra.core.errors import InputError
from orchestra.core.events import OutputJudged
from orchestra.core.outcomes import AbstainedOutcome, ValueOutcome
from orchestra.core.protocols import CallResult
from orchestra.engine.replay import replay
from orchestra.journal.history import History
from orchestra.testing import Faults
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.yaml.reader import read
from tests.engine.stage import CATALOG, play, program, sequence
from tests.verification.samples import certified

CERTIFICATE = certified("writer", ("schema", "confidence"), 0.8)
KNOWN = replace(CATALOG, certificates={"writer": CERTIFICATE})
ONE = """
input: {text: str}
output: ${a}
nodes:
  a:
    agent: writer
    with: {text: "${input.text}"}
    checks: [schema, confidence]
    accept: certified
    otherwise: [abstain]
"""
AGAIN = ONE.replace("[abstain]", "[retry, abstain]\n    retry: {attempts: 3, wait: [0, 0]}")
ESCALATED = ONE.replace("[abstain]", "[escalate, abstain]")


def sure(confidence: float | None) -> CallResult:
    return CallResult(value="said", confidence=confidence)


def played(*answers: Any, text: str = ONE) -> Any:
    return play(text, {"text": "x"}, {"writer": sequence(*answers)}, catalog=KNOWN)


def guarantees(run: Any) -> list[str]:
    return [event.guarantee for event in run.of(OutputJudged)]


def test_certified_node_uses_certificate_threshold() -> None:
    acceptance = program(ONE, KNOWN).nodes[0].acceptance
    assert acceptance is not None
    assert (acceptance.accept, acceptance.certificate) == (0.8, CERTIFICATE)


@pytest.mark.parametrize(
    ("confidence", "accepted"), [(1.0, True), (0.8, True), (0.7999, False), (0.0, False), (None, False)]
)
def test_certified_answer_at_threshold_accepted(confidence: float | None, accepted: bool) -> None:
    run = played(sure(confidence))
    assert isinstance(run.outcome, ValueOutcome if accepted else AbstainedOutcome)
    assert guarantees(run) == [CERTIFICATE.guarantee if accepted else ""]


@pytest.mark.parametrize("text", [AGAIN, ESCALATED])
def test_certified_later_answer_has_no_guarantee(text: str) -> None:
    run = played(sure(0.2), sure(0.9), text=text)
    assert isinstance(run.outcome, ValueOutcome)
    assert guarantees(run) == ["", ""]
    assert played(sure(0.9), text=text).of(OutputJudged)[0].guarantee == CERTIFICATE.guarantee


def test_certified_failed_attempt_keeps_guarantee() -> None:
    """The answers behind a certificate include such attempts."""
    run = play(AGAIN, {"text": "x"}, {"writer": sure(0.9)}, catalog=KNOWN, faults=Faults(invalid=1.0, attempts=1))
    assert len(run.attempts) == 2
    assert guarantees(run) == [CERTIFICATE.guarantee]


def test_certified_guarantee_per_element() -> None:
    text = """
input: {texts: "list[str]"}
output: ${a.values}
nodes:
  a:
    agent: writer
    each: ${input.texts}
    as: text
    with: {text: "${text}"}
    checks: [schema, confidence]
    accept: certified
    otherwise: [abstain]
"""
    confidences = {"x": 0.9, "y": 0.1, "z": 0.8}
    run = play(
        text, {"texts": ["x", "y", "z"]}, {"writer": lambda call: sure(confidences[call.inputs["text"]])}, catalog=KNOWN
    )
    assert {event.node: bool(event.guarantee) for event in run.of(OutputJudged)} == {
        "a[0]": True,
        "a[1]": False,
        "a[2]": True,
    }
    rows = History.of(run.events)
    assert {row.path: row.attempts[-1].guarantee for row in rows.rows if row.attempts} == {
        "a[0]": CERTIFICATE.guarantee,
        "a[1]": "",
        "a[2]": CERTIFICATE.guarantee,
    }


def test_certified_replay_gives_same_decisions() -> None:
    run = played(sure(0.9))
    assert replay(program(ONE, KNOWN), run.events).first_difference is None
    stricter = replace(CATALOG, certificates={"writer": certified("writer", ("schema", "confidence"), 0.95)})
    assert isinstance(replay(program(ONE, stricter), run.events).first_difference, OutputJudged)


class Void(dict[str, Any]):
    """A void certificate."""

    def __getitem__(self, name: str) -> Any:
        raise InputError("V002", f"the certificate of {name!r} is void", hint="orchestra certify writer")

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]


@pytest.mark.parametrize(
    ("certificates", "code", "says"),
    [
        ({}, "L119", "there is no certificate for 'writer'"),
        ({"reader": certified()}, "L119", "there is no certificate for 'writer'"),
        (
            {"writer": certified("writer", ("schema",))},
            "V005",
            "is about the checks schema, and this node has schema, confidence",
        ),
        (Void(), "V002", "the certificate of 'writer' is void"),
    ],
)
def test_certified_without_valid_certificate_refused_at_line(certificates: Any, code: str, says: str) -> None:
    source = read("schema: orchestra/v1\nname: staged\n" + ONE, "staged.yaml")
    with pytest.raises(InputError, match="certificate") as caught:
        compile_graph(source.graph, replace(CATALOG, certificates=certificates), source.places)
    error = caught.value
    assert (error.code, says in error.message, bool(error.hint)) == (code, True, True)
    assert error.location is not None
    assert error.location.text.strip() == "accept: certified"


READ = """
input: {page: str, other: str}
output: ${a}
nodes:
  a:
    agent: reader
    with: {question: When?, context: "${input.page}"}
    checks: [quote, confidence]
    against: "${input.page}"
    accept: certified
    otherwise: [abstain]
"""


def test_certified_other_evidence_refused() -> None:
    reader = replace(CATALOG.agents["reader"], evidence="context")
    known = replace(CATALOG, agents={"reader": reader}, certificates={"reader": certified()})
    program(READ, known)
    program(READ.replace('    against: "${input.page}"\n', ""), known)
    with pytest.raises(InputError, match="judged against the input 'context'") as caught:
        program(READ.replace('against: "${input.page}"', 'against: "${input.other}"'), known)
    assert caught.value.code == "V005"
    assert caught.value.hint == "against: ${input.page}"
