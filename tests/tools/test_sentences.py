"""Sentences over wrapped lines."""

from __future__ import annotations

from orchestra.tools.sentences import numbered_sentences, sentence_spans, surrounding_span

WRAPPED = (
    "# Meeting\n\nOwen will switch on text reminders 48 hours before each\nappointment. Letters are no longer sent.\n\n"
    "- Ann calls the customer about bill no. 20417.\n- Bob writes.\n"
)


def test_wrapped_line_continues_its_sentence() -> None:
    texts = [text for _, _, text in numbered_sentences(WRAPPED)]
    assert texts == [
        "# Meeting",
        "Owen will switch on text reminders 48 hours before each appointment.",
        "Letters are no longer sent.",
        "- Ann calls the customer about bill no. 20417.",
        "- Bob writes.",
    ]


def test_span_around_a_word_is_its_sentence() -> None:
    spans = sentence_spans(WRAPPED)
    at = WRAPPED.index("Letters")
    start, end = surrounding_span(spans, at, at + 7)
    assert WRAPPED[start:end] == "Letters are no longer sent."
