"""Drafts: which sentences of a written text stay."""

from __future__ import annotations

import pytest

from orchestra.core.protocols import CallRequest, CallResult
from orchestra.documents.passages import split_passages
from orchestra.schema.builtin_models import Document
from orchestra.testing import SimulatedOrchestra
from orchestra.tools.drafts import DraftFacts, check_draft, draft_facts
from orchestra.tools.reading import AmountReading, reading_request
from orchestra.tools.replies import Reply

BOATS = Document(
    source="boat_hire.md",
    text="# Boat hire\n\nA rowing boat costs €14 an hour. The deposit for a boat is €50. Ms Lindqvist has the keys.",
)
FACTS = DraftFacts(text="[boat hire]\nThe deposit for a boat is €50. Ms Lindqvist has the keys.", computed=None)
COMPUTED = DraftFacts(text=f"{FACTS.text}\nComputed: 3 * 14 = 42, that is €42", computed="€42")


def checked(request: str, text: str, facts: DraftFacts = FACTS) -> Reply:
    reply: Reply = check_draft.function(request, facts, text)
    return reply


def facts_with(expression: str) -> DraftFacts:
    request = "Write to Mr Sato what 3 hours with a rowing boat cost."
    reading = reading_request.function(request, Reply(text=None, missing=[request]), split_passages([BOATS]), [BOATS])
    amount = AmountReading(price="A rowing boat costs €14 an hour", expression=expression)
    facts: DraftFacts = draft_facts.function(request, reading, amount)
    return facts


def test_sentences_with_unknown_numbers_or_names_are_dropped_and_named() -> None:
    text = "Dear Mr Sato, Ms Lindqvist has the keys. Please call Ms Berg. The key costs €9 a day."
    reply = checked("Write to Mr Sato where he gets the keys.", text)
    assert reply.text == "Dear Mr Sato, Ms Lindqvist has the keys."
    assert reply.missing == ["Please call Ms Berg.", "The key costs €9 a day."]


@pytest.mark.parametrize(
    ("request_", "text", "facts"),
    [
        ("Write to Mr Sato where he gets the keys.", "Ask Ms Berg for the keys of the boat.", FACTS),
        ("Write to Mr Sato where he gets the keys.", "Dear Mr Sato,\n\nKind regards", FACTS),
        ("Write to Mr Sato the total price of 3 hours.", "Dear Mr Sato, three hours cost €50.", FACTS),  # a deposit
        ("Write to Mr Sato the total price of 3 hours.", "Dear Mr Sato, Ms Lindqvist has the keys.", COMPUTED),
        ("Write to Mr Sato the fee for a key.", "Dear Mr Sato, the fee for the key is €50.", FACTS),  # a deposit
        ("Write to Mr Sato the total deposit.", "The deposit for a boat is €50.", FACTS),  # a total is computed
        ("Write one sentence: who has the keys?", "Ms Lindqvist has the keys to a boat. " * 4, FACTS),  # too long
    ],
)
def test_draft_without_support_or_the_amount_is_withheld(request_: str, text: str, facts: DraftFacts) -> None:
    assert checked(request_, text, facts).text is None


def test_draft_with_the_computed_or_the_stated_amount_is_given() -> None:
    text = "Dear Mr Sato, three hours cost €42."
    assert checked("Write to Mr Sato the total price of 3 hours.", text, COMPUTED).text == text
    two = "Dear Mr Sato, Ms Lindqvist has the keys. Ms Lindqvist has a boat. Kind regards"
    assert checked("Write two sentences to Mr Sato about the keys.", two).text == two
    stated = "Dear Mr Sato, the deposit for a boat is €50."
    assert checked("Write to Mr Sato what the deposit for a boat is.", stated).text == stated


def test_computed_amount_is_a_fact_only_if_its_numbers_are_stated() -> None:
    assert facts_with("3 * 14").computed == "€42"
    assert "Computed: 3 * 14 = 42" in facts_with("3 * 14").text
    assert facts_with("3 * 15").computed is None


async def test_draft_text_writes_with_the_computed_amount(simulated: SimulatedOrchestra) -> None:
    def near(call: CallRequest) -> CallResult:
        return CallResult(value={"scores": [0.5] * len(call.inputs["texts"])})

    def written(call: CallRequest) -> CallResult:
        amount = "€42" if "3 * 14 = 42" in call.inputs["facts"] else "€99"
        return CallResult(value={"text": f"Dear Mr Sato, 3 hours with a rowing boat cost {amount}."})

    amount = {"price": "A rowing boat costs €14 an hour", "rule": None, "expression": "3 * 14", "value": 42}
    simulated.set_answers({"passage_ranker": near, "amount_reader": amount, "text_drafter": written})
    result = await simulated.run(
        simulated.find("draft_text"),
        request="Write to Mr Sato what 3 hours with a rowing boat cost.",
        documents=[BOATS.model_dump()],
    )
    assert result.value["text"] == "Dear Mr Sato, 3 hours with a rowing boat cost €42."
