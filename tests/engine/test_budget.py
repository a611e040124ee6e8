"""Budgets: the maximum cost of a call is reserved before it is sent, so a run stays within its tokens and calls."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.agents.contract import Catalog
from orchestra.core.events import AttemptStarted, TokensCounted, Usage
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.protocols import CallError, CallEstimate, CallRequest, CallResult
from orchestra.engine.engine import Engine
from orchestra.engine.request import RunRequest
from orchestra.journal.memory import MemoryJournal
from orchestra.testing import SimulatedWorkers, VirtualClock, run_simulated
from tests.engine import stage
from tests.engine.stage import ANSWERS, CATALOG, Played, program

FAN = """
budget: {%s}
input: {words: "list[str]"}
output: ${all.values}
nodes:
  all: {agent: writer, each: "${input.words}", as: word, with: {text: "${word}"}}
"""


class Costly(SimulatedWorkers):
    """Workers whose calls cost `prompt` tokens and the maximum of output tokens. Their estimate is `loose` times the
    true cost; `counts` is whether they can count exactly.
    """

    def __init__(
        self,
        clock: VirtualClock,
        prompt: int = 10,
        most: int = 20,
        least: int = 5,
        loose: int = 1,
        counts: bool = True,
        price: tuple[float, float] = (0.0, 0.0),
        unpriced: str = "",
    ) -> None:
        self.prompt, self.limits, self.loose, self.counting = prompt, (most, least), loose, counts
        self.price, self.unpriced = price, unpriced
        super().__init__({**ANSWERS, "writer": self.write}, clock=clock, latency=(0.1, 1.0))

    def write(self, call: CallRequest) -> CallResult:
        output = call.max_output or self.limits[0]
        usage = Usage(self.prompt, 0, output, calls=1, money=self.prompt * self.price[0] + output * self.price[1])
        return CallResult(value=call.inputs["text"], usage=usage)

    def estimate(self, call: CallRequest) -> CallEstimate:
        most, least = self.limits
        bound = self.prompt * self.loose
        return CallEstimate(
            prompt_tokens=bound,
            max_output=most,
            min_output=least,
            token_prices=self.price,
            unpriced_server=self.unpriced,
        )

    async def count_tokens(self, call: CallRequest) -> int | None:
        return self.prompt if self.counting else None


def play(budget: str, words: int, seed: int = 0, catalog: Catalog = CATALOG, text: str = FAN, **costs: Any) -> Played:
    async def scene(clock: VirtualClock) -> Played:
        workers = Costly(clock, **costs)
        engine = Engine(clock, MemoryJournal(), workers)
        run = engine.start(program(text % budget, catalog), RunRequest(inputs={"words": ["w"] * words}, graph="0" * 32))
        finished = await run.wait()
        await engine.close()
        return Played(finished, list(run.log), workers, MemoryJournal())

    return run_simulated(scene, seed)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), tokens=st.integers(1, 400), words=st.integers(1, 12), loose=st.integers(1, 4))
def test_budget_tokens_never_exceeded(seed: int, tokens: int, words: int, loose: int) -> None:
    played = play(f"tokens: {tokens}", words, seed, loose=loose)
    usage = played.finished.usage
    assert usage.prompt_tokens + usage.output_tokens <= tokens
    # An element fails only if the smallest call exceeds the remaining budget.
    if any(isinstance(outcome, FailedOutcome) for outcome in played.outcomes.values()):
        assert tokens - usage.prompt_tokens - usage.output_tokens < 10 + 5 + 20


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), calls=st.integers(1, 10), words=st.integers(1, 12))
def test_budget_calls_never_exceeded(seed: int, calls: int, words: int) -> None:
    played = play(f"calls: {calls}", words, seed)
    assert len(played.workers.calls) == min(calls, words)


def test_budget_call_waits_for_reservations_to_settle() -> None:
    played = play("tokens: 65", 2, loose=4, most=20, least=20)
    assert played.outcome == ValueOutcome(["w", "w"])
    first, second = played.of(AttemptStarted)
    assert second.at > first.at


def test_budget_output_limit_shrinks_to_remaining_tokens() -> None:
    played = play("tokens: 42", 2)
    assert (
        sorted(call.max_output or 20 for call in played.workers.calls) == [12, 20] or played.workers.max_in_flight == 1
    )
    assert played.finished.status == "done"


def test_budget_prompt_counted_if_bound_too_large() -> None:
    played = play("tokens: 30", 1, loose=4)
    assert played.outcome == ValueOutcome(["w"])
    assert [event.prompt_tokens for event in played.of(TokensCounted)] == [10]


def test_budget_uncountable_prompt_not_sent() -> None:
    played = play("tokens: 30", 1, loose=4, counts=False)
    assert played.finished.status == "budget"
    assert not played.workers.calls


@pytest.mark.parametrize(("inner", "outer"), [(35, 1000), (1000, 35)])
def test_budget_called_workflow_charges_both_budgets(inner: int, outer: int) -> None:
    from orchestra.workflows.yaml.reader import read

    called = read(
        (f"schema: orchestra/v1\nname: inner\n{FAN.strip()}" % f"tokens: {inner}").encode(), "inner.yaml"
    ).graph
    text = (
        "budget: {%s}\n"
        'input: {words: "list[str]"}\n'
        "output: ${a}\n"
        "nodes:\n"
        '  a: {call: inner, with: {words: "${input.words}"}}'
    )
    catalog = Catalog(CATALOG.agents, CATALOG.tools, {"inner": called})
    played = play(f"tokens: {outer}", 4, catalog=catalog, text=text)
    usage = played.finished.usage
    assert 0 < usage.prompt_tokens + usage.output_tokens <= 35


PRICE = (0.001, 0.004)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), money=st.floats(0.001, 1.0), words=st.integers(1, 12), loose=st.integers(1, 4))
def test_budget_money_never_exceeded(seed: int, money: float, words: int, loose: int) -> None:
    played = play(f"money: {money}", words, seed, loose=loose, price=PRICE)
    spent = played.finished.usage.money
    assert spent <= money + 1e-9
    assert spent == pytest.approx(
        sum(10 * PRICE[0] + (call.max_output or 20) * PRICE[1] for call in played.workers.calls)
    )
    if any(isinstance(outcome, FailedOutcome) for outcome in played.outcomes.values()):
        assert money - spent < (10 + 1) * PRICE[0] + (5 + 20) * PRICE[1]


def test_budget_output_limit_shrinks_to_remaining_money() -> None:
    played = play("money: 0.05", 1, price=PRICE)
    assert [call.max_output for call in played.workers.calls] == [10]
    assert played.finished.usage.money == pytest.approx(0.05)


def test_budget_money_refuses_server_without_price() -> None:
    played = play("money: 5", 1, unpriced="elsewhere")
    assert played.finished.status == "budget"
    assert not played.workers.calls
    assert "elsewhere" in played.finished.outcome.reason  # type: ignore[union-attr]  # a failure


def test_budget_money_without_any_price_is_no_limit() -> None:
    assert play("money: 0.001", 3).finished.status == "done"


def test_budget_used_up_keeps_failure_of_first_attempt() -> None:
    text = "output: ${made}\nbudget: {calls: 1}\nnodes: {made: {agent: writer, with: {text: a}}}"
    played = stage.play(
        text,
        {},
        {"writer": lambda call: CallError(code="F203", reason="it is gone", retryable=True, usage=Usage(calls=1))},
    )
    assert isinstance(played.outcome, FailedOutcome)
    assert (played.outcome.code, played.outcome.reason) == (
        "E005",
        "1 of 1 calls are spent; attempt 1 failed: F203: it is gone",
    )
