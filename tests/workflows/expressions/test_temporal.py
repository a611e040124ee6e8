"""Tests of dates, durations and decimal numbers, which are passed as texts: no operator treats them as texts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from orchestra import InputError, choose, contains, has_value, tool, workflow
from orchestra.schema.types import schema_of
from orchestra.workflows.expressions.templates import compile_template


class Parcel(BaseModel):
    at: datetime
    due: datetime | None
    opens: time
    span: timedelta
    price: Decimal
    on: date
    prices: list[Decimal]
    name: str


@tool(effect="pure")
def parcel(n: int) -> Parcel:
    """Returns a record; its content does not matter."""
    raise NotImplementedError


@tool(effect="pure")
def told(yes: bool) -> str:
    """Returns the value of a condition."""
    return str(yes)


def conditioned(condition: Callable[[Any, Any], Any]) -> Any:
    """Returns the condition over two records as CEL. Raises the exceptions of tracing."""

    @workflow(name="flow")
    def flow(n: int) -> str:
        x = parcel(n=n)
        y = parcel(n=n)
        return told(yes=condition(x, y))

    return flow.graph.nodes["told"].with_["yes"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("condition", "what"),
    [
        (lambda x, y: x.at < y.at, "a date and time"),
        (lambda x, y: x.at >= datetime(2026, 1, 1, tzinfo=UTC), "a date and time"),
        (lambda x, y: x.at == datetime(2026, 1, 1, tzinfo=UTC), "a date and time"),
        (lambda x, y: x.due == y.at, "a date and time"),
        (lambda x, y: x.opens <= y.opens, "a time of day"),
        (lambda x, y: x.span > y.span, "a duration"),
        (lambda x, y: x.price > y.price, "a decimal number"),
        (lambda x, y: x.price < "9", "a decimal number"),
        (lambda x, y: x.price == y.price, "a decimal number"),
        (lambda x, y: x.price != Decimal("1.0"), "a decimal number"),
        (lambda x, y: x.price + y.price == "19", "a decimal number"),
        (lambda x, y: x.on + y.span == "", "a date"),
        (lambda x, y: contains(x.prices, y.price), "a decimal number"),
        (lambda x, y: contains(x.prices, "9"), "a decimal number"),
        (lambda x, y: choose(x.span < y.span, True, False), "a duration"),
    ],
)
def test_temporal_text_comparison_refused(condition: Callable[[Any, Any], Any], what: str) -> None:
    with pytest.raises(InputError, match=f"would take {what} as a text") as caught:
        conditioned(condition)
    assert caught.value.code == "W008"
    assert caught.value.hint == "do it in a @tool(effect='pure')"


@pytest.mark.parametrize(
    ("condition", "cel"),
    [
        (lambda x, y: x.on < y.on, "${x.on < y.on}"),
        (lambda x, y: x.on == date(2026, 1, 1), '${x.on == "2026-01-01"}'),
        (lambda x, y: has_value(x.due), "${x.due != null}"),
        (lambda x, y: x.due == None, "${x.due == null}"),  # noqa: E711
        (lambda x, y: x.name < y.name, "${x.name < y.name}"),
        (lambda x, y: "at " + x.at == "at once", '${"at " + x.at == "at once"}'),
    ],
)
def test_temporal_text_safe_operation_accepted(condition: Callable[[Any, Any], Any], cel: str) -> None:
    assert conditioned(condition) == cel


PARCEL = {
    "x": schema_of(Parcel, "serialization"),
    "y": schema_of(Parcel, "serialization"),
    "given": schema_of(Decimal, "validation"),
}


@pytest.mark.parametrize(
    "text", ["x.at < y.at", "x.at == y.at", "x.price + y.price == ''", "x.prices.exists(p, p > y.price)"]
)
def test_temporal_cel_compares_texts(text: str) -> None:
    assert compile_template(f"${{{text}}}", PARCEL).schema == {"type": "boolean"}


def test_temporal_suggested_cel_compares_times() -> None:
    made = compile_template("${timestamp(x.at) < timestamp(y.at)}", PARCEL)
    given = [{"at": "2026-01-01T10:00:00+02:00"}, {"at": "2026-01-01T09:00:00Z"}]
    assert made.evaluate({"x": given[0], "y": given[1]}) is True
    assert made.evaluate({"x": given[1], "y": given[0]}) is False
