"""Tests of `ask` in Python: its graph equals that of YAML, errors have their line, and it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from orchestra import InputError, Orchestra, accepted, as_text, ask, first_of, map_, quote, retry, tool, when, workflow
from orchestra.core.events import QuestionAsked
from orchestra.core.settings import Settings
from orchestra.testing import SimulatedWorkers
from orchestra.workflows.model import AskNode
from orchestra.workflows.yaml.reader import read
from tests.workflows.ensemble import compiled, reader


class Trip(BaseModel):
    """A model of one's own."""

    city: str
    nights: int


@tool(effect="once")
def book(trip: Trip, sure: Literal["yes", "no"]) -> str:
    """Books a trip."""
    return f"{trip.city}, {sure}"


@workflow()
def refunded(amount: float) -> str:
    return ask("Refund " + as_text(amount) + "?", options=["yes", "no"], timeout=3600, fallback="no")


@workflow()
def booked(city: str, guests: list[str]) -> dict[str, Any]:
    trip = ask("Where to, if not to " + city + "?", returns=Trip)
    sure = ask("So " + trip.city + "?", returns=Literal["yes", "no"])
    why = first_of(when(trip.nights > 3, lambda: ask("Why so long?")), otherwise="-")
    coming = map_(lambda guest: ask("Does " + guest + " come?", returns=bool), guests)
    return {"booked": book(trip=trip, sure=sure), "why": why, "coming": coming}


def test_ask_equals_yaml_node() -> None:
    text = """
schema: orchestra/v1
name: refunded
input: {amount: float}
output: ${asked}
nodes:
  asked:
    ask: "Refund ${string(input.amount)}?"
    options: ["yes", "no"]
    timeout: 3600
    fallback: "no"
"""
    assert refunded.graph == read(text, "refunded.yaml").graph


def test_ask_literal_type_becomes_options() -> None:
    node = booked.graph.nodes["sure"]
    assert isinstance(node, AskNode)
    assert (node.options, node.returns) == (("yes", "no"), "str")


def test_ask_result_model_known() -> None:
    node = next(node for node in compiled(booked).nodes if node.name == "trip")
    assert isinstance(node.source, AskNode)
    assert (node.source.returns, node.output["title"]) == ("Trip", "Trip")


@pytest.mark.parametrize(
    "returns", [str, int, list[str], dict[str, int], Trip | None, Literal[1, 2], Literal["a"] | None], ids=str
)
def test_ask_type_equals_compiled_type(returns: Any) -> None:
    @workflow()
    def flow(question: str) -> Any:
        return {"asked": ask(question, returns=returns)}

    assert compiled(flow).nodes[0].kind == "ask"


async def test_ask_runs_with_answers(tmp_path: Path) -> None:
    people: dict[str, Any] = {
        "Where to, if not to Oslo?": {"city": "Rome", "nights": 5},
        "So Rome?": "yes",
        "Does Ada come?": True,
        "Does Max come?": False,
        "Why so long?": "It is far.",
    }
    answers: dict[str, Any] = {"book": lambda call: f"{call.inputs['trip']['city']}, {call.inputs['sure']}"}
    async with Orchestra.open(
        Settings.load({"journal": str(tmp_path / "runs.db")}), workers=SimulatedWorkers(answers)
    ) as orchestra:
        run = await orchestra.start(booked, city="Oslo", guests=["Ada", "Max"])
        async for event in run:
            if isinstance(event, QuestionAsked):
                await orchestra.answer(run.id, people.pop(event.question), node=event.node, by="ada")
        result = await run.wait()
    assert result.output == {"booked": "Rome, yes", "why": "It is far.", "coming": [True, False]}
    assert people == {}


def test_ask_action_asks_about_refused_value() -> None:
    @workflow()
    def mended(question: str, context: str) -> Any:
        return accepted(
            reader(question=question, context=context), checks=quote, against=context, otherwise=[retry, ask]
        )

    assert mended.graph.nodes["reader"].otherwise == ("retry", "ask")


@pytest.mark.parametrize(
    ("body", "code", "reason", "hint"),
    [
        (lambda q, n: ask(), "W010", "has no question", "options="),  # type: ignore[call-overload]  # that is the mistake
        (lambda q, n: ask(q, q), "W010", "takes one question, got 2", "options="),  # type: ignore[call-overload]  # the same
        (lambda q, n: ask(q, option=["a"]), "W010", "has no 'option'", "'options'"),  # type: ignore[call-overload]  # the same
        (lambda q, n: ask(n), "W011", "takes str, got int", "as_text(n)"),
        (lambda q, n: ask(f"{q}?"), "W005", "q (str) has no value yet", "'text ' + q"),
        (lambda q, n: ask(q, options="yes"), "W016", "is not a list of texts", "options=['yes', 'no']"),
        (lambda q, n: ask(q, options=[q, "no"]), "W016", "known when the workflow is written", "options="),
        (lambda q, n: ask(q, options=[]), "W016", "none to choose from", "leave it out"),
        (lambda q, n: ask(q, options=["a"], returns=int), "W016", "options, which are texts", "leave one"),  # type: ignore[call-overload]  # the same
        (lambda q, n: ask(q, returns="int"), "W016", "'int' is a text", "returns="),
        (lambda q, n: ask(q, returns=object), "W018", "is not a type that a workflow can name", "returns="),
        (lambda q, n: ask(q, options=["a"], fallback="b"), "W011", "takes Literal['a'], got 'b'", ""),
        (lambda q, n: ask(q, options=["a"]) == "b", "W008", "'b'", ""),
        (
            lambda q, n: accepted(reader(question=q, context=q), checks=quote, otherwise=[ask("Right?")]),  # type: ignore[list-item]  # the same
            "W016",
            "has a value of the workflow in it",
            "otherwise=[ask]",
        ),
    ],
)
def test_ask_invalid_call_refused_with_hint(body: Callable[[Any, Any], Any], code: str, reason: str, hint: str) -> None:
    @workflow()
    def flow(q: str, n: int) -> Any:
        return {"asked": body(q, n)}

    with pytest.raises(InputError) as caught:
        _ = flow.graph
    assert (caught.value.code, caught.value.location is not None) == (code, True)
    assert reason in caught.value.message
    assert hint in caught.value.hint


def test_ask_outside_workflow_refused() -> None:
    with pytest.raises(InputError) as caught:
        ask("Really?")
    assert (caught.value.code, caught.value.hint) == ("W001", "call it in a function under @workflow")
