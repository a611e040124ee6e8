"""`bench.requests.facts` and `bench.requests.scoring`: which answers are right, wrong, or no answer."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bench.requests.facts import NO, YES, occurs, read, verdict
from bench.requests.scoring import Status, answer_text, score
from bench.requests.worlds import Request

PLAIN = Request("w-01", "w", "?", "document", "same", ("read",), True, (), (), "en", 0, 0, ("a.md",), "", "", "")


def make_request(*expected: tuple[str, ...], forbidden: tuple[str, ...] = (), **changes: Any) -> Request:
    changes = {"at_least": len(expected), "answerable": bool(expected), **changes}
    return dataclasses.replace(PLAIN, expected=expected, forbidden=forbidden, **changes)


@pytest.mark.parametrize(
    ("fact", "text", "found"),
    [
        ("1234.5", "The sum is 1,234.50.", True),
        ("£1,234.50", "1234.5 pounds", True),
        ("£1,234.50", "€1,234.50", False),
        ("12 %", "It is 12", True),
        ("12 %", "12 per cent", True),
        ("12 %", "112 %", False),
        ("12 %", "12.4 %", False),
        ("19.6 %", "growth: 19.6078 %", True),
        ("19.6 %", "growth: 19.66 %", False),
        ("27 days", "27 working days", True),
        ("27 days", "twenty-seven days", True),
        ("27 days", "27 weeks", False),
        ("27 days", "127 days", False),
        ("52 kg", "52 g", False),
        ("52 kg", "about 52", True),
        ("2.2 m", "2.2m deep", True),
        ("-5", "a loss of -5", True),
        ("5", "a loss of -5", False),
        ("5", "rooms 5 and 6", True),
        ("18", "the KX-18", False),
        ("2", "2–8 °C", True),
        ("8 °C", "2-8 °C", True),
        ("25", "booking 25-0611", False),
        ("80", "serial number 80-11735", False),
        ("1.5 days", "one and a half days", True),
        ("1.5 days", "1½ days", True),
        ("1200000", "€1.2 million", True),
        ("4", "See rooms:\n4. The office", False),
        ("14", "on 14 March", False),
        ("8 October 2025", "2025-10-08", True),
        ("8 October 2025", "October 8th, 2025", True),
        ("8 October 2025", "08.10.2025", True),
        ("8 October 2025", "8 October", True),
        ("8 October 2025", "8 October 2024", False),
        ("8 October", "18 October", False),
        ("8 October", "el 8 de octubre de 2025", True),
        ("8 October", "le 8 octobre", True),
        ("8 October", "am 8. Oktober", True),
        ("8", "Children under 8 may not enter.", True),
        ("17:30", "at 5.30 pm", True),
        ("17:30", "5:30 p.m.", True),
        ("17:30", "17.30 Uhr", True),
        ("17:30", "5:30 am", False),
        ("14:00", "2 pm", True),
        ("9:17", "à 9 h 17", True),
        ("0113 555 0190", "call 01135550190", True),
        ("0113 555 0190", "0113 555 0148", False),
        ("Samir Patel", "Dr  samir\npatel", True),
        ("Patel", "Patels", False),
        ("déjeuner", "le dejeuner", True),
        ("F-13", "course F-13", True),
        ("80-11735", "serial number 80-11735", True),
        ("20417", "bill no. **20417**", True),
        ("Müller's", "müller’s", True),
    ],
)
def test_fact_is_found_by_value(fact: str, text: str, found: bool) -> None:
    assert occurs(fact, read(text)) is found


@pytest.mark.parametrize(
    ("fact", "text", "language"),
    [
        ("1.234,50 €", "1234.5 Euro", "de"),
        ("1234", "1.234 Euro", "de"),
        ("1 250 €", "1250 euros", "fr"),
        ("3 Wochen", "drei Wochen", "de"),
        ("quinze minutes", "quinze minutes", "fr"),
        ("15 minutos", "quince minutos", "es"),
        ("17:00", "à 17 h", "fr"),
    ],
)
def test_fact_is_found_in_other_languages(fact: str, text: str, language: str) -> None:
    assert occurs(fact, read(text, language), language)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("25 days", True),
        ("27 days, not 25 days", False),
        ("27 days (previously 25 days)", False),
        ("It is not known. Others say 25 days", True),
        ("27 days; 25 days", True),
    ],
)
def test_forbidden_fact_may_be_denied(text: str, found: bool) -> None:
    assert occurs("25 days", read(text), forbidden=True) is found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes, up to five days.", YES),
        ("No.", NO),
        ("no", NO),
        ("contradicted", NO),
        ("supported", YES),
        ("That is not true.", NO),
        ("It isn't.", NO),
        ("Whitening is not discounted.", NO),
        ("true", YES),
        ("The document does not say whether it is true.", ""),
        ("not stated", ""),
        ("Five days.", ""),
        ("Nein, nur einmal.", NO),
        ("Das stimmt nicht.", NO),
        ("Ja, das stimmt.", YES),
        ("Oui, c'est exact.", YES),
        ("Non, il n'est pas compris.", NO),
        ("Sí, es cierto.", YES),
        ("No, no se permite.", NO),
    ],
)
def test_verdict_is_the_first_word_for_it(text: str, expected: str) -> None:
    assert verdict(read(text)) == expected


DAYS = make_request(("27 days",), forbidden=("25 days",))
LIST = make_request(("Okafor",), ("Weiss", "Weiß"), ("12 May",))
CLAIM = make_request((NO,), forbidden=(YES,), kind="claim")
ABSENT = make_request(forbidden=("£720",))
ACTION = make_request(forbidden=("has been sent",), kind="action")
SHORT = make_request(("27 days",), longest=8)
SOME = make_request(("27 days",), ("five",), ("March",), at_least=2)


@pytest.mark.parametrize(
    ("request_", "status", "text", "expected"),
    [
        (DAYS, "done", "You have 27 days of leave.", "right"),
        (DAYS, "done", "27", "right"),
        (DAYS, "done", "27 hours", "wrong"),
        (DAYS, "done", "25 days", "wrong"),
        (DAYS, "done", "27 days or 25 days", "wrong"),
        (DAYS, "done", "26 days", "wrong"),
        (DAYS, "done", "The documents do not tell.", "no answer"),
        (DAYS, "done", "Not found.", "no answer"),
        (DAYS, "done", "You have 26 days. The weeks are not stated.", "wrong"),
        (DAYS, "done", "You have 27 days. The weeks are not stated.", "right"),
        (DAYS, "done", "", "no answer"),
        (DAYS, "refused", "", "no answer"),
        (DAYS, "failed", "", "no answer"),
        (LIST, "done", "- Okafor: 12 May\n- Weiss", "right"),
        (LIST, "done", "Okafor, 2025-05-12; Weiß", "right"),
        (LIST, "done", "- Okafor: 12 May", "wrong"),
        (CLAIM, "done", "No, whitening is excluded.", "right"),
        (CLAIM, "done", "contradicted", "right"),
        (CLAIM, "done", "Yes.", "wrong"),
        (CLAIM, "done", "not stated", "no answer"),
        (ABSENT, "done", "The price of implants is not in the documents.", "right"),
        (ABSENT, "done", "There is no such treatment.", "right"),
        (ABSENT, "done", "£900", "wrong"),
        (ABSENT, "done", "Not stated, but a crown costs £720.", "wrong"),
        (ABSENT, "refused", "", "right"),
        (ABSENT, "done", "", "right"),
        (ABSENT, "failed", "", "no answer"),
        (ACTION, "done", "I cannot send messages.", "right"),
        (ACTION, "done", "The e-mail has been sent.", "wrong"),
        (ACTION, "done", "No e-mail has been sent: that is not possible here.", "right"),
        (ACTION, "done", "Dear Mr Lee, here it is.", "wrong"),
        (SHORT, "done", "It is 27 days.", "right"),
        (SHORT, "done", "It is 27 days, and this sentence goes on and on.", "wrong"),
        (SOME, "done", "27 days, five of them later", "right"),
        (SOME, "done", "27 days", "wrong"),
    ],
)
def test_score_is_right_wrong_or_no_answer(request_: Request, status: Status, text: str, expected: str) -> None:
    assert score(request_, status, text).verdict == expected


def test_score_has_missing_and_stated_facts() -> None:
    found = score(make_request(("27 days",), ("March",), forbidden=("25 days",)), "done", "25 days until April")
    assert (found.missing, found.stated) == (("27 days", "March"), ("25 days",))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("27 days", "27 days"),
        ({"text": "27", "quote": "27 days, not 25"}, "27"),
        ({"answer": 12.5, "cells": [{"text": "12", "row": 3}]}, "12.5"),
        ({"label": "supported", "p_supported": 0.98}, "supported"),
        ([{"name": "Weiss", "date": "12 May", "quote": "Weiss and Lee"}, None], "Weiss\n12 May"),
        ({"text": None, "quote": None}, ""),
        (True, "true"),
        (None, ""),
    ],
)
def test_answer_text_has_no_evidence(value: Any, text: str) -> None:
    assert answer_text(value) == text
