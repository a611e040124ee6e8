"""Cite: one answer, with every sentence that contains it at the cited position."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.documents.passages import sentence_ends, sentence_span, split_passages
from orchestra.schema.builtin_models import Answer, Document, Passage, Reading
from orchestra.tools import cite, search
from tests.unsafe_reference import assert_cost

DOCUMENT = Document(
    source="a.txt",
    text="Oxygen was found in 1774 by Joseph Priestley in Wiltshire. He published his finding first of all.\n\n"
    "Carl Wilhelm Scheele had found it in 1773 in Uppsala. He wrote of it later in a book on air and fire.\n\n"
    "Many textbooks name Priestley, since his work of 1774 was in print before the work of Scheele was.",
)
PASSAGES = split_passages([DOCUMENT])
FIRST = "Oxygen was found in 1774 by Joseph Priestley in Wiltshire."
SECOND = "Carl Wilhelm Scheele had found it in 1773 in Uppsala."


def read(answer: str | None) -> Reading:
    return Reading(answer=answer)


def test_cite_sentence_of_answer_with_offsets() -> None:
    answer = cite("Who?", [read("carl wilhelm  SCHEELE")], PASSAGES)
    assert answer.text == "carl wilhelm  SCHEELE"
    cited = answer.citations[0]
    assert (cited.source, cited.quote) == ("a.txt", SECOND)
    assert DOCUMENT.text[cited.start : cited.end] == cited.quote


def test_cite_missing_answer_is_none() -> None:
    nothing = Answer(text=None)
    assert cite("Who?", [], PASSAGES) == nothing
    assert cite("Who?", [read(None), read(""), read("?!"), read("Lavoisier")], PASSAGES) == nothing
    assert cite("Who?", [read("Scheele")], []) == nothing


@pytest.mark.parametrize(
    ("question", "quote"),
    [
        ("When was oxygen found in Wiltshire?", FIRST),
        ("Which work of 1774 was in print?", DOCUMENT.text.split("\n\n")[2]),
        ("When?", FIRST),
    ],
)
def test_cite_sentence_nearest_to_question(question: str, quote: str) -> None:
    assert [cited.quote for cited in cite(question, [read("1774")], PASSAGES).citations] == [quote]


def test_cite_first_passage_if_readings_differ() -> None:
    assert cite("Who?", [read("Scheele"), read("Joseph Priestley")], PASSAGES).text == "Joseph Priestley"


def test_cite_agreeing_readings_preferred() -> None:
    third = Passage(source="b.txt", text="In 1773 Scheele was in Uppsala.", start=0, end=31)
    readings = [read("Wiltshire"), read("Uppsala"), read("the Uppsala")]
    passages = [PASSAGES[1], third, PASSAGES[0]]
    assert cite("Where?", readings, passages).text == "Uppsala"


def test_cite_same_sentence_once() -> None:
    assert len(cite("Who?", [read("Scheele")] * 3, PASSAGES).citations) == 1


@pytest.mark.parametrize(
    ("text", "word", "expected"),
    [
        ("It rained. It was made by J. R. Smith of Rome. It was cold.", "Smith", "It was made by J. R. Smith of Rome."),
        ("Ask Dr. Who. He knows!", "Who", "Ask Dr. Who."),
        ("One. Two", "Two", "Two"),
        ("“Come in,” said he.  Then he left.", "left", "Then he left."),
        ("Only this", "Only", "Only this"),
    ],
)
def test_cite_sentence_boundaries(text: str, word: str, expected: str) -> None:
    start, end = sentence_span(text, text.index(word), text.index(word) + len(word))
    assert text[start:end] == expected


WORDS = st.sampled_from(DOCUMENT.text.split())


@given(st.lists(st.none() | WORDS | st.lists(WORDS, min_size=1, max_size=3).map(" ".join), max_size=6))
def test_cite_text_equals_document_span(answers: list[str | None]) -> None:
    answer = cite("Who?", [read(one) for one in answers], PASSAGES)
    assert (answer.text is None) == (not answer.citations)
    assert all(DOCUMENT.text[cited.start : cited.end] == cited.quote for cited in answer.citations)


@given(st.text(alphabet="aA. \n!?“”J", max_size=40), st.data())
def test_cite_sentence_contains_span(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    first, last = sentence_span(text, start, end)
    assert 0 <= first <= start <= end <= last <= len(text)
    assert sentence_span(text, start, end, sentence_ends(text)) == (first, last)


def test_cite_sentences_split_once_per_document() -> None:
    text = "It has a tower. " * 3000

    def cited() -> None:
        answer = cite("What?", [read("tower")], [Passage(source="a", text=text, start=0, end=len(text))])
        assert [cited.quote for cited in answer.citations] == ["It has a tower."]

    assert_cost(cited, at_most=200)  # it takes 5 steps; splitting for each occurrence takes 2,000


def test_cite_accepts_search_results() -> None:
    documents = [Document(source="b.txt", text="\n\n  Intro.\n\n" + DOCUMENT.text), DOCUMENT]
    passages: list[Passage] = search("Where did Scheele find it?", documents)
    answer = cite("Where?", [read("Uppsala")], passages)
    texts = {document.source: document.text for document in documents}
    assert [texts[cited.source][cited.start : cited.end] for cited in answer.citations] == [SECOND]
