"""Which document a request is about, and summaries, classes, fields and comparisons of it."""

from __future__ import annotations

import pytest

from orchestra.schema.builtin_models import Answer, Document, Passage
from orchestra.tools.document_choice import (
    choose_documents,
    choose_label,
    compare_passages,
    compose_summary,
    document_sentences,
    field_questions,
    join_fields,
    sentence_count,
    stated_fields,
    stated_labels,
    typed_field,
)

MAIL = Document(
    source="mail_pearson.eml",
    text=(
        "From: Laura Pearson\nSubject: Bill no. 20417\n\nDear all,\n\nI waited 50 minutes. The bill is not correct.\n"
        "It was one surface only. My discount is missing, too. Please correct the bill."
    ),
)
RULES = Document(source="rules.md", text="# Rules\n\nThe pool closes at nine. Dogs may not enter the building at all.")


def passages(*documents: Document) -> list[Passage]:
    return [Passage(source=one.source, text=one.text, start=0, end=len(one.text)) for one in documents]


def test_document_is_chosen_by_closeness_and_its_name() -> None:
    found = choose_documents.function("Sum up what Pearson wrote.", [RULES, MAIL], passages(RULES, MAIL), [0.4, 0.3])
    assert [one.source for one in found.documents] == ["mail_pearson.eml"]
    none = choose_documents.function("Sum up the letter.", [RULES, MAIL], passages(RULES, MAIL), [0.05, 0.1])
    assert none.documents == []


@pytest.mark.parametrize(
    ("request_", "count"),
    [
        ("in two sentences", 2),
        ("in one or two sentences", 2),
        ("briefly", 3),
        ("in at most 4 sentences", 4),
        ("en deux phrases", 2),
    ],
)
def test_sentences_are_as_many_as_asked_for(request_: str, count: int) -> None:
    assert sentence_count(request_) == count


def test_summary_keeps_the_order_and_leaves_out_the_mail_header() -> None:
    parts = document_sentences.function([MAIL])
    assert not any(text.startswith(("From", "Subject")) for text in parts.texts)
    scores = [0.9 if "discount" in text else 0.8 if "waited" in text else 0.1 for text in parts.texts]
    reply = compose_summary.function("Sum it up in two sentences.", parts.sentences, scores, scores)
    assert reply.text == "I waited 50 minutes. My discount is missing, too."
    assert compose_summary.function("Sum it up.", [], [], []).text is None
    (mid_sentence,) = passages(Document(source="a", text="the atlas arrived with a torn cover."))
    assert compose_summary.function("Sum it up.", [mid_sentence], [0.9], [0.9]).text == (
        "The atlas arrived with a torn cover."
    )


def test_summary_does_not_repeat_itself() -> None:
    texts = ("The pool is closed on Monday.", "On Monday the pool is closed.", "Dogs may not enter the building.")
    sentences = passages(*(Document(source=str(at), text=text) for at, text in enumerate(texts)))
    reply = compose_summary.function("Sum it up in two sentences.", sentences, [0.9, 0.9, 0.6], [0.9, 0.9, 0.6])
    assert reply.text == f"{texts[0]} {texts[2]}"


def test_labels_are_read_from_the_request() -> None:
    found = stated_labels.function("Is the message an order, a complaint or a booking?")
    assert found.labels == ["order", "complaint", "booking"]
    assert stated_labels.function("Is the pool open?").labels == []
    reply = choose_label.function("Is it an order or a complaint?", ["order", "complaint"], [0.3, 0.3], [MAIL])
    assert reply.findings[0].answer == "complaint"


def test_fields_are_read_from_the_request() -> None:
    asked = "Extract date, time and dentist of Mrs Pearson's appointment from her mail."
    fields = stated_fields.function(asked)
    assert fields == ["date", "time", "dentist"]
    assert field_questions.function(asked, fields)[0] == "What is the date of Mrs Pearson's appointment?"
    assert stated_fields.function("Extract the order: product, quantity.") == ["product", "quantity"]


def test_missing_fields_are_named() -> None:
    reply = join_fields.function("x", ["date", "time"], [Answer(text="1 May"), Answer(text=None)])
    assert (reply.text, reply.missing) == ("Not found: time.\nDate: 1 May", ["time"])


def test_comparison_has_sentences_of_both_documents() -> None:
    old, new = (
        Document(source=name, text=text) for name, text in (("old.md", "The fee is 5."), ("new.md", "The fee is 7."))
    )
    sentences = passages(old, new)
    reply = compare_passages.function("Compare the fees.", [old, new], sentences, [0.6, 0.6])
    assert reply.text == "old.md: The fee is 5.\nnew.md: The fee is 7."
    assert compare_passages.function("Compare.", [old], sentences[:1], [0.6]).text is None
    about_itself = Passage(source="new.md", text="This version replaces the old one.", start=0, end=34)
    assert compare_passages.function("Compare.", [old, new], [*sentences, about_itself], [0.6, 0.6, 0.7]) == reply


def test_sender_of_a_mail_is_that_of_its_header() -> None:
    reply = join_fields.function("x", ["sender"], [Answer(text="Bob")], [MAIL])
    assert (reply.text, reply.citations[0].quote) == ("Sender: Laura Pearson", "From: Laura Pearson")


def test_document_of_another_kind_than_named_is_not_chosen() -> None:
    asked = "Sum up the letter about the pool."
    assert choose_documents.function(asked, [RULES, MAIL], passages(RULES, MAIL), [0.6, 0.1]).documents == []


LETTER = Document(
    source="visit.txt",
    text=(
        "From: Carmen Ortiz <c@school.example>\nDate: 4 March 2025\nSubject: Visit\n\nDear Ms Rahman,\n\n"
        "we come on Thursday, 10 April. We are 26 pupils and arrive at 10:15; we leave at 13:00. Call 020 5550 0136.\n"
        "The rent is £875.\n\nCarmen Ortiz, 020 5550 0781\n"
    ),
)


@pytest.mark.parametrize(
    ("field", "read", "value"),
    [
        ("phone number", "FL-2207", "020 5550 0781"),
        ("date", None, "10 April"),
        ("number of pupils", "10", "26"),
        ("arrival time", None, "10:15"),
        ("monthly rent", "£875", "£875"),
        ("subject of it", "Visit", "Visit"),
    ],
)
def test_field_has_the_form_of_its_name(field: str, read: str | None, value: str) -> None:
    answer = typed_field(field, Answer(text=read), [LETTER])
    assert answer.text == value
    for quote in answer.citations:
        assert LETTER.text[quote.start : quote.end] == quote.quote


def test_field_without_a_value_of_its_form_has_none() -> None:
    note = Document(source="note.txt", text="Please call me.")
    assert typed_field("phone number", Answer(text="FL-2207"), [note]).text is None


@pytest.mark.parametrize(
    ("request_", "sources"),
    [
        ("Sum up the letter of Carmen Ortiz for me.", ["visit.txt"]),
        ("Sum up the insurer's complaint about surgery.", []),
        ("Summarise the document in two sentences.", ["visit.txt"]),
    ],
)
def test_summary_is_of_a_document_that_mentions_its_subject(request_: str, sources: list[str]) -> None:
    other = Document(source="other.txt", text="Nothing of interest.")
    passages = [Passage(source=one.source, text=one.text, start=0, end=len(one.text)) for one in (LETTER, other)]
    chosen = choose_documents.function(request_, [LETTER, other], passages, [0.6, 0.0])
    assert [one.source for one in chosen.documents] == sources


def test_summary_of_payments_has_the_amounts() -> None:
    parts = ["Le train part à neuf heures.", "Un acompte de 200 euros est à verser.", "Le jeudi est libre."]
    sentences = [Passage(source="a", text=text, start=0, end=len(text)) for text in parts]
    reply = compose_summary.function("Résume en une phrase le paiement.", sentences, [0.6, 0.4, 0.5], [0.3, 0.3, 0.3])
    assert parts[1] in (reply.text or "")
