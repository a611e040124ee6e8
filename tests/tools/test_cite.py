"""Cite: one answer, and every quote where it says it stands."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestra.tools import cite, search
from orchestra.tools.passages import split
from orchestra.values.models import Answer, Document, Passage, Reading

DOCUMENT = Document(
    source="a.txt",
    text="Oxygen was found in 1774 by Joseph Priestley in Wiltshire, who published his finding first of all.\n\n"
    "Carl Wilhelm Scheele had found it in 1773 in Uppsala, and wrote of it later in a book on air and fire.\n\n"
    "Many textbooks name Priestley, since his work of 1774 was in print before the work of Scheele was.",
)
PASSAGES = split([DOCUMENT])


def read(answer: str | None, quote: str | None) -> Reading:
    return Reading(answer=answer, quote=quote)


def test_the_quote_is_cited_with_its_place_in_the_document() -> None:
    answer = cite("Who?", [read("Scheele", "carl wilhelm  SCHEELE")], PASSAGES)
    assert answer.text == "Scheele"
    cited = answer.citations[0]
    assert (cited.source, cited.quote) == ("a.txt", "Carl Wilhelm Scheele")
    assert DOCUMENT.text[cited.start : cited.end] == cited.quote


def test_without_a_supported_reading_there_is_no_answer() -> None:
    nothing = Answer(text=None)
    assert cite("Who?", [], PASSAGES) == nothing
    assert (
        cite("Who?", [read(None, None), read(None, "Scheele"), read("x", None), read("", "Scheele"), read("?!", "Scheele")], PASSAGES)
        == nothing
    )
    assert cite("Who?", [read("Lavoisier", "Lavoisier was first")], PASSAGES) == nothing
    assert cite("Who?", [read("Scheele", "Scheele")], []) == nothing


def test_a_quote_without_a_word_of_the_answer_supports_nothing() -> None:
    assert cite("Who?", [read("Priestley", "it in 1773 in Uppsala")], PASSAGES) == Answer(text=None)
    assert cite("When?", [read("In 1773", "it in 1773 in Uppsala")], PASSAGES).text == "In 1773"


def test_the_first_passage_wins_where_readings_differ() -> None:
    answer = cite("Who?", [read("Scheele", "Carl Wilhelm Scheele"), read("Priestley", "Joseph Priestley")], PASSAGES)
    assert answer.text == "Priestley"


def test_readings_that_agree_win_over_one_that_is_first_but_unsupported_by_its_quote() -> None:
    readings = [read("Lavoisier", "found in 1774"), read("the Scheele", "Carl Wilhelm Scheele"), read("scheele", "work of Scheele")]
    answer = cite("Who?", readings, PASSAGES)
    assert answer.text == "the Scheele"
    assert len(answer.citations) == 2


def test_the_same_quote_is_cited_once() -> None:
    answer = cite("Who?", [read("Scheele", "Carl Wilhelm Scheele")] * 3, PASSAGES)
    assert len(answer.citations) == 1


WORDS = st.sampled_from(DOCUMENT.text.split())


@given(st.lists(st.tuples(st.none() | WORDS, st.none() | WORDS | st.lists(WORDS, min_size=1, max_size=3).map(" ".join)), max_size=6))
def test_every_citation_is_the_documents_own_text(pairs: list[tuple[str | None, str | None]]) -> None:
    answer = cite("Who?", [read(*pair) for pair in pairs], PASSAGES)
    assert (answer.text is None) == (not answer.citations)
    assert all(DOCUMENT.text[cited.start : cited.end] == cited.quote for cited in answer.citations)


def test_what_search_finds_can_be_cited() -> None:
    documents = [Document(source="b.txt", text="\n\n  Intro.\n\n" + DOCUMENT.text), DOCUMENT]
    passages: list[Passage] = search("Where did Scheele find it?", documents)
    answer = cite("Where?", [read("Uppsala", "in 1773 in Uppsala")], passages)
    texts = {document.source: document.text for document in documents}
    assert [texts[cited.source][cited.start : cited.end] for cited in answer.citations] == ["in 1773 in Uppsala"]
