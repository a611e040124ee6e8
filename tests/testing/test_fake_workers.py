"""Simulated workers, an implementation of `Workers`."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import pytest

from orchestra import InputError, tool
from orchestra.agents.contract import Catalog, Contract
from orchestra.core.protocols import CallError, CallRequest, CallResult, EvidenceSource
from orchestra.testing import Faults, SimulatedWorkers, VirtualClock, answer_sequence, from_schemas, run_simulated


def ask(name: str = "reader", attempt: int = 1, **fields: Any) -> CallRequest:
    given: dict[str, Any] = {"run": "r", "node": "n", "kind": "agent", "inputs": {"text": "hello"}} | fields
    return CallRequest(attempt=attempt, name=name, **given)


def faults_of(chances: dict[str, Any]) -> Faults:
    return Faults(**chances)


Reply: TypeAlias = str | CallResult | CallError
"""A piece of text, or the reply of a call."""


async def replies(workers: SimulatedWorkers, call: CallRequest) -> list[Reply]:
    """Returns the pieces of text of a call, then its reply."""
    pieces = list[Reply]()
    reply = await workers.call(call, pieces.append)
    return [*pieces, reply]


def only(found: list[Reply]) -> CallResult | CallError:
    (reply,) = found
    assert not isinstance(reply, str)
    return reply


async def value(workers: SimulatedWorkers, call: CallRequest) -> Any:
    reply = only(await replies(workers, call))
    assert isinstance(reply, CallResult), reply
    return reply.value


async def test_workers_answers_by_function_table_and_sequence() -> None:
    assert await value(SimulatedWorkers(lambda call: call.inputs["text"].upper()), ask()) == "HELLO"
    table = SimulatedWorkers(
        {
            "reader": {"answer": None},
            "loud": lambda call: call.name,
            "again": answer_sequence("first", lambda call: call.attempt),
        }
    )
    assert await value(table, ask()) == {"answer": None}
    assert await value(table, ask("loud")) == "loud"
    assert [await value(table, ask("again", attempt)) for attempt in (1, 2, 3)] == ["first", 2, 3]
    assert table.counts == {"reader": 1, "loud": 1, "again": 3}


async def test_workers_answer_may_be_awaitable_or_reply() -> None:
    async def slowly(call: CallRequest) -> str:
        await asyncio.sleep(0)
        return "done"

    assert await value(SimulatedWorkers(slowly), ask()) == "done"
    refusal = CallError(code="F203", reason="no")
    assert await replies(SimulatedWorkers(lambda call: refusal), ask()) == [refusal]


async def test_workers_missing_answer_is_named() -> None:
    with pytest.raises(InputError, match=r"'reader'.*writer") as caught:
        await replies(SimulatedWorkers({"writer": "x"}), ask())
    assert (caught.value.code, caught.value.hint) == ("C035", "SimulatedWorkers({'reader': …})")
    with pytest.raises(InputError, match=r"tools=\[shout\]"):
        await replies(SimulatedWorkers({}), ask("shout", kind="tool"))


@tool(effect="pure")
def shout(text: str) -> str:
    """Returns the text in capitals."""
    if not text:
        raise ValueError("nothing to say")
    return text.upper()


@tool(effect="keyed")
async def post(text: str, *, idempotency_key: str = "") -> str:
    """Returns its idempotency key."""
    return f"{text} {idempotency_key}"


async def test_workers_listed_tools_run_unchanged() -> None:
    workers = SimulatedWorkers({"reader": "read"}, tools=[shout, post])
    assert await value(workers, ask("shout", kind="tool")) == "HELLO"
    call = ask("post", kind="tool")
    assert await value(workers, call) == f"hello {call.idempotency_key}"
    assert await value(workers, ask()) == "read"
    assert await value(SimulatedWorkers({"shout": "said"}, tools=[shout]), ask("shout", kind="tool")) == "said", (
        "what a table says goes first"
    )
    assert await value(SimulatedWorkers(lambda call: "asked", tools=[shout]), ask("shout", kind="tool")) == "HELLO"
    refusal = only(await replies(workers, ask("shout", kind="tool", inputs={"text": ""})))
    assert isinstance(refusal, CallError)
    assert (refusal.code, refusal.permanent) == ("T003", True)


async def test_workers_catalog_values_quote_evidence() -> None:
    output = {"type": "object", "properties": {"quote": {"type": "string", "format": "quote"}}, "required": ["quote"]}
    catalog = Catalog(agents={"reader": Contract("reader", "agent", {}, output)})
    call = ask(evidence=(EvidenceSource("completed in 1889 by the company"),))
    quote = (await value(SimulatedWorkers(catalog, seed=5), call))["quote"]
    assert quote
    assert quote in call.evidence[0].text
    assert await value(SimulatedWorkers(from_schemas(catalog, 5)), call) == {"quote": quote}


async def test_workers_only_agents_use_tokens() -> None:
    workers = SimulatedWorkers(lambda call: "x" * 40)
    agent, tool = only(await replies(workers, ask())), only(await replies(workers, ask(kind="tool")))
    assert (agent.usage.output_tokens, agent.usage.calls) == (11, 1)
    assert (tool.usage.output_tokens, tool.usage.calls) == (0, 0)


async def test_workers_chunks_precede_value() -> None:
    *chunks, last = await replies(SimulatedWorkers(lambda call: "abcdefghij", chunks=3), ask())
    assert "".join(chunk for chunk in chunks if isinstance(chunk, str)) == "abcdefghij"
    assert len(chunks) == 3
    assert isinstance(last, CallResult)


@pytest.mark.parametrize(
    ("fault", "code", "retryable", "seconds"),
    [
        ("refused", "F203", True, 0),
        ("broken", "F212", False, 2),
        ("stall", "F205", True, 30),
        ("invalid", "M001", True, 2),
    ],
)
def test_workers_faults_have_code_and_delay(fault: str, code: str, retryable: bool, seconds: float) -> None:
    async def scene(clock: VirtualClock) -> tuple[Reply, float]:
        workers = SimulatedWorkers(lambda call: "x", clock=clock, latency=2.0, faults=faults_of({fault: 1.0}))
        found = await replies(workers, ask(timeout=30.0))
        assert workers.fault_counts == {fault: 1}
        return found[-1], clock.monotonic()

    reply, spent = run_simulated(scene)
    assert isinstance(reply, CallError)
    assert (reply.code, reply.retryable, spent) == (code, retryable, seconds)


async def test_workers_fault_wrong_type() -> None:
    workers = SimulatedWorkers(
        {"reader": "text", "count": 3, "row": {"a": 1}, "list": [1], "none": None}, faults=Faults(wrong_type=1.0)
    )
    for name, right in (("reader", str), ("count", int), ("row", dict), ("list", list), ("none", type(None))):
        assert not isinstance(await value(workers, ask(name)), right)


def test_workers_fault_slow() -> None:
    async def scene(clock: VirtualClock) -> tuple[list[Reply], float]:
        workers = SimulatedWorkers(lambda call: "abcdefgh", clock=clock, latency=1.0, faults=Faults(slow=1.0))
        return await replies(workers, ask()), clock.monotonic()

    found, spent = run_simulated(scene)
    assert spent == pytest.approx(10.0)
    assert [type(reply) for reply in found] == [str] * 4 + [CallResult]


async def test_workers_faults_end_after_attempts() -> None:
    workers = SimulatedWorkers(lambda call: "x", faults=Faults(refused=1.0, attempts=2))
    kinds = [type(only(await replies(workers, ask(attempt=attempt)))) for attempt in (1, 2, 3)]
    assert kinds == [CallError, CallError, CallResult]


def story(seed: int, order: int, stagger: float) -> dict[str, tuple[Any, ...]]:
    """Returns the results of many calls under one order of events."""

    async def scene(clock: VirtualClock) -> dict[str, tuple[Any, ...]]:
        faults = Faults(refused=0.2, stall=0.1, invalid=0.1, slow=0.2)
        workers = SimulatedWorkers(lambda call: call.node, seed=seed, clock=clock, latency=(0.1, 5.0), faults=faults)
        got: dict[str, tuple[Any, ...]] = {}

        async def one(number: int) -> None:
            await clock.sleep(stagger * number)
            begun = clock.monotonic()
            last = (await replies(workers, ask(node=f"n{number}", timeout=20.0)))[-1]
            got[f"n{number}"] = type(last), getattr(last, "code", ""), round(clock.monotonic() - begun, 6)

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(one(number))
        return got

    return run_simulated(scene, order)


def test_workers_results_follow_seed_not_order() -> None:
    assert story(1, 1, 0.0) == story(1, 2, 0.5)
    assert story(1, 1, 0.0) != story(2, 1, 0.0)
    assert len({kind for kind, *_ in story(1, 1, 0.0).values()}) == 2


def test_workers_cancelled_calls_are_recorded() -> None:
    async def scene(clock: VirtualClock) -> None:
        workers = SimulatedWorkers(lambda call: "abcdefgh", clock=clock, latency=10.0, chunks=4)
        task = asyncio.create_task(replies(workers, ask(node="cancelled")))
        await clock.sleep(1)
        assert [call.node for call in workers.in_flight.values()] == ["cancelled"]
        task.cancel()
        await asyncio.wait([task])

        def stop_reading(piece: str) -> None:
            early.cancel()

        early = asyncio.create_task(workers.call(ask(node="read"), stop_reading))
        await asyncio.wait([early])
        await workers.call(ask(node="heard"))
        assert [call.node for call in workers.cancelled] == ["cancelled", "read"]
        assert workers.in_flight == {}
        assert workers.max_in_flight == 1

    run_simulated(scene)


def test_workers_invalid_probabilities_are_refused() -> None:
    for wrong in ({"refused": -0.1}, {"refused": 0.6, "stall": 0.6}):
        with pytest.raises(ValueError, match="probabilities"):
            faults_of(wrong)


def test_testing_documented_names_exist() -> None:
    from orchestra import testing

    assert (testing.CallResult, testing.CallError) == (CallResult, CallError)
    assert {"CallResult", "CallError"} <= {*testing.__all__}
