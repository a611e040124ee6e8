"""Tests of `otherwise=lambda: ...` under nested conditions, and with options that may be withheld."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from orchestra import (
    InputError,
    Orchestra,
    Workflow,
    abstain,
    accepted,
    agent,
    answered_by_model,
    ask,
    first_of,
    loop,
    map_,
    require,
    when,
    workflow,
)
from orchestra.core.settings import Settings
from tests.workflows.fallback_workflows import echo, fine, pay, refuse


@pytest.fixture
async def orchestra(tmp_path: Path) -> AsyncIterator[Orchestra]:
    async with Orchestra.open(Settings.load({"journal": str(tmp_path / "runs.db")}), fleet="none") as opened:
        yield opened


@workflow
def outer_option(c: bool, d: bool, e: bool) -> str:
    """The option has conditions of its own, and the choice has another one."""
    maybe = when(c, lambda: when(e, lambda: refuse(text="a")))
    found = when(d, lambda: echo(text=first_of(maybe, otherwise=lambda: pay(text="b"))))
    return first_of(found, otherwise="none")


@workflow
def outer_reading(c: bool, d: bool) -> str:
    """The condition is on a value that has one itself."""
    asked = when(c, lambda: echo(text="ok"))
    found = when(
        d, lambda: first_of(when(require(asked) == "ok", lambda: refuse(text="x")), otherwise=lambda: pay(text="b"))
    )
    return first_of(found, otherwise="none")


@workflow
def outer_mapped(c: bool, e: bool, d: bool, texts: list[str]) -> list[str]:
    """The choice is in the body of a map."""
    maybe = when(c, lambda: when(e, lambda: refuse(text="a")))
    found = when(d, lambda: map_(lambda text: first_of(maybe, otherwise=lambda: pay(text=text)), texts))
    return first_of(found, otherwise=[])


@workflow
def by_default(n: int, text: str) -> str:
    """Without `otherwise=` a value that is not accepted is withheld."""
    return echo(
        text=first_of(when(n > 1, lambda: accepted(echo(text=text), checks=fine)), otherwise=lambda: pay(text=text))
    )


@workflow
def sub(text: str) -> str:
    """Withholds what is not fine."""
    return require(accepted(echo(text=text), checks=fine, otherwise=[abstain]))


@workflow
def called(n: int, text: str) -> str:
    """Another workflow may withhold its output; this is unknown while the present one is built."""
    return echo(text=first_of(when(n > 1, lambda: sub(text=text)), otherwise=lambda: pay(text=text)))


@workflow
def called_or(n: int, text: str) -> str:
    """Like `called`, with a fallback for the call."""
    found = when(n > 1, lambda: sub.options(fallback=lambda: pay(text="own"))(text=text))
    return echo(text=first_of(found, otherwise=lambda: pay(text=text)))


@workflow
def refund(text: str) -> str:
    """Pays, then refuses."""
    return refuse(text=require(when(pay(text="refund") != "", lambda: echo(text=text))))


@workflow
def branched(n: int, text: str) -> str:
    """A workflow in the `if`, a payment in the `else`."""
    return first_of(when(n > 3, lambda: refund(text=text)), otherwise=lambda: pay(text="else"))


@workflow
def refunded(text: str) -> str:
    """The same, with a condition on what a workflow gives."""
    return first_of(when(refund(text="a") == "refused", lambda: refuse(text=text)), otherwise=lambda: pay(text="else"))


@workflow
def turned(n: int, text: str) -> str:
    """A loop's body withholds."""

    def turns() -> str:
        return loop(
            lambda previous: accepted(echo(text=text), checks=fine), at_most=2, until=lambda value: value == "ok"
        )

    return echo(text=first_of(when(n > 1, turns), otherwise=lambda: pay(text=text)))


@workflow
def read_on(n: int, text: str) -> str:
    """What the option reads is withheld."""
    before = accepted(echo(text=text), checks=fine)
    return echo(text=first_of(when(n > 1, lambda: refuse(text=before)), otherwise=lambda: pay(text=text)))


@workflow
def asked_of(text: str) -> str:
    """What the condition reads is withheld."""
    before = accepted(echo(text=text), checks=fine, otherwise=[abstain])
    return echo(
        text=first_of(when(require(before) == "ok", lambda: refuse(text=text)), otherwise=lambda: pay(text=text))
    )


class Text(BaseModel):
    """What a card of a file reads."""

    text: str


@agent(prompt="{{ text }}", checks=fine)
def checked(text: str) -> str:
    """Its card has a check."""
    return answered_by_model()


@workflow
def carded(n: int, text: str) -> str:
    """A card withholds."""
    return echo(text=first_of(when(n > 3, lambda: checked(text=text)), otherwise=lambda: pay(text=text)))


@workflow
def fallen(n: int, text: str) -> str:
    """A fallback also applies if the condition is false."""
    return first_of(when(n > 1, echo.options(fallback="z")(text=text)), otherwise=lambda: pay(text=text))


@workflow
def mixed(n: int, text: str) -> str:
    """A plain value replaces a conditional value and a value that may be withheld."""
    big = when(n > 3, lambda: echo(text="big"))
    maybe = accepted(echo(text=text), checks=fine, otherwise=[abstain])
    return echo(text=first_of(big, maybe, otherwise=lambda: "-"))


@workflow
def mixed_conditions(n: int, text: str) -> str:
    """The same, with a condition on a value that has one itself."""
    big = when(n > 3, lambda: echo(text="big"))
    inner = when(n > 1, lambda: when(echo(text=text) == "ok", lambda: echo(text="inner")))
    return echo(text=first_of(big, inner, otherwise=lambda: text))


@workflow
def asked(n: int) -> str:
    """A person is asked, and may decline."""
    return echo(text=first_of(when(n > 1, lambda: ask("what?")), otherwise=lambda: pay(text="p")))


@workflow
def asked_through(n: int) -> str:
    """What the option reads is asked of a person."""
    return echo(text=first_of(when(n > 1, lambda: echo(text="said " + ask("what?"))), otherwise=lambda: pay(text="p")))


@workflow
def asked_last(n: int) -> str:
    """A question to a person is the alternative of another option."""
    found = when(n > 1, lambda: first_of(when(n > 9, lambda: echo(text="big")), otherwise=lambda: ask("what?")))
    return echo(text=first_of(found, otherwise=lambda: pay(text="p")))


@workflow
def asked_whether(n: int) -> str:
    """The condition is on an answer."""
    return first_of(
        when(ask("refuse?", options=["yes", "no"]) == "yes", lambda: refuse(text="boom")),
        otherwise=lambda: pay(text="p"),
    )


CASES: list[tuple[Any, dict[str, Any], Any, list[str]]] = [
    (outer_option, {"c": False, "d": True, "e": True}, "paid b", ["pay", "found"]),
    (outer_option, {"c": True, "d": True, "e": False}, "paid b", ["pay", "found"]),
    (outer_option, {"c": True, "d": True, "e": True}, "refused", ["maybe", "found"]),
    (outer_option, {"c": False, "d": False, "e": True}, "none", []),
    (outer_reading, {"c": False, "d": True}, "paid b", ["pay"]),
    (outer_reading, {"c": True, "d": True}, "refused", ["asked", "refuse"]),
    (outer_mapped, {"c": False, "d": True, "e": True, "texts": ["x"]}, ["paid x"], ["found[0]/pay"]),
    (by_default, {"n": 3, "text": "a"}, "paid a", ["echo", "pay", "echo_2"]),
    (by_default, {"n": 3, "text": "ok"}, "ok", ["echo", "echo_2"]),
    (called_or, {"n": 3, "text": "a"}, "paid own", ["sub/echo", "pay", "echo"]),
    (called_or, {"n": 1, "text": "a"}, "paid a", ["pay_2", "echo"]),
    (branched, {"n": 1, "text": "a"}, "paid else", ["pay"]),
    (turned, {"n": 3, "text": "a"}, "paid a", ["pay", "echo_2"]),
    (read_on, {"n": 3, "text": "a"}, "paid a", ["before", "pay", "echo"]),
    (asked_of, {"text": "a"}, "paid a", ["before", "pay", "echo"]),
    (fallen, {"n": 1, "text": "a"}, "z", []),
    (carded, {"n": 1, "text": "a"}, "paid a", ["pay", "echo"]),
    (mixed, {"n": 1, "text": "ok"}, "ok", ["maybe", "echo"]),
    (mixed, {"n": 1, "text": "a"}, "-", ["maybe", "echo"]),
    (mixed_conditions, {"n": 1, "text": "a"}, "a", ["echo_2"]),
    (mixed_conditions, {"n": 2, "text": "ok"}, "inner", ["echo", "inner", "echo_2"]),
]


async def test_otherwise_runs_iff_no_option_exists(orchestra: Orchestra) -> None:
    for flow, inputs, value, ran in CASES:
        result = await orchestra.run(flow, **inputs)
        paths = [path for path in result.usage_by_node if "?" not in path and "loop" not in path]
        assert (flow.name, inputs, result.value, paths) == (flow.name, inputs, value, ran)


@pytest.mark.parametrize(("flow", "inputs"), [(branched, {"n": 5, "text": "boom"}), (refunded, {"text": "boom"})])
async def test_otherwise_not_run_after_failed_workflow(
    orchestra: Orchestra, flow: Workflow[..., Any], inputs: dict[str, Any]
) -> None:
    result = await (await orchestra.start(flow, **inputs)).wait()
    assert result.status == "failed"
    assert [path for path in result.usage_by_node if "pay" in path] == ["refund/pay"]


@pytest.mark.parametrize("flow", [asked, asked_through, asked_last], ids=lambda flow: flow.name)
@pytest.mark.parametrize(("answer", "value"), [("a", "a"), (None, "paid p")])
async def test_otherwise_runs_if_person_declines(
    orchestra: Orchestra, flow: Workflow[..., Any], answer: str | None, value: str
) -> None:
    result = await answered(orchestra, flow, answer)
    assert result.output == ("said a" if flow is asked_through and answer else value)


@pytest.mark.parametrize(
    ("answer", "status", "paid"), [("yes", "failed", 0), ("no", "done", 1), (None, "abstained", 0)]
)
async def test_otherwise_condition_on_answer_decides(
    orchestra: Orchestra, answer: str | None, status: str, paid: int
) -> None:
    result = await answered(orchestra, asked_whether, answer)
    assert (result.status, sum("pay" in path for path in result.usage_by_node)) == (status, paid)


async def answered(orchestra: Orchestra, flow: Workflow[..., Any], answer: str | None) -> Any:
    """The result of a run whose one question is answered so; None declines."""
    run = await orchestra.start(flow, n=3)
    assert await run.wait_until_blocked() is None
    await orchestra.answer(run.id, answer, decline_reason="" if answer else "cannot say")
    return await run.wait()


def test_otherwise_file_card_assumed_present() -> None:
    reader = agent("reader", Text, str)

    def described(n: int) -> str:
        return first_of(when(n > 3, lambda: reader(text="a")), otherwise=lambda: pay(text="b"))

    assert workflow(described).graph.nodes["pay"].when == "${!(input.n > 3)}"


async def test_otherwise_withholding_workflow_not_sure(orchestra: Orchestra) -> None:
    with pytest.raises(InputError, match="all arms of 'first' may be without a value") as caught:
        await orchestra.run(called, n=3, text="a")
    assert (caught.value.code, "fallback" in caught.value.hint) == ("L120", True)


def never_sure(c: bool, d: bool, e: bool) -> str:
    one, other = when(c, lambda: echo(text="1")), when(e, lambda: echo(text="2"))
    found = when(d, lambda: echo(text=first_of(one, other)))
    return first_of(found, otherwise="none")


def withheld_last(n: int) -> str:
    return echo(
        text=first_of(when(n > 3, lambda: echo(text="a")), otherwise=lambda: accepted(echo(text="b"), checks=fine))
    )


def sure_first(note: str) -> str:
    return first_of(note, otherwise=lambda: pay(text="b"))  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    ("function", "code", "text"),
    [
        (never_sure, "W009", "first is missing where all its options are"),
        (withheld_last, "W009", "first is missing where all its options are"),
        (sure_first, "W016", "note is sure to be there"),
    ],
)
def test_ambiguous_choice_refused_at_line(function: Callable[..., Any], code: str, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        assert workflow(function).graph
    assert caught.value.code == code
    assert caught.value.location is not None
    assert caught.value.location.file.endswith("test_missing_arms.py")
