"""The record of a run: what the page of a run shows, as one document."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from orchestra import Orchestra
from orchestra.app.html.saved_run import to_script_data
from orchestra.app.run_detail import sent_and_received
from orchestra.app.run_record import MAX_BLOB_BYTES, RunRecord, encode_record, read_run_record
from orchestra.core.errors import InputError
from orchestra.core.events import Event
from orchestra.core.protocols import CallRequest
from orchestra.journal.history import History
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.testing.fake_workers import SimulatedWorkers
from tests.app.html_pages import GRAPH, quoting_run
from tests.server.servers import INPUTS, project


async def record_of(folder: Path, events: list[Event], *blobs: bytes, with_blobs: bool = False) -> RunRecord:
    """The record of a run with these events, and with blobs that its first call sent and received."""
    async with SqliteJournal.open(folder / "journal.db") as journal:
        journal.put_blob(GRAPH)
        digests = [journal.put_blob(blob) for blob in blobs]
        if digests:
            events = [
                replace(event, sent=digests[0], received=digests[-1]) if hasattr(event, "sent") else event
                for event in events
            ]
        journal.append("aaaa1111", events)
        await journal.wait_durable("aaaa1111", len(events))
        return await read_run_record(journal, "aaaa1111", time.time(), with_blobs=with_blobs)


async def test_record_has_events_claims_and_workflow(tmp_path: Path) -> None:
    record = await record_of(tmp_path, quoting_run("It was opened in 1889."))
    data = msgspec.json.decode(encode_record(record))
    assert (data["run"], data["status"], data["seq"], data["confidence"]) == ("aaaa1111", "done", 5, 1.0)
    assert [event["type"] for event in data["events"]][::4] == ["run_started", "run_finished"]
    assert [(claim["path"], claim["unsupported"]) for claim in data["claims"]] == [("answer", "")]
    assert data["workflows"][""]["nodes"] == {"reading": {"agent": "answerer"}}
    assert data["blobs"] is None


async def test_record_with_blobs_has_prompts_once_and_cut(tmp_path: Path) -> None:
    sent, received = b"x" * (MAX_BLOB_BYTES + 1), b"\xffyes"
    record = await record_of(tmp_path, quoting_run("in 1889"), sent, received, with_blobs=True)
    assert record.blobs is not None
    assert record.blobs_left_out == 0
    first, second = record.blobs.values()
    assert (len(first.text), first.size) == (MAX_BLOB_BYTES, MAX_BLOB_BYTES + 1)
    assert (second.text, second.size) == ("\\xffyes", 4)


async def test_record_counts_missing_blobs_as_left_out(tmp_path: Path) -> None:
    events = [replace(event, sent="0" * 32) if hasattr(event, "sent") else event for event in quoting_run("in 1889")]
    assert sent_and_received(History.of(events).rows) == ["0" * 32]
    record = await record_of(tmp_path, events, with_blobs=True)
    assert (record.blobs, record.blobs_left_out) == ({}, 1)


async def test_record_of_a_run_under_way_names_its_holder(tmp_path: Path) -> None:
    called = asyncio.Event()

    async def never(call: CallRequest) -> Any:
        called.set()
        await asyncio.Event().wait()

    async with Orchestra.open(project(tmp_path), workers=SimulatedWorkers(never)) as orchestra:
        run = await orchestra.start(orchestra.find("answer"), **INPUTS)
        await called.wait()
        record = await read_run_record(orchestra.journal, run.id, time.time())
    assert record.status == "running"
    assert record.holder


async def test_record_of_unknown_run_is_refused(tmp_path: Path) -> None:
    async with SqliteJournal.open(tmp_path / "journal.db") as journal:
        with pytest.raises(InputError, match="E020"):
            await read_run_record(journal, "bbbb2222", time.time())


async def test_script_data_has_no_characters_of_html(tmp_path: Path) -> None:
    text = "</script><!--\u2028\u202e&amp;"
    data = to_script_data(await record_of(tmp_path, quoting_run(f"in 1889 {text}")))
    assert data.isascii()
    assert not {"<", ">", "&"} & set(data)
    assert msgspec.json.decode(data)["events"][0]["inputs"]["text"] == f"in 1889 {text}"
