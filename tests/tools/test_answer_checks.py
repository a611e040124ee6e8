"""Whether a source has what a question names, and which of several amounts its words belong to."""

from __future__ import annotations

import pytest

from orchestra.tools.answer_checks import (
    clause_of,
    is_record,
    nearest_amount,
    shared_words,
    unknown_names,
    word_stems,
)
from orchestra.tools.question_kinds import spans_of_kind

TRAIN = "Le train part de Bruxelles le 12 octobre à 9 h 17 et arrive à Lyon à 13 h 30."
COURSES = "A standard course of 30 lessons costs €390, an intensive course of 60 lessons €720."


def test_word_stems_forms_and_accents_are_equal() -> None:
    assert word_stems("Les réunions") == word_stems("reunion") == {"reuni"}


def test_word_stems_code_is_kept() -> None:
    assert word_stems("the B2 of it") == {"b2"}


def test_shared_words_is_a_share() -> None:
    assert shared_words("When does the train leave Lyon?", TRAIN) == pytest.approx(2 / 3)
    assert shared_words("Who?", TRAIN) == 0.0


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("How much did the Keller farm deliver?", ["Keller"]),
        ("How much did the Berger farm deliver in May?", []),
        ("What does Mr Berger's farm deliver?", []),
        ("Was liefert der Hof Keller?", []),
    ],
)
def test_unknown_names_are_those_without_a_place(question: str, names: list[str]) -> None:
    assert unknown_names(question, "The farm of Berger delivers milk.") == names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tank: 1; Beer: Pale Ale; Gyle: 421", True),
        ("Present: Ann, Ben and Carl.", False),
        ("Fees: none; ask first.", False),
    ],
)
def test_is_record_row_of_a_table(text: str, expected: bool) -> None:
    assert is_record(text) is expected


def test_clause_of_ends_at_a_conjunction() -> None:
    spans = spans_of_kind(TRAIN, "time")
    assert "Lyon" not in clause_of(TRAIN, spans, 0)
    assert "Lyon" in clause_of(TRAIN, spans, 1)


@pytest.mark.parametrize(
    ("question", "text", "kind", "amount"),
    [
        ("À quelle heure part le train pour Lyon ?", TRAIN, "time", "9 h 17"),
        ("What does the intensive course cost?", COURSES, "money", "€720"),
        ("¿Cuánto cuesta el examen B2?", "El examen B1 cuesta 165 euros y el B2, 190 euros.", "money", "190 euros"),
    ],
)
def test_nearest_amount_is_of_the_clause(question: str, text: str, kind: str, amount: str) -> None:
    chosen = nearest_amount(question, text, spans_of_kind(text, kind))  # type: ignore[arg-type]
    assert chosen is not None
    assert text[slice(*chosen)] == amount


def test_nearest_amount_tie_has_none() -> None:
    assert nearest_amount("What is the price?", COURSES, spans_of_kind(COURSES, "money")) is None
