"""HTTP connections: reuse after a complete response only, and all ways in which a response can end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.fleet.config import FleetLimits
from orchestra.fleet.http.client import HttpClient, HttpRequest, HttpResponse
from orchestra.fleet.http.connection import HttpConnection
from orchestra.fleet.request_errors import RequestError
from tests.fleet.conftest import RawServer, Visit, raw_server

ASKED = HttpRequest("/v1/x", b"{}")


def says(*pieces: bytes, close: bool = False) -> Callable[[Visit], Awaitable[None]]:
    async def play(visit: Visit) -> None:
        await visit.say(*pieces)
        if close:
            visit.writer.close()

    return play


async def asked(
    server: RawServer, times: int = 1, headers: Mapping[str, str] | None = None, **limits: Any
) -> list[HttpResponse | RequestError]:
    async with HttpClient(FleetLimits(**limits)) as client:
        return [await client.exchange(server.url, ASKED, headers or {}, 5) for _ in range(times)]


async def over(server: RawServer) -> bool:
    """Waits until the server's first connection has ended."""
    return bool((await asyncio.wait([asyncio.ensure_future(server.writers[0].wait_closed())], timeout=60))[0])


WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"
ENDS: dict[str, tuple[bytes, bool]] = {
    "length": (WHOLE, False),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\ny\r\n2;a=b\r\nes\r\n0\r\nMore: x\r\n\r\n",
        False,
    ),
    "after a hint": (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + WHOLE, False),
    "the connection's end": (b"HTTP/1.1 200 OK\r\n\r\nyes", True),
    "the old protocol": (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nyes", True),
    "said goodbye": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nyes", True),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_response_with_content_length_ends_there(name: str, size: int) -> None:
    whole, close = ENDS[name]
    async with raw_server(says(*[whole[at : at + size] for at in range(0, len(whole), size)], close=close)) as server:
        found = await asked(server, 2)
    assert found == [HttpResponse(b"{}", b"yes")] * 2
    assert len(server.writers) == (2 if close else 1), "a connection is used again where the server keeps it"


async def test_response_empty_body_is_complete() -> None:
    async with raw_server(says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as server:
        assert await asked(server, 2) == [HttpResponse(b"{}", b"")] * 2
    assert len(server.writers) == 1


async def test_request_has_host_and_content_length() -> None:
    async with raw_server(says(WHOLE)) as server:
        await asked(server, headers={"Authorization": "Bearer x"})
    lines = server.visits[0].head.split("\r\n")
    assert lines[0] == "POST /v1/x HTTP/1.1"
    assert {f"Host: 127.0.0.1:{server.port}", "Authorization: Bearer x", "Content-Length: 2"} <= set(lines)


@pytest.mark.parametrize("more", [WHOLE.replace(b"yes", b"no!"), b"junk\r\n\r\n"])
async def test_connection_surplus_bytes_are_not_next_response(more: bytes) -> None:
    plays = iter([says(WHOLE + more), says(WHOLE)])
    async with raw_server(lambda visit: next(plays)(visit)) as server:
        assert await asked(server, 2) == [HttpResponse(b"{}", b"yes")] * 2
    assert len(server.writers) == 2


async def test_connection_unrequested_bytes_close_it() -> None:
    async with raw_server(says(WHOLE)) as server, HttpClient(FleetLimits()) as client:
        await client.exchange(server.url, ASKED, {}, 5)
        server.writers[0].write(WHOLE.replace(b"yes", b"no!"))
        assert await over(server)
        assert await client.exchange(server.url, ASKED, {}, 5) == HttpResponse(b"{}", b"yes")
    assert len(server.writers) == 2


async def test_client_concurrent_requests_use_own_connections() -> None:
    meeting = asyncio.Barrier(3)

    async def play(visit: Visit) -> None:
        await meeting.wait()
        await visit.say(WHOLE)

    async with raw_server(play) as server, HttpClient(FleetLimits()) as client:
        for _ in range(2):
            found = await asyncio.gather(*(client.exchange(server.url, ASKED, {}, 5) for _ in range(3)))
            assert found == [HttpResponse(b"{}", b"yes")] * 3
    assert len(server.writers) == 3


async def test_client_exit_closes_connections() -> None:
    async with raw_server(says(WHOLE)) as server:
        await asked(server)
        assert await over(server)


async def test_response_endless_head_is_refused() -> None:
    async with raw_server(says(b"HTTP/1.1 200 OK\r\n", *[b"X: " + b"y" * 5000 + b"\r\n"] * 40)) as server:
        found = await asked(server)
    assert isinstance(found[0], RequestError)
    assert found[0].code == "F209"


async def test_error_response_long_body_is_cut_and_closes() -> None:
    async with raw_server(says(b"HTTP/1.1 500 No\r\nContent-Length: 900000\r\n\r\n", b"x" * 900_000)) as server:
        found = await asked(server)
    assert isinstance(found[0], RequestError)
    assert found[0].code == "F208"
    assert len(found[0].received) < 500_000


@pytest.mark.parametrize("key", ["a\r\nX: y", "a\nb", "a\0b"])
async def test_request_header_with_line_break_is_not_sent(key: str) -> None:
    async with raw_server(says(WHOLE)) as server:
        found = await asked(server, headers={"Authorization": key})
    assert isinstance(found[0], RequestError)
    assert (found[0].code, server.visits) == ("F209", [])


async def test_stream_reader_exception_reaches_caller() -> None:
    def broken(block: bytes) -> RequestError | None:
        raise LookupError(block)

    async with raw_server(says(WHOLE)) as server, HttpClient(FleetLimits()) as client:
        with pytest.raises(LookupError):
            await client.exchange(server.url, HttpRequest("/v1/x", b"{}", stream=True), {}, 5, broken)
        assert await over(server)


STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nover\r\n"


async def streamed(server: RawServer, times: int = 1) -> list[HttpResponse | RequestError]:
    """Returns the bodies of streams that end before their connection does."""
    request = HttpRequest("/v1/x", b"{}", stream=True)
    async with HttpClient(FleetLimits()) as client:
        return [
            await client.exchange(server.url, request, {}, 5, lambda block: 0.2 if block.endswith(b"over") else None)
            for _ in range(times)
        ]


async def test_stream_done_without_close_is_complete() -> None:
    async def play(visit: Visit) -> None:
        await visit.say(STREAM)
        await visit.gone()

    async with raw_server(play) as server:
        assert await streamed(server) == [HttpResponse(b"{}", b"over")]
        assert await over(server)


@pytest.mark.parametrize("junk", [b"", b"zzz\r\n"])
async def test_stream_break_after_done_is_ignored(junk: bytes) -> None:
    async def play(visit: Visit) -> None:
        await visit.say(STREAM, junk)
        visit.writer.transport.close()

    async with raw_server(play) as server:
        assert await streamed(server) == [HttpResponse(b"{}", b"over")]


async def test_stream_body_ends_soon_connection_is_reused() -> None:
    async def play(visit: Visit) -> None:
        await visit.say(STREAM)
        await asyncio.sleep(0.02)
        await visit.say(b"0\r\n\r\n")

    async with raw_server(play) as server:
        assert await streamed(server, 2) == [HttpResponse(b"{}", b"over")] * 2
    assert len(server.writers) == 1


async def test_stream_data_after_end_extends_wait() -> None:
    async def play(visit: Visit) -> None:
        await visit.say(STREAM)
        await asyncio.sleep(0.02)
        await visit.say(b"6\r\n: ping\r\n4\r\nover\r\n")
        await visit.gone()

    waits = iter((5.0, None, 0.02))
    async with raw_server(play) as server, HttpClient(FleetLimits()) as client:
        found = await client.exchange(
            server.url, HttpRequest("/v1/x", b"{}", stream=True), {}, 4, lambda _: next(waits)
        )
    assert found == HttpResponse(b"{}", b"over: pingover")


class Silent(asyncio.Transport):
    """A transport that ignores writes and can be aborted."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def abort(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30), st.sampled_from([WHOLE, b"HTTP/1.1 200 OK\r\n", b"\r\n", b"0\r\n\r\n", WHOLE[:-1]])
        ),
        max_size=8,
    )
)
def test_connection_random_bytes_end_exchange(pieces: list[bytes]) -> None:
    async def fed() -> RequestError | None:
        connection = HttpConnection(asyncio.get_running_loop(), set())
        connection.connection_made(Silent())
        asking = asyncio.ensure_future(connection.exchange(b"", 60, 1 << 16))
        await asyncio.sleep(0)
        for piece in pieces:
            connection.data_received(piece)
        connection.connection_lost(None)
        return await asking

    fault = asyncio.run(fed())
    assert fault is None or fault.code in ("F206", "F209")
