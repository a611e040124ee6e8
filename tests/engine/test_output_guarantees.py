"""Workflows that accept their output as a whole: the score from its sources, withheld outputs, replay and oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestra.core.errors import InputError
from orchestra.core.events import OutputJudged
from orchestra.core.outcomes import AbstainedOutcome, ValueOutcome
from orchestra.core.protocols import CallResult, InboxMessage
from orchestra.engine.replay import replay
from orchestra.testing import VirtualClock, run_simulated
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.python.trace import to_python
from orchestra.workflows.yaml.reader import read
from orchestra.workflows.yaml.writer import write
from tests.engine.durable import Theatre
from tests.engine.stage import CATALOG, READING, agent, play, program, record, tool
from tests.simulation.lab.invariants import AuditCase, audit
from tests.verification.samples import certified

TEXT = {"type": "string"}
CERTIFICATE = certified("staged", ("confidence",), 0.8)
PICK = tool("pick", record(readings={"type": "array", "items": READING}), {"anyOf": [TEXT, {"type": "null"}]})
KNOWN = replace(CATALOG, tools={**CATALOG.tools, "pick": PICK}, workflow_certificates={"staged": CERTIFICATE})
LIST = """
input: {pages: "list[str]"}
output: {text: "${picked}"}
accept: ACCEPT
nodes:
  readings:
    agent: reader
    each: ${input.pages}
    as: page
    with: {question: When?, context: "${page}"}
    checks: [quote]
    against: "${page}"
    otherwise: [abstain]
  picked:
    tool: pick
    with: {readings: "${readings.values}"}
"""
SURE = {"first 1889": 0.9, "other 1889": 0.6, "third 1900": 0.7, "none": 0.2}


def reading(call: Any) -> CallResult:
    """The year of a page; for the page `none` a year that is not in the text, so that its check withholds it."""
    page = call.inputs["context"]
    year = page.split()[-1] if page != "none" else "1700"
    return CallResult(value={"answer": year, "quote": year}, confidence=SURE[page])


def first(call: Any) -> Any:
    found = call.inputs["readings"]
    return found[0]["answer"] if found else None


def last(call: Any) -> Any:
    return f"About {call.inputs['readings'][-1]['answer']}"


def played(pages: list[str], accept: float | str = 0.0, pick: Any = first) -> Any:
    text = LIST.replace("ACCEPT", str(accept))
    run = play(text, {"pages": pages}, {"reader": reading, "pick": pick}, catalog=KNOWN)
    compiled = program(text, KNOWN)
    assert replay(compiled, run.events).first_difference is None
    assert audit(AuditCase(compiled, run.events)) == []
    return run


@pytest.mark.parametrize(
    ("pages", "pick", "sure"),
    [
        (["first 1889"], first, 0.9),
        (["first 1889", "third 1900"], first, 0.9),
        (["other 1889", "first 1889"], first, 0.9),
        (["third 1900", "first 1889", "none"], first, 0.7),
        (["first 1889", "third 1900", "none"], last, 0.7),
        (["first 1889", "other 1889"], last, 0.6),
    ],
)
def test_output_score_is_best_producer_or_minimum(pages: list[str], pick: Any, sure: float) -> None:
    assert played(pages, pick=pick).outcome == ValueOutcome({"text": pick_of(pages, pick)}, sure)


def pick_of(pages: list[str], pick: Any) -> Any:
    readings = [{"answer": page.split()[-1]} for page in pages if page != "none"]
    return pick(type("Call", (), {"inputs": {"readings": readings}}))


def test_output_guarantee_withholds_below_threshold() -> None:
    run = played(["first 1889"], "certified")
    assert [event.guarantee for event in run.of(OutputJudged, "staged")] == [CERTIFICATE.guarantee]
    run = played(["other 1889"], "certified")
    assert isinstance(run.outcome, AbstainedOutcome)
    assert run.outcome.score == 0.6
    assert run.outcome.reason.startswith("under its certificate: confidence: 0.600 is below 0.8")
    assert run.finished.status == "abstained"


def test_output_empty_value_withheld() -> None:
    run = played(["none"], 0.0)
    assert run.outcome == AbstainedOutcome("it says nothing", "staged")
    assert run.of(OutputJudged, "staged") == []


NONE = """
input: {text: str}
output: {names: "${found.names}", note: NOTE}
accept: 0.5
nodes:
  found: {agent: lister, with: {text: "${input.text}"}}
"""


def test_output_empty_list_is_value_unless_beside_null() -> None:
    lister = agent("lister", record(text=TEXT), record(names={"type": "array", "items": TEXT}))
    known = replace(KNOWN, agents={**KNOWN.agents, "lister": lister})

    def ended(text: str) -> Any:
        run = play(text, {"text": "t"}, {"lister": CallResult(value={"names": []}, confidence=0.99)}, catalog=known)
        assert audit(AuditCase(program(text, known), run.events)) == []
        return run.outcome

    assert ended(NONE.replace(", note: NOTE", "")) == ValueOutcome({"names": []}, 0.99)
    assert ended(NONE.replace("NOTE", "null")) == AbstainedOutcome("it says nothing", "staged")


CHAIN = """
input: {text: str}
output: ${loud}
accept: 0.0
nodes:
  said: {agent: writer, with: {text: "${input.text}"}}
  kind: {agent: sorter, with: {text: "${said}"}}
  either: {first_of: ["${said}", nothing], when: "${kind == 'x'}"}
  loud:
    call:
      nodes:
        shouted: {tool: shout, with: {text: "${either}"}}
      output: ${shouted}
"""


def test_output_score_traced_through_all_node_kinds() -> None:
    known = replace(KNOWN, agents={**KNOWN.agents, "sorter": agent("sorter", record(text=TEXT), TEXT)})

    def scored(said: float, kind: float) -> Any:
        answers = {"writer": CallResult(value="a", confidence=said), "sorter": CallResult(value="x", confidence=kind)}
        return play(CHAIN, {"text": "t"}, answers, catalog=known).outcome

    assert scored(0.9, 0.5) == ValueOutcome("A", 0.5)
    assert scored(0.4, 0.5) == ValueOutcome("A", 0.4)


DECIDED = """
input: {text: str}
output: {said: "${said}", sure: "${sure}"}
accept: 0.1
nodes:
  said: {agent: writer, with: {text: "${input.text}"}}
  kind: {agent: sorter, with: {text: "${input.text}"}}
  sure: {ask: "Is ${kind} right?", options: ["yes", "no"]MORE}
"""


@pytest.mark.parametrize(
    ("more", "answer", "score"),
    [("", "yes", 0.9), (", timeout: 60, fallback: 'no'", "yes", 0.9), (", timeout: 60, fallback: 'no'", None, 0.2)],
)
def test_output_score_not_lowered_by_answer_of_person(more: str, answer: str | None, score: float) -> None:
    known = replace(KNOWN, agents={**KNOWN.agents, "sorter": agent("sorter", record(text=TEXT), TEXT)})
    compiled = program(DECIDED.replace("MORE", more), known)
    script = {"writer": CallResult(value="a", confidence=0.9), "sorter": CallResult(value="x", confidence=0.2)}

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock, script)
        run = theatre.start(compiled, {"text": "t"})
        if answer is not None:
            assert await run.wait_until_blocked() is None
            (question,) = run.questions
            digest = question.question_digest
            await clock.sleep(1)
            await theatre.journal.send(
                run.id, InboxMessage(kind="answer", node=question.node, value=answer, by="ada", question_digest=digest)
            )
        finished = await run.wait()
        events = list(await run.history())
        await theatre.engine.close()
        assert finished.outcome == ValueOutcome({"said": "a", "sure": answer or "no"}, score)
        assert replay(compiled, events).first_difference is None
        assert audit(AuditCase(compiled, events)) == []

    run_simulated(scene)


def test_output_without_any_score_withheld() -> None:
    run = play(
        "input: {text: str}\noutput: ${a}\naccept: 0.0\nnodes:\n  a: {tool: shout, with: {text: '${input.text}'}}\n",
        {"text": "x"},
    )
    assert isinstance(run.outcome, AbstainedOutcome)
    assert "its producer reports no confidence" in run.outcome.reason


def test_output_guarantee_without_certificate_refused_at_line() -> None:
    source = read("schema: orchestra/v1\nname: staged\n" + LIST.replace("ACCEPT", "certified"), "staged.yaml")
    with pytest.raises(InputError, match="no certificate for the workflow 'staged'") as caught:
        compile_graph(source.graph, replace(KNOWN, workflow_certificates={}), source.places)
    assert (caught.value.code, caught.value.hint) == ("L119", "orchestra certify staged --data FILE")
    assert caught.value.location is not None
    assert caught.value.location.text.strip() == "accept: certified"


def test_output_guarantee_same_in_yaml_and_python() -> None:
    graph = read("schema: orchestra/v1\nname: staged\n" + LIST.replace("ACCEPT", "certified"), "staged.yaml").graph
    assert read(write(graph), "again.yaml").graph == graph
    assert "@workflow(accept=certified)" in to_python(graph)
