"""Amounts computed from rates, prices and quantities."""

from __future__ import annotations

import pytest

from orchestra.schema.builtin_models import Document, Passage, Table
from orchestra.tools.computation import compute_amount
from orchestra.tools.table_answers import with_unit

PRICES = Document(
    source="fees.md",
    text=(
        "| Treatment | Fee |\n|---|---|\n| Root canal, front tooth | £390 |\n"
        "| Root canal, molar | £585 |\n| Porcelain crown | £720 |"
    ),
)
BEER = Table(name="beer", cells=[["Beer", "Cask", "Keg"], ["Pale Ale", "£92", "£120"], ["Stout", "£98", "£130"]])


@pytest.mark.parametrize(
    ("question", "sentence", "text", "computation"),
    [
        (
            "I drove 250 km by my own car. How much do I get back?",
            "Employees who use their private car receive 0.32 euros per kilometre.",
            "€80.",
            "250 * 0.32 = 80",
        ),
        (
            "Brightec delivered an order of 10,000 euros 4 weeks late. What penalty do they owe?",
            "It owes a penalty of 0.5 percent of the order value per week of delay, and at most 5 percent of it.",
            "€200.",
            "10000 * 0.5 / 100 * 4 = 200",
        ),
        (
            "Brightec delivered an order of 10,000 euros 14 weeks late. What penalty do they owe?",
            "It owes a penalty of 0.5 percent of the order value per week of delay, and at most 5 percent of it.",
            "€500.",
            "10000 * 5 / 100 = 500",
        ),
        (
            "What does a root canal on a molar cost a member after the discount?",
            "The plan includes a discount of 15 % on all other treatments.",
            "£497.25.",
            "585 * (100 - 15) / 100 = 497.25",
        ),
        (
            "Someone pays the porcelain crown in instalments. How much is it per month?",
            "It may be paid in six equal monthly instalments without interest.",
            "£120.",
            "720 / 6 = 120",
        ),
        (
            "What do 6 casks of Pale Ale and 2 casks of Stout cost?",
            "Prices are without VAT.",
            "£748.",
            "6 * 92 + 2 * 98 = 748",
        ),
        (
            "What would it cost to bring it to a site 23 km away?",
            "Delivery within 15 km costs €25 a trip; each further kilometre costs €1.30.",
            "€35.40.",
            "25 + (23 - 15) * 1.3 = 35.4",
        ),
        (
            "A teacher drove 46 km. What travel money is due?",
            "It is paid with €0.38 per kilometre beyond the first ten kilometres of a day.",
            "€13.68.",
            "(46 - 10) * 0.38 = 13.68",
        ),
        (
            "What would a party of 12 pay for a guided visit?",
            "It costs £16 per person, £14 for groups of ten or more.",
            "£168.",
            "12 * 14 = 168",
        ),
        (
            "What would a party of 6 pay for a guided visit?",
            "It costs £16 per person, £14 for groups of ten or more.",
            "£96.",
            "6 * 16 = 96",
        ),
        (
            "A patient called off a one-hour visit. What do we bill for that?",
            "After that, a fee of £30 is charged for each half hour that was reserved.",
            "£60.",
            "2 * 30 = 60",
        ),
        (
            "What do two pallets cost?",
            "Beyond 40 miles we deliver on pallets only, at £55 a pallet.",
            "£110.",
            "2 * 55 = 110",
        ),
    ],
)
def test_amount_is_computed_from_sources(question: str, sentence: str, text: str, computation: str) -> None:
    passage = Passage(source="rules.md", text=sentence, start=0, end=len(sentence))
    reply = compute_amount.function(question, [passage], [0.6], [PRICES], [BEER])
    assert (reply.text, reply.computation) == (text, computation)
    assert reply.citations or reply.cells


@pytest.mark.parametrize(
    ("question", "sentence", "score"),
    [
        ("I drove 250 km. How much do I get back?", "Meals cost 28 euros per day.", 0.6),
        ("I drove 250 km. How much do I get back?", "You get 0.32 euros per kilometre.", 0.1),
        ("Who drove 250 km?", "You get 0.32 euros per kilometre.", 0.6),
    ],
)
def test_no_amount_without_a_near_rate_of_the_unit(question: str, sentence: str, score: float) -> None:
    passage = Passage(source="rules.md", text=sentence, start=0, end=len(sentence))
    assert compute_amount.function(question, [passage], [score]).text is None


def test_rate_of_a_document_dated_by_its_name_is_not_the_current_one() -> None:
    texts = ["You get 0.30 euros per kilometre.", "You get 0.32 euros per kilometre."]
    documents = [
        Document(source=name, text=text) for name, text in zip(("rules_2022.md", "rules.md"), texts, strict=True)
    ]
    sentences = [Passage(source=one.source, text=one.text, start=0, end=len(one.text)) for one in documents]
    asked = "I drove 100 km. How much do I get back?"
    assert compute_amount.function(asked, sentences, [0.7, 0.68], documents).text == "€32."
    assert compute_amount.function(f"{asked} In 2022?", sentences, [0.7, 0.68], documents).text == "€30."


@pytest.mark.parametrize(
    ("value", "text"), [("6.6", "£6.60"), ("6.65", "£6.65"), ("6", "£6"), ("1,234.5", "£1,234.50")]
)
def test_money_has_no_or_two_decimals(value: str, text: str) -> None:
    assert with_unit(value, "GBP") == text
    assert with_unit("6.6", "km") == "6.6 km"
