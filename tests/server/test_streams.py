"""Streams of events: exact continuation at every point, in every process, and readers that do not read."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestra import Orchestra
from orchestra.core.events import encode
from orchestra.core.protocols import CallRequest
from orchestra.testing.fake_workers import SimulatedWorkers
from tests.server.servers import INPUTS, OPEN, REPLY, TestServer, frames, listening, project, serving

MANY = {"questions": ["a", "b", "c"], "documents": INPUTS["documents"]}


async def read_stream(server: TestServer, run: str, after: int | None = None, mode: str = "events") -> httpx.Response:
    """Reads a stream to its end."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    return await server.client.get(f"/api/runs/{run}/events?mode={mode}", headers=headers)


async def test_stream_continues_after_each_event_without_gaps(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        run = (await server.run("many", MANY))["id"]
        stored = await server.orchestra.journal.read(run)
        whole = frames((await read_stream(server, run)).text)
        assert [one["data"] for one in whole] == [encode(event).decode() for event in stored]
        for event in stored[:-1]:
            rest = frames((await read_stream(server, run, event.seq)).text)
            assert rest == whole[event.seq :]
        assert (await read_stream(server, run, stored[-1].seq)).status_code == 204


async def test_stream_cut_at_every_byte_gives_each_event_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        run = (await server.run())["id"]
        data = (await read_stream(server, run)).content
        whole = frames(data.decode())
        rests = {0: whole} | {
            number: frames((await read_stream(server, run, number)).text) for number in range(1, len(whole))
        }
    for cut in range(len(data) + 1):
        received = frames(complete_part(data[:cut]))
        last = int(received[-1]["id"]) if received else 0
        assert received + rests.get(last, []) == whole


def complete_part(data: bytes) -> str:
    """The events that a client has received completely."""
    return data[: data.rfind(b"\n\n") + 2].decode() if b"\n\n" in data else ""


async def test_stream_of_a_run_under_way_ends_with_the_run(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def answer(call: CallRequest) -> Any:
        await release.wait()
        return REPLY

    async with serving(tmp_path, answer) as server:
        run = (await server.run(mode="background"))["id"]
        reading = asyncio.create_task(read_stream(server, run))
        await asyncio.sleep(0)
        release.set()
        sent = frames((await reading).text)
        stored = await server.orchestra.journal.read(run)
    assert [int(one["id"]) for one in sent] == [event.seq for event in stored]


async def test_stream_follows_a_run_of_another_process(tmp_path: Path) -> None:
    release, called = asyncio.Event(), asyncio.Event()

    async def answer(call: CallRequest) -> Any:
        called.set()
        await release.wait()
        return REPLY

    async with (
        Orchestra.open(project(tmp_path), workers=SimulatedWorkers(answer, latency=0.0)) as other,
        serving(tmp_path) as server,
    ):
        run = await other.start(other.find("answer"), **INPUTS)
        await called.wait()
        reading = asyncio.create_task(read_stream(server, run.id))
        await asyncio.sleep(0)
        release.set()
        sent = frames((await reading).text)
        stored = await other.journal.read(run.id)
    assert [int(one["id"]) for one in sent] == [event.seq for event in stored]


async def test_stream_of_values_has_outcomes_and_the_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        run = (await server.run("many", MANY))["id"]
        sent = frames((await read_stream(server, run, mode="values")).text)
    values = [json.loads(one["data"]) for one in sent if one["event"] == "value"]
    assert [one["node"] for one in values] == ["read[0]", "read[1]", "read[2]", "read"]
    assert {one["graph_node"] for one in values} == {"read"}
    assert sent[-1]["event"] == "result"
    assert json.loads(sent[-1]["data"])["output"] == [REPLY] * 3


async def test_stream_of_text_marks_it_unverified_before_the_result(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def answer(call: CallRequest) -> Any:
        await release.wait()
        return REPLY

    settings = dataclasses.replace(OPEN, keep_alive=0.1)
    async with serving(tmp_path, answer, settings, chunks=4) as server, listening(server.app) as url:
        body = {"workflow": "answer", "inputs": INPUTS, "mode": "stream", "stream": "text"}
        lines = list[str]()
        async with httpx.AsyncClient() as client, client.stream("POST", f"{url}/api/runs", json=body) as reply:
            async for line in reply.aiter_lines():
                lines.append(line)
                if line == ": keep-alive":
                    release.set()
    sent = frames("\n".join(lines))
    pieces = [json.loads(one["data"]) for one in sent if one["event"] == "text"]
    assert json.loads("".join(piece["text"] for piece in pieces)) == REPLY
    assert len(pieces) > 1
    assert {(piece["node"], piece["agent"], piece["verified"]) for piece in pieces} == {("read", "reader", False)}
    assert [piece["start"] for piece in pieces] == [
        sum(len(before["text"]) for before in pieces[:index]) for index in range(len(pieces))
    ]
    names = [one["event"] for one in sent]
    assert names[-2:] == ["value", "result"]
    assert "id" not in sent[0]


async def test_stream_of_text_of_an_ended_run_has_the_result_only(tmp_path: Path) -> None:
    async with serving(tmp_path, chunks=4) as server:
        run = (await server.run())["id"]
        sent = frames((await read_stream(server, run, mode="text")).text)
    assert [one["event"] for one in sent] == ["value", "result"]
    assert json.loads(sent[-1]["data"])["output"] == REPLY


async def test_stream_of_a_waiting_run_goes_on_after_the_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        run = (await server.run("approve", {"draft": "a"}))["id"]
        reading = asyncio.create_task(read_stream(server, run))
        await asyncio.sleep(0)
        await server.client.post(f"/api/runs/{run}/answers", json={"value": "yes"})
        sent = frames((await reading).text)
    names = [one["event"] for one in sent]
    assert names[-1] == "run_finished"
    assert names.index("question_asked") < names.index("question_answered")


async def test_silent_stream_is_kept_alive_and_ends_with_the_server(tmp_path: Path) -> None:
    settings = dataclasses.replace(OPEN, keep_alive=0.01)
    async with serving(tmp_path, settings=settings) as server, listening(server.app) as url:
        run = (await server.run("approve", {"draft": "a"}))["id"]
        seen = list[str]()
        async with httpx.AsyncClient() as client, client.stream("GET", f"{url}/api/runs/{run}/events") as reply:
            async for line in reply.aiter_lines():
                seen.append(line)
                if line == ": keep-alive":
                    server.services.stopping.set()
    assert "event: question_asked" in seen
    assert ": keep-alive" in seen
    last = frames("\n".join(seen))[-1]
    assert (last["event"], json.loads(last["data"])["code"]) == ("error", "S010")
    assert "id" not in last


async def test_disconnected_client_cancels_the_run_only_if_asked(tmp_path: Path) -> None:
    called = asyncio.Event()

    async def never(call: CallRequest) -> Any:
        called.set()
        await asyncio.Event().wait()

    for policy, status in (("cancel", "cancelled"), ("continue", "running")):
        for mode in ("wait", "stream"):
            async with serving(tmp_path / policy / mode, never) as server, listening(server.app) as url:
                called.clear()
                body = {"workflow": "answer", "inputs": INPUTS, "mode": mode, "on_disconnect": policy}
                async with httpx.AsyncClient() as client:
                    sending = asyncio.create_task(client.post(f"{url}/api/runs", json=body))
                    await called.wait()
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
                (run,) = await server.orchestra.runs()
                if policy == "cancel":
                    await server.client.get(f"/api/runs/{run.run}/answer?wait=60")
                (after,) = await server.orchestra.runs()
                assert after.status == status


async def test_reader_that_does_not_read_is_disconnected(tmp_path: Path) -> None:
    settings = dataclasses.replace(OPEN, send_timeout=0.05)
    large = {"answer": "1889", "quote": "finished in 1889"}
    inputs = {"questions": ["x" * 200_000] * 40, "documents": INPUTS["documents"]}
    async with serving(tmp_path, lambda call: large, settings) as server, listening(server.app) as url:
        run = (await server.run("many", inputs))["id"]
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), limit=1024)
        writer.write(f"GET /api/runs/{run}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        ended = asyncio.Event()
        asyncio.get_running_loop().call_later(0.5, ended.set)
        await ended.wait()
        other = await read_stream(server, run)
        received = b""
        while part := await reader.read(1 << 20):
            received += part
        writer.close()
    assert frames(other.text)[-1]["event"] == "run_finished"
    assert b"run_finished" not in received


PAIR = """\
schema: orchestra/v1
name: pair
description: Answers with and without a check.
input: {question: str, documents: "list[Document]"}
nodes:
  checked:
    agent: reader
    against: ${input.documents}
    with: {question: "${input.question}", documents: "${input.documents}"}
  unchecked:
    agent: writer
    with: {question: "${input.question}"}
output: {first: "${checked}", second: "${unchecked}"}
"""
BOTH = """\
schema: orchestra/v1
name: both
description: Answers two questions, both with a check.
input: {question: str, documents: "list[Document]"}
nodes:
  first:
    agent: reader
    against: ${input.documents}
    with: {question: "${input.question}", documents: "${input.documents}"}
  second:
    agent: reader
    against: ${input.documents}
    with: {question: "Where?", documents: "${input.documents}"}
output: {first: "${first}", second: "${second}"}
"""
WRITER = """\
schema: orchestra/v1
name: writer
description: Writes.
input: {question: str}
output: {text: str}
model: base
"""


def add_unchecked_part(folder: Path) -> None:
    """Adds a workflow whose answer has a part that no check has seen."""
    project(folder)
    (folder / "agents" / "writer").mkdir()
    (folder / "agents" / "writer" / "agent.yaml").write_text(WRITER)
    (folder / "agents" / "writer" / "prompt.md").write_text("{{ question }}")
    (folder / "workflows" / "pair.yaml").write_text(PAIR)


def answer_pair(call: CallRequest) -> Any:
    """The answers of both agents."""
    text = "The tower was finished in 1889. It is in Paris."
    return {"text": "No check saw this. Or this."} if call.name == "writer" else {"answer": text, "quote": text}


async def test_stream_of_verified_text_withholds_unchecked_sentences(tmp_path: Path) -> None:
    add_unchecked_part(tmp_path)
    async with serving(tmp_path, answer_pair) as server:
        run = (await server.run("pair"))["id"]
        sent = frames((await read_stream(server, run, mode="verified")).text)
        started = await server.client.post(
            "/api/runs", json={"workflow": "pair", "inputs": INPUTS, "mode": "stream", "stream": "verified"}
        )
    sentences = [json.loads(one["data"]) for one in sent if one["event"] == "sentence"]
    assert [one["text"].strip() for one in sentences] == ["The tower was finished in 1889.", "It is in Paris."]
    assert {(one["path"], one["verified"], *one["checks"]) for one in sentences} == {("first.answer", True, "quote")}
    assert sentences[1]["start"] > 0
    end = json.loads(sent[-1]["data"])
    assert (end["sentences"], end["withheld"], end["withheld_paths"]) == (2, 2, ["second.text"])
    assert "No check" not in str(sent)
    assert [one["event"] for one in frames(started.text)] == ["sentence", "sentence", "end"]


async def test_verified_sentence_is_sent_before_the_run_ends(tmp_path: Path) -> None:
    add_unchecked_part(tmp_path)
    (tmp_path / "workflows" / "both.yaml").write_text(BOTH)
    go = asyncio.Event()

    async def second_waits(call: CallRequest) -> Any:
        if call.inputs["question"] == "Where?":
            await go.wait()
            return {"answer": "Paris", "quote": "in Paris"}
        return answer_pair(call)

    async with serving(tmp_path, second_waits) as server, listening(server.app) as url:
        run = (await server.run("both", mode="background"))["id"]
        seen = list[str]()
        address = f"{url}/api/runs/{run}/events?mode=verified"
        async with asyncio.timeout(60), httpx.AsyncClient(timeout=60) as client, client.stream("GET", address) as reply:
            async for line in reply.aiter_lines():
                seen.append(line)
                if line.startswith("event: sentence"):
                    go.set()
        whole = frames((await read_stream(server, run, mode="verified")).text)
    assert frames("\n".join(seen)) == whole
    parts = [json.loads(one["data"])["path"] for one in whole[:-1]]
    assert parts == ["first.answer", "first.answer", "second.answer"]
    numbers = [one["id"].partition(".")[0] for one in whole]
    assert numbers[0] == numbers[1]
    assert len(set(numbers)) == 3
    assert (whole[-1]["event"], json.loads(whole[-1]["data"])["sentences"]) == ("end", 3)


async def test_verified_sentences_stay_sent_if_the_run_ends_without_an_answer(tmp_path: Path) -> None:
    add_unchecked_part(tmp_path)

    async def writer_never_answers(call: CallRequest) -> Any:
        return await asyncio.Event().wait() if call.name == "writer" else answer_pair(call)

    async with serving(tmp_path, writer_never_answers) as server, listening(server.app) as url:
        run = (await server.run("pair", mode="background"))["id"]
        seen = list[str]()
        address = f"{url}/api/runs/{run}/events?mode=verified"
        async with asyncio.timeout(60), httpx.AsyncClient(timeout=60) as client, client.stream("GET", address) as reply:
            async for line in reply.aiter_lines():
                seen.append(line)
                if line.startswith("event: sentence"):
                    await server.client.post(f"/api/runs/{run}/cancel", json={})
        whole = frames((await read_stream(server, run, mode="verified")).text)
    assert frames("\n".join(seen)) == whole
    assert [one["event"] for one in whole] == ["sentence", "sentence", "end"]
    end = json.loads(whole[-1]["data"])
    assert (end["status"], end["sentences"], end["withheld"]) == ("cancelled", 2, 0)


async def test_output_that_is_accepted_as_a_whole_is_sent_at_its_end(tmp_path: Path) -> None:
    add_unchecked_part(tmp_path)
    (tmp_path / "workflows" / "whole.yaml").write_text(PAIR.replace("name: pair", "name: whole\naccept: 0"))
    async with serving(tmp_path, answer_pair) as server:
        run = (await server.run("whole"))["id"]
        sent = frames((await read_stream(server, run, mode="verified")).text)
        events = (await server.client.get(f"/api/runs/{run}/events", headers={"Accept": "application/json"})).json()
    inner = [one["seq"] for one in events["items"] if one.get("node", "").startswith("whole/")]
    assert [one["event"] for one in sent] == ["sentence", "sentence", "end"]
    assert int(sent[0]["id"].partition(".")[0]) > max(inner)


async def test_stream_of_verified_text_continues_after_each_sentence(tmp_path: Path) -> None:
    add_unchecked_part(tmp_path)
    async with serving(tmp_path, answer_pair) as server:
        run = (await server.run("pair"))["id"]
        whole = frames((await read_stream(server, run, mode="verified")).text)
    async with serving(tmp_path, answer_pair) as server:
        for index, one in enumerate(whole[:-1]):
            headers = {"Last-Event-ID": one["id"]}
            rest = await server.client.get(f"/api/runs/{run}/events?mode=verified", headers=headers)
            assert frames(rest.text) == whole[index + 1 :]
        last = {"Last-Event-ID": whole[-1]["id"]}
        ended = await server.client.get(f"/api/runs/{run}/events?mode=verified", headers=last)
        wrong = await server.client.get(f"/api/runs/{run}/events", headers={"Last-Event-ID": "1.2.3"})
    assert ended.status_code == 204
    assert (wrong.status_code, wrong.json()["code"]) == (422, "S002")


async def test_stream_of_verified_text_reads_each_event_once_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_unchecked_part(tmp_path)
    (tmp_path / "workflows" / "both.yaml").write_text(BOTH)
    async with serving(tmp_path, answer_pair) as server:
        run = (await server.run("both"))["id"]
        journal, reads = server.orchestra.journal, list[int]()
        read = journal.read

        async def counted(run: str, after: int = 0) -> Any:
            events = await read(run, after)
            reads.append(len(events))
            return events

        monkeypatch.setattr(journal, "read", counted)
        sent = frames((await read_stream(server, run, mode="verified")).text)
        events = len(await read(run))
    assert [one["event"] for one in sent].count("sentence") >= 2
    assert reads == [events, events]  # the second time for the answer with its claims


async def test_stream_of_verified_text_marks_what_a_person_gave(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        run = (await server.run("approve", {"draft": "a"}))["id"]
        await server.client.post(f"/api/runs/{run}/answers", json={"value": "yes", "by": "ada"})
        sent = frames((await read_stream(server, run, mode="verified")).text)
    sentence = json.loads(sent[0]["data"])
    assert (sentence["text"], sentence["verified"]) == ("yes", False)
    assert "decide" in sentence["person"]


async def test_stream_of_verified_text_of_a_withheld_answer_has_none(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda call: {**REPLY, "quote": "not there"}) as server:
        run = (await server.run())["id"]
        sent = frames((await read_stream(server, run, mode="verified")).text)
    assert [one["event"] for one in sent] == ["end"]
    assert json.loads(sent[0]["data"])["status"] == "abstained"


@pytest.mark.parametrize("position", ["1.5", "1.0"])
async def test_events_are_not_continued_from_a_part_of_an_event(tmp_path: Path, position: str) -> None:
    async with serving(tmp_path) as server:
        run = (await server.run())["id"]
        reply = await server.client.get(f"/api/runs/{run}/events", headers={"Last-Event-ID": position})
    assert (reply.status_code, reply.json()["code"], reply.json()["pointer"]) == (422, "S002", "Last-Event-ID")
