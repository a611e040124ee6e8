"""Claims: each part of an output with its evidence, its verdicts and its score. An old journal gives the same
claims.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestra import Orchestra
from orchestra.app.claims.claims import Computation, OutputClaim, extract_claims
from orchestra.app.claims.locations import TableCell, TextSpan
from orchestra.app.result import Result
from orchestra.app.snapshot_store import stored_workflows
from orchestra.core.events import decode, encode
from orchestra.core.protocols import CallResult
from orchestra.documents.tables import make_table
from orchestra.testing import SimulatedOrchestra

DOCUMENT = {"source": "tower.txt", "text": "The tower was finished in 1889. It was painted in 1907."}
TABLE = [["", "2019", "2018"], ["Revenue", "$1,200", "$1,000"], ["Cost of revenue", "(700)", "(600)"]]


def by_path(result: Result[Any]) -> dict[str, OutputClaim]:
    return {claim.path: claim for claim in result.claims}


class Flow:
    """Runs workflows given as text, with the project's agents."""

    def __init__(self, simulated: SimulatedOrchestra, file: Path) -> None:
        self.simulated, self.file = simulated, file

    async def __call__(self, written: str, **inputs: Any) -> Result[Any]:
        self.file.write_text("schema: orchestra/v1\nname: flow\n" + written)
        run = await self.simulated.start(self.simulated.find(str(self.file)), **({"text": DOCUMENT["text"]} | inputs))
        return await run.wait()


@pytest.fixture
def flow(simulated: SimulatedOrchestra, tmp_path: Path) -> Flow:
    return Flow(simulated, tmp_path / "flow.yaml")


READING = """
  reading:
    agent: reader
    with: {question: when, context: "${input.text}"}
    checks: [quote]
    against: "${input.text}"
"""


async def test_claims_cited_answer_has_sentence_and_check(
    simulated: SimulatedOrchestra,
) -> None:
    simulated.set_answers({"generative_reader": {"answer": "1889"}})
    result = await simulated.run(
        simulated.find("answer_from_documents"), question="When was the tower finished?", documents=[DOCUMENT]
    )
    [claim] = result.claims
    assert (claim.path, claim.value, claim.score, claim.unsupported) == ("text", "1889", 1.0, "")
    assert claim.nodes == ("answer", "readings[0]")
    assert {(one.node, one.check, one.outcome) for one in claim.verdicts} == {("readings[0]", "quote", "pass")}
    spans = [one for one in claim.evidence if isinstance(one, TextSpan)]
    assert {one.quote for one in spans} == {"1889", "The tower was finished in 1889."}
    for one in spans:
        assert one.where == "input.documents[0].text"
        assert DOCUMENT["text"][one.start : one.end] == one.quote
    assert result.unsupported == ()


async def test_claims_alternatives_evidence_of_chosen_agent(simulated: SimulatedOrchestra, flow: Flow) -> None:
    simulated.set_answers({"reader": {"answer": "1889"}})
    reading = READING.replace(
        "agent: reader", """agent: {by: "${input.text.contains('tower')}", of: {"true": reader, "false": reader}}"""
    )
    result = await flow("input: {text: str}\noutput: {answer: '${reading.answer}'}\nnodes:" + reading)
    [claim] = result.claims
    assert (claim.value, claim.nodes, claim.score) == ("1889", ("reading/reader",), 1.0)
    assert {one.quote for one in claim.evidence if isinstance(one, TextSpan)} == {"1889"}
    assert (result.confidence, len(result.evidence)) == (1.0, 1)


async def test_claims_agreeing_readings_are_evidence(simulated: SimulatedOrchestra) -> None:
    other = {"source": "paint.txt", "text": "When was the tower painted? In 1907, and the tower was finished before."}
    simulated.set_answers(
        {"generative_reader": lambda call: {"answer": "1889" if "1889" in call.inputs["context"] else "1907"}}
    )
    result = await simulated.run(
        simulated.find("answer_from_documents"), question="When was the tower finished?", documents=[DOCUMENT, other]
    )
    [claim] = result.claims
    said = [node for node in claim.nodes if node.startswith("readings")]
    assert len(said) == 1
    assert claim.value in {one.quote for one in claim.evidence if isinstance(one, TextSpan)}


TOLD: dict[str, Any] = {
    "way": "difference",
    "quotes": [],
    "scale": "",
    "cells": [[1, 1], [1, 2]],
    "rows": [],
    "column": None,
    "condition": None,
    "also": None,
}


async def test_claims_cited_answer_names_the_page(simulated: SimulatedOrchestra) -> None:
    simulated.set_answers({"generative_reader": {"answer": "1889"}})
    pages = [{"start": 0, "name": "p. 1"}, {"start": 30, "name": "p. 2"}]
    text = "A tower was beside the river.\nThe tower was finished in 1889."
    document = {"source": "tower.pdf", "text": text, "locations": pages}
    result = await simulated.run(
        simulated.find("answer_from_documents"), question="When was the tower finished?", documents=[document]
    )
    assert result.value["citations"][0]["location"] == "p. 2"
    spans = [span for span in by_path(result)["text"].evidence if isinstance(span, TextSpan)]
    assert {(span.source, span.location) for span in spans} == {("tower.pdf", "p. 2")}


CITED_CELLS = """
input: {tables: "list[Table]", text: str}
output: {answer: "${found[0].text}", cells: "${found}"}
nodes:
  found:
    tool: cells
    with: {question: north, table: "${input.tables[0].cells}", quotes: [North]}
"""


async def test_claims_cell_of_a_sheet_has_its_address(flow: Flow) -> None:
    table = make_table([["Region", "Q1"], ["North", "900"]], name="s.xlsx Q3", source="s.xlsx", sheet="Q3", row=3)
    result = await flow(CITED_CELLS, tables=[table.model_dump(mode="json")])
    (cell,) = by_path(result)["answer"].evidence
    assert isinstance(cell, TableCell)
    assert (cell.text, cell.location) == ("North", "s.xlsx Q3!A4")


async def test_claims_sum_has_expression_and_cells(simulated: SimulatedOrchestra) -> None:
    reading = {**TOLD, "expression": "1,200 - 1,000", "answer": 200}
    simulated.set_answers({"table_reader": lambda call: CallResult(value=reading, confidence=0.9)})
    result = await simulated.run(
        simulated.find("financial_question"), question="What was the change in revenue?", table=TABLE
    )
    assert result.status == "done", result.outcome
    answer = by_path(result)["answer"]
    [computed] = [one for one in answer.evidence if isinstance(one, Computation)]
    assert (computed.expression, computed.result) == ("1,200 - 1,000", "200")
    placed = [[place.text for place in one.places if isinstance(place, TableCell)] for one in computed.operands]
    assert placed == [["$1,200"], ["$1,000"]]
    cell = computed.operands[0].places[0]
    assert cell == TableCell("$1,200", 1, 1, "Revenue", "2019", "input.table[1][1]")
    assert answer.unsupported == ""
    assert "expression" not in by_path(result)


async def test_claims_long_number_compared_exactly(
    simulated: SimulatedOrchestra,
) -> None:
    long = 12345678901234567890123456789012
    for said, computed in ((long, 1), (long + 1, 0)):
        reading = {**TOLD, "expression": f"{long + 1000} - 1,000", "answer": said}
        simulated.set_answers({"table_reader": lambda call, reading=reading: CallResult(value=reading, confidence=0.9)})
        table = [["", "2019", "2018"], ["Revenue", str(long + 1000), "$1,000"]]
        result = await simulated.run(
            simulated.find("financial_question"), question="What was the change in revenue?", table=table
        )
        evidence = by_path(result)["answer"].evidence if result.status == "done" else ()
        assert [one.result for one in evidence if isinstance(one, Computation)] == [str(long)] * computed


async def test_claims_unchecked_output_unsupported(simulated: SimulatedOrchestra) -> None:
    simulated.set_answers({"banking_intent": {"intent": "card_arrival"}})
    result = await simulated.run(simulated.find("triage_message"), message="Where is my card?")
    assert {claim.path for claim in result.claims} >= {"intent", "queue", "priority"}
    assert result.unsupported == result.claims
    assert by_path(result)["intent"].unsupported == "nothing checked what intent says"


async def test_claims_check_without_evidence_supports_nothing(simulated: SimulatedOrchestra, flow: Flow) -> None:
    simulated.set_answers({"reader": {"answer": "1889"}})
    text = 'input: {text: str}\noutput: "${reading}"\nnodes:' + READING.replace(
        'checks: [quote]\n    against: "${input.text}"', "checks: [schema]"
    )
    result = await flow(text)
    [claim] = result.claims
    assert [one.check for one in claim.verdicts] == ["schema"]
    assert claim.unsupported == "its checks pass, and none of them gives evidence"


@pytest.mark.parametrize(
    "output",
    ['"${taken}"', '{said: "${taken}"}', '{said: ["${taken}"]}', '{said: "${called}"}', '{said: "${turned}"}'],
)
async def test_claims_evidence_traced_through_arms_blocks_loops(
    simulated: SimulatedOrchestra, flow: Flow, output: str
) -> None:
    simulated.set_answers({"reader": {"answer": "1889"}})
    text = f"""input: {{text: str}}
output: {output}
nodes:{READING}
  taken:
    first_of: ["${{reading.answer}}", nothing]
  called:
    call:
      nodes:
        inner:
          first_of: ["${{taken}}"]
      output: ${{inner}}
  turned:
    loop:
      at_most: 2
      until: "${{turn == 2}}"
      nodes:
        again:
          first_of: ["${{previous != null ? previous : reading.answer}}", "${{reading.answer}}"]
      output: ${{again}}
"""
    result = await flow(text)
    [claim] = result.claims
    assert claim.nodes == ("reading",)
    assert claim.unsupported == ""
    assert [one.quote for one in claim.evidence if isinstance(one, TextSpan)] == ["1889"]


async def test_claims_composed_text_needs_all_parts_checked(simulated: SimulatedOrchestra, flow: Flow) -> None:
    simulated.set_answers({"reader": {"answer": "1889"}, "banking_intent": {"intent": "card_arrival"}})
    text = f"""input: {{text: str}}
output: {{both: "${{(reading.answer != null ? reading.answer : '') + ' ' + sorted.intent}}"}}
nodes:{READING}
  sorted:
    agent: banking_intent
    with: {{text: "${{input.text}}"}}
"""
    result = await flow(text)
    [claim] = result.claims
    assert claim.unsupported == "nothing checked what sorted says"
    assert set(claim.nodes) == {"reading", "sorted"}


async def test_claims_fallback_has_no_evidence_of_failed_node(simulated: SimulatedOrchestra, flow: Flow) -> None:
    simulated.set_answers({"reader": {"answer": "1999"}})
    head = 'input: {text: str, other: Reading}\noutput: "${reading.answer}"\nnodes:'
    result = await flow(
        head + READING + '    otherwise: [abstain]\n    fallback: "${input.other}"\n', other={"answer": "unknown"}
    )
    [claim] = result.claims
    assert (claim.value, claim.nodes, claim.evidence) == ("unknown", (), ())
    assert claim.unsupported == "nothing checked it"


async def test_claims_none_without_output(simulated: SimulatedOrchestra, flow: Flow) -> None:
    simulated.set_answers({"reader": {"answer": "1999"}})
    text = 'input: {text: str}\noutput: "${reading.answer}"\nnodes:' + READING + "    otherwise: [abstain]\n"
    result = await flow(text)
    assert (result.status, result.claims, result.unsupported) == ("abstained", (), ())
    silent = await simulated.run(
        simulated.find("answer_from_documents"), question="When was the tower finished?", documents=[]
    )
    assert silent.claims == ()


async def test_claims_of_old_journal_unchanged(simulated: SimulatedOrchestra) -> None:
    simulated.set_answers({"generative_reader": {"answer": "1889"}, "banking_intent": {"intent": "x"}})
    orchestra: Orchestra = simulated.orchestra
    help_ = [{"source": "tower.txt", "text": DOCUMENT["text"]}]
    simulated.set_answers({"generative_reader": {"answer": "1889"}, "banking_intent": {"intent": "card_arrival"}})
    result = await simulated.run(simulated.find("triage_message"), message="When was the tower finished?", help=help_)
    events = [decode(encode(event)) for event in await orchestra.journal.read(result.run)]
    again = extract_claims(events, await stored_workflows(orchestra.journal, events[0]))
    assert again == result.claims
    reply = by_path(result)["reply.text"]
    assert (reply.value, reply.unsupported) == ("1889", "")
    assert "looked_up/readings[0]" in reply.nodes
    assert msgspec.json.decode(msgspec.json.encode(again))[-1]["path"] == reply.path


async def test_claims_without_workflow_unsupported(simulated: SimulatedOrchestra) -> None:
    simulated.set_answers({"generative_reader": {"answer": "1889"}})
    result = await simulated.run(
        simulated.find("answer_from_documents"), question="When was the tower finished?", documents=[DOCUMENT]
    )
    [claim] = extract_claims(result.events, {})
    assert claim.evidence, "what the answer itself cites can still be seen"
    assert claim.unsupported == "the workflow of this run is not stored, so its checks are unknown"


async def test_claims_citation_of_missing_words_is_no_evidence(simulated: SimulatedOrchestra, flow: Flow) -> None:
    said = {
        "text": "1889",
        "citations": [{"quote": "in 1889, as all agree", "source": "tower.txt", "start": 0, "end": 21}],
    }
    text = (
        'input: {text: str}\noutput: "${said}"\nnodes:\n  said:\n    first_of: ['
        + msgspec.json.encode(said).decode()
        + "]\n"
    )
    result = await flow(text)
    [claim] = result.claims
    assert (claim.evidence, claim.unsupported) == ((), "nothing checked it")
