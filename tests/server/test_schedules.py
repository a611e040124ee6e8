"""Schedules fire once for each time, also if processes die between their steps."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestra.server.schedules import fire_due, next_time, schedules_of
from tests.server.servers import INPUTS, REPLY, TestServer, serving

YEARLY = {"cron": "0 0 1 1 *", "workflow": "answer", "inputs": INPUTS}


async def due_schedule(server: TestServer, due: float, **body: Any) -> str:
    """Makes a schedule whose next time has come."""
    reply = await server.client.post("/api/schedules", json={**YEARLY, **body})
    assert reply.status_code == 201, reply.text
    name: str = reply.json()["id"]
    await schedules_of(server.services).change(name, lambda one: msgspec.structs.replace(one, next=due))
    return name


async def test_due_schedule_starts_one_run_for_a_time(tmp_path: Path) -> None:
    due = time.time() - 10
    async with serving(tmp_path) as server, serving(tmp_path) as other:
        name = await due_schedule(server, due)
        await asyncio.gather(*(fire_due(one.services, time.time()) for one in (server, other) * 3))
        runs = (await server.client.get(f"/api/schedules/{name}/runs")).json()["items"]
        schedule = (await server.client.get(f"/api/schedules/{name}")).json()
        answer = (await server.client.get(f"/api/runs/{runs[0]['id']}/answer?wait=60")).json()
    assert len(runs) == 1
    assert schedule["last"] == {"due": due, "run": runs[0]["id"], "error": ""}
    assert schedule["next"] > time.time()
    assert answer.get("output") == REPLY, answer


async def test_schedule_whose_process_died_before_its_record_fires_once(tmp_path: Path) -> None:
    due = time.time() - 10
    async with serving(tmp_path) as server:
        name = await due_schedule(server, due)
        await fire_due(server.services, time.time())
        await schedules_of(server.services).change(name, lambda one: msgspec.structs.replace(one, next=due, last=None))
        await fire_due(server.services, time.time())
        runs = (await server.client.get(f"/api/schedules/{name}/runs")).json()["items"]
    assert len(runs) == 1


async def test_paused_schedule_does_not_fire(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        name = (await server.client.post("/api/schedules", json={**YEARLY, "paused": True})).json()["id"]
        await fire_due(server.services, time.time() + 400 * 86_400)
        still = (await server.client.get(f"/api/schedules/{name}")).json()
        resumed = (await server.client.patch(f"/api/schedules/{name}", json={"paused": False})).json()
        again = (await server.client.patch(f"/api/schedules/{name}", json={"paused": True})).json()
        runs = await server.orchestra.runs()
    assert (still["next"], still["last"]) == (None, None)
    assert resumed["next"] > time.time()
    assert (again["paused"], again["next"]) == (True, None)
    assert not runs


async def test_trigger_starts_a_run_now(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        name = (await server.client.post("/api/schedules", json=YEARLY)).json()["id"]
        reply = await server.client.post(f"/api/schedules/{name}/trigger", json={})
        runs = (await server.client.get(f"/api/schedules/{name}/runs")).json()["items"]
    assert reply.status_code == 202
    assert [one["id"] for one in runs] == [reply.json()["id"]]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"cron": "every day"}, "/cron"),
        ({"cron": "99 0 1 1 *"}, "/cron"),
        ({"cron": "* * * * * *"}, "/cron"),
        ({"cron": "0 0 30 2 *"}, "/cron"),
        ({"timezone": "Mars/Olympus"}, "/timezone"),
        ({"timezone": "../../etc/passwd"}, "/timezone"),
    ],
)
async def test_invalid_schedule_names_its_place(tmp_path: Path, change: dict[str, str], pointer: str) -> None:
    async with serving(tmp_path) as server:
        reply = await server.client.post("/api/schedules", json={**YEARLY, **change})
    assert (reply.status_code, reply.json()["code"], reply.json()["pointer"]) == (422, "S013", pointer)


def test_next_time_follows_the_time_zone() -> None:
    noon = 1_767_268_800.0  # 2026-01-01 12:00 UTC
    assert next_time("0 7 * * *", "UTC", noon) == noon + 19 * 3600
    assert next_time("0 7 * * *", "America/New_York", noon) is not None
    assert next_time("0 8 * * *", "America/New_York", noon) == noon + 3600
    assert next_time("0 0 29 2 *", "UTC", noon) == 1_835_395_200.0  # 2028
