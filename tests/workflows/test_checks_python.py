"""Tests of checks in Python: combinations with `&` and `|`, and their agents."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from orchestra import (
    InputError,
    Maybe,
    Reading,
    Workflow,
    abstain,
    accepted,
    agent,
    agree,
    answered_by_model,
    back_off,
    entailment,
    first_of,
    numbers,
    quote,
    rederive,
    support,
    verify,
    workflow,
)  # fmt: skip
from orchestra.workflows.python.checks import Check
from orchestra.workflows.python.trace import to_python


class ReaderInput(BaseModel):
    question: str
    context: str


reader = agent("reader", ReaderInput, Reading)


@agent(prompt="Answer {{ question }} from {{ context }}")
def second(question: str, context: str) -> str:
    """Answers again."""
    return answered_by_model()


@workflow()
def careful(question: str, context: str) -> Reading:
    reading = accepted(
        reader(question=question, context=context),
        checks=numbers & (quote | entailment("strict")) & (rederive(second) | agree(3)),
        against=context,
    )
    return verify(reading, checks=entailment | quote & support, against=context)


@workflow()
def backed(question: str, context: str) -> Reading:
    reading = accepted(
        reader(question=question, context=context), checks=entailment, against=context, otherwise=[back_off]
    )
    return verify(reading, checks=entailment, against=context, otherwise=[back_off])


@workflow()
def guarded(question: str, context: str) -> Reading | None:
    kept = verify(
        reader(question=question, context=context), checks=entailment, against=context, otherwise=[back_off, abstain]
    )
    assert isinstance(kept, Maybe)
    return first_of(kept, otherwise=None)


def test_back_off_written_as_yaml() -> None:
    assert [node.otherwise for node in backed.graph.nodes.values()] == [("back_off",), ("back_off",)]
    source = to_python(backed.graph)
    assert source.count("checks=entailment, against=context, otherwise=[back_off]") == 2
    names = {"reader": reader, "Reading": Reading}
    exec(
        "from typing import Any\nfrom orchestra import *\nfrom orchestra.workflows.python.dsl import *", names
    )  # our own text
    exec(source, names)  # our own text
    again = names["backed"]
    assert isinstance(again, Workflow)
    assert {name: node.otherwise for name, node in again.graph.nodes.items()} == {
        "reading": ("back_off",),
        "verified": ("back_off",),
    }


def test_checks_written_as_yaml() -> None:
    nodes = careful.graph.nodes
    assert nodes["reading"].checks == ("numbers", "quote | entailment(strict)", "rederive(second) | agree(3)")
    assert nodes["verified"].checks == ("entailment | quote & support",)
    assert (quote | numbers) == Check("quote | numbers")
    assert str((quote | numbers) & entailment) == "(quote | numbers) & entailment"
    assert (quote & numbers) | entailment == Check("quote & numbers | entailment")
    assert rederive("second") == rederive(second)


def test_check_agent_is_workflow_step() -> None:
    assert second in careful.steps


def test_checks_round_trip_through_python() -> None:
    source = to_python(careful.graph)
    assert "checks=numbers & (quote | entailment('strict')) & (rederive('second') | agree(3))" in source
    assert "checks=entailment | quote & support" in source
    names = {"reader": reader, "Reading": Reading}
    exec(
        "from typing import Any\nfrom orchestra import *\nfrom orchestra.workflows.python.dsl import *", names
    )  # our own text
    exec(source, names)  # our own text
    again = names["careful"]
    assert isinstance(again, Workflow)
    assert again.graph.nodes["reading"].checks == careful.graph.nodes["reading"].checks


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: agree(1), "no number of samples"),
        (lambda: rederive("Not A Name"), "names no agent"),
        (lambda: quote | Check("so so"), "is not a check"),
    ],
)
def test_invalid_check_refused_at_line(make: object, says: str) -> None:
    with pytest.raises(InputError) as caught:
        make()  # type: ignore[operator]  # a function without a type
    assert caught.value.code == "W016"
    assert says in caught.value.message
