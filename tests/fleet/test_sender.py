"""The sender: errors are values, only unseen requests are resent, and labels are enforced."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from orchestra.fleet.config import Endpoint, FleetLimits
from orchestra.fleet.http import connection
from orchestra.fleet.http.model_server import ModelClient
from orchestra.fleet.http.openai_protocol import ChatRequest, Completion
from orchestra.fleet.request_errors import RequestError

from .conftest import RawServer, Visit, chat_answer, endpoints, raw_server, sending

CHAT = ChatRequest(messages=[{"role": "user", "content": "hi"}], max_output=5)
STREAMED = ChatRequest(messages=[{"role": "user", "content": "hi"}], max_output=5, stream=True)
OK = "200 OK"


def answers(body: bytes, status: str = OK, *headers: str) -> Callable[[Visit], Any]:
    return lambda visit: visit.answer(body, status, *headers)


def in_turn(*plays: Callable[[Visit], Any]) -> Callable[[Visit], Any]:
    turns = itertools.chain(plays, itertools.repeat(plays[-1]))
    return lambda visit: next(turns)(visit)


async def cut(visit: Visit, *, after: bytes = b"") -> None:
    await visit.say(after)
    visit.writer.transport.abort()


async def chat(server: RawServer, what: ChatRequest = CHAT, **settings: Any) -> Completion | RequestError:
    async with sending(endpoints(server.url, **settings)) as (sender, _):
        return await ModelClient(sender).chat("s0", what, seconds=5)


LONG = b'{"error": {"message": "This model\'s maximum context length is 512 tokens"}}'
FAULTS: dict[str, tuple[Callable[[Visit], Any], str, bool]] = {
    "html": (answers(b"<html>login</html>"), "F209", True),
    "empty": (answers(b""), "F209", True),
    "wrong model": (answers(chat_answer("x", "another")), "F211", True),
    "bad request": (answers(b'{"error": {"message": "no"}}', "400 Bad Request"), "F207", False),
    "too long": (answers(LONG, "400 Bad Request"), "F215", False),
    "wrong key": (answers(b"", "401 Unauthorized"), "F214", False),
    "forbidden": (answers(b"", "403 Forbidden"), "F214", False),
    "not there": (answers(b"", "404 Not Found"), "F212", False),
    "teapot": (answers(b"", "418 I'm a teapot"), "F207", False),
    "redirect": (answers(b"", "302 Found", "Location: http://127.0.0.1:1/"), "F213", False),
    "error": (answers(b"oops", "500 Internal Server Error"), "F208", True),
    "not written": (answers(b"", "501 Not Implemented"), "F208", True),
    "gateway": (answers(b"", "502 Bad Gateway"), "F208", True),
    "reset before": (lambda visit: cut(visit), "F206", True),
    "reset in the middle": (
        lambda visit: cut(visit, after=b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"),
        "F206",
        True,
    ),
    "no http": (lambda visit: cut(visit, after=b"SSH-2.0-OpenSSH\r\n\r\n"), "F209", True),
    "too large": (answers(chat_answer("x" * 70_000)), "F210", True),
    "compressed": (answers(b"\x1f\x8b\x08\x00", OK, "Content-Encoding: gzip"), "F209", True),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_send_each_fault_has_its_code(name: str) -> None:
    play, code, seen = FAULTS[name]
    async with raw_server(play) as server:
        result = await chat(server, limits=FleetLimits(response_bytes=1 << 16))
    assert isinstance(result, RequestError)
    assert (result.code, result.reached_model) == (code, seen)
    assert result.sent.startswith(b'{"model"')
    assert len(server.visits) == 1, "nothing that a model may have seen, or that stays wrong, is sent again"


async def test_send_broken_response_keeps_received_bytes() -> None:
    async with raw_server(
        lambda visit: cut(visit, after=b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nhalf")
    ) as server:
        result = await chat(server)
    assert isinstance(result, RequestError)
    assert result.received == b"half"


async def test_send_keeps_exact_bytes() -> None:
    async with raw_server(answers(chat_answer("yes"))) as server:
        result = await chat(server)
    assert isinstance(result, Completion)
    assert result.sent == server.visits[0].body
    assert result.received == chat_answer("yes")


async def test_send_connection_refused() -> None:
    async with raw_server(answers(b"")) as server:
        pass
    async with sending(endpoints(server.url)) as (sender, clock):
        result = await ModelClient(sender).chat("s0", CHAT, seconds=600)
    assert isinstance(result, RequestError)
    assert (result.code, result.reached_model, result.retryable) == ("F203", False, True)
    assert 3 <= len(clock.slept) <= 20, "it was tried again, and not for ever"


async def test_send_unknown_host() -> None:
    async with sending(endpoints("http://no-such-host.invalid")) as (sender, _):
        result = await ModelClient(sender).chat("s0", CHAT, seconds=600)
    assert isinstance(result, RequestError)
    assert result.code == "F203"


async def test_send_tls_to_plain_server() -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as listener:
        url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with sending(endpoints(url)) as (sender, clock):
            result = await ModelClient(sender).chat("s0", CHAT, seconds=5)
    assert isinstance(result, RequestError)
    assert (result.code, result.retryable, clock.slept) == ("F203", False, [])


async def test_send_endless_handshake_is_not_reached() -> None:
    async with raw_server(answers(b"")) as server:
        config = endpoints(server.url.replace("http", "https"), limits=FleetLimits(connect_seconds=0.05))
        async with sending(config) as (sender, _):
            result = await ModelClient(sender).chat("s0", CHAT, seconds=5)
    assert isinstance(result, RequestError)
    assert (result.code, result.reached_model) == ("F203", False)


async def test_send_busy_is_resent_after_retry_after() -> None:
    play = in_turn(
        answers(b"", "429 Too Many Requests", "Retry-After: 7"), answers(b"", "503 Busy"), answers(chat_answer("yes"))
    )
    async with raw_server(play) as server, sending(endpoints(server.url)) as (sender, clock):
        result = await ModelClient(sender).chat("s0", CHAT, seconds=60)
    assert isinstance(result, Completion)
    assert (result.usage.resends, result.usage.calls, len(server.visits)) == (2, 1, 3)
    assert clock.slept[0] == 7
    assert clock.slept[1] < 1


@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"])
async def test_send_retry_after_date_is_obeyed(form: str) -> None:
    after = time.strftime(form, time.gmtime(time.time() + 20))
    play = in_turn(answers(b"", "503 Busy", f"Retry-After: {after}"), answers(chat_answer("yes")))
    async with raw_server(play) as server, sending(endpoints(server.url)) as (sender, clock):
        result = await ModelClient(sender).chat("s0", CHAT, seconds=60)
    assert isinstance(result, Completion)
    assert 10 < clock.slept[0] <= 20


@pytest.mark.parametrize("after", ["0", "-1"])
async def test_send_retry_after_zero_still_pauses(after: str) -> None:
    busy = answers(b"", "429 Too Many Requests", f"Retry-After: {after}")
    async with raw_server(busy) as server, sending(endpoints(server.url)) as (sender, clock):
        async with asyncio.timeout(60):
            result = await ModelClient(sender).chat("s0", CHAT, seconds=20)
    assert isinstance(result, RequestError)
    assert result.code == "F204"
    assert 5 < sum(clock.slept) < 20
    assert len(server.visits) < 12


@pytest.mark.parametrize("after", ["100000", "99999999999999999999999", "Fri, 31 Dec 2199 23:59:59 GMT"])
async def test_send_huge_retry_after_is_not_obeyed(after: str) -> None:
    async with (
        raw_server(answers(b"", "429 Too Many Requests", f"Retry-After: {after}")) as server,
        sending(endpoints(server.url)) as (sender, clock),
    ):
        result = await ModelClient(sender).chat("s0", CHAT, seconds=600)
    assert isinstance(result, RequestError)
    assert (result.code, clock.slept, len(server.visits)) == ("F204", [], 1)


@pytest.mark.parametrize(
    "after", ["soon", "-5", "7.5", "\N{SUPERSCRIPT TWO}", "Fri, 99 Foo", "Sun Nov  6 08:49:37 1994"]
)
async def test_send_invalid_retry_after_is_ignored(after: str) -> None:
    play = in_turn(answers(b"", "429 Too Many Requests", f"Retry-After: {after}"), answers(chat_answer("yes")))
    async with raw_server(play) as server:
        assert isinstance(await chat(server), Completion)


async def test_send_resends_end_at_deadline() -> None:
    async with raw_server(answers(b"", "503 Busy")) as server, sending(endpoints(server.url)) as (sender, clock):
        result = await ModelClient(sender).chat("s0", CHAT, seconds=20)
    assert isinstance(result, RequestError)
    assert result.code == "F204"
    assert sum(clock.slept) < 20
    assert f"sent {len(server.visits)} times" in result.reason


async def test_send_no_response_ends_at_deadline() -> None:
    async with raw_server(lambda visit: visit.gone()) as server, sending(endpoints(server.url)) as (sender, _):
        result = await ModelClient(sender).chat("s0", CHAT, seconds=0.05)
    assert isinstance(result, RequestError)
    assert (result.code, result.retryable) == ("F205", True)


async def test_send_silent_stream_is_error() -> None:
    async def stall(visit: Visit) -> None:
        await visit.say(b"HTTP/1.1 200 OK\r\n\r\ndata: ")
        await visit.gone()

    limits = FleetLimits(silence_seconds=0.05)
    async with raw_server(stall) as server, sending(endpoints(server.url, limits=limits)) as (sender, _):
        result = await ModelClient(sender).chat("s0", STREAMED, seconds=30)
    assert isinstance(result, RequestError)
    assert result.code == "F205"


async def test_send_stream_passes_text_at_once() -> None:
    rows = [{"model": "m", "choices": [{"delta": {"content": text}}]} for text in ("a", "b")]
    rows.append({"model": "m", "choices": [{"delta": {}, "finish_reason": "stop"}]})
    lines = [b"data: " + json.dumps(row).encode() + b"\n\n" for row in rows]
    texts: list[str] = []
    arrived = asyncio.Event()

    async def play(visit: Visit) -> None:
        await visit.say(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", lines[0])
        await arrived.wait()
        await visit.say(*lines[1:], b"data: [DONE]\n\n")
        visit.writer.close()

    def on_text(text: str) -> None:
        texts.append(text)
        arrived.set()

    async with raw_server(play) as server, sending(endpoints(server.url)) as (sender, _):
        result = await ModelClient(sender).chat("s0", STREAMED, seconds=5, on_text=on_text)
    assert isinstance(result, Completion)
    assert (texts, result.text) == (["a", "b"], "ab")


async def test_send_stream_ends_at_done_behind_proxy() -> None:
    row = {"model": "m", "choices": [{"delta": {"content": "whole"}, "finish_reason": "stop"}]}

    async def play(visit: Visit) -> None:
        await visit.say(b"HTTP/1.1 200 OK\r\n\r\ndata: ", json.dumps(row).encode(), b"\n\ndata: [DONE]\n\n")
        await visit.gone()

    async with raw_server(play) as server:
        result = await chat(server, STREAMED)
    assert isinstance(result, Completion)
    assert result.text == "whole"


ENDED = {"model": "m", "choices": [{"delta": {"content": "whole"}, "finish_reason": "stop"}]}


@pytest.mark.parametrize("more", [b"", b": ping\n\n", b'data: {"model": "m", "usage": {"prompt_tok'])
@pytest.mark.parametrize("closes", [False, True])
async def test_send_stream_finished_without_done_is_complete(more: bytes, closes: bool) -> None:
    async def play(visit: Visit) -> None:
        said = b"data: " + json.dumps(ENDED).encode() + b"\n\n" + more
        await visit.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(said), said))
        if closes:
            visit.writer.transport.abort()
        else:
            await visit.gone()

    async with raw_server(play) as server:
        result = await chat(server, STREAMED, limits=FleetLimits(silence_seconds=0.1))
    assert isinstance(result, Completion)
    assert (result.text, result.usage_is_exact) == ("whole", False)


async def test_send_error_after_finish_is_error() -> None:
    async def play(visit: Visit) -> None:
        await visit.say(b"HTTP/1.1 200 OK\r\n\r\ndata: ", json.dumps(ENDED).encode(), b'\n\ndata: {"error": "no"}\n\n')
        await visit.gone()

    async with raw_server(play) as server:
        result = await chat(server, STREAMED)
    assert isinstance(result, RequestError)
    assert result.code == "F208"


async def test_send_huge_line_ends_stream_early() -> None:
    async def play(visit: Visit) -> None:
        await visit.say(b"HTTP/1.1 200 OK\r\n\r\ndata: ", *[b"x" * 100_000] * 100)

    async with raw_server(play) as server:
        result = await chat(server, STREAMED)
    assert isinstance(result, RequestError)
    assert result.code == "F210"
    assert len(result.received) < 3 << 20


async def test_send_cancelled_closes_connection() -> None:
    came, closed = asyncio.Event(), asyncio.Event()

    async def play(visit: Visit) -> None:
        came.set()
        await visit.gone()
        closed.set()

    async with raw_server(play) as server, sending(endpoints(server.url)) as (sender, _):
        task = asyncio.create_task(ModelClient(sender).chat("s0", CHAT, seconds=60))
        await came.wait()
        task.cancel()
        await asyncio.wait_for(closed.wait(), 60)
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert sender.states["s0"].load == 0


@pytest.mark.parametrize(
    ("label", "ceiling", "goes"),
    [("restricted", "internal", False), ("internal", "public", False), ("internal", "internal", True)],
)
async def test_send_label_is_enforced(label: Any, ceiling: str, goes: bool) -> None:
    async with (
        raw_server(answers(chat_answer("yes"))) as server,
        sending(endpoints(server.url, label=ceiling)) as (sender, _),
    ):
        client = ModelClient(sender)
        results: list[Any] = [
            await client.chat("s0", CHAT, label=label),
            await client.count_tokens("s0", CHAT.messages, label=label),
        ]
    if goes:
        assert len(server.visits) == 2
    else:
        assert [result.code for result in results if isinstance(result, RequestError)] == ["F202"] * 2
        assert server.visits == [], "the server received no request"


async def test_send_key_is_read_late_and_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "canary-1234")
    async with raw_server(answers(b"canary?", "400 Bad Request")) as server:
        result = await chat(server, api_key="env:SOME_KEY")
    assert "Authorization: Bearer canary-1234" in server.visits[0].head
    assert "canary-1234" not in repr(result)


@pytest.mark.parametrize(
    ("dialect", "path", "asked"),
    [
        ("openai", "", "/v1/chat/completions"),
        ("openai", "/v1", "/v1/chat/completions"),
        ("openai", "/openai/v1", "/openai/v1/chat/completions"),
        ("openai", "/api/v3", "/api/v3/chat/completions"),
        ("openai", "/v1beta/openai/", "/v1beta/openai/chat/completions"),
        ("vllm", "/proxy", "/proxy/v1/chat/completions"),
        ("ollama", "/proxy/", "/proxy/v1/chat/completions"),
        ("llamacpp", "/proxy/v1", "/proxy/v1/chat/completions"),
    ],
)
async def test_send_address_with_path_is_unchanged(dialect: Any, path: str, asked: str) -> None:
    async with raw_server(answers(chat_answer("yes"))) as server:
        far = Endpoint(endpoint=server.url + path, model="m", label="restricted", dialect=dialect)
        config = endpoints(server.url).model_copy(update={"servers": {"s0": far}})
        async with sending(config) as (sender, _):
            result = await ModelClient(sender).chat("s0", CHAT, seconds=30)
    assert isinstance(result, Completion)
    assert server.visits[0].head.startswith(f"POST {asked} HTTP/1.1")


@pytest.mark.parametrize(("path", "told"), [("/proxy", True), ("", False)])
async def test_send_404_with_own_path_has_v1_hint(path: str, told: bool) -> None:
    async with raw_server(answers(b"", "404 Not Found")) as server:
        far = Endpoint(endpoint=server.url + path, model="m", label="restricted")
        async with sending(endpoints(server.url).model_copy(update={"servers": {"s0": far}})) as (sender, _):
            result = await ModelClient(sender).chat("s0", CHAT, seconds=30)
    assert isinstance(result, RequestError)
    assert (result.code, f"write {server.url}/proxy/v1 under" in result.hint) == ("F212", told)


async def test_send_missing_key_sends_nothing() -> None:
    async with raw_server(answers(b"")) as server:
        result = await chat(server, api_key="env:NOT_SET_ANYWHERE")
    assert isinstance(result, RequestError)
    assert (result.code, server.visits) == ("F105", [])


async def test_send_ignores_proxy_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    async with raw_server(answers(chat_answer("yes"))) as server:
        assert isinstance(await chat(server), Completion)


async def test_send_failing_server_pauses_then_retries() -> None:
    play = in_turn(*[answers(b"", "500 Oops")] * 5, answers(chat_answer("yes")))
    async with raw_server(play) as server, sending(endpoints(server.url)) as (sender, clock):
        for _ in range(5):
            await ModelClient(sender).chat("s0", CHAT, seconds=60)
        assert sender.states["s0"].breaker.state == "open"
        result = await ModelClient(sender).chat("s0", CHAT, seconds=60)
    assert isinstance(result, Completion)
    assert clock.slept == [1.0], "it waited until the server might answer again"


async def test_send_failure_burst_pauses_one_second() -> None:
    visits = 0
    together = asyncio.Event()

    async def play(visit: Visit) -> None:
        nonlocal visits
        visits += 1
        if visits > 16:
            await visit.answer(chat_answer("yes"))
            return
        if visits == 16:
            together.set()
        await together.wait()
        visit.writer.transport.abort()

    async with raw_server(play) as server, sending(endpoints(server.url)) as (sender, clock):
        await asyncio.gather(*(ModelClient(sender).chat("s0", CHAT, seconds=20) for _ in range(16)))
        assert sender.states["s0"].breaker.state == "open"
        result = await ModelClient(sender).chat("s0", CHAT, seconds=20)
    assert isinstance(result, Completion)
    assert clock.slept == [1.0]


@pytest.mark.parametrize(("short_timeout", "state"), [(connection.SHORT_TIMEOUT, "closed"), (-math.inf, "open")])
async def test_send_short_timeout_is_no_evidence(
    monkeypatch: pytest.MonkeyPatch, short_timeout: float, state: str
) -> None:
    monkeypatch.setattr(connection, "SHORT_TIMEOUT", short_timeout)
    async with raw_server(lambda visit: visit.gone()) as server, sending(endpoints(server.url)) as (sender, _):
        await asyncio.gather(*(ModelClient(sender).chat("s0", CHAT, seconds=0.05) for _ in range(12)))
        assert sender.states["s0"].breaker.state == state


async def test_send_failed_trial_of_ours_frees_breaker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play = in_turn(*[answers(b"", "500 Oops")] * 5, answers(chat_answer("yes")))
    async with raw_server(play) as server, sending(endpoints(server.url)) as (sender, _):
        for _ in range(5):
            await ModelClient(sender).chat("s0", CHAT, seconds=60)
        with monkeypatch.context() as patched:
            patched.setattr(sender._client, "exchange", None)
            with pytest.raises(TypeError):
                await ModelClient(sender).chat("s0", CHAT, seconds=60)
        assert isinstance(await ModelClient(sender).chat("s0", CHAT, seconds=60), Completion)


async def test_send_in_flight_limit_is_kept() -> None:
    inside = most = 0

    async def play(visit: Visit) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.005)
        inside -= 1
        await visit.answer(chat_answer("yes"))

    async with (
        raw_server(play) as server,
        sending(endpoints(server.url, limits=FleetLimits(in_flight=3))) as (sender, _),
    ):
        results = await asyncio.gather(*(ModelClient(sender).chat("s0", CHAT, seconds=30) for _ in range(12)))
    assert all(isinstance(result, Completion) for result in results)
    assert most == 3


async def test_send_unknown_server_is_error() -> None:
    from orchestra.fleet.http.client import HttpRequest

    async with sending(endpoints("http://127.0.0.1:1")) as (sender, _):
        sent = await sender.send("nobody", HttpRequest("/health"))
    assert isinstance(sent.result, RequestError)
    assert sent.result.code == "F201"


@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b""])
async def test_send_pings_after_end_do_not_delay(end: bytes) -> None:
    said = {"id": "x", "model": "m", "choices": [{"index": 0, "finish_reason": "stop", "delta": {"content": "yes"}}]}

    async def pings(visit: Visit) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: "
        await visit.say(head + json.dumps(said).encode() + b"\n\n" + end)
        for _ in range(1200):
            await asyncio.sleep(0.05)
            await visit.say(b": ping\n\n")
            sent.append(1)

    sent: list[int] = []
    async with raw_server(pings) as server, sending(endpoints(server.url)) as (sender, _):
        found = await ModelClient(sender).chat("s0", STREAMED, seconds=59)
        assert isinstance(found, Completion)
        assert found.text == "yes"
        assert len(sent) < 600, "half of what the server would send"
