"""The status of servers, from past requests or from a probe of each endpoint."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import orchestra
from orchestra import FleetStatus, ServerStatus
from orchestra.core.clock import SystemClock
from orchestra.core.error_help import load_explanations
from orchestra.fleet import dispatch
from orchestra.fleet.config import endpoint_fleet
from orchestra.fleet.dispatch import Fleet
from orchestra.fleet.request_errors import ERROR_POLICIES, error_policy
from orchestra.fleet.status import ERROR_TTL

from .calling import CARDS, call, only, opened, says
from .conftest import RawServer, Visit, chat_answer, endpoints, local_config, raw_server

NOBODY = "http://127.0.0.1:1"


async def known(fleet: Fleet, *, probe: bool = False) -> ServerStatus:
    (server,) = (await fleet.health(probe=probe)).servers
    return server


def later(fleet: Fleet, seconds: float) -> None:
    fleet._clock.slept.append(seconds)  # type: ignore[attr-defined]  # the clock of these tests


def asked(server: RawServer) -> list[str]:
    return [visit.head.split()[1] for visit in server.visits]


async def test_status_answered_is_ready_else_unknown() -> None:
    async with raw_server(says('{"answer": "yes"}')) as server, opened(endpoints(server.url)) as fleet:
        before = await known(fleet)
        await only(fleet, call())
        after = await known(fleet)
    assert (before.state, before.can_serve, before.last_answered) == ("unknown", True, None)
    assert (after.state, after.can_serve, after.error, after.last_answered) == ("ready", True, "", 1e9)
    assert (after.kind, after.model, after.address, after.breaker) == ("endpoint", "m", server.url + "/v1", "closed")


async def test_status_types_are_exported() -> None:
    assert {"FleetStatus", "ServerStatus"} <= set(orchestra.__all__)
    async with opened(endpoints(NOBODY)) as fleet:
        status = await fleet.health()
    assert isinstance(status, FleetStatus)
    assert [type(server) for server in status.servers] == [ServerStatus]


async def test_status_error_counts_until_answer_or_expiry() -> None:
    async with opened(endpoints(NOBODY)) as fleet:
        await only(fleet, call())
        status = await fleet.health()
        (server,) = status.servers
        later(fleet, ERROR_TTL)
        forgotten = await known(fleet)
    assert (server.state, server.error, server.can_serve) == ("failed", "F203", False)
    assert (status.can_serve, status.missing) == (False, ("base",))
    assert server.last_failed is not None
    assert (forgotten.state, forgotten.error, forgotten.can_serve) == ("unknown", "F203", True)


async def test_status_one_server_per_model_suffices() -> None:
    async with raw_server(says('{"answer": "yes"}')) as server, opened(endpoints(NOBODY, server.url)) as fleet:
        status = await fleet.health(probe=True)
    assert [one.can_serve for one in status.servers] == [False, True]
    assert status.can_serve


async def test_status_several_failures_open_breaker() -> None:
    async def fail(visit: Visit) -> None:
        await visit.answer(b"oops", "500 Internal Server Error")

    async with raw_server(fail) as server, opened(endpoints(server.url)) as fleet:
        await only(fleet, call())
        once = await known(fleet)
        for _ in range(4):
            await only(fleet, call())
        often = await known(fleet)
    assert (once.error, once.can_serve) == ("F208", True)
    assert (often.error, often.breaker, often.state, often.can_serve) == ("F208", "open", "failed", False)


async def test_status_missing_key_is_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THE_KEY", raising=False)
    async with (
        raw_server(says('{"answer": "yes"}')) as server,
        opened(endpoints(server.url, api_key="env:THE_KEY")) as fleet,
    ):
        lacking = await known(fleet)
        monkeypatch.setenv("THE_KEY", "k")
        there = await known(fleet)
    assert (lacking.error, lacking.can_serve) == ("F105", False)
    assert "THE_KEY" in lacking.reason
    assert (there.error, there.can_serve) == ("", True)


@pytest.mark.parametrize(
    ("status", "error", "able"),
    [
        ("200 OK", "", True),
        ("404 Not Found", "", True),
        ("401 Unauthorized", "F214", False),
        ("429 Too Many Requests", "F204", True),
        ("500 Internal Server Error", "F208", False),
    ],
)
async def test_status_probe_lists_models_only(
    status: str, error: str, able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", "k")
    async with (
        raw_server(lambda visit: visit.answer(b'{"data": []}', status)) as server,
        opened(endpoints(server.url, api_key="env:THE_KEY")) as fleet,
    ):
        found = await known(fleet, probe=True)
        again = await known(fleet)
    assert (found.error, found.can_serve) == (error, able)
    assert (again.state, again.breaker) == ("unknown", "closed")
    assert asked(server) == ["/v1/models"]
    assert "Authorization: Bearer k" in server.visits[0].head


async def test_status_probe_detects_recovery() -> None:
    gone = True

    async def play(visit: Visit) -> None:
        await (visit.answer(b"", "401 Unauthorized") if gone else visit.answer(chat_answer("x")))

    async with raw_server(play) as server, opened(endpoints(server.url)) as fleet:
        await only(fleet, call())
        before, gone = await known(fleet), False
        after = await known(fleet, probe=True)
    assert (before.error, before.can_serve, after.error, after.can_serve) == ("F214", False, "", True)


async def test_status_probe_ends_if_endpoint_with_auto_stops_answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """It lists its models once, and then accepts requests without an answer."""
    monkeypatch.setattr(dispatch, "PROBE_TIMEOUT", 0.5)

    async def play(visit: Visit) -> None:
        await (visit.answer(b'{"data": [{"id": "m"}]}') if len(server.visits) == 1 else visit.gone())

    async with raw_server(play) as server, opened(endpoint_fleet(server.url), clock=SystemClock()) as fleet:
        async with asyncio.timeout(30):
            found = await known(fleet, probe=True)
    assert (found.error, found.can_serve) == ("F205", False)
    assert "did not answer within 0.5 s" in found.reason


@pytest.mark.parametrize(
    ("mode", "state", "able"), [("start", "idle", True), ("adopt", "stopped", False), ("none", "stopped", False)]
)
async def test_status_idle_local_server_can_serve(
    mode: Any, state: str, able: bool, folders: object, tmp_path: Path
) -> None:
    async with Fleet.open(local_config("m"), cards=CARDS, mode=mode) as fleet:
        status = await fleet.health()
    assert (status.running, status.servers[0].state, status.can_serve) == (False, state, able)


def test_error_policies_have_known_codes() -> None:
    assert ERROR_POLICIES.keys() <= load_explanations().keys()
    assert all(error_policy(code) != error_policy("M001") for code in ERROR_POLICIES), (
        "the table has no entry with the default policy"
    )
