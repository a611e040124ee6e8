"""Table queries in other words, over joined tables, and those that have no certain answer."""

from __future__ import annotations

import pytest

from orchestra.schema.builtin_models import Table
from orchestra.text.arithmetic import evaluate
from orchestra.tools.table_answers import certain_result, query_tables

ORDERS = Table(
    name="orders.csv",
    cells=[
        ["Order", "Placed", "Delivered", "Client", "Courier", "Parcels", "Weight (kg)", "Income (EUR)", "Cost (EUR)"],
        ["O-1", "2025-01-08", "2025-01-10", "Alder Clinic", "Rosa", "2", "4.5", "60", "40"],
        ["O-2", "2025-01-20", "2025-01-21", "Birch Bakery", "Milan", "5", "12", "110", "70"],
        ["O-3", "2025-02-03", "2025-02-07", "Alder Clinic", "Rosa", "1", "0.8", "25", "12"],
        ["O-4", "2025-02-11", "", "Cedar School", "Milan", "7", "21", "150", "120"],
        ["O-5", "2025-02-25", "2025-02-26", "Birch Bakery", "Rosa", "3", "6.2", "70", "35"],
        ["O-6", "2025-03-02", "", "Alder Clinic", "Ines", "4", "9", "95", "50"],
    ],
)
COURIERS = Table(
    name="couriers.csv",
    cells=[
        ["Courier", "Base", "Vehicle", "Born", "Insured"],
        ["Rosa", "Harbour", "bicycle", "1990-04-02", "yes"],
        ["Milan", "Station", "van", "1984-11-23", "no"],
        ["Ines", "Harbour", "van", "2001-06-30", "yes"],
    ],
)
SUPPLIES = Table(
    name="supplies.csv",
    cells=[
        ["Item", "Bought", "Used", "Price per piece (EUR)"],
        ["Boxes", "200", "150", "0.5"],
        ["Straps", "40", "40", "3"],
        ["Labels", "1000", "600", "0.02"],
    ],
)
ACCOUNTS = Table(
    name="accounts.csv",
    cells=[["Client", "Balance (EUR)"], ["Alder Clinic", "-40"], ["Birch Bakery", "15"], ["Cedar School", "-5"]],
)
TABLES = [ORDERS, COURIERS, SUPPLIES]


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        # conditions
        ("Number of orders by Rosa in February", ("2",)),
        ("Which orders have not been delivered?", ("O-4", "O-6")),
        ("How many orders weigh more than 8 kg?", ("3",)),
        ("Which clients ordered at least five parcels?", ("Birch Bakery", "Cedar School")),
        ("Total income of all orders except those for Birch Bakery?", ("330",)),
        ("Which couriers are not insured?", ("Milan",)),
        ("Which orders were placed since 15 February 2025?", ("O-5", "O-6")),
        # measures
        ("What did we earn on the orders of Alder Clinic after costs?", ("78",)),
        ("What are the boxes, straps and labels that nobody is using worth?", ("33",)),  # prose: ok
        ("How heavy is an order of Alder Clinic on average?", ("4.77",)),
        ("What is the median weight of the orders?", ("7.6",)),
        # groups and extremes
        ("Which client brought us the most profit?", ("Alder Clinic",)),
        ("Who delivered the most orders?", ("Rosa",)),
        ("The two heaviest orders?", ("O-4", "O-2")),
        ("Which order has the second highest income?", ("O-2",)),
        ("Who is the oldest courier?", ("Milan",)),
        ("When was the first order placed?", ("2025-01-08",)),
        ("How many different clients ordered something?", ("3",)),
        # comparisons
        ("By what percentage did income rise from January to February?", ("44.12 %",)),
        ("How much higher was the income of Birch Bakery than of Cedar School?", ("30",)),
        ("What share of the orders was delivered by Rosa?", ("50 %",)),
        # another table, by its key
        ("How many orders were delivered by van?", ("3",)),
        ("What is the total weight of the orders of couriers from Harbour?", ("20.5",)),
        # other languages
        ("Wie viele Orders hatte Rosa im Februar?", ("2",)),
        ("Quel client a le plus d'orders ?", ("Alder Clinic",)),
        ("¿Cuánto es el income total de Milan?", ("260",)),
    ],
)
def test_question_in_other_words_is_computed(question: str, answers: tuple[str, ...]) -> None:
    result = certain_result(question, TABLES)
    assert result is not None
    assert result.answers == answers


DEBTS = Table(name="debts.csv", cells=[["Client", "Balance (EUR)"], ["Alder Clinic", "-40"], ["Cedar School", "-5.5"]])


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What did we earn on the orders of Alder Clinic after costs?", "78"),
        ("What are the boxes, straps and labels that are unused worth?", "33"),
        ("How heavy is an order of Alder Clinic on average?", "4.77"),
        ("By what percentage did income rise from January to February?", "44.12 %"),
        ("By what percentage did income drop from February to March?", "61.22 %"),
        ("How much higher was the income of Birch Bakery than of Cedar School?", "30"),
        ("How much lower was the income of Cedar School than of Birch Bakery?", "30"),
        ("What share of the orders was delivered by Rosa?", "50 %"),
        ("How much do our clients owe us in total?", "45.5"),
    ],
)
def test_shown_computation_has_the_value_of_the_answer(question: str, answer: str) -> None:
    result = certain_result(question, [*TABLES, DEBTS])
    assert result is not None
    assert result.answers == (answer,)
    assert result.expression is not None
    assert round(float(evaluate(result.expression)), 2) == float(answer.removesuffix(" %"))


def test_sum_for_each_group_names_the_groups() -> None:
    reply = query_tables.function("Total income per courier?", [ORDERS])
    assert reply.text == "Rosa (€155), Milan (€260) and Ines (€95)."


def test_join_cites_the_cells_of_both_tables() -> None:
    reply = query_tables.function("What is the total weight of the orders of couriers from Station?", TABLES)
    assert reply.text == "33 kg."
    assert {cell.location.split(" row ")[0] for cell in reply.cells} == {"orders.csv"}


@pytest.mark.parametrize(
    "question",
    [
        "How many orders did Oslo Print place in January?",  # a name that no table has
        "How much did the parking fines of Rosa cost us?",  # a measure that no table has
        "What do clients of the harbour office pay for storage?",
        "How many kilometres did Rosa ride in January?",
        "How much does a lost parcel cost the customer?",
        "When does the courier office open?",
    ],
)
def test_question_with_unknown_words_has_no_certain_answer(question: str) -> None:
    result = certain_result(question, TABLES)
    assert result is None or not result.answers


def test_debts_of_both_signs_have_no_certain_answer() -> None:
    assert certain_result("How much do our clients owe us in total?", [ACCOUNTS]) is None


def test_period_without_records_is_reported() -> None:
    result = certain_result("What was the total income of the orders in December?", [ORDERS])
    assert result is not None
    assert (result.answers, result.missing) == ((), "December")


def test_number_of_one_record_in_a_period_is_looked_up() -> None:
    cells = [["Quarter", "Town", "Sales"], ["Q1", "Sligo", "120"], ["Q2", "Sligo", "150"], ["Q1", "Galway", "70"]]
    result = certain_result("What were the sales of Sligo in Q1?", [Table(name="table", cells=cells)])
    assert result is not None
    assert result.answers == ("120",)


def test_header_ends_with_its_unit_and_numbers_of_records_are_no_measure() -> None:
    cells = [["no", "name", "hourly_pay", "waste_kg"], ["1", "Ann", "12", "3.5"], ["2", "Bob", "14", "1"]]
    result = certain_result("How much waste was there in total?", [Table(name="staff.csv", cells=cells)])
    assert result is not None
    assert (result.answers, result.unit) == (("4.5",), "kg")
    assert (
        certain_result("What is the sum of all staff?", [Table(name="staff.csv", cells=[cells[0][:2], ["1", "Ann"]])])
        is None
    )


def test_period_that_no_table_has_leaves_a_question_about_something_else() -> None:
    assert certain_result("Invoice of 12 March 2026, when is it due at the latest?", TABLES) is None


def only_answer(question: str, name: str, *rows: str) -> tuple[str, ...] | None:
    """Returns the answers over one table, whose rows are written with bars."""
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    result = certain_result(question, [Table(name=name, cells=cells)])
    return None if result is None else result.answers


def test_measure_that_two_columns_fit_equally_is_not_certain() -> None:
    rows = ("Item | Old price | New price", "Saddle | 40 | 30", "Bell | 9 | 8")
    assert only_answer("How much does the saddle cost?", "items", *rows) is None
    assert only_answer("What is the new price of the saddle?", "items", *rows) == ("30",)


def test_unknown_name_leaves_a_question_that_is_explained_otherwise() -> None:
    assert certain_result("Total income of the orders of Alder Clinic in January?", TABLES) is not None
    assert certain_result("Total income of the orders of Alder Clinic in January for Quentin?", TABLES) is None


def test_table_with_the_column_answers_before_one_that_refers_to_it() -> None:
    reply = query_tables.function("Which couriers are insured?", TABLES)
    assert {cell.location.split(" row ")[0] for cell in reply.cells} == {"couriers.csv"}


def test_word_with_un_negates_a_header() -> None:
    assert only_answer("Which orders are undelivered?", "orders", "Order | Delivered", "A | 3 May 2025", "B |") == (
        "B",
    )


def test_month_without_a_year_is_that_of_the_last_year() -> None:
    rows = ("Day | Income", "2024-01-05 | 5", "2025-01-05 | 7", "2025-01-09 | 1")
    assert only_answer("Total income in January?", "till", *rows) == ("8",)


@pytest.mark.parametrize(
    ("question", "name", "rows", "answers"),
    [
        (
            "Which month had the highest bar and food income together?",
            "till",
            ("Month | Bar (EUR) | Food (EUR)", "June | 9 | 1", "July | 6 | 7"),
            ("July",),
        ),
        ("Total of copies times rate?", "jobs", ("Job | Copies | Rate", "A | 3 | 2", "B | 5 | 10"), ("56",)),
        (
            "Welche Gartenpflanzen haben eine Menge unter 20?",
            "bestand",
            ("Pflanze | Gruppe | Menge", "Rose | Garten | 9", "Tanne | Wald | 5", "Flieder | Garten | 30"),
            ("Rose",),
        ),
        ("Wie viele Aufträge hat Neu?", "auftraege.csv", ("Nr | Kunde", "1 | Alt", "2 | Neu"), ("1",)),
        ("How many adresses do we have in total?", "lists", ("List | Addresses", "A | 3", "B | 4"), ("7",)),
    ],
)
def test_words_are_found_in_compounds_spellings_and_products(
    question: str, name: str, rows: tuple[str, ...], answers: tuple[str, ...]
) -> None:
    assert only_answer(question, name, *rows) == answers
