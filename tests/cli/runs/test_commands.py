"""`orchestra runs`: list, show, exact bytes, and names of runs and nodes."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    Event,
    MapExpanded,
    NodeFinished,
    OutputJudged,
    RunFinished,
    RunStarted,
    Usage,
    Verdict,
)
from orchestra.core.outcomes import AbstainedOutcome, ValueOutcome
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.schema.strict_json import digest
from tests.cli.shell import Shell

SENT = [b'{"try": 1}', b'{"try": 2, "text": "\x1b[31m"}']
RECEIVED = [b"\xff\x00not text", b"second"]
ROOT = Path(__file__).parents[3]


def events(run: str, at: float, elements: int = 2, money: float = 0.0, model: str = "tiny") -> list[Event]:
    """A run whose node `readings[0]` was called twice and accepted, and whose other elements abstained."""
    usage = Usage(prompt_tokens=10, output_tokens=2, calls=1, seconds=0.5, money=money)
    made: list[Event] = [RunStarted(seq=1, at=at, run=run, workflow="hello", graph="", inputs={})]

    def add(kind: type[Event], **fields: object) -> None:
        made.append(kind(seq=len(made) + 1, at=at + len(made), **fields))  # type: ignore[arg-type]

    add(MapExpanded, node="readings", count=elements)
    for attempt in (1, 2):
        add(AttemptStarted, node="readings[0]", attempt=attempt, name="reader")
        add(
            AttemptFinished,
            node="readings[0]",
            attempt=attempt,
            value={"answer": f"try \x1b {attempt}"},
            usage=usage,
            server="smol",
            model=model,
            sent=digest(SENT[attempt - 1]),
            received=digest(RECEIVED[attempt - 1]),
        )
        verdict = Verdict(
            "quote", "pass" if attempt == 2 else "fail", float(attempt == 2), "" if attempt == 2 else "no such words"
        )
        add(
            OutputJudged,
            node="readings[0]",
            attempt=attempt,
            verdicts=(verdict,),
            accepted=attempt == 2,
            reason=verdict.reason,
        )
    add(NodeFinished, node="readings[0]", outcome=ValueOutcome({"answer": "two"}))
    for number in range(1, elements):
        add(
            NodeFinished,
            node=f"readings[{number}]",
            outcome=AbstainedOutcome("the quote is not there", f"readings[{number}]"),
        )
    add(NodeFinished, node="readings", outcome=ValueOutcome([]))
    add(RunFinished, status="done", outcome=ValueOutcome("the answer"), usage=usage + usage)
    return made


def record(*runs: tuple[str, float, int], money: float = 0.0, model: str = "tiny") -> None:
    async def write() -> None:
        async with SqliteJournal.open(".orchestra/journal.db") as journal:
            for blob in (*SENT, *RECEIVED):
                journal.put_blob(blob)
            for run, at, elements in runs:
                made = events(run, at, elements, money, model)
                journal.append(run, made)
                await journal.wait_durable(run, len(made))

    Path(".orchestra").mkdir(exist_ok=True)
    asyncio.run(write())


def test_looking_where_nothing_ran_makes_no_file(shell: Shell) -> None:
    assert shell("runs", "list").out == "no runs yet; start one with: orchestra run NAME\n"
    assert shell("runs", "list", "--json").json == []
    assert shell("runs", "show").code == 2
    assert not Path(".orchestra").exists()


def test_a_journal_that_is_off_keeps_no_runs(shell: Shell) -> None:
    Path("orchestra.toml").write_text('journal = "off"\n')
    said = shell("runs", "list")
    assert (said.code, said.err[:4]) == (2, "C018")


def test_the_latest_runs_come_first(shell: Shell) -> None:
    record(("aaaa1111", 1e9, 2), ("bbbb2222", 2e9, 2))
    found = shell("runs", "list", "--json").json
    assert [(run["run"], run["workflow"], run["status"]) for run in found] == [
        ("bbbb2222", "hello", "done"),
        ("aaaa1111", "hello", "done"),
    ]
    assert [run["run"] for run in shell("runs", "list", "-n", "1", "--json").json] == ["bbbb2222"]
    lines = shell("runs", "list").out.splitlines()
    assert lines[1].startswith("bbbb2222")


def test_a_run_is_named_by_id_by_its_beginning_and_as_the_last(shell: Shell) -> None:
    record(("aaaa1111", 1e9, 2), ("bbbb2222", 2e9, 2))
    assert shell("runs", "show", "aaaa1111", "--json").json["run"] == "aaaa1111"
    assert shell("runs", "show", "aa", "--json").json["run"] == "aaaa1111"
    assert shell("runs", "show", "last", "--json").json["run"] == "bbbb2222"
    assert shell("runs", "show", "--json").json["run"] == "bbbb2222"


@pytest.mark.parametrize(
    ("name", "says"), [("a", "2 runs match 'a'"), ("zz", "there is no run 'zz'"), ("", "3 runs match")]
)
def test_a_run_that_is_not_one_is_refused(shell: Shell, name: str, says: str) -> None:
    record(("aaaa1111", 1e9, 2), ("aaaa2222", 2e9, 2), ("bbbb3333", 2e9, 2))
    said = shell("runs", "show", name)
    assert said.code == 2
    assert says in said.err


def test_a_run_is_shown_with_its_answer_nodes_and_troubles(shell: Shell) -> None:
    record(("aaaa1111", 1e9, 2))
    out = shell("runs", "show").out
    assert "hello: done in" in out
    assert "the answer" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip().startswith("readings")}
    assert rows["readings[0]"][1:3] == ["reader", "done"]
    assert rows["readings[0]"][-3:] == ["2", "20", "4"]
    assert "readings[1]: the quote is not there" in out
    assert "orchestra runs show aaaa1111 'readings[0]' --prompt" in out


def test_what_has_a_price_says_what_it_cost(shell: Shell) -> None:
    record(("aaaa1111", 1e9, 2), money=0.0125)
    out = shell("runs", "show").out
    assert " for 0.025000 of money, started" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip().startswith(("node", "readings"))}
    assert rows["node"][-1] == "money"
    assert rows["readings[0]"][-4:] == ["2", "20", "4", "0.025000"]
    assert "out, 0.50 s for 0.012500 of money" in shell("runs", "show", "last", "readings[0]").out
    heading, row = shell("runs", "list").out.splitlines()
    assert (heading.split()[-2:], row.split()[-2:]) == (["tokens", "money"], ["24", "0.025000"])
    shell("runs", "show", "--html", "run.html")
    page = Path("run.html").read_text("utf-8")
    assert Path("run.html").stat().st_mode & 0o777 == 0o600
    assert '<th class="number">money</th>' in page
    assert '<td class="number">0.025000</td>' in page


def test_where_nothing_has_a_price_nothing_speaks_of_money(shell: Shell) -> None:
    record(("aaaa1111", 1e9, 2))
    shell("runs", "show", "--html", "run.html")
    page = re.sub(r"<script.*?</script>", "", Path("run.html").read_text("utf-8"), flags=re.DOTALL)  # the studio
    said = shell("runs", "show").out + shell("runs", "list").out + page
    assert "money" not in said


def test_elements_of_a_long_list_are_left_out_unless_all_are_wanted(shell: Shell) -> None:
    record(("aaaa1111", 1e9, 100))
    short, whole = shell("runs", "show").out, shell("runs", "show", "--all").out
    assert "100 inside lists" in short
    assert "readings[99] " not in short.replace("readings[99]:", "")
    assert "readings[99] " in whole


def test_a_node_is_shown_attempt_by_attempt_with_model_text_escaped(shell: Shell) -> None:
    record(("aaaa1111", 1e9, 2))
    out = shell("runs", "show", "last", "readings[0]").out
    assert "attempt 1 on smol (tiny): 10 tokens in, 2 out" in out
    assert "quote: fail (0.00) no such words" in out
    assert "not accepted: no such words" in out
    assert "\x1b" not in out
    assert "\\u001b" in out
    found = shell("runs", "show", "last", "readings[0]", "--json").json
    assert [tried["number"] for tried in found["attempts"]] == [1, 2]


def test_an_attempt_that_asked_no_model_is_shown_without_one(shell: Shell) -> None:
    record(("aaaa1111", 1e9, 2), model="")
    assert "attempt 1 on smol: 10 tokens in, 2 out" in shell("runs", "show", "last", "readings[0]").out


@pytest.mark.parametrize(("options", "index"), [((), 1), (("--attempt", "2"), 1), (("--attempt", "1"), 0)])
def test_the_exact_bytes_are_written_where_no_terminal_is(shell: Shell, options: tuple[str, ...], index: int) -> None:
    record(("aaaa1111", 1e9, 2))
    command = [sys.executable, "-m", "orchestra.cli", "runs", "show", "last", "readings[0]", "--prompt", *options]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert (done.returncode, done.stdout) == (0, SENT[index] + b"\n" + RECEIVED[index] + b"\n")


def test_on_a_terminal_the_bytes_are_escaped(shell: Shell) -> None:
    record(("aaaa1111", 1e9, 2))
    command = [
        sys.executable,
        "-m",
        "orchestra.cli",
        "runs",
        "show",
        "last",
        "readings[0]",
        "--prompt",
        "--attempt",
        "1",
    ]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "TERM": "dumb"}
    subprocess.run(command, stdout=theirs, env=environment, check=True)
    os.close(theirs)
    seen = os.read(ours, 1 << 16).replace(b"\r\n", b"\n")
    os.close(ours)
    assert b"\x00" not in seen
    assert b"\xff" not in seen
    assert b"\\xff\\x00not text" in seen


@pytest.mark.parametrize(
    "arguments", [["nope"], ["readings", "--prompt"], ["readings[0]", "--prompt", "--attempt", "7"]]
)
def test_a_node_that_cannot_be_shown_is_refused(shell: Shell, arguments: list[str]) -> None:
    record(("aaaa1111", 1e9, 2))
    said = shell("runs", "show", "last", *arguments)
    assert (said.code, said.err[:4]) == (2, "C019")


def test_a_prompt_needs_a_node(shell: Shell) -> None:
    assert shell("runs", "show", "last", "--prompt").err.startswith("C019")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["readings[0]", "--attempt", "1"], "--attempt requires --prompt"),
        (["--attempt", "0"], "--attempt requires --prompt"),
        (["readings[0]", "--prompt", "--json"], "--prompt prints raw bytes, not JSON"),
        (["--html", "run.html", "--json"], "--html writes a page of the run, without --json"),
        (["--html", "run.html", "--explain"], "--html writes a page of the run, without --explain"),
        (["--html", "run.html", "--all"], "--html writes a page of the run, without --all"),
        (["--html", "run.html", "--prompt"], "--html writes a page of the run, without --prompt"),
        (["--html", "run.html", "--attempt", "1"], "--html writes a page of the run, without --attempt"),
        (["readings[0]", "--all"], "--all shows a whole run"),
        (["--explain", "--all"], "--all shows what each node took"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(shell: Shell, arguments: list[str], says: str) -> None:
    record(("aaaa1111", 1e9, 2))
    said = shell("runs", "show", "last", *arguments)
    assert (said.code, said.err.startswith(f"C019: {says}")) == (2, True), said.err
    assert not Path("run.html").exists()


def test_of_all_interrupted_runs_no_events_are_streamed(shell: Shell) -> None:
    said = shell("runs", "resume", "--all", "--stream")
    assert (said.code, said.err[:4]) == (2, "C010")


def test_events_come_out_as_they_were_written(shell: Shell) -> None:
    record(("aaaa1111", 1e9, 2))
    found = shell("runs", "show", "--json").json["events"]
    assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
    assert json.dumps(found[0]).startswith('{"type": "run_started"')
