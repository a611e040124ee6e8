"""Reading by a larger model: when it is asked, and which of its answers pass the checks."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra.core.protocols import CallRequest, CallResult
from orchestra.documents.passages import split_passages
from orchestra.schema.builtin_models import Citation, Document
from orchestra.testing import SimulatedOrchestra
from orchestra.tools.answers import RankedSpan
from orchestra.tools.reading import (
    AmountReading,
    DocumentReading,
    ReadingRequest,
    accept_reading,
    passages_text,
    quoted_sentences,
    reading_request,
)
from orchestra.tools.replies import Finding, Reply

FERRY = Document(
    source="ferry_rules.md",
    text=(
        "# Ferry rules\n\nA bicycle costs €8 for each crossing. Pupils pay half of the fare.\n\n"
        "A car costs €46. Islanders get a discount of 25 % on cars.\n\nDogs travel on deck 3 in winter."
    ),
)
OLD = Document(source="ferry_rules_2019.md", text="# Ferry rules 2019\n\nA bicycle costs €5 for each crossing.")
GARDEN = Document(source="garden.md", text="The rose garden 7B closes at dusk. Le jardin ferme à 18 h.")
EMPTY = Reply(text=None, findings=[Finding(question="?", answer=None)], missing=["?"])
WRONG = Reply(text="€46.", findings=[Finding(question="?", answer="€46")])


def requested(question: str, reply: Reply = EMPTY, *documents: Document) -> ReadingRequest:
    given = list(documents or (FERRY, GARDEN))
    made: ReadingRequest = reading_request.function(question, reply, split_passages(given), given)
    return made


def accepted_amount(question: str, price: str | None, rule: str | None, expression: str) -> Reply:
    reading = AmountReading(price=price, rule=rule, expression=expression)
    made: Reply = accept_reading.function(question, WRONG, requested(question, WRONG), [], reading)
    return made


def accepted_answer(question: str, *readings: tuple[str | None, str | None]) -> Reply:
    reply = Reply(text=None, findings=[Finding(question=question, answer=None)], missing=[question])
    made = [DocumentReading(quote=quote, answer=answer) for quote, answer in readings]
    accepted: Reply = accept_reading.function(question, reply, requested(question, reply), made)
    return accepted


@pytest.mark.parametrize(
    ("question", "reply", "opens", "amount"),
    [
        ("Where do dogs travel?", EMPTY, True, False),
        ("Where do dogs travel?", WRONG, False, False),
        ("What does an islander pay for a car?", WRONG, False, True),
        ("What does an islander pay for a car?", WRONG.model_copy(update={"computation": "2 * 3 = 6"}), False, False),
        ("Wann schließt der Garten und wo ist er?", WRONG, True, False),
    ],
)
def test_reader_is_asked_where_the_reply_may_not_suffice(
    question: str, reply: Reply, opens: bool, amount: bool
) -> None:
    made = requested(question, reply)
    assert (made.open, made.amount) == (opens, amount)


def test_open_part_of_a_question_is_asked_alone() -> None:
    parts = [Finding(question="Who is it?", answer="Ann"), Finding(question="Where does it leave?", answer=None)]
    reply = Reply(text="Ann.", findings=parts, missing=["Where does it leave?"])
    assert requested("Who is it, and where does it leave?", reply).question == "Where does it leave?"


def test_superseded_documents_are_read_for_questions_about_the_past_only() -> None:
    assert "€5" not in requested("What does a bicycle cost?", EMPTY, FERRY, OLD).passages
    assert "€5" in requested("What did a bicycle cost in 2019?", EMPTY, FERRY, OLD).passages
    stale = Document(source="prices.txt", text="Prices (no longer valid)\n\nA bicycle costs €3.")
    assert "€3" not in requested("What does a bicycle cost?", EMPTY, FERRY, stale).passages


def test_passages_stand_below_the_name_of_their_document() -> None:
    text = passages_text(split_passages([FERRY, GARDEN]), 10_000)
    assert text.startswith("[ferry rules]\n")
    assert "\n[garden]\nThe rose garden 7B closes at dusk." in text
    assert "[garden]" not in passages_text(split_passages([FERRY, GARDEN]), 40)


@pytest.mark.parametrize(
    ("question", "price", "rule", "expression", "text"),
    [
        (
            "What does an islander pay for a car?",
            "A car costs €46",
            "a discount of 25 %",
            "46 * (100 - 25) / 100",
            "€34.50.",
        ),
        ("What does an islander pay for a car?", "A car costs €46", "a discount of 25 %", "46 * 0.75", "€34.50."),
        ("What do 3 bicycles cost?", "A bicycle costs €8", None, "3 * 8", "€24."),
        ("What do pupils pay for a bicycle?", "A bicycle costs €8", "half of the fare", "8 / 2", "€4."),
        ("How much more does a car cost than a bicycle?", "A car costs €46", None, "8 - 46", "€38."),
    ],
)
def test_calculation_of_stated_numbers_is_accepted(
    question: str, price: str, rule: str | None, expression: str, text: str
) -> None:
    reply = accepted_amount(question, price, rule, expression)
    assert reply.text == text
    assert reply.computation is not None
    assert reply.computation.startswith(expression)
    assert price in reply.citations[0].quote


@pytest.mark.parametrize(
    ("question", "price", "rule", "expression"),
    [
        ("What do 3 bicycles cost?", "A bicycle costs €8", None, "3 * 9"),  # 9 is nowhere
        ("What do 3 bicycles cost with the discount?", "A bicycle costs €8", None, "3 * 8"),  # none was read
        ("What do 3 bicycles cost?", "A bicycle costs €8", None, "8 * 9"),
        ("What do 3 bicycles cost?", "A bicycle costs €8", None, ""),
        ("What do 3 bicycles cost?", "A bicycle costs €8", None, "8"),  # nothing is computed
        ("What do 3 bicycles cost?", None, None, "3 * 8"),
        ("What do 3 bicycles cost?", "A bicycle costs €9", None, "3 * 8"),  # not a quote
        ("What do 3 roses cost?", "A car costs €46", None, "3 * 46"),  # about something else
        ("What do 3 bicycles cost?", "A bicycle costs €8", "Le jardin ferme à 18 h", "8 * 18"),  # the rule is not
        ("What do 3 bicycles cost?", "A bicycle costs €8", None, "3 - 8"),  # below zero
        ("What do 3 bicycles cost?", "A bicycle costs €8", None, "3 * (8"),
        ("What do 3 bicycles cost?", "A bicycle costs €8", None, "8 / (3 - 3)"),
    ],
)
def test_calculation_that_fails_a_check_leaves_the_reply(
    question: str, price: str | None, rule: str | None, expression: str
) -> None:
    assert accepted_amount(question, price, rule, expression) == WRONG


def test_answer_of_two_readings_with_its_words_in_the_quote_is_accepted() -> None:
    quote = "Dogs travel on deck 3 in winter."
    reply = accepted_answer("On which deck do dogs travel?", (quote, "deck 3"), (quote, "3"))
    assert reply.text == "Deck 3."
    start = FERRY.text.index(quote)
    assert reply.citations == [
        Citation(quote=quote, source="ferry_rules.md", start=start, end=start + len(quote)),
    ]
    assert reply.missing == []


def test_bare_number_has_the_noun_of_the_question() -> None:
    quote = "Dogs travel on deck 3 in winter."
    assert accepted_answer("On which deck do dogs travel?", (quote, "3"), (quote, "3")).text == "Deck 3."


@pytest.mark.parametrize(
    ("question", "readings"),
    [
        (
            "On which deck do dogs travel?",
            [("Dogs travel on deck 3", "deck 3"), ("A car costs €46", "€46")],
        ),  # they differ
        ("On which deck do dogs travel?", [("Dogs travel on deck 3", "deck 3"), (None, None)]),
        ("On which deck do dogs travel?", [("Dogs travel on deck 3", "deck 4"), ("Dogs travel on deck 3", "deck 4")]),
        ("When does the shop open?", [("The rose garden 7B closes at dusk.", "dusk")] * 2),  # about something else
        ("On which deck do dogs of 7B travel?", [("Dogs travel on deck 3", "deck 3")] * 2),  # 7B is elsewhere
        (
            "How long is the rose garden open until it closes?",
            [("The rose garden 7B closes at dusk.", "at dusk")] * 2,
        ),  # no duration
        (
            "Which garden has a rose in 7B?",
            [("The rose garden 7B closes at dusk.", "rose garden 7B")] * 2,
        ),  # repeats the question
        ("What is in the garden file?", [("Le jardin ferme à 18 h.", "18 h")] * 2),  # only the file's name is shared
    ],
)
def test_answer_that_fails_a_check_leaves_the_reply(
    question: str, readings: list[tuple[str | None, str | None]]
) -> None:
    assert accepted_answer(question, *readings).text is None


def test_encoder_confirms_an_answer_in_other_words_than_the_question() -> None:
    question = "Which level are our animals allowed on?"
    reply = Reply(text=None, findings=[Finding(question=question, answer=None)], missing=[question])
    request = requested("Where do dogs travel?", reply).model_copy(update={"question": "Dogs may ride on which level?"})
    reading = DocumentReading(quote="Dogs travel on deck 3 in winter.", answer="deck 3")
    quoted = quoted_sentences.function(request, [reading, reading]).texts
    assert quoted == ["Dogs travel on deck 3 in winter."]
    for score, text in ((2.0, "Deck 3."), (-2.0, None)):
        span = RankedSpan(text=0, start=15, end=21, answer="deck 3", score=score)
        assert accept_reading.function(question, reply, request, [reading, reading], None, [span]).text == text


def test_answer_to_an_open_part_joins_the_others() -> None:
    parts = [Finding(question="Who drives?", answer="Ann"), Finding(question="Where do dogs travel?", answer=None)]
    cited = Citation(quote="Ann drives.", source="staff.md", start=0, end=11)
    reply = Reply(text="Ann.", findings=parts, citations=[cited], missing=["Where do dogs travel?"])
    request = requested("Who drives, and where do dogs travel?", reply)
    reading = DocumentReading(quote="Dogs travel on deck 3 in winter.", answer="on deck 3")
    joined = accept_reading.function("Who drives, and where do dogs travel?", reply, request, [reading, reading])
    assert joined.text == "Ann drives. On deck 3."
    assert cited in joined.citations


def encoders(span: dict[str, Any] | None) -> dict[str, Any]:
    def near(call: CallRequest) -> CallResult:
        return CallResult(value={"scores": [0.5] * len(call.inputs["texts"])})

    return {"passage_ranker": near, "passage_reader": {"spans": [] if span is None else [span]}}


async def test_read_answer_calls_the_larger_model_only_if_needed(simulated: SimulatedOrchestra) -> None:
    amount = {"price": "A bicycle costs €8", "rule": "Pupils pay half of the fare", "expression": "8 / 2", "value": 4}
    simulated.set_answers(
        {**encoders(None), "amount_reader": amount, "document_reader": {"quote": None, "answer": None}}
    )
    documents = [FERRY.model_dump()]
    step = simulated.find("read_answer")
    result = await simulated.run(step, question="What must a pupil pay for a bicycle?", documents=documents)
    assert result.value["text"] == "€4."
    counts = simulated.workers.counts
    assert counts["amount_reader"] == 1
    span = {"text": 0, "start": 0, "end": 9, "answer": "on deck 3", "score": 12.0}
    simulated.set_answers(encoders(span))
    sure = await simulated.run(step, question="On which deck do dogs travel?", documents=[FERRY.model_dump()])
    assert sure.value["text"] is not None
    assert simulated.workers.counts["amount_reader"] == 1
