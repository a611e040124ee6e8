"""Files that are named in inputs, batches over many rows, and retention."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from orchestra.core.protocols import CallRequest
from orchestra.server.background import recover_batches
from orchestra.server.batches import batches_of, work_name
from orchestra.server.retention import sweep
from tests.server.servers import INPUTS, REPLY, TEXT, TestServer, serving, until, until_async


async def upload(server: TestServer, data: bytes, name: str = "tower.txt") -> str:
    """Uploads a file; returns its id."""
    reply = await server.client.post(f"/api/files?name={name}", content=data, headers={"Content-Type": "text/plain"})
    assert reply.status_code == 201, reply.text
    found: str = reply.json()["id"]
    return found


async def test_file_in_inputs_is_a_document(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        file = await upload(server, TEXT.encode())
        run = (await server.run(inputs={"question": "When?", "documents": [{"$file": file}]}))["id"]
        detail = (await server.client.get(f"/api/runs/{run}")).json()
        content = await server.client.get(f"/api/files/{file}/content")
        deleted = await server.client.delete(f"/api/files/{file}")
        again = await server.client.post(
            "/api/runs", json={"workflow": "answer", "inputs": {"question": "a", "documents": [{"$file": file}]}}
        )
    assert detail["inputs"]["documents"] == [{"source": "tower.txt", "text": TEXT}]
    assert content.content == TEXT.encode()
    assert content.headers["content-disposition"] == "attachment"
    assert deleted.status_code == 204
    assert (again.status_code, again.json()["pointer"]) == (404, "/inputs/documents/0")


async def test_file_that_is_not_text_is_refused_in_inputs(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        file = await upload(server, b"\xff\xfe\x00")
        body = {"workflow": "answer", "inputs": {"question": {"$file_text": file}, "documents": []}}
        reply = await server.client.post("/api/runs", json=body)
    assert (reply.status_code, reply.json()["code"], reply.json()["pointer"]) == (422, "S019", "/inputs/question")


async def test_batch_runs_each_row_once_and_lists_results(tmp_path: Path) -> None:
    now = most = 0

    async def answer(call: CallRequest) -> Any:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0)
        now -= 1
        return REPLY

    async with serving(tmp_path, answer) as server:
        rows = "\n".join(json.dumps({**INPUTS, "question": str(number)}) for number in range(20))
        file = await upload(server, rows.encode(), "rows.jsonl")
        batch = (
            await server.client.post("/api/batches", json={"workflow": "answer", "file": file, "concurrency": 3})
        ).json()["id"]
        ended = await batch_end(server, batch)
        lines = (await server.client.get(f"/api/batches/{batch}/results")).text.splitlines()
        runs = await server.orchestra.runs(limit=100)
    assert ended["counts"] == {"done": 20}
    assert [json.loads(line)["row"] for line in lines] == list(range(20))
    assert json.loads(lines[7])["output"] == REPLY
    assert len(runs) == 20
    assert most <= 3


async def batch_end(server: TestServer, batch: str) -> dict[str, Any]:
    """Waits until a batch is done."""

    async def is_done() -> bool:
        return bool((await server.client.get(f"/api/batches/{batch}")).json()["status"] != "running")

    await until_async(is_done)
    found: dict[str, Any] = (await server.client.get(f"/api/batches/{batch}")).json()
    return found


async def test_batch_of_a_process_that_ended_continues_elsewhere(tmp_path: Path) -> None:
    calls = Counter[str]()
    blocked = asyncio.Event()

    async def answer_two(call: CallRequest) -> Any:
        calls[call.inputs["question"]] += 1
        if calls.total() > 2:
            blocked.set()
            await asyncio.Event().wait()
        return REPLY

    def answer(call: CallRequest) -> Any:
        calls[call.inputs["question"]] += 1
        return REPLY

    rows = [{**INPUTS, "question": str(number)} for number in range(6)]
    async with serving(tmp_path, answer_two) as server:
        body = {"workflow": "answer", "rows": rows, "concurrency": 1}
        batch = (await server.client.post("/api/batches", json=body)).json()["id"]
        await blocked.wait()
        await batches_of(server.services).change(batch, lambda one: msgspec.structs.replace(one, alive=0.0))
    first = dict(calls)
    async with serving(tmp_path, answer) as server:
        ended = await batch_end(server, batch)
        lines = (await server.client.get(f"/api/batches/{batch}/results")).text.splitlines()
        runs = await server.orchestra.runs(limit=100)
    assert first == {"0": 1, "1": 1, "2": 1}
    assert calls == {"0": 1, "1": 1, "2": 2, "3": 1, "4": 1, "5": 1}
    assert ended["counts"] == {"done": 6}
    assert [json.loads(line)["row"] for line in lines] == list(range(6))
    assert len(runs) == 6


async def test_batch_whose_process_lives_is_left_to_it(tmp_path: Path) -> None:
    called = asyncio.Event()

    async def never(call: CallRequest) -> Any:
        called.set()
        await asyncio.Event().wait()

    async with serving(tmp_path, never) as owner, serving(tmp_path) as other:
        body = {"workflow": "answer", "rows": [INPUTS], "concurrency": 1}
        batch = (await owner.client.post("/api/batches", json=body)).json()["id"]
        await called.wait()
        await recover_batches(other.services)
        assert not other.services.work
        await batches_of(owner.services).change(batch, lambda one: msgspec.structs.replace(one, alive=0.0))
        await recover_batches(other.services)
        assert list(other.services.work) == [work_name(batch)]


async def test_batch_row_that_cannot_start_is_reported(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        rows = [INPUTS, {"question": 1}]
        batch = (await server.client.post("/api/batches", json={"workflow": "answer", "rows": rows})).json()["id"]
        ended = await batch_end(server, batch)
        lines = (await server.client.get(f"/api/batches/{batch}/results")).text.splitlines()
    assert ended["counts"] == {"done": 1, "failed": 1}
    assert json.loads(lines[1])["error"].startswith("E013")


async def test_batch_with_an_invalid_line_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        file = await upload(server, b'{"question": "a"}\n[1]\n')
        reply = await server.client.post("/api/batches", json={"workflow": "answer", "file": file})
    assert (reply.status_code, reply.json()["code"]) == (422, "S019")
    assert "line 2" in reply.json()["detail"]


async def test_cancelled_batch_starts_no_more_rows(tmp_path: Path) -> None:
    called = asyncio.Event()

    async def never(call: CallRequest) -> Any:
        called.set()
        await asyncio.Event().wait()

    async with serving(tmp_path, never) as server:
        body = {"workflow": "answer", "rows": [INPUTS] * 5, "concurrency": 2}
        batch = (await server.client.post("/api/batches", json=body)).json()["id"]
        await called.wait()
        await until(lambda: f"batch {batch}" in server.services.work)
        reply = (await server.client.post(f"/api/batches/{batch}/cancel", json={})).json()
        runs = await server.orchestra.runs()
    assert reply["status"] == "cancelled"
    assert reply["counts"] == {"cancelled": 5}
    assert {run.status for run in runs} == {"cancelled"}


async def test_expired_runs_are_deleted_with_their_blobs(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        kept = (await server.run())["id"]
        gone = (await server.run(options={"ttl": 3600}))["id"]
        early = await sweep(server.services, time.time() + 3000)
        late = await sweep(server.services, time.time() + 4000)
        left = [(await server.client.get(f"/api/runs/{run}")).status_code for run in (kept, gone)]
    assert (early, late, left) == (0, 1, [200, 404])
