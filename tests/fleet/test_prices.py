"""Costs of failed calls: unusable responses are billed, so errors have a usage, and budgets hold."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from orchestra.core.protocols import CallError
from orchestra.fleet.config import FleetLimits

from .calling import call, only, opened
from .conftest import Visit, endpoints, raw_server

PRICE = {"prompt": 100, "output": 1000}
COUNTS = {"prompt_tokens": 5000, "completion_tokens": 4000}


def answer(message: Any = None, finish: str = "stop", model: str = "m", **more: Any) -> bytes:
    choices = [{"message": message or {"content": "x"}, "finish_reason": finish}]
    return json.dumps({"model": model, "choices": choices, "usage": COUNTS} | more).encode()


def events(*rows: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps({"model": "m", **row}).encode() + b"\n\n" for row in rows)


UNUSABLE = {
    "cut off while it thought": (answer({"content": None}, "length"), "F209"),
    "calls of tools": (answer({"content": None, "tool_calls": []}), "F209"),
    "parts of a content": (answer({"content": [{"type": "text", "text": "x"}]}), "F209"),
    "no choice": (answer(choices=[]), "F209"),
    "another model": (answer(model="n"), "F211"),
    "an end of the server": (answer(finish="error"), "F206"),
    "a filter": (answer(finish="content_filter"), "F206"),
    "an error": (answer(error={"message": "no"}), "F208"),
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("stream", [False, True])
async def test_unusable_response_is_billed(name: str, stream: bool) -> None:
    body, code = UNUSABLE[name]
    async with (
        raw_server(lambda visit: visit.answer(body)) as server,
        opened(endpoints(server.url, price=PRICE)) as fleet,
    ):
        refused = await only(fleet, call("writer"), stream)
    assert isinstance(refused, CallError)
    assert (refused.code, refused.usage.calls) == (code, 1)
    assert (refused.usage.prompt_tokens, refused.usage.output_tokens) == (5000, 4000)
    assert refused.usage.money == pytest.approx(4.5)


STREAMS = {
    "broken off": (events({"choices": [{"delta": {"content": "a"}}], "usage": COUNTS}), "F217"),
    "another model": (
        events({"model": "n", "choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}], "usage": COUNTS}),
        "F211",
    ),
    "no json": (events({"choices": [], "usage": COUNTS}) + b"data: {\n\n", "F209"),
}


@pytest.mark.parametrize("name", STREAMS)
async def test_unusable_stream_is_billed_as_reported(name: str) -> None:
    body, code = STREAMS[name]
    async with (
        raw_server(lambda visit: visit.answer(body)) as server,
        opened(endpoints(server.url, price=PRICE)) as fleet,
    ):
        refused = await only(fleet, call("writer"), stream=True)
    assert isinstance(refused, CallError)
    assert (refused.code, refused.usage.output_tokens) == (code, 4000)
    assert refused.usage.money == pytest.approx(4.5)


async def test_stalled_stream_is_billed_as_reported() -> None:
    async def stall(visit: Visit) -> None:
        await visit.say(b"HTTP/1.1 200 OK\r\n\r\n", events({"choices": [], "usage": COUNTS}))
        await visit.gone()

    async with raw_server(stall) as server:
        config = endpoints(server.url, price=PRICE, limits=FleetLimits(silence_seconds=0.05))
        async with opened(config) as fleet, asyncio.timeout(60):
            refused = await only(fleet, call("writer"), stream=True)
    assert isinstance(refused, CallError)
    assert refused.code == "F205"
    assert refused.usage.money == pytest.approx(4.5)


BROKEN = {
    "late": (b"", "F205"),
    "before": (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", "F206"),
    "in the middle": (b"HTTP/1.1 200 OK\r\n\r\n" + answer()[:-90], "F209"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("price", [PRICE, None])
async def test_broken_response_costs_reserved_amount(name: str, price: Any) -> None:
    said, code = BROKEN[name]

    async def play(visit: Visit) -> None:
        await visit.say(said)
        if said:
            visit.writer.close()
        else:
            await visit.gone()

    async with raw_server(play) as server, opened(endpoints(server.url, price=price)) as fleet:
        what = call("writer", timeout=1)
        refused = await only(fleet, what)
        most = fleet.estimate(what)
    assert isinstance(refused, CallError)
    assert refused.code == code
    assert most.max_output > 0
    tokens = (most.prompt_tokens, most.max_output)
    assert (refused.usage.prompt_tokens, refused.usage.output_tokens, refused.usage.calls) == (*tokens, 1)
    assert refused.usage.estimated_tokens == sum(tokens)
    assert refused.usage.money == (pytest.approx((tokens[0] * 100 + tokens[1] * 1000) / 1e6) if price else 0)


async def test_unsent_request_costs_nothing() -> None:
    found: list[CallError] = []
    async with raw_server(lambda visit: visit.gone()) as gone:
        pass
    async with raw_server(lambda visit: visit.gone()) as silent:
        for url in (gone.url, silent.url.replace("http", "https")):
            async with opened(endpoints(url, price=PRICE)) as fleet:
                reply = await only(fleet, call("writer", timeout=1))
                assert isinstance(reply, CallError)
                found.append(reply)
    assert [refused.code for refused in found] == ["F203", "F205"], "no server listens, and no handshake ends"
    assert [refused.usage.money for refused in found] == [0.0, 0.0]


async def test_refused_or_unsent_request_costs_no_tokens() -> None:
    async with (
        raw_server(lambda visit: visit.answer(b"", "500 Oops")) as server,
        opened(endpoints(server.url, price=PRICE)) as fleet,
    ):
        failed = await only(fleet, call("writer"))
        nobody = await only(fleet, call("nobody"))
    assert isinstance(failed, CallError)
    assert isinstance(nobody, CallError)
    assert (failed.usage.calls, failed.usage.money) == (1, 0.0)
    assert nobody.usage.calls == 0
