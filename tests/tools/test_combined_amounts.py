"""Amounts that several numbers of the sources give together."""

from __future__ import annotations

import pytest

from orchestra.schema.builtin_models import Document, Passage, Table
from orchestra.tools.computation import compute_amount


def compute(
    question: str, *documents: tuple[str, str], tables: tuple[Table, ...] = ()
) -> tuple[str | None, str | None]:
    files = [Document(source=name, text=text) for name, text in documents]
    sentences = []
    for name, text in documents:
        at = 0
        for part in text.split("\n"):
            sentences.append(Passage(source=name, text=part, start=at, end=at + len(part)))
            at += len(part) + 1
    reply = compute_amount.function(question, sentences, [0.6] * len(sentences), files, list(tables))
    return reply.text, reply.computation


@pytest.mark.parametrize(
    ("question", "text", "answer"),
    [
        (
            "How much of the scanner is still unpaid?",
            "The scanner was delivered in May.\nIt costs £1,980, of which £500 were paid with the order.",
            ("£1480.", "1980 - 500 = 1480"),
        ),
        (
            "Combien faut-il encore payer après l'acompte pour le séjour ?",
            "Le séjour coûte 640 euros, train compris.\nUn acompte de 200 euros est à verser en mai, le reste en juin.",
            ("€440.", "640 - 200 = 440"),
        ),
        (
            "How much does the offer of Hagen come to altogether?",
            "The offer of Hagen is €18,400 for the roof, €2,150 for the gutters and 6 hours at €50.",
            ("€20850.", "18400 + 2150 + 6 * 50 = 20850"),
        ),
        (
            "What percentage of the milk samples failed in April?",
            "In April 12 of 80 milk samples failed.",
            ("15 %.", "12 / 80 * 100 = 15"),
        ),
    ],
)
def test_combined_amount_of_sentences(question: str, text: str, answer: tuple[str, str]) -> None:
    assert compute(question, ("notes.md", text)) == answer


def test_rest_without_a_part_has_no_amount() -> None:
    text = "The scanner costs £1,980.\nThe printer of the front desk costs £500."
    assert compute("How much of the scanner is still unpaid?", ("notes.md", text)) == (None, None)


def test_sum_of_a_list_of_prices_has_no_amount() -> None:
    text = "A standard course costs €390, an intensive course €720."
    assert compute("What do the courses cost in total?", ("notes.md", text)) == (None, None)


OLD = ("rates_2023.md", "Hourly rates: partner £240, associate £170.\nThe deposit is £100.")
NEW = ("rates_2025.md", "Work is charged by the hour: partner £260, associate £185.\nThe deposit is £150.")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How much more does a partner cost now than in 2023?", ("£20.", "260 - 240 = 20")),
        ("How much higher is the deposit now?", ("£50.", "150 - 100 = 50")),
    ],
)
def test_difference_of_two_versions(question: str, answer: tuple[str, str]) -> None:
    assert compute(question, OLD, NEW) == answer


def test_difference_without_an_older_version_has_no_amount() -> None:
    assert compute("How much more does a partner cost now?", NEW) == (None, None)


FEES = Table(
    name="fees.md table 1",
    cells=[["Service", "Fee (GBP)"], ["Will, couple", "450"], ["Power of attorney", "190"]],
)
RULES = (
    "fees.md",
    "Members of the union pay 20 % less for the power of attorney.\nClients over 65 get a discount of 10 % on wills.\n"
    "Groups of four or more get 15 % off the tour.\nAdults pay £12 for the tour.",
)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What does a will for a couple cost a client of 70?", "£405."),
        ("What does a will for a couple cost a client of 60?", None),
        ("What does the power of attorney cost a member of the union?", "£152."),
        ("What do five adults pay for the tour as a group?", "£51."),
        ("What do three adults pay for the tour as a group?", "£36."),
    ],
)
def test_reduction_applies_to_its_group_only(question: str, answer: str | None) -> None:
    assert compute(question, RULES, tables=(FEES,))[0] == answer


def test_rate_of_a_table_is_multiplied() -> None:
    rates = Table(name="rates.md table 1", cells=[["Machine", "Rate per hour (EUR)"], ["Round baler", "38"]])
    assert compute("I use the round baler for six hours. What do I pay?", RULES, tables=(rates,))[0] == "€228."


def test_pence_per_mile_are_pounds() -> None:
    text = "For journeys to court by car the firm pays 45p per mile."
    assert compute("I drove 62 miles. How much do I get back?", ("travel.md", text))[0] == "£27.90."
