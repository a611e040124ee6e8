"""`orchestra runs costs`: tables, JSON and CSV."""

from __future__ import annotations

import asyncio
import csv
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.events import AttemptFinished, AttemptStarted, Event, RunFinished, RunStarted, Usage
from orchestra.core.outcomes import ValueOutcome
from orchestra.journal.sqlite.journal import SqliteJournal
from tests.cli.shell import Shell
from tests.cli.stage import GOOD, TEXT, Simulated, furnish
from tests.journal.files import holder, sql

ROOT = Path(__file__).parents[2]
JOURNAL = Path(".orchestra/journal.db")
FLEET = """\
schema: orchestra/fleet/v1
name: nowhere
servers:
  paid: {endpoint: "http://127.0.0.1:9/v1", model: m, price: {prompt: 1, output: 2}}
  gateway: {endpoint: "http://127.0.0.1:9/v1", model: large}
models: {base: paid}
"""
PAID, FREE = Usage(1000, 0, 20, 1, 0.5, 0, 0.25), Usage(1000, 0, 20, 1, 0.5)


def events(run: str, workflow: str, at: float, *calls: tuple[str, str, Usage, str], ended: bool = True) -> list[Event]:
    """A run with calls of these agents to these servers, and the sources of recalled calls."""
    made: list[Event] = [RunStarted(seq=1, at=at, run=run, workflow=workflow, graph="", inputs={})]
    for number, (agent, server, usage, recalled) in enumerate(calls):
        node = f"n{number}"
        made.append(AttemptStarted(seq=len(made) + 1, at=at, node=node, attempt=1, name=agent))
        if agent != "slow":
            told: dict[str, Any] = {
                "usage": usage,
                "server": server,
                "reused_from": recalled,
                "value": 1,
                "final": True,
            }
            made.append(AttemptFinished(seq=len(made) + 1, at=at, node=node, attempt=1, **told))
    if ended:
        made.append(RunFinished(seq=len(made) + 1, at=at + 1, status="done", outcome=ValueOutcome(1)))
    return made


def record(*runs: list[Event]) -> None:
    async def write() -> None:
        async with SqliteJournal.open(JOURNAL) as journal:
            for made in runs:
                assert isinstance(made[0], RunStarted)
                journal.append(made[0].run, made)
                await journal.wait_durable(made[0].run, len(made))

    asyncio.run(write())


def recorded(shell: Shell) -> None:
    """Three runs: a paid one, one with a recalled answer, and an unfinished one of unknown price."""
    Path("configs").mkdir()
    Path("configs/nowhere.yaml").write_text(FLEET)
    (shell.project / "orchestra.toml").write_text('fleet = "nowhere"\n')
    now = time.time()
    record(
        events(
            "r1", "answers", now - 3, ("reader", "paid", PAID, ""), ("search", "local", Usage(calls=1, seconds=0.1), "")
        ),
        events("r2", "answers", now - 2, ("reader", "paid", Usage(), "r1")),
        events("r3", "mails", now - 1, ("writer", "gateway", FREE, ""), ("slow", "", FREE, ""), ended=False),
    )


def test_where_nothing_has_been_recorded_nothing_is_made(shell: Shell) -> None:
    said = shell("runs", "costs")
    assert (said.code, said.out, JOURNAL.exists()) == (0, "no runs yet; start one with: orchestra run NAME\n", False)
    assert shell("runs", "costs", "--json").json["rows"] == []
    assert shell("runs", "costs", "--csv").out.count("\n") == 1


def test_runs_are_summed_up_with_what_is_not_known_of_them(shell: Shell) -> None:
    recorded(shell)
    assert shell("runs", "costs").out.splitlines() == [
        "workflow  runs  calls  recalled  tokens in  out    time      money",
        "answers      2      2         1      1,000   20  0.60 s   0.250000",
        "mails        1      1         0      1,000   20  0.50 s          ?",
        "total        3      3         1      2,000   40  1.10 s  0.250000+",
        "not in the money: 1 call on gateway, which has no `price:` in the fleet file",
        "1 answer recalled from other runs, at no cost",
        "1 run without an end, with their cost so far",
        "1 call active or interrupted: the cost is unknown",
    ]


def test_tokens_that_no_server_counted_are_marked(shell: Shell) -> None:
    at, broken = time.time(), Usage(60, 0, 300, 1, 0.5, estimated_tokens=360)
    record(
        events("r1", "answers", at, ("reader", "local", FREE, ""), ("writer", "local", broken, "")),
        events("r2", "mails", at),
    )
    lines = shell("runs", "costs", "--by", "agent").out.splitlines()
    assert lines[1:] == [
        "reader            1      1      1,000    20  0.50 s",
        "writer            1      1        ~60  ~300  0.50 s",
        "total             2      2     ~1,060  ~320  1.00 s",
        "~ with 360 tokens not counted by a server: an upper bound for interrupted answers",
    ]
    found = shell("runs", "costs", "--by", "agent", "--json").json
    assert [row["assumed_tokens"] for row in [*found["rows"], found["total"]]] == [0, 360, 360]


def test_agents_and_tools_have_a_row_each_and_the_dearest_comes_first(shell: Shell) -> None:
    recorded(shell)
    rows = [line.split()[0] for line in shell("runs", "costs", "--by", "agent").out.splitlines()[:6]]
    assert rows == ["agent", "reader", "writer", "search", "slow", "total"]
    short = shell("runs", "costs", "--by", "agent", "-n", "1").out.splitlines()
    assert [line.split()[0] for line in short[1:3]] == ["reader", "total"]
    assert "and 3 rows more, included in the total" in short


def test_costs_omit_money_and_recalled_columns_without_values(shell: Shell) -> None:
    record(events("r1", "answers", time.time(), ("search", "local", Usage(calls=1, seconds=0.1), "")))
    assert shell("runs", "costs").out == (
        "workflow  runs  calls  tokens in  out    time\n"
        "answers      1      1          0    0  0.10 s\n"
        "total        1      1          0    0  0.10 s\n"
    )


def test_programs_get_null_for_money_that_nobody_knows(shell: Shell) -> None:
    recorded(shell)
    found = shell("runs", "costs", "--json", "--by", "workflow").json
    assert [(row["workflow"], row["money"], row["unpriced"]) for row in found["rows"]] == [
        ("answers", 0.25, {}),
        ("mails", None, {"gateway": 1}),
    ]
    total = found["total"]
    assert (total["runs"], total["calls"], total["recalled"], total["open"], total["money"]) == (3, 3, 1, 1, 0.25)
    assert (found["unfinished"], found["unread"]) == (1, [])


def test_costs_csv_has_an_empty_cell_for_unknown_money(shell: Shell) -> None:
    recorded(shell)
    rows = list(csv.DictReader(io.StringIO(shell("runs", "costs", "--csv", "--by", "workflow,server").out)))
    assert [(row["workflow"], row["server"], row["calls"], row["money"], row["unpriced"]) for row in rows] == [
        ("answers", "paid", "1", "0.25", "0"),
        ("answers", "local", "1", "0.0", "0"),
        ("mails", "gateway", "1", "", "1"),
        ("mails", "", "0", "0.0", "0"),
    ]


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        (("--since", "1h"), 1),
        (("--until", "1h"), 1),
        (("--workflow", "mails"), 1),
        (("--since", "999999w"), 2),
        ((), 2),
    ],
)
def test_runs_of_a_time_or_a_workflow_are_summed_up(shell: Shell, arguments: tuple[str, ...], runs: int) -> None:
    record(events("r1", "answers", time.time() - 7200), events("r2", "mails", time.time()))
    assert shell("runs", "costs", "--json", *arguments).json["total"]["runs"] == runs


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--by", "agnt"), "C043"),
        (("--by", ""), "C043"),
        (("--since", "soon"), "C010"),
        (("--since", "today", "--until", "yesterday"), "C010"),
        (("--json", "--csv"), "C010"),
    ],
)
def test_what_cannot_be_summed_up_is_said(shell: Shell, arguments: tuple[str, ...], code: str) -> None:
    said = shell("runs", "costs", *arguments)
    assert (said.code, code in said.out + said.err) == (2, True)


def test_where_no_run_is_of_that_name_it_is_said(shell: Shell) -> None:
    recorded(shell)
    assert shell("runs", "costs", "--workflow", "mail").out == "no matching runs\n"


def test_a_run_whose_events_are_damaged_counts_with_its_stored_usage(shell: Shell) -> None:
    recorded(shell)
    before = shell("runs", "costs").out
    sql(JOURNAL, "UPDATE events SET body = x'7b7d' WHERE run = 'r1' AND seq = 2")
    assert shell("runs", "costs").out == before


RAISED = "UPDATE run_usage SET body = CAST(replace(CAST(body AS TEXT), '1000', '1001') AS BLOB)"


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM run_usage", "UPDATE run_usage SET body = x'00'", "UPDATE run_usage SET checksum = 1", RAISED],
)
def test_a_usage_that_is_missing_or_damaged_is_summed_up_from_the_events(shell: Shell, change: str) -> None:
    recorded(shell)
    before, stored = shell("runs", "costs").out, sql(JOURNAL, "SELECT * FROM run_usage")
    sql(JOURNAL, change)
    assert shell("runs", "costs").out == before
    assert sql(JOURNAL, "SELECT * FROM run_usage") == stored


def test_a_damaged_run_is_left_out_and_named(shell: Shell) -> None:
    recorded(shell)
    sql(JOURNAL, "UPDATE events SET body = x'7b7d' WHERE run = 'r1' AND seq = 2", "DELETE FROM run_usage")
    said = shell("runs", "costs")
    assert said.code == 0
    assert said.out.splitlines()[-1].startswith("left out: run r1, J013: the journal is damaged at event 2 of run r1")
    assert "total        2 " in said.out
    assert shell("runs", "costs", "--json").json["unread"][0]["run"] == "r1"
    assert "left out: run r1, J013" in shell("runs", "costs", "--csv").err


def test_runs_of_another_fleet_are_judged_by_its_file(shell: Shell) -> None:
    recorded(shell)
    record(events("r4", "elsewhere", time.time(), ("reader", "ours", FREE, "")))
    assert "1 call on ours, which is in no fleet file" in shell("runs", "costs").out
    ours = (
        FLEET.replace("gateway", "ours")
        .replace("model: large", "model: large, external: false")
        .replace("nowhere", "other")
    )
    Path("configs/other.yaml").write_text(ours)
    Path("configs/broken.yaml").write_text("nothing")
    assert "ours" not in shell("runs", "costs").out


def test_a_fleet_file_that_cannot_be_read_leaves_prices_unknown(shell: Shell) -> None:
    recorded(shell)
    Path("configs/nowhere.yaml").write_text("schema: orchestra/fleet/v1\nprices: 3\n")
    said = shell("runs", "costs")
    assert said.code == 0
    assert said.err.startswith("no prices are known: ")
    assert "not in the money: 1 call on gateway, which is in no fleet file" in said.out


def test_without_servers_nobody_misses_a_fleet_file(shell: Shell) -> None:
    record(events("r1", "alone", time.time()))
    Path("orchestra.toml").write_text('fleet = "none"\n')
    said = shell("runs", "costs")
    assert (said.code, said.err) == (0, "")


def test_a_journal_is_summed_up_while_another_process_writes_it(shell: Shell) -> None:
    recorded(shell)
    with holder(JOURNAL, "busy") as process:
        assert process.ask() == "1"
        assert shell("runs", "costs", "--json").json["total"]["runs"] == 4


def test_runs_of_the_simulated_fleet_are_summed_up(shell: Shell) -> None:
    furnish()
    shell.opener = Simulated({"answerer": GOOD})
    for question in ("When?", "Why?"):
        shell("run", "ask", "-i", f"question={question}", "-i", f"text={TEXT}")
    [row] = shell("runs", "costs", "--json", "--by", "agent").json["rows"]
    assert (row["agent"], row["runs"], row["calls"], row["money"]) == ("answerer", 2, 2, None)
    assert row["prompt_tokens"] > 0


def test_on_a_narrow_terminal_no_number_is_broken(shell: Shell) -> None:
    recorded(shell)
    record(
        events(
            "r4",
            "digest_of_the_morning_mail",
            time.time(),
            *[("reader_of_letters", "paid", Usage(100_000, 0, 20, 1, 0.5, 0, 0.25), "")] * 1500,
        )
    )
    lines = on_a_terminal(80, "runs", "costs", "--by", "day,workflow,agent").splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[-1] for line in lines if "150,000,000" in line] == ["375.00"]
    assert "a wider terminal also shows recalled, time, runs" in lines
    assert on_a_terminal(200, "runs", "costs", "--by", "day,workflow").split()[:5] == [
        "day",
        "workflow",
        "runs",
        "calls",
        "recalled",
    ]


def on_a_terminal(columns: int, *arguments: str) -> str:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    subprocess.run([sys.executable, "-m", "orchestra.cli", *arguments], stdout=theirs, env=environment, check=True)
    os.close(theirs)
    seen = os.read(ours, 1 << 16).decode().replace("\r\n", "\n")
    os.close(ours)
    return re.sub(r"\x1b\[\d*m", "", seen)


def test_of_days_the_latest_are_shown_and_of_agents_the_dearest(shell: Shell) -> None:
    furnish(files={"configs/nowhere.yaml": FLEET, "orchestra.toml": 'fleet = "nowhere"\n'})
    days = (1_790_000_000.0, 1_790_100_000.0, 1_790_200_000.0)
    record(*(events(f"r{number}", "ask", at, ("reader", "paid", PAID, "")) for number, at in enumerate(days)))
    shown = shell("runs", "costs", "--by", "day", "-n", "1", "--json").json["rows"]
    every = shell("runs", "costs", "--by", "day", "--json").json["rows"]
    assert shown == every[-1:]
    assert len(every) == 3
