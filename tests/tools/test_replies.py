"""Replies in sentences, in the language of the question."""

from __future__ import annotations

import pytest

from orchestra.schema.builtin_models import Answer, Citation
from orchestra.tools.replies import (
    Reply,
    answer_sentence,
    join_answers,
    language_of,
    not_found_sentence,
    question_parts,
    split_questions,
)

QUOTE = Citation(quote="Bicycles are in the yard.", source="a.md", start=0, end=25)


@pytest.mark.parametrize(
    ("question", "answer", "sentence"),
    [
        ("Who approves expense receipts?", "Marta Okafor", "Marta Okafor approves expense receipts."),
        ("What is the help desk's extension?", "4417", "The help desk's extension is 4417."),
        ("What is my budget?", "£600", "Your budget is £600."),
        ("How many days do I get?", "27", "27."),
        ("Wer genehmigt das?", "Marta Okafor", "Marta Okafor."),
    ],
)
def test_answer_is_put_into_the_words_of_the_question(question: str, answer: str, sentence: str) -> None:
    assert answer_sentence(question, answer) == sentence


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How warm is it?", "en"),
        ("Wie viele Bücher darf ich ausleihen?", "de"),
        ("À quelle heure est le train pour Lyon ?", "fr"),
        ("Le Bon?", "en"),
        ("¿Cuánto dura la prueba de inglés y el examen?", "es"),
    ],
)
def test_language_is_that_of_the_small_words(text: str, language: str) -> None:
    assert language_of(text) == language


def test_question_that_is_not_answered_is_named_in_its_language() -> None:
    assert not_found_sentence("Wie ist das Passwort?").startswith("In den Quellen ist nicht angegeben")


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        ("What is the extension, and until when is it open?", ["What is the extension?", "until when is it open?"]),
        ("Who wrote the rules and regulations?", ["Who wrote the rules and regulations?"]),
        ("Tell me about it and why.", ["Tell me about it and why."]),
    ],
)
def test_question_is_split_before_its_question_words(question: str, parts: list[str]) -> None:
    assert [part.question for part in question_parts.function(question)] == parts


def test_part_with_few_words_is_compared_by_the_whole_question() -> None:
    whole = "How hot does the autoclave have to get, and for how long?"
    assert [part.context for part in question_parts.function(whole)] == [
        "How hot does the autoclave have to get?",
        whole,
    ]


def test_parts_without_answers_are_named() -> None:
    reply = join_answers.function(
        ["Who is it?", "When was it?"], [Answer(text="Ann", citations=[QUOTE]), Answer(text=None)]
    )
    text = "The sources do not say: When was it? Ann."
    assert (reply.text, reply.missing, reply.citations) == (text, ["When was it?"], [QUOTE])


def test_nearest_sentence_is_shown_without_an_answer() -> None:
    reply = join_answers.function(["Is there parking?"], [Answer(text=None, citations=[QUOTE])])
    assert reply.text == "The sources do not say this directly. Nearest: Bicycles are in the yard."
    assert join_answers.function(["Is there parking?"], [Answer(text=None)]).text is None


def test_computed_amount_replaces_the_answer() -> None:
    computed = Reply(text="€80.", computation="250 * 0.32 = 80")
    assert join_answers.function(["How much?"], [Answer(text="0.32")], computed) == computed
    assert join_answers.function(["How much?"], [Answer(text="0.32")], Reply(text=None)).text == "0.32."
    parts = join_answers.function(["How much?", "Who?"], [Answer(text="0.32"), Answer(text="Ann")], computed)
    assert parts.text == "0.32. Ann."


def test_question_word_alone_takes_the_words_of_the_other_part() -> None:
    assert split_questions("What goes off first in the cupboard, and when?") == [
        "What goes off first in the cupboard?",
        "when goes off first in the cupboard?",
    ]


def test_question_in_spanish_is_split() -> None:
    assert split_questions("¿Con quién tengo que hablar y hasta cuándo es?") == [
        "¿Con quién tengo que hablar?",
        "hasta cuándo es?",
    ]


def test_same_answer_to_two_parts_counts_once() -> None:
    answers = [Answer(text="Ann", citations=[QUOTE])] * 2
    reply = join_answers.function(["Who is it?", "Why is it so?"], answers)
    assert (reply.text, reply.missing) == ("The sources do not say: Why is it so? Ann.", ["Why is it so?"])
