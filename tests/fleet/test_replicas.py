"""Several servers of one model: a busy, unavailable or misconfigured server does not block the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from orchestra.core.protocols import CallError, CallResult
from orchestra.fleet.dispatch import Fleet
from orchestra.fleet.supervisor.messages import ServerReport, SupervisorReport

from .calling import call, only, opened, says
from .conftest import Visit, chat_answer, endpoints, local_config, raw_server
from .test_sender import in_turn


def refuses(status: str, *headers: str) -> Callable[[Visit], Awaitable[None]]:
    return lambda visit: visit.answer(b"", status, *headers)


def busy(*headers: str) -> Callable[[Visit], Awaitable[None]]:
    return refuses("503 Busy", *headers)


async def test_busy_server_is_tried_once_then_next() -> None:
    async with raw_server(busy()) as one, raw_server(says("here")) as two, opened(endpoints(one.url, two.url)) as fleet:
        done = await only(fleet, call("writer"))
        slept = fleet._clock.monotonic()
    assert isinstance(done, CallResult)
    assert (done.server, len(one.visits), slept) == ("s1", 1, 0.0), "no call waited for the busy one"


async def test_server_busy_three_times_loses_precedence() -> None:
    async with (
        raw_server(busy("Retry-After: 20")) as one,
        raw_server(says("here")) as two,
        opened(endpoints(one.url, two.url)) as fleet,
    ):
        for _ in range(6):
            await only(fleet, call("writer"))
        assert (len(one.visits), len(two.visits)) == (3, 6)
        await fleet._clock.sleep(21)
        await only(fleet, call("writer"))
    assert (len(one.visits), len(two.visits)) == (4, 7)


async def test_single_rejection_affects_its_call_only() -> None:
    play = in_turn(busy("Retry-After: 20"), says("here"))
    async with raw_server(play) as one, raw_server(says("there")) as two, opened(endpoints(one.url, two.url)) as fleet:
        done = [await only(fleet, call("writer")) for _ in range(4)]
    assert [one.server for one in done] == ["s1", "s0", "s0", "s0"]


async def test_busy_server_is_tried_with_backoff() -> None:
    async with raw_server(busy()) as one, raw_server(says("here")) as two, opened(endpoints(one.url, two.url)) as fleet:
        for _ in range(40):
            await only(fleet, call("writer"))
            await fleet._clock.sleep(0.25)
    assert 5 <= len(one.visits) <= 9
    assert len(two.visits) == 40


async def test_all_busy_each_is_retried_at_retry_after() -> None:
    asked: list[tuple[str, float]] = []

    def play(name: str, after: int, times: int) -> Callable[[Visit], Awaitable[None]]:
        async def answer(visit: Visit) -> None:
            asked.append((name, fleet._clock.monotonic()))
            if sum(who == name for who, _ in asked) <= times:
                await visit.answer(b"", "429 Too Many Requests", f"Retry-After: {after}")
            else:
                await visit.answer(chat_answer("at last"))

        return answer

    async with (
        raw_server(play("s0", 7, 9)) as one,
        raw_server(play("s1", 3, 2)) as two,
        opened(endpoints(one.url, two.url)) as fleet,
    ):
        done = await only(fleet, call("writer", timeout=60))
    assert isinstance(done, CallResult)
    assert asked == [("s0", 0), ("s1", 0), ("s1", 3), ("s1", 6)]
    assert done.usage.resends == 3


async def test_busy_server_is_awaited_if_other_is_down() -> None:
    visits = 0

    async def play(visit: Visit) -> None:
        nonlocal visits
        visits += 1
        await visit.answer(*((b"", "503 Busy") if visits <= 8 else (chat_answer("at last"),)))

    async with raw_server(says("x")) as gone:
        pass
    async with raw_server(play) as slow, opened(endpoints(slow.url, gone.url)) as fleet:
        done = await only(fleet, call("writer", timeout=500))
    assert isinstance(done, CallResult)
    assert done.server == "s0"


async def test_all_busy_call_ends_retryable_in_time() -> None:
    wrong = raw_server(refuses("404 Not Found"))
    async with raw_server(busy()) as one, wrong as two, opened(endpoints(one.url, two.url)) as fleet:
        refused = await only(fleet, call("writer", timeout=20))
        slept = fleet._clock.monotonic()
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable, refused.server) == ("F204", True, "s0")
    assert 5 < slept < 20
    assert (len(one.visits) < 12, len(two.visits)) == (True, 1)
    assert refused.reason.endswith(f", sent {len(one.visits) + 1} times")


@pytest.mark.parametrize("status", ["401 Unauthorized", "404 Not Found", "302 Found"])
async def test_misconfigured_server_is_skipped(status: str) -> None:
    async with (
        raw_server(refuses(status)) as one,
        raw_server(says("here")) as two,
        opened(endpoints(one.url, two.url)) as fleet,
    ):
        done = await only(fleet, call("writer"))
    assert isinstance(done, CallResult)
    assert (done.server, len(one.visits)) == ("s1", 1)


@pytest.mark.parametrize(("status", "code"), [("401 Unauthorized", "F214"), ("404 Not Found", "F212")])
async def test_all_misconfigured_each_is_tried_once(status: str, code: str) -> None:
    wrong = raw_server(refuses(status))
    async with wrong as one, raw_server(one.play) as two, opened(endpoints(one.url, two.url)) as fleet:
        refused = await only(fleet, call("writer"))
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable) == (code, False)
    assert (len(one.visits), len(two.visits)) == (1, 1)


async def test_invalid_request_is_not_sent_to_others() -> None:
    wrong = raw_server(refuses("400 Bad Request"))
    async with wrong as one, raw_server(says("x")) as two, opened(endpoints(one.url, two.url)) as fleet:
        refused = await only(fleet, call("writer"))
    assert isinstance(refused, CallError)
    assert (refused.code, two.visits) == ("F207", [])


@asynccontextmanager
async def ours(
    url: Callable[[float], str], monkeypatch: pytest.MonkeyPatch, patience: float = 300.0
) -> AsyncIterator[Fleet]:
    """Opens a fleet of two local servers: `a` restarts for ever; `b` listens where `url` says by the clock,
    or not yet.
    """
    config = local_config("a", "b")
    async with opened(config.model_copy(update={"models": {"base": ("a", "b")}, "patience": patience})) as fleet:
        await fleet.wait_until_ready()

        async def status() -> SupervisorReport:
            there = url(fleet._clock.monotonic())
            a = ServerReport(name="a", model="a", phase="restarting")
            b = ServerReport(name="b", model="b", phase="ready" if there else "restarting", url=there or None)
            return SupervisorReport(
                protocol=0, fleet="", digest="", pid=0, uptime=0.0, idle_stop=0.0, logs="", servers=[a, b]
            )

        monkeypatch.setattr(fleet._addresses, "mode", "adopt")
        monkeypatch.setattr(fleet._addresses.supervisor, "status", status)
        yield fleet


async def test_restarting_local_server_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(says("here", "b")) as two, ours(lambda now: two.url, monkeypatch) as fleet:
        done = [await only(fleet, call("writer", timeout=30)) for _ in range(8)]
        assert fleet._clock.monotonic() == 0.0, "no call waited"
        assert fleet._sender.states["a"].busy_until > 0.0, "others are asked first"
    assert [one.server for one in done] == ["b"] * 8


async def test_all_restarting_first_ready_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        raw_server(says("here", "b")) as two,
        ours(lambda now: two.url if now > 12 else "", monkeypatch) as fleet,
    ):
        done = await only(fleet, call("writer", timeout=60))
        assert 12 < fleet._clock.monotonic() <= 21
    assert isinstance(done, CallResult)


@pytest.mark.parametrize(("patience", "timeout"), [(300.0, 20.0), (20.0, None)])
async def test_all_down_call_ends_by_timeout_or_patience(
    patience: float, timeout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ours(lambda now: "", monkeypatch, patience) as fleet:
        refused = await only(fleet, call("writer", timeout=timeout))
        assert 5 < fleet._clock.monotonic() < 30
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable) == ("F216", True)
