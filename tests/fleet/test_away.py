"""Servers that are down or busy for long: waits are bounded, and the reason is reported."""

from __future__ import annotations

import asyncio
import socket

import pytest

from orchestra.core.protocols import CallError, CallResult
from orchestra.fleet.config import FleetLimits
from orchestra.fleet.http.model_server import ModelClient
from orchestra.fleet.http.openai_protocol import Completion
from orchestra.fleet.progress import Progress
from orchestra.fleet.request_errors import RequestError

from .calling import call, only, opened
from .conftest import RawServer, Visit, chat_answer, endpoints, raw_server, sending
from .test_sender import CHAT, answers, in_turn


def nobody(host: str = "127.0.0.1") -> str:
    """Returns an address on which no process listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://{host}:{free.getsockname()[1]}"


async def test_endpoint_never_answered_fails_within_seconds() -> None:
    url = nobody()
    hint = "start the server, or correct its address; orchestra doctor lists the servers of this machine"
    async with sending(endpoints(url)) as (sender, clock):
        for _attempt in range(3):  # attempts as the engine makes them
            result = await ModelClient(sender).chat("s0", CHAT, seconds=600)
            assert isinstance(result, RequestError)
            assert (result.code, result.hint, result.retryable) == ("F203", hint, True)
            assert result.reason.startswith(f"s0 at {url} cannot be reached: Connection refused")
    assert sum(clock.slept) < 3


async def test_endpoint_several_addresses_reports_system_reason() -> None:
    async with sending(endpoints(nobody("localhost"))) as (sender, _):
        result = await ModelClient(sender).chat("s0", CHAT, seconds=600)
    assert isinstance(result, RequestError)
    assert "Connection refused" in result.reason
    assert "Errno" not in result.reason


async def test_endpoint_absent_fails_all_requests_soon() -> None:
    async with sending(endpoints(nobody())) as (sender, clock):
        results = await asyncio.gather(*(ModelClient(sender).chat("s0", CHAT, seconds=600) for _ in range(12)))
        assert sum(clock.slept) < 20, "of all twelve together"
    assert {result.code for result in results if isinstance(result, RequestError)} == {"F203"}


async def test_endpoint_answered_before_gets_long_wait() -> None:
    async with raw_server(answers(chat_answer("yes"))) as server, sending(endpoints(server.url)) as (sender, clock):
        assert isinstance(await ModelClient(sender).chat("s0", CHAT, seconds=600), Completion)
        await asyncio.sleep(0)
        sender.config.servers["s0"].__dict__["endpoint"] = nobody() + "/v1"
        result = await ModelClient(sender).chat("s0", CHAT, seconds=600)
    assert isinstance(result, RequestError)
    assert sum(clock.slept) > 6
    assert "cannot be reached: Connection refused" in result.reason


async def test_endpoint_up_later_is_used() -> None:
    url = nobody()
    async with sending(endpoints(url)) as (sender, clock):
        for _attempt in range(3):
            await ModelClient(sender).chat("s0", CHAT, seconds=600)
        await clock.sleep(31)
        async with raw_server(answers(chat_answer("yes"))) as server:
            sender.config.servers["s0"].__dict__["endpoint"] = server.url + "/v1"
            assert isinstance(await ModelClient(sender).chat("s0", CHAT, seconds=600), Completion)


async def test_breaker_open_error_has_last_reason() -> None:
    play = in_turn(answers(b'{"error": {"message": "boom"}}', "500 Oops"))
    async with raw_server(play) as server, sending(endpoints(server.url)) as (sender, _):
        for _ in range(5):
            await ModelClient(sender).chat("s0", CHAT, seconds=60)
        result = await ModelClient(sender).chat("s0", CHAT, seconds=0.5)
    assert isinstance(result, RequestError)
    assert result.code == "F218"
    assert result.reason.endswith("; the last error: the server failed (HTTP 500: boom)")


async def test_call_two_absent_servers_fails_within_seconds() -> None:
    async with opened(endpoints(nobody(), nobody())) as fleet:
        refused = await only(fleet, call("writer"))
        assert fleet._clock.monotonic() < 10
    assert isinstance(refused, CallError)
    assert refused.code == "F203"


async def test_endpoint_starts_within_is_awaited() -> None:
    url, told, listening = nobody(), [], []
    play = in_turn(
        answers(b"", "502 Bad Gateway"),
        answers(b"", "503 Loading"),
        answers(b"", "404 Not Found"),
        answers(chat_answer("yes")),
    )

    def listen(progress: Progress) -> None:
        told.append(progress.message)
        taken = socket.create_server(("127.0.0.1", int(url.rpartition(":")[2])))
        listening.append(asyncio.create_task(asyncio.start_server(RawServer(play).handle, sock=taken)))

    async with opened(endpoints(url, starts_within=300), report=listen) as fleet:
        done = await only(fleet, call("writer", timeout=20))
        assert isinstance(done, CallResult)
        assert 5 < fleet._clock.monotonic() < 12
        (await listening[0]).close()
    assert told == [f"s0 at {url}/v1 does not answer yet: waiting for at most 300 s"]


async def test_endpoint_starts_within_expired_is_awaited_once() -> None:
    async with opened(endpoints(nobody(), starts_within=300)) as fleet:
        for _call in range(2):
            refused = await only(fleet, call("writer"))
            assert isinstance(refused, CallError)
            assert (refused.code, refused.retryable) == ("F203", True)
            assert 300 <= fleet._clock.monotonic() < 305


BUSY = answers(b'{"error": {"message": "slow down"}}', "429 Too Many Requests", "Retry-After: 1")


async def test_endpoint_busy_forever_fails_calls_with_progress() -> None:
    told: list[Progress] = []
    async with raw_server(BUSY) as server, sending(endpoints(server.url), told.append) as (sender, clock):
        for _attempt in range(3):  # attempts as the engine makes them
            result = await ModelClient(sender).chat("s0", CHAT, seconds=600)
            assert isinstance(result, RequestError)
            assert (result.code, result.retryable) == ("F204", True)
    assert 110 < sum(clock.slept) < 140, "of all attempts together"
    assert [progress.message for progress in told] == ["s0: the server is too busy (HTTP 429: slow down); trying again"]


async def test_endpoint_wait_is_reported() -> None:
    told: list[float] = []
    play = in_turn(BUSY, BUSY, BUSY, answers(chat_answer("yes")), *[BUSY] * 8, answers(chat_answer("yes")))
    async with (
        raw_server(play) as server,
        sending(endpoints(server.url), lambda _: told.append(sum(clock.slept))) as (sender, clock),
    ):
        assert isinstance(await ModelClient(sender).chat("s0", CHAT, seconds=600), Completion)
        assert told == [], "three seconds are worth no word"
        began = sum(clock.slept)
        assert isinstance(await ModelClient(sender).chat("s0", CHAT, seconds=600), Completion)
    assert len(told) == 1
    assert 2 < told[0] - began < 6


async def test_endpoint_answering_others_is_awaited() -> None:
    play = in_turn(*[BUSY, BUSY, BUSY, answers(chat_answer("yes"))] * 40)
    async with raw_server(play) as server, sending(endpoints(server.url)) as (sender, clock):
        for _ in range(40):
            assert isinstance(await ModelClient(sender).chat("s0", CHAT, seconds=600), Completion)
    assert sum(clock.slept) > 100


async def test_endpoint_old_failures_are_forgotten() -> None:
    async with raw_server(BUSY) as server, sending(endpoints(server.url)) as (sender, clock):
        await ModelClient(sender).chat("s0", CHAT, seconds=600)
        await clock.sleep(3600)
        before = len(server.visits)
        await ModelClient(sender).chat("s0", CHAT, seconds=600)
    assert len(server.visits) > before + 10


async def test_endpoint_retry_after_longer_than_limit_is_kept() -> None:
    limits = FleetLimits(retry_after_seconds=300)
    play = in_turn(answers(b"", "503 Busy", "Retry-After: 200"), answers(chat_answer("yes")))
    async with raw_server(play) as server, sending(endpoints(server.url, limits=limits)) as (sender, clock):
        assert isinstance(await ModelClient(sender).chat("s0", CHAT, seconds=600), Completion)
    assert clock.slept == [200]


async def test_call_all_servers_busy_forever_fails() -> None:
    async with raw_server(BUSY) as one, raw_server(BUSY) as two, opened(endpoints(one.url, two.url)) as fleet:
        refused = await only(fleet, call("writer"))
        assert fleet._clock.monotonic() < 150
    assert isinstance(refused, CallError)
    assert refused.code == "F204"


@pytest.mark.parametrize("said", ["429 Too Many Requests", "500 Internal Server Error", "404 Not Found"])
async def test_endpoint_any_answer_ends_wait(said: str) -> None:
    async def play(visit: Visit) -> None:
        await (visit.answer(b"", said) if visit.head.startswith("GET") else visit.answer(chat_answer("yes")))

    async with raw_server(play) as server, opened(endpoints(server.url, starts_within=300)) as fleet:
        assert isinstance(await only(fleet, call("writer", timeout=20)), CallResult)
        assert fleet._clock.monotonic() < 5
