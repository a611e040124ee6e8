"""Answers chosen from ranked spans, and the kinds of words that questions ask for."""

from __future__ import annotations

import pytest

from orchestra.schema.builtin_models import Document, Passage
from orchestra.tools.answers import (
    RankedSpan,
    choose_answer,
    document_year,
    find_passages,
    nearest_passages,
    reading_texts,
    split_sentences,
)
from orchestra.tools.question_kinds import answer_kind, is_of_kind, spans_of_kind, whole_amount

TEXT = "A ticket costs 6.50 pounds for adults and 3.80 pounds for children. The pool closes at 19:00."
PASSAGE = Passage(source="pool.md", text=TEXT, start=0, end=len(TEXT))


def span(answer: str, score: float, text: str = TEXT) -> RankedSpan:
    start = text.index(answer)
    return RankedSpan(text=0, start=start, end=start + len(answer), answer=answer, score=score)


def test_best_span_of_the_asked_kind_is_the_answer() -> None:
    spans = [span("19:00", 3.0), span("6.50 pounds", 2.0)]
    answer = choose_answer.function("How much does a ticket cost?", [PASSAGE], spans)
    assert answer.text == "6.50 pounds"
    assert answer.citations[0].quote == TEXT.partition(" The")[0]
    assert TEXT[answer.citations[0].start : answer.citations[0].end] == answer.citations[0].quote


def test_span_of_another_kind_is_no_answer() -> None:
    answer = choose_answer.function("How deep is the pool?", [PASSAGE], [span("19:00", 1.0)])
    assert answer.text is None


def test_words_of_the_question_are_no_answer() -> None:
    spans = [span("closes at 19:00", 8.0), span("The pool", 5.0)]
    assert choose_answer.function("What closes at 19:00?", [PASSAGE], spans).text == "The pool"


@pytest.mark.parametrize(
    ("question", "text", "other", "answer"),
    [
        ("What is the price of the sauna?", "| Locker | £5 |\n| Sauna | £9 |", "£5", "£9"),
        ("What does Ann earn?", "Bob earns 10 pounds a day. Ann earns 12 pounds a day.", "10 pounds", "12 pounds"),
    ],
)
def test_answer_stands_beside_what_the_question_names(question: str, text: str, other: str, answer: str) -> None:
    passage = Passage(source="a.md", text=text, start=0, end=len(text))
    spans = [span(other, 6.0, text), span(answer, 5.0, text)]
    assert choose_answer.function(question, [passage], spans).text == answer


def test_near_sentence_is_cited_without_an_answer() -> None:
    sentences = split_sentences(PASSAGE)
    answer = choose_answer.function("How deep is the pool?", [PASSAGE], [], sentences, [0.2, 0.7])
    assert (answer.text, answer.citations[0].quote) == (None, "The pool closes at 19:00.")
    assert choose_answer.function("How deep is the pool?", [PASSAGE], [], sentences, [0.2, 0.3]).citations == []


def test_latest_document_answers_unless_a_year_is_named() -> None:
    texts = ["A note is needed from the fourth day.", "A note is needed from the eighth day."]
    documents = [
        Document(source=f"notice_{year}.md", text=text) for year, text in zip((2023, 2025), texts, strict=True)
    ]
    sources = [Passage(source=one.source, text=one.text, start=0, end=len(one.text)) for one in documents]
    spans = [
        RankedSpan(text=0, start=24, end=34, answer=texts[0][24:34], score=6.0),
        RankedSpan(text=1, start=24, end=34, answer=texts[1][24:34], score=4.0),
    ]
    now = choose_answer.function("From which day is a note needed?", sources, spans, documents=documents)
    then = choose_answer.function("From which day was a note needed in 2023?", sources, spans, documents=documents)
    assert (now.citations[0].source, then.citations[0].source) == ("notice_2025.md", "notice_2023.md")
    assert document_year(documents[0]) == 2023


def test_passages_are_ranked_by_meaning_and_shared_words() -> None:
    documents = [Document(source="a", text="Dogs bark. " * 12), Document(source="b", text="The price is high. " * 8)]
    found = find_passages.function("What is the price?", documents)
    assert len(found.passages) == len(found.texts) == 2
    best = nearest_passages.function("What is the price?", found.passages, [0.3, 0.3], 1)
    assert [passage.source for passage in best.passages] == ["b"]
    read = reading_texts.function(best.passages, best.sentences, [0.1] * len(best.sentences), 2)
    assert read.texts == [
        "The price is high. The price is high.",
        "The price is high. " * 2 + "The price is high.",
        "The price is high.",
        "The price is high.",
    ]
    assert all(documents[1].text[one.start : one.end] == one.text for one in read.sources)


def test_of_many_passages_those_that_share_words_are_compared() -> None:
    documents = [Document(source=str(number), text=f"Text number {number} is about goats. " * 4) for number in range(9)]
    documents.append(Document(source="z", text="The boiler costs 28,000 pounds in all, they say, and more with pipes."))
    found = find_passages.function("What does the boiler cost?", documents, 3)
    assert "z" in {passage.source for passage in found.passages}
    assert len(found.passages) == 3


@pytest.mark.parametrize(
    ("question", "kind", "fits", "misfits"),
    [
        ("How much does it cost?", "money", "£5", "5 days"),
        ("How long is the notice period?", "duration", "six months", "Berlin"),
        ("How deep is the basin?", "length", "1.8 m", "27 degrees"),
        ("How heavy is it?", "weight", "52 kg", "27 degrees"),
        ("How warm is the water?", "temperature", "31 degrees", "1.8 m"),
        ("By what time must I call?", "time", "9:30", "Monday"),
        ("Until when is it open?", "date", "18:00", "the desk"),
        ("How many people came?", "count", "two", "the desk"),
        ("Who approves it?", "person", "Marta Okafor", "in time"),
        ("Which number do I ring?", "phone", "0113 555 0190", "the desk"),
    ],
)
def test_kind_of_a_question_fits_its_answers(question: str, kind: str, fits: str, misfits: str) -> None:
    found = answer_kind(question)
    assert (found, is_of_kind(fits, found), is_of_kind(misfits, found)) == (kind, True, False)


def test_amounts_of_a_kind_are_found_in_a_sentence() -> None:
    sentence = "Up to 210 euros per night, and up to 140 euros elsewhere."
    assert [sentence[start:end] for start, end in spans_of_kind(sentence, "money")] == ["210 euros", "140 euros"]
    assert spans_of_kind(sentence, "") == []


def test_document_without_a_year_is_later_than_one_dated_by_name() -> None:
    texts = ["A lesson costs 50 euros.", "A lesson costs 54 euros."]
    documents = [
        Document(source=name, text=text) for name, text in zip(("prices_2024.md", "terms.md"), texts, strict=True)
    ]
    sources = [Passage(source=one.source, text=one.text, start=0, end=len(one.text)) for one in documents]
    spans = [
        RankedSpan(text=number, start=15, end=23, answer=texts[number][15:23], score=score)
        for number, score in ((0, 6.0), (1, 4.0))
    ]
    answer = choose_answer.function("How much does a lesson cost?", sources, spans, documents=documents)
    assert answer.text == "54 euros"


def test_number_that_stands_there_is_no_sum_of_several() -> None:
    asked = "How much do the tickets cost altogether?"
    assert choose_answer.function(asked, [PASSAGE], [span("6.50 pounds", 4.0)]).text is None


def withheld(question: str, text: str, answer: str, *more: str) -> bool:
    """Whether a span with a high score is no answer."""
    whole = "\n".join((text, *more))
    passage = Passage(source="notes.md", text=text, start=0, end=len(text))
    documents = [Document(source="notes.md", text=whole)]
    spans = [span(answer, 11.0, text)]
    return choose_answer.function(question, [passage], spans, documents=documents).text is None


ROW = "Farm: Huber; Village: Obertal; Month: May; Milk: 12900 l"


@pytest.mark.parametrize(
    ("question", "text", "answer"),
    [
        ("Which weekdays is it?", "The shop closes at 18:00 in winter.", "18:00"),
        ("What does the damage cost?", "The damage is 43.50 in the table.", "43.50"),
        ("Why did the firm get the order?", "Bottelo got the order of the firm.", "Bottelo"),
        ("When is the shop closed?", "The shop is open on Thursday until 15:00.", "Thursday"),
        ("What do twelve adults pay?", "Adults pay £12 each.", "£12"),
        ("What does the farm of Keller deliver?", "The farm delivers 5900 l of milk.", "5900 l"),
        ("Which village has the fattest milk in May?", ROW, "Obertal"),
        ("Who is the judge in the case of Huber?", ROW, "Obertal"),
    ],
)
def test_span_that_fails_a_check_is_no_answer(question: str, text: str, answer: str) -> None:
    assert withheld(question, text, answer)


@pytest.mark.parametrize(
    ("question", "text", "answer"),
    [
        ("Which weekdays is it?", "The shop is open on Tuesdays and Fridays.", "Tuesdays and Fridays"),
        ("What do twelve adults pay?", "A group of twelve adults pays £100.", "£100"),
        ("What does the farm of Keller deliver?", "The farm of Keller delivers 5900 l of milk.", "5900 l of milk"),
        ("How much milk did the farm Huber deliver in May?", ROW, "12900 l"),
    ],
)
def test_span_that_passes_the_checks_is_the_answer(question: str, text: str, answer: str) -> None:
    assert not withheld(question, text, answer)


def test_cell_of_a_row_with_a_twin_is_no_answer() -> None:
    other = "Farm: Steiner; Village: Obertal; Month: May; Milk: 10100 l"
    question = "How much milk did Obertal get in May?"
    assert not withheld(question, ROW, "12900 l")
    assert withheld(question, ROW, "12900 l", other)


def test_name_is_looked_up_in_the_whole_question() -> None:
    text = "The farm delivers 5900 l of milk."
    passage = Passage(source="a.md", text=text, start=0, end=len(text))
    documents = [Document(source="a.md", text=text)]
    for context, answer in (("", "5900 l"), ("Where is the Keller farm, and how much does it deliver?", None)):
        chosen = choose_answer.function(
            "how much does it deliver?", [passage], [span("5900 l", 11.0, text)], documents=documents, context=context
        )
        assert chosen.text == answer


def test_foreign_amount_of_another_clause_is_not_the_answer() -> None:
    text = "Le train part de Bruxelles le 12 octobre à 9 h 17 et arrive à Lyon à 13 h 30."
    passage = Passage(source="a.md", text=text, start=0, end=len(text))
    question = "À quelle heure part le train pour Lyon ?"
    answer = choose_answer.function(question, [passage], [span("13 h 30", 6.0, text)], [passage], [0.3])
    assert answer.text == "9 h 17"


def test_ever_keeps_its_preposition() -> None:
    text = "Files are kept for six years, wills for ever."
    passage = Passage(source="a.md", text=text, start=0, end=len(text))
    assert choose_answer.function("How are wills kept?", [passage], [span("ever", 11.0, text)]).text == "for ever"


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("À quelle heure part le train ?", "time"),
        ("Was kostet ein Dolmetscher?", "money"),
        ("Wie viele Bücher darf ich ausleihen?", "count"),
        ("¿Cuánto dura la prueba?", "duration"),
        ("¿Hasta cuándo puedo inscribirme?", "date"),
        ("On which weekdays do they come?", "weekday"),
        ("What's the most a client has to pay?", "money"),
        ("Why did it fail?", "reason"),
    ],
)
def test_kind_of_a_question(question: str, kind: str) -> None:
    assert answer_kind(question) == kind


@pytest.mark.parametrize(
    ("text", "kind", "spans"),
    [
        ("um 17 Uhr, à 9 h 17", "time", ["17 Uhr", "9 h 17"]),
        ("antes del 25 de marzo de 2025", "date", ["25 de marzo de 2025"]),
        ("für drei Wochen", "duration", ["drei Wochen"]),
        ("on Tuesdays and Fridays", "weekday", ["Tuesdays and Fridays"]),
    ],
)
def test_amounts_of_a_kind_in_other_languages(text: str, kind: str, spans: list[str]) -> None:
    assert [text[slice(*one)] for one in spans_of_kind(text, kind)] == spans  # type: ignore[arg-type]


def test_fullness_is_no_date() -> None:
    assert not is_of_kind("Three quarters full", "date")


@pytest.mark.parametrize(
    ("text", "part", "asked", "whole"),
    [
        ("Members have 28 days to object.", "28", "", "28 days"),
        ("Members have 28 calendar days to object.", "28", "", "28 calendar days"),
        ("The hut sleeps 15 guests at most.", "15", "guest", "15 guests"),
        ("The hut sleeps 15 guests at most.", "15", "bed", "15"),
        ("Six small blue cups are left.", "Six", "cup", "Six small blue cups"),
        ("A copy costs €50.", "50", "", "€50"),
        ("The oven is at 220 degrees Celsius.", "220", "", "220 degrees Celsius"),
        ("The tank holds 120 litres.", "120", "", "120 litres"),
        ("We meet on 8 October.", "8", "", "8 October"),
        ("A loan is renewed twice.", "twice", "", "twice"),
        ("Ask in room 12 on days off.", "12", "", "12"),
        ("At least three of the days are free.", "three", "", "three"),
        ("In October 2024 it rained.", "October", "", "October"),
    ],
)
def test_amount_is_completed_by_its_unit(text: str, part: str, asked: str, whole: str) -> None:
    start = text.index(part)
    first, last = whole_amount(text, start, start + len(part), frozenset([asked]))
    assert text[first:last] == whole


def test_answer_has_the_unit_of_the_document() -> None:
    text = "Tenants have 28 days to object to a notice."
    passage = Passage(source="lease.md", text=text, start=0, end=len(text))
    answer = choose_answer.function("How many days do tenants have to object?", [passage], [span("28", 6.0, text)])
    assert answer.text == "28 days"
