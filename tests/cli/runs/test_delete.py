"""`orchestra runs delete`: runs of any age, and runs with copies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestra.cli.runs.export import DELETED_CODE, delete_in_batches
from orchestra.core.events import AttemptFinished, Event, RunFinished, RunStarted
from orchestra.core.outcomes import ValueOutcome
from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite.journal import SqliteJournal
from tests.cli.shell import Shell
from tests.journal.files import holder

CANARY = "Mrs. Canary of 7 Birdcage Walk"
LARGE = CANARY * 5_000
JOURNAL = Path(".orchestra/journal.db")


def events(run: str, *, parent: str = "", name: str = CANARY, ended: bool = True, outbox: bool = False) -> list[Event]:
    inputs = {"text": LARGE.replace(CANARY, name), "name": name}
    made: list[Event] = [
        RunStarted(seq=1, at=1e9, run=run, workflow="letters", graph="", inputs=inputs, parent=parent),
        AttemptFinished(
            seq=2, at=1e9, node="a", attempt=1, name="reader", value=name, final=True, outbox=outbox, reused_from=parent
        ),
        RunFinished(seq=3, at=1e9 + 1, status="done", outcome=ValueOutcome(name)),
    ]
    return made if ended else made[:-1]


def record(*runs: list[Event]) -> None:
    async def write() -> None:
        async with SqliteJournal.open(JOURNAL) as journal:
            for made in runs:
                assert isinstance(made[0], RunStarted)
                run = made[0].run
                journal.append(run, made)
                journal.put_memo(f"memo of {run}", run, made[0].inputs["name"])
                await journal.wait_durable(run, len(made))

    JOURNAL.parent.mkdir(exist_ok=True)
    asyncio.run(write())


def kept() -> bytes:
    """All data of the journal on disk."""
    return b"".join(path.read_bytes() for path in JOURNAL.parent.iterdir() if path.is_file())


def listed(shell: Shell) -> list[str]:
    return [run["run"] for run in shell("runs", "list", "--json").json]


def test_of_a_run_that_is_deleted_no_byte_stays_in_the_journal(shell: Shell) -> None:
    for number in range(10):
        record(events(f"aaaa{number:04}"), events(f"bbbb{number:04}", name="Mr. Sparrow"))
    assert kept().count(CANARY.encode()) > 5_000
    said = shell("runs", "delete", *(f"aaaa{number:04}" for number in range(10)), "--yes")
    assert (said.code, said.out[:16]) == (0, "10 runs deleted,")
    assert "letters" in said.err
    assert "backups" in said.err
    assert sorted(listed(shell)) == [f"bbbb{number:04}" for number in range(10)]
    assert b"Canary" not in kept()


def test_a_run_that_may_go_on_is_not_deleted_until_it_is_cancelled(shell: Shell) -> None:
    record(events("aaaa1111"), events("bbbb2222", ended=False))
    said = shell("runs", "delete", "aaaa1111", "bbbb2222", "--yes")
    assert (said.code, said.err[:4]) == (2, "C056")
    assert "orchestra runs cancel bbbb2222" in said.err
    assert len(listed(shell)) == 2
    shell("runs", "cancel", "bbbb2222")
    assert shell("runs", "delete", "aaaa1111", "bbbb2222", "--yes", "--json").json["deleted"] == 2
    assert listed(shell) == []


def test_a_run_with_messages_that_are_not_delivered_is_not_deleted(shell: Shell) -> None:
    record(events("aaaa1111"), events("bbbb2222", outbox=True))
    said = shell("runs", "delete", "aaaa1111", "bbbb2222", "--yes")
    assert (said.code, said.err[:4]) == (1, "J024")
    assert len(listed(shell)) == 2


async def test_where_the_journal_fails_in_the_middle_it_is_said_what_is_deleted(tmp_path: Path) -> None:
    async with SqliteJournal.open(tmp_path / "j.db") as journal:
        for made in (events("aaaa1111"), events("bbbb2222", ended=False), events("cccc3333")):
            journal.append(made[0].run if isinstance(made[0], RunStarted) else "", made)
        with pytest.raises(JournalError) as caught:
            await delete_in_batches(journal, ["aaaa1111", "bbbb2222", "cccc3333"], ())
        assert (caught.value.code, caught.value.why) == ("J022", "2 of 3 runs deleted: aaaa1111 cccc3333")
        assert [run.run for run in await journal.list_runs()] == ["bbbb2222"]
        assert [error.code for error in (await delete_in_batches(journal, ["aaaa1111"], (DELETED_CODE,)))[1]] == [
            DELETED_CODE
        ]


def test_runs_with_copies_are_named(shell: Shell) -> None:
    record(events("aaaa1111"), events("bbbb2222", parent="aaaa1111"), events("cccc3333"))
    said = shell("runs", "delete", "aaaa1111", "--dry-run")
    assert "1 other run with copies of their inputs or outputs: bbbb2222\n" in said.err
    assert said.out == "1 run would be deleted\n"
    assert shell("runs", "delete", "aaaa1111", "--dry-run", "--json").json["copies"] == ["bbbb2222"]
    assert len(listed(shell)) == 3
    assert shell("runs", "delete", "aaaa1111", "bbbb2222", "--yes", "--json").json["copies"] == []


def test_what_another_process_keeps_in_the_log_is_said(shell: Shell) -> None:
    record(events("aaaa1111"), events("bbbb2222"))
    with holder(JOURNAL, "dddd4444"):
        said = shell("runs", "delete", "aaaa1111", "--yes")
    assert said.code == 0
    assert ("-wal" in said.err) == (JOURNAL.with_name("journal.db-wal").exists() and LARGE.encode() in kept())


@pytest.mark.parametrize(("names", "code", "reason"), [(("zzzz",), "C018", "zzzz"), (("aaaa1111",), "C010", "--yes")])
def test_what_is_not_there_or_not_wanted_surely_is_not_deleted(
    shell: Shell, names: tuple[str, ...], code: str, reason: str
) -> None:
    record(events("aaaa1111"))
    said = shell("runs", "delete", *names)
    assert (said.code, said.err.count(f"{code}: "), reason in said.err) == (2, 1, True)
    assert listed(shell) == ["aaaa1111"]


def test_where_nothing_has_been_recorded_nothing_is_deleted(shell: Shell) -> None:
    assert shell("runs", "delete", "last", "--yes").err.startswith(
        "C018: there is no run 'last': nothing is recorded yet"
    )
    assert shell("runs", "delete", "--tag", "customer=42", "--yes").err.startswith(
        "C018: there is no run with the tag customer=42"
    )
    assert not JOURNAL.exists()
