"""Flipped bits and cut files: every read returns the right result or a coded error."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from msgspec.structs import replace

from orchestra.core.events import AttemptFinished, Event, RunStarted
from orchestra.core.protocols import InboxMessage, RunSelection, RunUsageResult
from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite.errors import SQLITE_ERRORS
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.journal.sqlite.reader import SqliteReader
from tests.journal.files import sql
from tests.journal.stories import begun, middle, whole

POINTS = int(os.environ.get("ORCHESTRA_TEST_DAMAGE_POINTS", "2000"))
SEED = 20_262
RUNS = [f"r{number}" for number in range(4)]
Answers: TypeAlias = dict[str, Any]
"""Queries and their results, or the code of an error."""


def story(journal: SqliteJournal, run: str) -> Sequence[Event]:
    if run == "r0":
        return whole(run)
    sent = journal.put_blob(f"sent by {run}".encode())
    return [
        RunStarted(
            seq=1,
            at=float(run[1:]),
            run=run,
            workflow="w",
            graph=journal.put_blob(b"graph"),
            inputs={"a": "x" * 20_000},
            options={"tags": {"customer": "1", "kind": run}},
        ),
        AttemptFinished(
            seq=2, at=2.0, node="a", attempt=1, value={"to": run}, sent=sent, outbox=True, reused_from="r0"
        ),
        *middle(3, 3),
    ]


async def fill(journal: SqliteJournal) -> None:
    for run in RUNS:
        events = story(journal, run)
        for event in events:
            journal.append(run, [event])
            await journal.wait_durable(run, event.seq)
        journal.put_memo(f"memo of {run}", run, {"answer": run})
        if run != "r0":
            for _ in range(3):
                await journal.send(run, InboxMessage(kind="cancel", by=run))
            await journal.release(run)
    await journal.mark_delivered([2])


def questions(reading: SqliteReader) -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = {
        "runs": partial(reading.summaries, 50),
        "find": partial(reading.find_runs, "r", 100),
        "skim": partial(skimmed, reading),
        "tagged": partial(reading.summaries, 50, RunSelection(tags={"customer": "1"}, since=0.5)),
        "usages": partial(used, reading),
        "copies": partial(reading.derived_runs, RUNS[:1]),
        "outbox": partial(reading.outbox, 0, 100),
    }
    for run in RUNS:
        found[f"read {run}"] = partial(reading.events, run, 0)
        found[f"ends {run}"] = partial(reading.first_and_last_events, (run,))
        found[f"letters {run}"] = partial(reading.inbox, run, 0)
        found[f"recall {run}"] = partial(reading.get_memos, (f"memo of {run}",))
    return found


def used(reading: SqliteReader) -> list[RunUsageResult]:
    """Returns the usage of all runs; raises the first error of one of them."""
    found, where = list[RunUsageResult](), RunSelection(since=0.5)
    while some := reading.query_usages(where).found:
        for one in some:
            if one.error is not None:
                raise one.error
        found += some
        where = replace(where, before=(some[-1].started, some[-1].run))
    return found


def skimmed(reading: SqliteReader) -> list[tuple[str, Sequence[Event]]]:
    """Returns all runs with their events, without large values; raises the first error of one of them."""
    found = []
    before = None
    while page := reading.scan(-inf, before):
        for run, _, events, fault in page:
            if fault is not None:
                raise fault
            found.append((run, events))
        before = page[-1].started, page[-1].run
    return found


def asked(file: Path) -> Answers:
    """Returns every query and its result; empty if the file cannot be opened."""
    answers: Answers = {}
    try:
        with closing(SqliteReader(file, busy_timeout=0.05)) as reading:
            for question, ask in questions(reading).items():
                try:
                    answers[question] = ask()
                except JournalError as error:
                    answers[question] = coded(error)
                except SQLITE_ERRORS as error:
                    answers[question] = coded(reading.to_journal_error(error))
    except JournalError as error:
        coded(error)
    return answers


def coded(error: JournalError) -> str:
    assert error.hint, error
    return error.code


async def lived_in(file: Path) -> None:
    """Opens, writes and closes a journal."""
    async with SqliteJournal.open(file, busy_timeout=0.05) as journal:
        journal.append("new", [begun("new")])
        await journal.wait_durable("new", 1)
        for run in RUNS[1:]:
            await journal.lease(run)
            journal.append(run, middle(6, 1))
            await journal.send(run, InboxMessage(kind="cancel"))
        await journal.outbox()


def content(file: Path) -> bytes:
    return file.read_bytes()


def laid(folder: Path, data: bytes, log: bytes = b"") -> Path:
    """Writes a new file with these bytes, and its log."""
    place = folder / "spoilt"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    file = place / "journal.db"
    file.write_bytes(data)
    if log:
        Path(f"{file}-wal").write_bytes(log)
    return file


def spoilt(whole_file: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.1:
        return whole_file[: chance.randrange(1, len(whole_file))]
    copy = bytearray(whole_file)
    for _ in range(chance.choice((1, 1, 1, 3))):
        copy[chance.randrange(len(copy))] ^= 1 << chance.randrange(8)
    return bytes(copy)


async def test_damaged_file_gives_valid_results_or_coded_errors(tmp_path: Path) -> None:
    file, chance = tmp_path / "whole" / "journal.db", random.Random(SEED)
    async with SqliteJournal.open(file) as journal:
        await fill(journal)
    right, data = asked(file), content(file)
    assert not [question for question, answer in right.items() if isinstance(answer, str)]
    opened = refused = 0
    for point in range(POINTS):
        answers = asked(laid(tmp_path, spoilt(data, chance)))
        opened += bool(answers)
        for question, answer in answers.items():
            refused += isinstance(answer, str)
            # If a memo's key was damaged, the answer is missing and is requested again: no other read may miss data.
            # The ends of a damaged run are left out, and those of the other runs are returned.
            forgotten = answer == {} and question.startswith(("recall", "ends"))
            assert isinstance(answer, str) or forgotten or answer == right[question], (
                f"{question} after damage {point} of seed {SEED}"
            )
    assert opened > POINTS * 0.7
    assert refused > POINTS * 0.5


async def test_damaged_log_loses_last_commits_at_most(tmp_path: Path) -> None:
    file, chance = tmp_path / "whole" / "journal.db", random.Random(SEED)
    async with SqliteJournal.open(file) as journal:
        await fill(journal)
        right, data, log = asked(file), content(file), content(Path(f"{file}-wal"))
    lost = 0
    for point in range(POINTS // 8):
        answers = asked(laid(tmp_path, data, spoilt(log, chance)))
        for question, answer in answers.items():
            where = f"{question} after damage {point} of seed {SEED}"
            lost += answer != right[question]
            match question.split()[0]:
                case "read" | "letters":
                    assert answer == right[question][: len(answer)], where
                case "recall":
                    assert answer in (right[question], {}), where
                case "ends":
                    assert all(found[0] == right[question][run][0] for run, found in answer.items()), where
                case "outbox":
                    assert all(message in right["outbox"] or message.number == 2 for message in answer), where
                case _:
                    assert len(answer) <= len(right[question]), where
    assert lost > POINTS // 8


async def test_write_to_damaged_file_succeeds_or_is_coded_error(tmp_path: Path) -> None:
    file, chance, refused = tmp_path / "whole" / "journal.db", random.Random(SEED), 0
    async with SqliteJournal.open(file) as journal:
        await fill(journal)
    data = content(file)
    for _ in range(POINTS // 10):
        try:
            await asyncio.wait_for(lived_in(laid(tmp_path, spoilt(data, chance))), 60)
        except JournalError as error:
            refused += bool(coded(error))
    assert 0 < refused < POINTS // 10


@pytest.mark.parametrize(
    ("change", "question"),
    [
        *(
            (f"UPDATE runs SET {column} = {value} WHERE run = 'r1'", "runs")
            for column, value in [
                ("status", "'done'"),
                ("workflow", "'v'"),
                ("started", "9.5"),
                ("finished", "1.0"),
                ("nodes", "7"),
                ("usage", "'{}'||usage"),
                ("writer", "'w'"),
                ("epoch", "9"),
                ("last", "9"),
                ("chain", "x'00'"),
            ]
        ),
        ("UPDATE events SET big = '' WHERE big <> ''", "read r1"),
        ("UPDATE inbox SET number = 4 WHERE run = 'r1' AND number = 3", "letters r1"),
        ("UPDATE inbox SET run = 'r9' WHERE run = 'r1' AND number = 3", "letters r1"),
        ("UPDATE inbox_counts SET messages = 2 WHERE run = 'r1'", "letters r1"),
        ("UPDATE memo SET run = 'r2' WHERE run = 'r1'", "recall r1"),
        ("UPDATE outbox SET key = 'other' WHERE number = 1", "outbox"),
        ("UPDATE tags SET started = 9.5 WHERE run = 'r1'", "tagged"),
        ("UPDATE tags SET run = 'r9' WHERE run = 'r1'", "tagged"),
    ],
)
async def test_altered_row_is_detected(tmp_path: Path, change: str, question: str) -> None:
    file = tmp_path / "journal.db"
    async with SqliteJournal.open(file) as journal:
        await fill(journal)
    sql(file, change)
    assert (asked(file))[question] == "J013"
