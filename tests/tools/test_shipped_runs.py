"""The packaged workflows `support_desk` and `financial_question`, branch by branch, with scripted agents."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra.core.protocols import CallRequest, CallResult
from orchestra.testing import SimulatedOrchestra

TABLE = [["", "2019", "2018"], ["Revenue", "$1,200", "$1,000"], ["Cost of revenue", "(700)", "(600)"]]
TEXT = "Revenue grew in 2019. The report is in thousands of dollars."
POLICY = [
    {
        "source": "house.txt",
        "text": "We take reservations for up to eight guests. Dogs are welcome on the terrace at all times of the day.",
    }
]


def sorting(
    intent: str, sure: float = 0.9, slots: Any = None, matter: str = "card_arrival", answer: str | None = None
) -> dict[str, Any]:
    """Answers of the agents to a message."""

    def found(call: CallRequest) -> Any:
        return CallResult(value={"intent": intent, "p_oos": 0.1}, confidence=sure)

    return {
        "assistant_intent": found,
        "extractor": {"slots": slots or {}},
        "banking_intent": {"intent": matter},
        "generative_reader": {"answer": answer},
    }


PARTY = {"people": {"value": "two", "start": 0, "end": 3}}


@pytest.mark.parametrize(
    ("says", "inputs", "branch"),
    [
        (sorting("restaurant_reservation", slots=PARTY), {}, "booking"),
        (sorting("timer", slots=PARTY), {"requested": ["people"]}, "booking"),
        (sorting("timer", slots=PARTY), {}, "assistant"),
        (sorting("timer", sure=0.6, slots=PARTY), {}, "booking"),
        (sorting("out_of_scope", slots=PARTY), {}, "booking"),
        (sorting("card_declined"), {}, "bank"),
        (sorting("card_declined", matter="lost_or_stolen_card"), {}, "person"),
        (sorting("report_fraud"), {}, "person"),
        (sorting("out_of_scope"), {"message": "Why is my top-up pending?"}, "bank"),
        (sorting("timer", sure=0.6), {"message": "Why is my top-up pending?"}, "bank"),
        (sorting("timer"), {"message": "Why is my top-up pending?"}, "assistant"),
        (sorting("out_of_scope"), {"message": "Who won?"}, "person"),
        (sorting("timer", sure=0.6), {"message": "Who won?"}, "person"),
        (sorting("accept_reservations"), {}, "person"),
        (
            sorting("accept_reservations", answer="eight guests"),
            {"message": "Do you take reservations?", "policy": POLICY},
            "question",
        ),
        (
            sorting("accept_reservations", answer="nine guests"),
            {"message": "Do you take reservations?", "policy": POLICY},
            "person",
        ),
        (sorting("out_of_scope"), {"message": "Are dogs welcome?", "policy": POLICY}, "person"),
    ],
)
async def test_support_desk_message_takes_its_branch(
    simulated: SimulatedOrchestra, says: Any, inputs: dict[str, Any], branch: str
) -> None:
    simulated.set_answers(says)
    result = await simulated.run(simulated.find("support_desk"), **{"message": "two", **inputs})
    assert result.value["branch"] == branch
    assert result.value["booking"] == (PARTY if branch == "booking" else {})
    assert ("bank" in branch) <= (result.value["matter"] is not None)
    assert (simulated.workers.counts["generative_reader"] > 0) == ("policy" in inputs), (
        "a language model is asked for documents only"
    )


async def test_support_desk_booking_asks_missing_fields(simulated: SimulatedOrchestra) -> None:
    simulated.set_answers(sorting("restaurant_reservation", slots=PARTY))
    result = await simulated.run(simulated.find("support_desk"), message="two")
    assert result.value["missing"] == ["date", "time"]
    assert result.value["reply"] == "Thank you. What we still need to know: date."


async def test_support_desk_question_quotes_policy(simulated: SimulatedOrchestra) -> None:
    simulated.set_answers(sorting("out_of_scope", answer="welcome on the terrace"))
    result = await simulated.run(simulated.find("support_desk"), message="Are dogs welcome?", policy=POLICY)
    assert (result.value["branch"], result.value["reply"]) == ("question", "welcome on the terrace")


def reading(
    expression: str | None, answer: Any, quotes: list[str] | None = None, sure: float = 0.9, **more: Any
) -> dict[str, Any]:
    told = {
        "way": "cells" if expression is None else "difference",
        "cells": [],
        "rows": [],
        "column": None,
        "condition": None,
        "also": None,
        **more,
    }
    said = {**told, "expression": expression, "quotes": quotes or [], "scale": "", "answer": answer}
    return {"table_reader": lambda call: CallResult(value=said, confidence=sure)}


async def asked(simulated: SimulatedOrchestra, says: dict[str, Any]) -> Any:
    simulated.set_answers(says)
    question = "What was the change in revenue from 2018 to 2019?"
    run = await simulated.start(simulated.find("financial_question"), question=question, table=TABLE, paragraphs=[TEXT])
    return await run.wait()


async def test_financial_question_sum_has_cells(simulated: SimulatedOrchestra) -> None:
    result = await asked(simulated, reading("1,200 - 1,000", 200, cells=[[1, 1], [1, 2]]))
    assert (result.value["answer"], result.value["scale"]) == (200, "")
    assert [(cell["text"], cell["row_heading"], cell["column_heading"]) for cell in result.value["cells"]] == [
        ("$1,200", "Revenue", "2019"),
        ("$1,000", "Revenue", "2018"),
    ]


async def test_financial_question_uses_number_of_question(simulated: SimulatedOrchestra) -> None:
    simulated.set_answers(reading("1,200 * 7", 8400, way="product", cells=[[1, 1]]))
    step = simulated.find("financial_question")
    question = "What would seven years like 2019 bring in?"
    said = await simulated.run(step, question=question, table=TABLE, paragraphs=[TEXT])
    assert (said.status, said.value["answer"]) == ("done", 8400)
    other = await simulated.start(step, question="What would it bring in?", table=TABLE, paragraphs=[TEXT])
    assert (await other.wait()).status == "abstained", "the question does not contain seven"


async def test_financial_question_count_has_rows(simulated: SimulatedOrchestra) -> None:
    result = await asked(simulated, reading("1", 1, way="count", rows=[1], cells=[[1, 0]]))
    assert (result.status, result.value["answer"]) == ("done", 1)
    assert [cell["text"] for cell in result.value["cells"]] == ["Revenue"]


async def test_financial_question_bounded_count_quotes_figure_only(
    simulated: SimulatedOrchestra,
) -> None:
    condition = {"column": 1, "bound": "above", "limit": "1,100"}
    simulated.set_answers(reading("1", 1, way="count", rows=[1], cells=[[1, 1]], condition=condition))
    step = simulated.find("financial_question")
    said = await simulated.run(step, question="How many had more than 1,100 in 2019?", table=TABLE, paragraphs=[TEXT])
    assert (said.status, said.value["answer"], [cell["text"] for cell in said.value["cells"]]) == (
        "done",
        1,
        ["$1,200"],
    )
    other = await simulated.start(step, question="How many had more than 900 in 2019?", table=TABLE, paragraphs=[TEXT])
    assert (await other.wait()).status == "abstained", "the question does not contain 1,100"


async def test_financial_question_comparison_has_cell(simulated: SimulatedOrchestra) -> None:
    result = await asked(
        simulated, reading(None, ["Revenue"], ["Revenue"], way="most", rows=[1], column=1, cells=[[1, 0], [1, 1]])
    )
    assert (result.status, result.value["answer"]) == ("done", ["Revenue"])
    assert [cell["text"] for cell in result.value["cells"]] == ["Revenue", "$1,200"]


async def test_financial_question_text_answer_has_span(simulated: SimulatedOrchestra) -> None:
    result = await asked(simulated, reading(None, ["thousands of dollars"], ["thousands of dollars"]))
    assert result.value["cells"] == []
    assert [span.quote for span in result.evidence] == ["thousands of dollars"]


@pytest.mark.parametrize(
    "says",
    [
        reading("1,200 - 900", 300),
        reading("1,200 - 1,000", 300),
        reading(None, ["millions of dollars"], ["millions of dollars"]),
        reading("1,200 -", 1200),
        reading("1,200 - 1,000", 200, sure=0.39),
    ],
    ids=["a missing number", "a wrong sum", "missing words", "no sum", "doubtful"],
)
async def test_financial_question_missing_or_doubtful_answer_withheld(
    simulated: SimulatedOrchestra, says: dict[str, Any]
) -> None:
    result = await asked(simulated, says)
    assert (result.status, result.value) == ("abstained", None)
