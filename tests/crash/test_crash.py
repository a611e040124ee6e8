"""Kill -9 at many points, and again during recovery; the audit detects deliberate faults. `make crash` runs the full
matrix.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestra.core.events import (
    AttemptFinished,
    CancelRequested,
    Event,
    NodeFinished,
    QuestionAnswered,
    RunFinished,
    RunResumed,
)
from orchestra.journal.sqlite.journal import SqliteJournal
from tests.crash.audit import Told, gather, violations
from tests.crash.child import OVER, Child, Scene
from tests.crash.stage import Entry
from tests.crash.stores import Place
from tests.journal.postgres_server import missing
from tests.journal.stories import begun, middle

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def matrix(*arguments: str) -> str:
    """Returns the output of the matrix; it forks, and so needs a process without loops and threads."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.stdout, done.stderr
    return done.stdout.splitlines()[-1] if done.returncode == 0 else done.stdout


def test_crash_kill_anywhere_loses_and_repeats_nothing() -> None:
    last = matrix("--kills", "24", "--lanes", "2")
    assert "24 kills" in last
    assert last.endswith(" 0 violations")


@pytest.mark.skipif(bool(missing()), reason=f"no Postgres: {missing()}")
def test_crash_kill_anywhere_with_postgres() -> None:
    last = matrix("--store", "postgres", "--kills", "4", "--lanes", "2")
    assert "4 kills" in last
    assert last.endswith(" 0 violations")


def test_crash_audit_detects_premature_flush() -> None:
    said = matrix("--kills", "8", "--lanes", "2", "--hasty")
    assert "was acknowledged, and is" in said
    assert "had its effect before the journal knew" in said
    assert "python -m tests.crash --store sqlite --point " in said


async def test_crash_other_process_exit_keeps_locks(tmp_path: Path) -> None:
    """Closing any descriptor of a file releases all locks of the process on it, including those of SQLite."""
    file = tmp_path / "journal.db"
    look = f"""
import asyncio
from orchestra.journal.sqlite.journal import SqliteJournal
async def look():
    async with SqliteJournal.open({str(file)!r}) as journal:
        await journal.list_runs()
asyncio.run(look())
"""
    async with SqliteJournal.open(file) as journal:
        journal.append("r", [begun("r")])
        await journal.wait_durable("r", 1)
        neighbour = await asyncio.create_subprocess_exec(sys.executable, "-c", look)
        assert await neighbour.wait() == 0
        assert file.with_name("journal.db-wal").exists()
        journal.append("r", middle(2, 2))
        await journal.wait_durable("r", 3)


# The audit


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Records of a point without kills."""
    folder = tmp_path_factory.mktemp("point")
    scene = Scene(str(folder), Place(file=str(folder / "journal.db")), 1)

    async def play() -> Told:
        assert await Child(scene, 0, None, -1).act() == OVER
        return await gather(scene)

    return asyncio.run(play())


def test_audit_undisturbed_run_has_no_findings(told: Told) -> None:
    assert violations(told) == []


def events(told: Told, change: Callable[[Event], list[Event]]) -> Told:
    """Returns the same records with other events, renumbered."""
    runs = {}
    for run, (name, old) in told.runs.items():
        new = [event for before in old for event in change(before)]
        runs[run] = name, [msgspec.structs.replace(event, seq=number) for number, event in enumerate(new, 1)]
    return msgspec.structs.replace(told, runs=runs)


def without(kind: type[Event], node: str) -> Callable[[Event], list[Event]]:
    return lambda event: [] if isinstance(event, kind) and getattr(event, "node", "") == node else [event]


def twice(kind: type[Event], node: str) -> Callable[[Event], list[Event]]:
    return lambda event: [event, event] if isinstance(event, kind) and getattr(event, "node", "") == node else [event]


def again(told: Told, node: str, **other: Any) -> Told:
    """Returns the same records with one more call of a node."""
    entry = next(entry for entry in told.world if entry.node == node and entry.what == "begin")
    return msgspec.structs.replace(told, world=[*told.world, msgspec.structs.replace(entry, **other)])


BROKEN: dict[str, tuple[Callable[[Told], Told], str]] = {
    "an event is lost": (lambda told: events(told, without(NodeFinished, "loud")), "was acknowledged"),
    "the last event is lost": (
        lambda told: msgspec.structs.replace(
            told, runs={run: (name, log[:-1]) for run, (name, log) in told.runs.items()}
        ),
        "acknowledged, and is not there",
    ),
    "a call is made again": (lambda told: again(told, "words", child=1), "was called again"),
    "a call is made twice": (lambda told: again(told, "words"), "was called 2 times as attempt 1"),
    "an effect happens twice": (
        lambda told: again(told, "sent", child=1, attempt=2),
        "must happen once and was called 2 times",
    ),
    "a key changes": (lambda told: again(told, "paid[0]", key="another"), "several keys"),
    "an effect comes before its intent": (
        lambda told: again(told, "saved", attempt=9),
        "before the journal knew of attempt 9",
    ),
    "a message is lost": (
        lambda told: msgspec.structs.replace(told, outbox=told.outbox[1:]),
        "not exactly one message",
    ),
    "a message is sent twice": (
        lambda told: msgspec.structs.replace(told, outbox=told.outbox * 2),
        "not exactly one message",
    ),
    "a blob is lost": (lambda told: msgspec.structs.replace(told, blobs=frozenset()), "is lost"),
    "a node ends twice": (lambda told: events(told, twice(NodeFinished, "chosen")), "several outcomes"),
    "a value comes from nowhere": (
        lambda told: msgspec.structs.replace(told, world=[entry for entry in told.world if entry.node != "booked"]),
        "booked has a value and was never done",
    ),
    "an answer is not asked for": (lambda told: events(told, twice(QuestionAnswered, "sure")), "replay differs"),
    "usage is forgotten": (lambda told: events(told, without(AttemptFinished, "rare")), "usage"),
    "a lease falls back": (
        lambda told: events(
            told,
            lambda event: (
                [event]
                if event.seq != 1
                else [event, *(RunResumed(seq=0, at=event.at, epoch=epoch) for epoch in (3, 2))]
            ),
        ),
        "epochs do not rise: [1, 3, 2",
    ),
    "a run that was to be cancelled is not": (
        lambda told: events(told, without(CancelRequested, "")),
        "its letter was opened as []",
    ),
    "a cancellation comes twice": (
        lambda told: events(told, twice(CancelRequested, "")),
        "its letter was opened as [1, 1]",
    ),
    "a cancelled run ends otherwise": (
        lambda told: events(
            told,
            lambda event: [msgspec.structs.replace(event, status="done") if isinstance(event, RunFinished) else event],
        ),
        "it was to be cancelled, and was not",
    ),
    "a cancelled run goes on": (
        lambda told: again(told, "paid[1]", run="p1-d", child=2),
        "could know that it was cancelled",
    ),
    "a deleted run is still there": (
        lambda told: msgspec.structs.replace(told, rest=["events of p1-e"]),
        "deleted, and still there",
    ),
    "a deleted run was not at its end": (
        lambda told: msgspec.structs.replace(told, runs={**told.runs, "p1-e": ("brief", told.runs["p1-e"][1][:-1])}),
        "it did not end well",
    ),
    "a row is behind": (lambda told: msgspec.structs.replace(told, summaries=[]), "its row"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_audit_detects_manipulation(told: Told, how: str) -> None:
    spoil, said = BROKEN[how]
    assert any(said in fault for fault in violations(spoil(told)))


def test_audit_skips_torn_entries(tmp_path: Path) -> None:
    from tests.crash.stage import Lines, lines

    written = Entry(0, "begin", "r", "a", 1, "pay", "r/a")
    file = Lines(tmp_path / "world")
    file.write(msgspec.json.encode(written)[:20])
    (tmp_path / "world").write_bytes((tmp_path / "world").read_bytes().rstrip(b"\n"))
    file.write(msgspec.json.encode(written))
    assert lines(tmp_path / "world", Entry) == [written]
