"""Tests the display of untrusted journals: names, servers and times reach the terminal only as escaped texts."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    Event,
    NodeFinished,
    OutputJudged,
    RunFinished,
    RunStarted,
    Verdict,
)
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.settings import Settings
from orchestra.journal.hash_chain import next_hash
from orchestra.journal.sqlite.database import read_row, update_rows
from orchestra.journal.sqlite.journal import SqliteJournal
from tests.cli.shell import Shell
from tests.hostile.scene import obeyed

BAD = "\x1b[2J\x9b31m\u202e\x07\r"


def story(at: float = 1.0, *, node: str = f"a{BAD}", value: Any = BAD) -> list[Event]:
    return [
        RunStarted(seq=1, at=at, run="r1", workflow=f"w{BAD}", graph=BAD, inputs={BAD: BAD}),
        AttemptStarted(seq=2, at=at, node=node, attempt=1, name=f"agent{BAD}"),
        AttemptFinished(seq=3, at=at, node=node, attempt=1, value=value, server=f"s{BAD}", model=f"m{BAD}"),
        OutputJudged(
            seq=4, at=at, node=node, attempt=1, verdicts=(Verdict(BAD, BAD, 1.0, BAD),), accepted=False, reason=BAD
        ),
        NodeFinished(seq=5, at=at, node=f"b{BAD}", outcome=FailedOutcome(f"M{BAD}", BAD, hint=BAD)),
        RunFinished(seq=6, at=at, status=f"done{BAD}", outcome=ValueOutcome(value=value)),
    ]


def write(shell: Shell, events: list[Event]) -> Path:
    place = Settings.load(start=shell.project).journal
    assert isinstance(place, Path)

    async def append() -> None:
        async with SqliteJournal.open(place) as journal:
            journal.append("r1", events)

    asyncio.run(append())
    return place


VERBS = [("runs", "list"), ("runs", "show", "r1"), ("runs", "show", "r1", f"a{BAD}"), ("runs", "show", "r1", "nowhere")]


@pytest.mark.parametrize("at", [1.0, -1e300, 1e300, 5e18])
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_journal_text_is_escaped_for_the_terminal(shell: Shell, at: float, more: tuple[str, ...]) -> None:
    write(shell, story(at))
    for verb in VERBS:
        said = shell(*verb, *more)
        assert obeyed(said.out + said.err) == set(), verb
        assert said.code == (2 if verb[-1] == "nowhere" else 0), said


def test_journal_value_nested_too_deep_is_shown_without_crash(shell: Shell) -> None:
    value: Any = []
    for _ in range(400):
        value = [value]
    write(shell, story(value=value))
    assert shell("runs", "show", "r1").code == 0
    assert shell("runs", "show", "r1", f"a{BAD}").code == 0


@pytest.mark.parametrize("node", ["/".join("a" * 5_000), "a" + "#1" * 5_000, "a" + "[1]" * 5_000])
def test_journal_node_in_thousands_of_others_is_damaged(shell: Shell, node: str) -> None:
    write(shell, story(node=node))
    said = shell("runs", "show", "r1", "--json", "x")
    assert (said.code, json.loads(said.out)["error"]["code"]) == (1, "J013")


@pytest.mark.parametrize("depth", [5_000, 9_000, 200_000])
def test_journal_event_nested_deep_is_shown_or_damaged(shell: Shell, depth: int) -> None:
    place = write(shell, story())
    body = (
        b'{"type":"run_finished","seq":6,"at":1.0,"status":"done","outcome":{"type":"value","value":'
        + b"[" * depth
        + b"]" * depth
        + b"}}"
    )
    with closing(sqlite3.connect(place, isolation_level=None)) as sql:
        before = read_row(sql, "r1")
        assert before is not None
        (chain,) = sql.execute("SELECT chain FROM events WHERE run = 'r1' AND seq = 5").fetchone()
        after = read_row(sql, "r1")
        assert after is not None
        after.chain = next_hash(chain, body)
        sql.execute("UPDATE events SET body = ?, chain = ? WHERE run = 'r1' AND seq = 6", (body, after.chain))
        assert update_rows(sql, [(before, after)])
    said = shell("runs", "show", "r1", "--json")
    if said.code == 0 and depth < 10_000 and sys.version_info >= (3, 13):
        assert b"[" * depth in said.out.encode()  # From Python 3.13 on, C code may recurse 10,000 deep.
        assert shell("runs", "show", "r1").code == 0
    else:
        assert (said.code, json.loads(said.out)["error"]["code"]) == (1, "J013")
