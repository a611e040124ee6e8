"""Runs on a fleet whose endpoint fails one request in seven, in many ways, with default settings and in
virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from orchestra.agents.contract import Catalog
from orchestra.core.protocols import CallError, CallResult
from orchestra.engine.engine import Engine
from orchestra.engine.request import RunRequest
from orchestra.fleet import dispatch
from orchestra.fleet.config import FleetLimits
from orchestra.fleet.dispatch import Fleet
from orchestra.fleet.http import client
from orchestra.fleet.http.client import HttpClient, HttpRequest, HttpResponse
from orchestra.fleet.http.connection import connection_error, protocol_error, size_error, timeout_error
from orchestra.fleet.request_errors import RequestError
from orchestra.journal.memory import MemoryJournal
from orchestra.testing.virtual_clock import VirtualClock, run_simulated
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.yaml.reader import read
from tests.sizes import sample_size

from .calling import CARDS, WRITER, call
from .conftest import chat_answer, endpoints

SHARE = 0.14
SEVEN_MORE = "\n".join(f'  n{at}: {{agent: writer, with: {{text: "${{n{at - 1}}}"}}}}' for at in range(1, 8))
CHAIN = f"""\
schema: orchestra/v1
name: chain
input: {{text: str}}
output: ${{n7}}
nodes:
  n0: {{agent: writer, with: {{text: "${{input.text}}"}}}}
{SEVEN_MORE}
"""


def rejected(status: int, **headers: str) -> RequestError:
    return client._status_error(status, headers, b"")


FAULTS: tuple[bytes | RequestError | None, ...] = (
    rejected(429, **{"retry-after": "1"}),
    rejected(503),
    None,  # hangs
    None,  # drips
    connection_error(False, ConnectionResetError()),
    connection_error(True, None),
    b"\xff\x00garbage",
    b"<html><body>Sign in</body></html>",
    b"[" * 200_000 + b"]" * 200_000,
    chat_answer("yes", usage={"prompt_tokens": -5, "completion_tokens": -5}),
    chat_answer("yes", usage={"prompt_tokens": 1e30, "completion_tokens": 1e30}),
    chat_answer("yes", choices=[]),
    rejected(302, location="http://127.0.0.1:1/"),
    rejected(500),
    size_error(1 << 24),
    size_error(1 << 24),
    protocol_error("its headers have more than 65536 bytes"),
    protocol_error("Invalid Content-Length"),
)


class Played(HttpClient):
    """Answers by a function of the request."""

    play: Callable[[], bytes | RequestError | None]

    async def exchange(self, root: str, request: HttpRequest, *arguments: Any, **_: Any) -> HttpResponse | RequestError:
        seconds, found = arguments[1], self.play()
        took = seconds if found is None else 0.05
        await asyncio.sleep(min(took, seconds))
        if took >= seconds:
            return replace(timeout_error(seconds), sent=b"x")
        return (
            HttpResponse(b"x", found)
            if isinstance(found, bytes)
            else replace(found, sent=b"x")
            if found
            else timeout_error(seconds)
        )


def played(monkeypatch: pytest.MonkeyPatch, play: Callable[[], bytes | RequestError | None]) -> None:
    monkeypatch.setattr(dispatch, "HttpClient", type("HttpClient", (Played,), {"play": staticmethod(play)}))


def opened(clock: VirtualClock, **limits: Any) -> AbstractAsyncContextManager[Fleet]:
    return Fleet.open(endpoints("http://s0", limits=FleetLimits(**limits)), cards=CARDS, mode="none", clock=clock)


def run_chains(runs: int, seed: int = 0) -> int:
    """Executes chains of eight calls at once, and returns how many were done."""

    async def main(clock: VirtualClock) -> int:
        async with opened(clock) as fleet:
            engine = Engine(clock, MemoryJournal(), fleet)
            program = compile_graph(read(CHAIN, "chain.yaml").graph, Catalog(agents={"writer": WRITER.contract}))
            started = [engine.start(program, RunRequest(inputs={"text": "yes"}, graph="0" * 32)) for _ in range(runs)]
            ended = [await run.wait() for run in started]
            await engine.close()
            return sum(one.status == "done" for one in ended)

    return run_simulated(main, seed)


@pytest.mark.parametrize(
    "seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, sample_size(30)))]
)
def test_mixed_faults_19_of_20_runs_finish(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance, runs = Random(f"mixed {seed}"), 100

    def play() -> bytes | RequestError | None:
        return chance.choice(FAULTS) if chance.random() < SHARE else chat_answer("yes")

    played(monkeypatch, play)
    assert run_chains(runs, seed) >= 0.95 * runs


def test_hanging_trial_of_breaker_loses_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = FleetLimits().in_flight
    plays: list[bytes | RequestError | None] = [chat_answer("yes")] * at_once
    plays += [connection_error(False, ConnectionResetError())] * at_once  # the breaker opens
    plays += [None]  # its trial hangs for `request_seconds`
    turns = iter(plays)
    played(monkeypatch, lambda: next(turns, chat_answer("yes")))
    assert run_chains(100) == 100


@pytest.mark.parametrize(("timeout", "answered"), [(None, 40), (1.0, 17)])
def test_call_queue_wait_ends_at_node_timeout(timeout: float | None, answered: int, monkeypatch: Any) -> None:
    async def main(clock: VirtualClock) -> list[CallResult | CallError]:
        async with opened(clock, in_flight=1, request_seconds=0.2) as fleet:
            return list(
                await asyncio.gather(*(fleet.call(call("writer", run=str(at), timeout=timeout)) for at in range(40)))
            )

    played(monkeypatch, lambda: chat_answer("yes"))
    replies = run_simulated(main)
    assert abs(sum(isinstance(reply, CallResult) for reply in replies) - answered) <= 1
    assert {reply.code for reply in replies if isinstance(reply, CallError)} <= {"F204", "F205"}


@pytest.mark.parametrize("before", [False, True])
def test_redirect_retryable_only_after_an_answer(before: bool, monkeypatch: Any) -> None:
    plays = [chat_answer("yes")] * before + [rejected(302, location="http://127.0.0.1:1/")]

    async def main(clock: VirtualClock) -> CallResult | CallError:
        async with opened(clock) as fleet:
            for _ in range(len(plays) - 1):
                await fleet.call(call("writer"))
            return await fleet.call(call("writer"))

    turns = iter(plays)
    played(monkeypatch, lambda: next(turns))
    refused = run_simulated(main)
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable) == ("F213", before)
