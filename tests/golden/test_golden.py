"""Journals of this version of the events are read, replayed and resumed; events of version 1 are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestra.app.orchestra import Orchestra
from orchestra.core.events import AttemptFinished, Event, QuestionAsked, RunFinished, RunStarted
from orchestra.core.protocols import InboxMessage
from orchestra.core.settings import Settings
from orchestra.journal.errors import JournalError
from orchestra.journal.hash_chain import decode_event
from orchestra.journal.memory import MemoryJournal, MemoryStore
from tests.golden.stage import FOLDER, HERE, OUTPUT, loaded, project, workers

FILES = sorted(FOLDER.glob("*.jsonl"))
VERSION_1 = HERE / "events-1" / "whole.jsonl"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return project(tmp_path_factory.mktemp("golden"))


def test_golden_journals_exist() -> None:
    assert len(FILES) > 5


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
async def test_golden_run_replays_and_finishes(path: Path, settings: Settings) -> None:
    events, blobs = loaded(path)
    first = events[0]
    assert isinstance(first, RunStarted)
    store = MemoryStore()
    left = MemoryJournal(store)
    for blob in blobs:
        left.put_blob(blob)
    left.append(first.run, events)
    if not isinstance(events[-1], RunFinished):
        for _ in range(max(getattr(event, "message_number", 0) for event in events)):
            await left.send(first.run, InboxMessage(kind="answer", node="sure", value="opened long ago"))
    await left.close()
    again = workers()
    async with Orchestra.open(settings, workers=again, journal=MemoryJournal(store)) as orchestra:
        replayed = await orchestra.replay(first.run)
        assert (replayed.first_difference, replayed.reason, replayed.event_count) == (None, "", len(events))
        run = await orchestra.resume(first.run)
        await run.wait_until_blocked()
        for asked in run.questions:
            await orchestra.answer(first.run, "again" if asked.kind == "effect" else "yes", node=asked.node)
        assert (await run).value == OUTPUT
        calls = {(call.node, call.attempt) for call in again.calls}
        assert not calls & set(done(events))
        if isinstance(events[-1], RunFinished):
            assert not again.calls


def done(events: Sequence[Event]) -> list[tuple[str, int]]:
    return [(event.node, event.attempt) for event in events if isinstance(event, AttemptFinished)]


def test_golden_runs_contain_question() -> None:
    assert any(isinstance(event, QuestionAsked) for path in FILES for event in loaded(path)[0])


def test_golden_version_1_is_refused() -> None:
    refused = []
    for seq, line in enumerate(VERSION_1.read_bytes().splitlines(), 1):
        if not line.startswith(b'{"blob"'):
            try:
                decode_event("golden", seq, line)
            except JournalError as error:
                refused.append(error)
    assert {error.code for error in refused} == {"J021"}
    assert "`settled`" in refused[0].message
    assert "or use that version" in refused[0].hint
