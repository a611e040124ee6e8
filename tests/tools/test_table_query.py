"""Queries over tables from the words of a question."""

from __future__ import annotations

import pytest

from orchestra.schema.builtin_models import Document, Table
from orchestra.tools.table_answers import query_table, query_tables
from orchestra.tools.table_query import query_tables_best
from orchestra.tools.table_views import tables_in

SALES = Table(
    name="sales.csv",
    cells=[
        ["Region", "Manager", "Q1", "Q2", "Q3"],
        ["North", "Anna Schmidt", "61200", "58900", "57300"],
        ["South", "Pedro Alvarez", "67400", "68100", "66800"],
        ["West", "Lucia Romero", "72800", "71500", "88200"],
    ],
)
VISITS = Table(
    name="visits.csv",
    cells=[
        ["Month", "Doctor", "Role", "Missed", "Income (GBP)"],
        ["January", "Dr Patel", "dentist", "14", "24850"],
        ["January", "Ravi Sharma", "hygienist", "15", "10000"],
        ["February", "Dr Patel", "dentist", "21", "23115"],
        ["February", "Ravi Sharma", "hygienist", "6", "11000"],
    ],
)
STOCK = Table(
    name="stock.csv",
    cells=[
        ["Article", "In stock", "Minimum", "Waiver"],
        ["Gloves", "11", "15", "yes"],
        ["Masks", "48", "30", "no"],
        ["Boxes", "4", "6", "no"],
    ],
)


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("Which region had the highest sales in Q3?", ("West",)),
        ("Who manages the region with the lowest Q1?", ("Anna Schmidt",)),
        ("What is the total of South?", ("202300",)),
        ("By how many percent did West grow from Q1 to Q3?", ("21.15 %",)),
        ("Which regions fell from Q1 to Q2?", ("North", "West")),
        ("How many visits were missed in total in January?", ("29",)),
        ("Who brought in the most money in February?", ("Dr Patel",)),
        ("By how many percent did the hygienist's takings rise from January to February?", ("10 %",)),
        ("What was the total income of Dr Patel in the first quarter?", ("47965",)),
        ("Which articles are below their minimum stock?", ("Gloves", "Boxes")),
        ("How many articles are without a waiver?", ("2",)),
        ("How many articles have less than 20 in stock?", ("2",)),
        ("What is the average income of Ravi Sharma?", ("10500",)),
    ],
)
def test_question_of_schema_words_is_computed(question: str, answers: tuple[str, ...]) -> None:
    result = query_tables_best(question, [SALES, VISITS, STOCK])
    assert result is not None
    assert result.answers == answers


@pytest.mark.parametrize(
    "question", ["What was the income of Dr Patel in April?", "What were the sales of West in Q4?"]
)
def test_period_that_a_table_lacks_has_no_answer(question: str) -> None:
    result = query_tables_best(question, [SALES, VISITS])
    assert result is not None
    assert (result.answers, bool(result.missing)) == ((), True)
    reply = query_tables.function(question, [SALES, VISITS])
    assert (reply.text, bool(reply.missing)) == (None, True)


def test_question_without_words_of_a_table_has_no_query() -> None:
    assert query_tables_best("Who painted the ceiling?", [SALES, VISITS]) is None
    assert query_table.function("Who painted the ceiling?", SALES.cells).text is None
    asked = "Which region had the highest cathedral tower in Q3, after the storm of the century?"
    assert query_table.function(asked, SALES.cells).text is None


INCOME = Table(
    name="income.csv",
    cells=[
        ["Month", "Doctor", "Income"],
        ["January", "Lee", "5"],
        ["February", "Lee", "6"],
        ["March", "Ray", "8"],
        ["April", "Cox", "1"],
    ],
)


@pytest.mark.parametrize(
    ("question", "answer"),
    [("What was the total income from January to March?", "19"), ("Which doctor had the highest income?", "Lee")],
)
def test_rows_of_one_name_or_period_are_added_up(question: str, answer: str) -> None:
    result = query_tables_best(question, [INCOME])
    assert result is not None
    assert result.answers == (answer,)


def test_answer_has_the_cells_it_rests_on() -> None:
    reply = query_table.function("Which region had the highest sales in Q3?", SALES.cells)
    assert reply.text == "West (88200)."
    assert {(cell.row, cell.column, cell.text) for cell in reply.cells} == {(3, 0, "West"), (3, 4, "88200")}


def test_sum_has_its_expression_and_unit() -> None:
    reply = query_tables.function("What was the total income of Dr Patel in January and February?", [VISITS])
    assert (reply.text, reply.computation) == ("£47965.", "24850 + 23115 = 47965")


def test_markdown_table_of_a_document_is_queried() -> None:
    text = "# Fees\n\n| Treatment | Fee |\n|---|---|\n| Crown | £720 |\n| Small X-ray | £14 |\n\nMore text."
    (table,) = tables_in(text, "fees.md")
    assert table.cells == [["Treatment", "Fee"], ["Crown", "£720"], ["Small X-ray", "£14"]]
    reply = query_tables.function("Which treatment has the highest fee?", [], [Document(source="fees.md", text=text)])
    assert reply.text is not None
    assert "Crown" in reply.text


def test_year_as_a_limit_selects_no_row_of_that_year() -> None:
    staff = Table(name="staff", cells=[["Name", "Hired"], ["Ann", "2016"], ["Bob", "2017"], ["Cid", "2012"]])
    result = query_tables_best("Who was hired before 2017?", [staff])
    assert result is not None
    assert result.answers == ("Ann", "Cid")


MONTHS = Table(
    name="revenue.csv",
    cells=[
        ["Month", "Department", "Revenue"],
        ["2024-11", "Fiction", "30000"],
        ["2025-11", "Fiction", "13076"],
        ["2025-11", "Children", "14722"],
        ["2025-12", "Fiction", "23100"],
        ["2025-12", "Children", "16656"],
    ],
)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Which department had the highest revenue in November 2025?", "Children"),
        ("Which department had the highest revenue in December?", "Fiction"),
    ],
)
def test_month_names_match_year_and_month_cells(question: str, answer: str) -> None:
    result = query_tables_best(question, [MONTHS])
    assert result is not None
    assert result.answers == (answer,)
