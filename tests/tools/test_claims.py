"""Claims against sentences: judgements of a model, and numbers that differ."""

from __future__ import annotations

import pytest

from orchestra.schema.builtin_models import Passage
from orchestra.tools.claims import Judged, as_statement, claim_evidence, decide_claim


def sentence(text: str, score: float = 0.7) -> Passage:
    return Passage(source="rules.md", text=text, start=0, end=len(text), score=score)


def judged(support: float, refute: float) -> Judged:
    return Judged(label="supported", p_supported=support, p_support=support, p_refute=refute)


@pytest.mark.parametrize(
    ("question", "statement"),
    [
        ("Are dogs allowed in?", "dogs are allowed in"),
        ("Can I wash it at home?", "I can wash it at home"),
        ("Is the pool open on Mondays?", "the pool is open on Mondays"),
        ("Do vouchers expire?", "vouchers expire"),
        ("Vouchers expire.", "Vouchers expire."),
    ],
)
def test_yes_no_question_becomes_a_statement(question: str, statement: str) -> None:
    assert as_statement(question) == statement


@pytest.mark.parametrize(
    ("claim", "text", "support", "refute", "begins"),
    [
        ("Dogs are allowed.", "Dogs are not admitted.", 0.1, 0.9, "No: Dogs are not admitted."),
        ("Passwords have 14 characters.", "Passwords have at least 14 characters.", 0.9, 0.0, "Yes: "),
        ("A note is needed from day 2.", "A note is needed from day 3 onwards.", 0.2, 0.7, "No: "),
        ("Delivery is free for 45 euros.", "Orders of 40 euros or more are delivered free.", 0.9, 0.1, "Yes: "),
        ("Delivery is free for 46 euros.", "Orders of 40 euros or more are delivered free.", 0.1, 0.7, "Yes: "),
        ("Delivery is free for 30 euros.", "Orders of 40 euros or more are delivered free.", 0.9, 0.1, "No: "),
        ("Passwords have at least 12 characters.", "They need at least 10 characters.", 0.9, 0.1, "No: "),
        ("A stay takes 3 nights.", "Members may stay for up to 5 nights.", 0.9, 0.1, "Yes: "),
        ("A stay takes 6 nights.", "Members may stay for up to 5 nights.", 0.9, 0.1, "No: "),
        ("Vouchers expire after 1 year.", "Vouchers are valid for 2 years.", 0.9, 0.1, "No: "),
    ],
)
def test_sentence_that_decides_is_quoted(claim: str, text: str, support: float, refute: float, begins: str) -> None:
    reply = decide_claim.function(claim, claim, [sentence(text)], [judged(support, refute)])
    assert reply.text is not None
    assert reply.text.startswith(begins)
    assert reply.citations[0].quote == text


def test_undecided_claim_shows_the_nearest_sentence() -> None:
    far, near = sentence("Bicycles are in the yard.", 0.3), sentence("Bicycles are in the yard.", 0.6)
    assert decide_claim.function("Is there parking?", "there is parking", [far], [judged(0.1, 0.1)]).text is None
    reply = decide_claim.function("Is there parking?", "there is parking", [near], [judged(0.1, 0.1)])
    assert reply.text == "The sources do not say this directly. Nearest: Bicycles are in the yard."
    assert reply.findings[0].answer is None
    judgements = [judged(0.9, 0.1)]
    far_away = decide_claim.function("There is parking.", "there is parking", [sentence("Ann parks.", 0.4)], judgements)
    assert far_away.findings[0].answer is None


def test_number_within_a_limit_of_a_negated_sentence_decides_nothing() -> None:
    text = "A stay of up to 5 nights is not allowed."
    reply = decide_claim.function("?", "A stay of 3 nights is allowed.", [sentence(text)], [judged(0.1, 0.7)])
    assert reply.findings[0].answer is None


def test_evidence_is_the_nearest_sentences() -> None:
    sentences = [sentence("a"), sentence("b"), sentence("| row | 1 |"), sentence("c")]
    found = claim_evidence.function("Are dogs allowed?", sentences, [0.1, 0.9, 0.8, 0.5], 2)
    assert ([one.text for one in found.sentences], found.claim) == (["b", "c"], "dogs are allowed")


@pytest.mark.parametrize(
    ("claim", "text", "begins"),
    [
        ("A deposit can be paid by card.", "Payment by card is accepted up to £1,000, except for deposits.", "No: "),
        ("Visitors take photographs with flash.", "Photographs without flash are allowed for visitors.", "No: "),
        ("Dürfen Hunde in die Kanzlei?", "Hunde dürfen nicht in die Kanzlei.", "No: "),
        ("Sind Hunde in der Kanzlei erlaubt?", "Hunde sind in der Kanzlei erlaubt.", "Ja: "),
    ],
)
def test_words_decide_against_the_model(claim: str, text: str, begins: str) -> None:
    model = judged(0.9, 0.1) if begins == "No: " else judged(0.0, 0.1)
    reply = decide_claim.function(claim, claim, [sentence(text)], [model])
    assert reply.text is not None
    assert reply.text.replace("Nein: ", "No: ").startswith(begins)


def test_row_of_a_table_is_no_evidence() -> None:
    rows = [sentence("Tank: 1; Beer: Pale Ale; Gyle: 421"), sentence("Gyle 418 is in tank 3.", 0.5)]
    assert [one.text for one in claim_evidence.function("Gyle 418 is in tank 3.", rows, [0.9, 0.5]).sentences] == [
        rows[1].text
    ]
