"""The routes of runs."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestra.app.run_detail import NodeDetail, RunAnswer, RunDetail
from orchestra.core.events import Usage
from orchestra.core.protocols import CallRequest, CallResult
from tests.server.servers import INPUTS, OPEN, REPLY, TEXT, TestServer, frames, project, serving, until_async

WRITER = """\
schema: orchestra/v1
name: writer
description: Writes.
input: {text: str}
output: {text: str}
model: base
"""


async def test_start_run_with_wait_returns_answer_and_verdicts(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        reply = await server.client.post("/api/runs", json={"workflow": "answer", "inputs": INPUTS})
        answer = reply.json()
    assert reply.status_code == 200
    assert (answer["status"], answer["output"]) == ("done", REPLY)
    assert reply.headers["location"] == f"/api/runs/{answer['id']}"
    (claim,) = answer["claims"]
    (evidence,) = claim["evidence"]
    assert TEXT[evidence["start"] : evidence["end"]] == REPLY["quote"]
    assert [one["outcome"] for one in claim["verdicts"]] == ["pass"]
    msgspec.convert(answer, RunAnswer)


async def test_start_run_in_background_ends_later(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        started = await server.run(mode="background")
        ended = (await server.client.get(f"/api/runs/{started['id']}/answer?wait=60")).json()
    assert ended["output"] == REPLY


async def test_start_run_with_unknown_input_names_its_place(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        reply = await server.client.post("/api/runs", json={"workflow": "answer", "inputs": {**INPUTS, "questions": 1}})
    problem = reply.json()
    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/problem+json"
    assert (problem["code"], problem["pointer"]) == ("E012", "/inputs/questions")
    assert problem["hint"]


@pytest.mark.parametrize("name", ["nothing", "./workflows/answer.yaml", "/etc/passwd", "answer.yaml", ""])
async def test_start_run_of_a_file_or_unknown_name_is_404(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path) as server:
        reply = await server.client.post("/api/runs", json={"workflow": name})
    assert (reply.status_code, reply.json()["code"]) == (404, "S009")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"workflow": 1}, "/workflow"),
        ({"workflow": "answer", "inputs": []}, "/inputs"),
        ({"workflow": "answer", "options": {"budget": {"tokens": 0}}}, "/options/budget/tokens"),
        ({"workflow": "answer", "mode": "later"}, "/mode"),
    ],
)
async def test_start_run_with_mistyped_field_names_its_place(tmp_path: Path, body: Any, pointer: str) -> None:
    async with serving(tmp_path) as server:
        reply = await server.client.post("/api/runs", json=body)
    assert (reply.status_code, reply.json()["code"], reply.json()["pointer"]) == (422, "S002", pointer)


async def test_start_run_with_a_key_twice_runs_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        body, headers = {"workflow": "answer", "inputs": INPUTS}, {"Idempotency-Key": "one"}
        first, second = [await server.client.post("/api/runs", json=body, headers=headers) for _ in range(2)]
        changed = {**body, "inputs": {**INPUTS, "question": "?"}}
        other = await server.client.post("/api/runs", json=changed, headers=headers)
        listed = (await server.client.get("/api/runs")).json()["items"]
    assert first.json()["id"] == second.json()["id"]
    assert (other.status_code, other.json()["code"]) == (422, "E015")
    assert len(listed) == 1


async def test_start_run_with_stream_sends_every_event_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        reply = await server.client.post("/api/runs", json={"workflow": "answer", "inputs": INPUTS, "mode": "stream"})
        stored = await server.orchestra.journal.read(reply.headers["location"].rpartition("/")[2])
    sent = frames(reply.text)
    assert [int(one["id"]) for one in sent] == [event.seq for event in stored]
    assert sent[-1]["event"] == "run_finished"


async def test_run_that_asks_is_202_and_continues_when_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        reply = await server.client.post("/api/runs", json={"workflow": "approve", "inputs": {"draft": "Hello"}})
        run = reply.json()["id"]
        (question,) = (await server.client.get(f"/api/runs/{run}/questions")).json()["items"]
        wrong = await server.client.post(f"/api/runs/{run}/answers", json={"value": "perhaps"})
        right = await server.client.post(f"/api/runs/{run}/answers", json={"value": "yes", "by": "Ada"})
        ended = (await server.client.get(f"/api/runs/{run}/answer?wait=60")).json()
        detail = (await server.client.get(f"/api/runs/{run}")).json()
    assert (reply.status_code, reply.json()["status"]) == (202, "waiting")
    assert question["options"] == ["yes", "no"]
    assert (wrong.status_code, wrong.json()["code"]) == (422, "E022")
    assert right.status_code == 202
    assert (ended["status"], ended["output"]) == ("done", "yes")
    assert [(one["type"], one["by"]) for one in detail["timeline"] if one["type"] == "question_answered"] == [
        ("question_answered", "Ada")
    ]


async def test_get_run_has_graph_nodes_and_sources(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        run = (await server.run())["id"]
        detail = (await server.client.get(f"/api/runs/{run}?messages=true")).json()
        node = (await server.client.get(f"/api/runs/{run}/nodes/read")).json()
    assert [one["id"] for one in detail["graph"]["nodes"]] == ["read"]
    edges = {(one["source"], one["target"]) for one in detail["graph"]["edges"]}
    assert edges == {("input", "read"), ("read", "output")}
    assert [one["text"] for one in detail["sources"]] == [TEXT]
    (attempt,) = node["attempts"]
    assert attempt["verdicts"][0]["check"] == "quote"
    (evidence,) = attempt["verdicts"][0]["evidence"]
    assert node["sources"][0]["where"] == evidence["where"]
    msgspec.convert(node, NodeDetail)
    msgspec.convert(detail, RunDetail)
    assert msgspec.convert(detail["nodes"], list[NodeDetail])[0].attempts[0].value == REPLY


async def test_list_nodes_pages_the_elements_of_a_list(tmp_path: Path) -> None:
    inputs = {"questions": [str(number) for number in range(25)], "documents": INPUTS["documents"]}
    async with serving(tmp_path) as server:
        run = (await server.run("many", inputs))["id"]
        seen, cursor = [], ""
        while True:
            address = f"/api/runs/{run}/nodes?under=read&limit=10{f'&cursor={cursor}' if cursor else ''}"
            page = (await server.client.get(address)).json()
            seen += [one["path"] for one in page["items"]]
            if (cursor := page["next"]) is None:
                break
    assert seen == [f"read[{number}]" for number in range(25)]


async def test_list_runs_pages_and_filters(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        runs = [(await server.run(options={"tags": {"number": str(number % 2)}}))["id"] for number in range(5)]
        first = (await server.client.get("/api/runs?limit=2")).json()
        second = (await server.client.get(f"/api/runs?limit=2&cursor={first['next']}")).json()
        odd = (await server.client.get("/api/runs?tag=number=1&status=done&label=internal")).json()
        none = (await server.client.get("/api/runs?label=public")).json()
        unknown = await server.client.get("/api/runs?state=done")
    assert [one["id"] for one in first["items"] + second["items"]] == runs[:0:-1]
    assert [one["id"] for one in odd["items"]] == [runs[3], runs[1]]
    assert odd["items"][0]["tags"] == {"number": "1"}
    assert none == {"items": [], "next": None}
    assert (unknown.status_code, unknown.json()["code"]) == (422, "S002")


async def test_cancel_run_stops_its_calls(tmp_path: Path) -> None:
    called, cancelled = asyncio.Event(), asyncio.Event()

    async def answer(call: CallRequest) -> Any:
        called.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serving(tmp_path, answer) as server:
        run = (await server.run(mode="background"))["id"]
        await called.wait()
        reply = await server.client.post(f"/api/runs/{run}/cancel", json={})
    assert reply.json() == {"id": run, "status": "cancelled", "error": ""}
    assert cancelled.is_set()


async def test_cancel_runs_by_filter_leaves_other_runs(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        one = (await server.run("approve", {"draft": "a"}, options={"tags": {"batch": "1"}}))["id"]
        two = (await server.run("approve", {"draft": "b"}))["id"]
        reply = await server.client.post("/api/runs/cancel", json={"filter": {"tags": {"batch": "1"}}})
        left = (await server.client.get("/api/runs?status=waiting")).json()["items"]
    assert [(each["id"], each["status"]) for each in reply.json()["items"]] == [(one, "cancelled")]
    assert [each["id"] for each in left] == [two]


async def test_fork_run_with_a_value_runs_only_what_depends_on_it(tmp_path: Path) -> None:
    calls = list[str]()

    def answer(call: CallRequest) -> Any:
        calls.append(call.node)
        return REPLY

    async with serving(tmp_path, answer) as server:
        run = (await server.run())["id"]
        given = {"answer": "1890", "quote": "It is in Paris"}
        reply = await server.client.post(f"/api/runs/{run}/fork", json={"values": {"read": given}, "by": "Ada"})
        fork = reply.json()
        diff = (await server.client.get(f"/api/runs/{run}/diff?other={fork['id']}")).json()["items"]
    assert (reply.status_code, fork["output"], fork["parent"]) == (200, given, run)
    assert calls == ["read"]
    assert [one["node"] for one in diff] == ["", "read"]


async def test_replay_and_delete_run(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        run = (await server.run())["id"]
        waiting = (await server.run("approve", {"draft": "a"}))["id"]
        replayed = (await server.client.post(f"/api/runs/{run}/replay", json={})).json()
        refused = await server.client.delete(f"/api/runs/{waiting}")
        deleted = await server.client.delete(f"/api/runs/{run}")
        gone = await server.client.get(f"/api/runs/{run}")
    assert replayed["same"]
    assert (refused.status_code, refused.json()["code"]) == (409, "C056")
    assert (deleted.status_code, gone.status_code) == (204, 404)


async def test_interrupted_run_continues_after_a_restart(tmp_path: Path) -> None:
    called = asyncio.Event()

    async def never(call: CallRequest) -> Any:
        called.set()
        await asyncio.Event().wait()

    async with serving(tmp_path, never) as server:
        run = (await server.run(mode="background"))["id"]
        await called.wait()
    async with serving(tmp_path) as server:

        async def has_ended() -> bool:
            return bool((await server.client.get(f"/api/runs/{run}/answer")).json()["status"] == "done")

        await until_async(has_ended)


@pytest.mark.parametrize("rules", [True, False])
async def test_plan_by_rule_asks_the_router_only_without_rules(tmp_path: Path, rules: bool) -> None:
    called = list[str]()

    def answer(call: CallRequest) -> Any:
        called.append(call.name)
        return "return s1" if call.inputs["plan"] else "s1 = query_table(question=input.request, table=input.table)"

    body = {
        "request": "Which region had the highest Q1?",
        "values": {"table": [["Region", "Q1"], ["North", "5"], ["South", "9"]]},
        "plan": {"rules": rules, "only": ["query_table"]},
    }
    async with serving(tmp_path, answer) as server:
        reply = await server.client.post("/api/plan", json=body)
    assert reply.json()["status"] == "done", reply.text
    assert (called == []) is rules


async def test_list_of_runs_is_filtered_by_verdict(tmp_path: Path) -> None:
    def answer(call: CallRequest) -> Any:
        return {**REPLY, "quote": "not in the text"} if call.inputs["question"] == "wrong" else REPLY

    async with serving(tmp_path, answer) as server:
        right = (await server.run())["id"]
        wrong = (await server.run(inputs={**INPUTS, "question": "wrong"}))["id"]
        asking = (await server.run("approve", {"draft": "a"}))["id"]
        found = {}
        for _ in range(2):  # From the journal, and from memory.
            for verdict in ("pass", "fail", "none", "unknown"):
                page = (await server.client.get(f"/api/runs?verdict={verdict}")).json()
                found[verdict] = [run["id"] for run in page["items"]]
        both = (await server.client.get("/api/runs?verdict=pass&verdict=fail&limit=1")).json()
        rest = (await server.client.get(f"/api/runs?verdict=pass&verdict=fail&cursor={both['next']}")).json()
        refused = await server.client.get("/api/runs?verdict=passed")
    assert found == {"pass": [right], "fail": [wrong], "none": [asking], "unknown": []}
    assert [run["id"] for run in both["items"] + rest["items"]] == [wrong, right]
    assert (refused.status_code, refused.json()["pointer"]) == (422, "verdict/0")


async def test_list_of_runs_is_filtered_by_cost(tmp_path: Path) -> None:
    def answer(call: CallRequest) -> Any:
        cost = int(call.inputs["question"])
        return CallResult(value=REPLY, usage=Usage(prompt_tokens=cost, calls=1, money=cost / 10))

    async with serving(tmp_path, answer) as server:
        for cost in (1, 2, 3):
            await server.run(inputs={**INPUTS, "question": str(cost)})

        async def costs(query: str) -> list[int]:
            page = (await server.client.get(f"/api/runs?{query}")).json()
            return [run["usage"]["prompt_tokens"] for run in page["items"]]

        assert await costs("min_tokens=2") == [3, 2]
        assert await costs("max_tokens=2") == [2, 1]
        assert await costs("min_money=0.2&max_money=0.2") == [2]
        assert await costs("max_tokens=0") == []


async def test_list_of_runs_looks_at_a_limited_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SCAN_SIZE", 2), ("MAX_SCAN", 4), ("READ_SIZE", 1), ("MAX_READ", 2)):
        monkeypatch.setattr(f"orchestra.server.runs.{name}", value)
    async with serving(tmp_path) as server:
        oldest = (await server.run())["id"]
        for _ in range(6):
            await server.run("approve", {"draft": "a"})
        for query, requests in (("verdict=pass", 4), ("label=internal&limit=200", 2)):
            cursor, found, count = "", list[str](), 0
            while cursor is not None:
                page = (await server.client.get(f"/api/runs?{query}&cursor={cursor}")).json()
                found += [run["id"] for run in page["items"]]
                cursor, count = page["next"], count + 1
            assert (found[-1], count) == (oldest, requests)


async def card_digest(server: TestServer, run: str) -> str:
    """The digest of the reader's card that a run has stored."""
    return (await server.services.read_run(run)).started.versions["card/reader"]


async def test_fork_with_another_prompt_calls_its_agent_again(tmp_path: Path) -> None:
    prompt = "Answer briefly.\n{{ question }}\n{{ documents }}\n"
    async with serving(tmp_path) as server:
        run = (await server.run())["id"]
        same = (await server.client.post(f"/api/runs/{run}/fork", json={})).json()
        calls = len(server.workers.calls)
        forked = (await server.client.post(f"/api/runs/{run}/fork", json={"prompts": {"reader": prompt}})).json()
        made = server.workers.calls[calls:]
        found = (await server.client.get(f"/api/runs/{run}/diff?other={forked['id']}")).json()
        versions = {await card_digest(server, one) for one in (run, same["id"])}
        card = server.orchestra.registry.card("reader")
        stored = await card_digest(server, forked["id"])
    assert (forked["status"], forked["parent"]) == ("done", run)
    assert [change["node"] for change in forked["changes"]] == ["read"]
    assert (calls, len(made)) == (1, 1)
    assert made[0].version != card.digest
    assert len(versions) == 1
    assert stored not in versions
    (difference,) = found["prompts"]
    assert (difference["agent"], difference["after"]) == ("reader", prompt)
    assert difference["before"] == card.template


async def test_fork_with_another_prompt_is_resumed_with_it(tmp_path: Path) -> None:
    called = asyncio.Event()

    async def answer(call: CallRequest) -> Any:
        if called.is_set():
            return REPLY
        if call.version != original[0]:
            called.set()
            await asyncio.Event().wait()
        return REPLY

    original = [""]
    async with serving(tmp_path, answer, dataclasses.replace(OPEN, drain=0)) as server:
        original[0] = server.orchestra.registry.card("reader").digest
        run = (await server.run())["id"]
        body = {"prompts": {"reader": "{{ question }} {{ documents }}"}, "mode": "background"}
        fork = (await server.client.post(f"/api/runs/{run}/fork", json=body)).json()["id"]
        await called.wait()
    async with serving(tmp_path, answer) as server:

        async def is_done() -> bool:
            reply = await server.client.get(f"/api/runs/{fork}/answer")
            return bool(reply.json()["status"] == "done")

        await until_async(is_done)
        versions = {call.version for call in server.workers.calls}
    assert len(versions) == 1
    assert versions.isdisjoint(original)


@pytest.mark.parametrize(
    ("prompts", "code"),
    [
        ({"reader": "{{ nothing }}"}, "A"),
        ({"nobody": "a"}, "A001"),
        ({"writer": "{{ text }}"}, "E041"),
        ({"reader": 1}, "S002"),
    ],
)
async def test_fork_with_an_invalid_prompt_is_refused(tmp_path: Path, prompts: Any, code: str) -> None:
    agent = tmp_path / "agents" / "writer"
    project(tmp_path)
    agent.mkdir()
    (agent / "agent.yaml").write_text(WRITER)
    (agent / "prompt.md").write_text("{{ text }}\n{{ text }}\n")
    async with serving(tmp_path) as server:
        run = (await server.run())["id"]
        refused = await server.client.post(f"/api/runs/{run}/fork", json={"prompts": prompts})
        runs = await server.orchestra.runs()
    assert refused.status_code == 422
    assert refused.json()["code"].startswith(code)
    assert len(runs) == 1


async def test_fork_with_a_key_and_another_prompt_is_a_conflict(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        run = (await server.run())["id"]
        replies = []
        for prompt in ("{{ question }}", "{{ question }}", "{{ documents }}"):
            body, headers = {"prompts": {"reader": prompt}}, {"Idempotency-Key": "a"}
            replies.append(await server.client.post(f"/api/runs/{run}/fork", json=body, headers=headers))
    assert [reply.status_code for reply in replies] == [200, 200, 422]
    assert replies[0].json()["id"] == replies[1].json()["id"]
    assert replies[2].json()["code"] == "E015"
