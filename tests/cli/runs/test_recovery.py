"""`orchestra runs recover`: lost commits are refused, then accepted, and runs are confirmed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from orchestra.journal.sqlite.commit_mark import mark_path
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.testing.conformance.scenarios import append_durably, node_events, run_finished, run_started
from tests.cli.shell import Shell

PLACE = Path(".orchestra", "journal.db")


async def _write(*runs: str) -> None:
    async with SqliteJournal.open(PLACE) as journal:
        for run in runs:
            await append_durably(journal, run, [run_started(run), *node_events(2, 1)])


async def _end(run: str) -> None:
    async with SqliteJournal.open(PLACE) as journal:
        await journal.lease(run)
        await append_durably(journal, run, [run_finished(3)])


def lose() -> None:
    """Removes the end of one run."""
    asyncio.run(_write("one", "two"))
    before = PLACE.read_bytes()
    asyncio.run(_end("one"))
    PLACE.write_bytes(before)


def test_a_loss_is_refused_until_it_is_accepted(shell: Shell) -> None:
    lose()
    said = shell("runs", "list")
    assert said.code != 0
    assert "J025" in said.err
    assert "orchestra runs recover" in said.err
    unsure = shell("runs", "recover")
    assert unsure.code != 0
    assert "C010" in unsure.err
    assert "J025" in shell("runs", "list").err
    accepted = shell("runs", "recover", "--yes")
    assert accepted.code == 0
    assert "2 runs without an end" in accepted.out
    assert {"one", "two"} <= set(accepted.out.split())
    assert "J026" in shell("runs", "cancel", "one").err
    confirmed = shell("runs", "recover", "one", "--json")
    assert confirmed.json == {"run": "one", "confirmed": True}
    assert shell("runs", "recover", "one", "--json").json == {"run": "one", "confirmed": False}
    assert shell("runs", "cancel", "one").code == 0
    assert "J026" in shell("runs", "cancel", "two").err


def test_a_loss_is_told_as_json(shell: Shell) -> None:
    lose()
    told = shell("runs", "recover", "--yes", "--json").json
    assert told["runs"] == ["one", "two"]
    assert told["commits"] > 0
    assert told["log"] is None
    assert "missing" in told["lost"]


def test_where_nothing_is_missing_nothing_is_changed(shell: Shell) -> None:
    assert shell("runs", "recover").out == "nothing is missing\n"
    asyncio.run(_write("one"))
    mark = mark_path(PLACE).read_bytes()
    assert shell("runs", "recover", "--json").json == {"lost": None, "commits": 0, "log": None, "runs": []}
    assert mark_path(PLACE).read_bytes() == mark


def test_a_file_that_is_gone_is_not_taken_for_a_journal_without_runs(shell: Shell) -> None:
    asyncio.run(_write("one"))
    PLACE.unlink()
    assert "J025" in shell("runs", "list").err
    assert shell("runs", "recover", "--yes").code == 0
    assert shell("runs", "list").code == 0
