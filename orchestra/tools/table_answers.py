"""Table answers: the tool that answers a question from tables, with the cells as evidence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from orchestra.schema.builtin_models import Document, Table
from orchestra.tools.replies import Finding, Reply
from orchestra.tools.table_query import query_tables_best
from orchestra.tools.table_results import QueryResult
from orchestra.tools.table_views import tables_in
from orchestra.workflows.python.steps import tool

MAX_CITED_CELLS = 40
"""Cells that a reply shows."""
LOOKUP_EXPLAINED = 0.8
QUERY_EXPLAINED = 0.65
MISSING_EXPLAINED = 0.5
"""The shares of a question's content words that a table must explain for an answer of each kind."""
CURRENCY_SIGNS = {"GBP": "£", "EUR": "€", "USD": "$"}


def all_tables(tables: Sequence[Table], documents: Sequence[Document]) -> Iterator[Table]:
    """Yields tables, and those in the text of documents."""
    yield from tables
    for document in documents:
        yield from tables_in(document.text, document.source)


def certain_result(question: str, tables: Sequence[Table]) -> QueryResult | None:
    """The result of a question's query, if the tables explain enough of its words; None otherwise."""
    result = query_tables_best(question, tables)
    if result is None:
        return None
    certain = LOOKUP_EXPLAINED if result.operation == "cell" else QUERY_EXPLAINED
    least = MISSING_EXPLAINED if result.missing else certain
    return result if result.explained >= least else None


@tool(effect="pure", label="restricted")
def query_tables(question: str, tables: Sequence[Table], documents: Sequence[Document] = ()) -> Reply:
    """Answers a question about tables: filters, groups, sums, means, extremes, changes and counts, with the cells."""
    return _reply(question, certain_result(question, list(all_tables(tables, documents))))


@tool(effect="pure", label="restricted")
def query_table(question: str, table: Sequence[Sequence[str]]) -> Reply:
    """Answers a question about one table: filters, groups, sums, means, extremes, changes, counts, with the cells."""
    return _reply(question, certain_result(question, [Table(name="table", cells=[list(row) for row in table])]))


def _reply(question: str, result: QueryResult | None) -> Reply:
    if result is None or not result.answers:
        missing = (
            f"{question} ({result.missing} is not in {result.table})"
            if result is not None and result.missing
            else question
        )
        return Reply(text=None, findings=[Finding(question=question, answer=None)], missing=[missing])
    text = _sentence(result)
    computation = f"{result.expression} = {result.answers[0]}" if result.expression else None
    return Reply(
        text=text,
        findings=[Finding(question=question, answer=", ".join(result.answers))],
        cells=list(result.cells[:MAX_CITED_CELLS]),
        computation=computation,
    )


def _sentence(result: QueryResult) -> str:
    """The values of a result as a sentence, with their units and what they were chosen by."""
    details = result.details if len(result.details) == len(result.answers) else ("",) * len(result.answers)
    if result.operation in ("most", "least") and any(details):
        named = [
            f"{name} ({with_unit(detail, result.unit)})" if detail else name
            for name, detail in zip(result.answers, details, strict=True)
        ]
        return f"{join_words(named)}."
    if result.operation in ("sum", "mean", "difference", "cell", "most", "least") and result.unit:
        return f"{join_words([with_unit(answer, result.unit) for answer in result.answers])}."
    return f"{join_words(result.answers)}."


def with_unit(value: str, unit: str) -> str:
    """A number with its unit; other texts as they are. An amount of money has no or two decimals."""
    if not unit or not value[:1].isdigit():
        return value
    sign = CURRENCY_SIGNS.get(unit.upper())
    return f"{sign}{two_decimals(value)}" if sign else f"{value} {unit}"


def two_decimals(amount: str) -> str:
    """An amount of money with two decimals, if it has one: `6.6` as `6.60`."""
    return f"{amount}0" if re.fullmatch(r"[\d,]+\.\d", amount) else amount


def join_words(words: Sequence[str]) -> str:
    """Several texts as a phrase: `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
