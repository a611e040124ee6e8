"""`orchestra runs import`: restored and moved runs, which can be replayed, forked and continued."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestra.cli.runs.export import ExportedRun, put_run
from orchestra.core.errors import SourceLocation
from orchestra.core.events import AttemptFinished, Event, RunFinished, RunStarted
from orchestra.core.outcomes import ValueOutcome
from orchestra.journal.memory import MemoryJournal
from orchestra.journal.sqlite.journal import SqliteJournal
from tests.cli.shell import Shell
from tests.cli.stage import GOOD, TEXT, Simulated, furnish

WAIT = 'schema: orchestra/v1\nname: wait\noutput: ${a}\nnodes: {a: {ask: "Well?"}}\n'


@pytest.fixture
def shell(shell: Shell) -> Shell:
    furnish()
    Path("workflows/wait.yaml").write_text(WAIT)
    shell.opener = Simulated({"answerer": GOOD})
    return shell


@pytest.fixture
def other(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The same command on another journal."""

    def run(*words: str) -> Any:
        with monkeypatch.context() as patch:
            patch.setenv("ORCHESTRA_JOURNAL", "other.db")
            return shell(*words)

    return run


def ran(shell: Shell, *words: str) -> str:
    shell("run", *(words or ("ask", "-i", "question=When?", "-i", f"text={TEXT}")))
    run: str = shell("runs", "list", "-n", "1", "--json").json[0]["run"]
    return run


def test_imported_run_is_equal_and_can_be_replayed_and_forked(shell: Shell, other: Callable[..., Any]) -> None:
    run = ran(shell, "ask", "-i", "question=Wann? ä\u2028", "-i", f"text={TEXT * 5000}", "--tag", "customer=42")
    shell("runs", "export", run, "-o", "run.jsonl")
    assert other("runs", "import", "run.jsonl").out == f"{run}  done\n"
    assert other("runs", "show", run, "--json").json == shell("runs", "show", run, "--json").json
    assert other("runs", "list", "--tag", "customer=42", "--json").json == shell("runs", "list", "--json").json
    assert other("runs", "replay", run).code == 0
    assert (
        other("runs", "show", run, "reading", "--prompt").out == shell("runs", "show", run, "reading", "--prompt").out
    )
    assert "1 call recalled" in other("runs", "fork", run).out
    again = other("runs", "import", "run.jsonl", "--json").json
    assert (again["run"], again["new"]) == (run, False)


def test_a_run_that_was_deleted_is_restored(shell: Shell) -> None:
    run = ran(shell)
    Path("run.jsonl").write_text(shell("runs", "export", run).out)
    before = shell("runs", "show", run, "--json").json
    shell("runs", "delete", run, "--yes")
    assert shell("runs", "import", "run.jsonl").code == 0
    assert shell("runs", "show", run, "--json").json == before


def test_imported_waiting_run_resumes_with_the_stored_answer(shell: Shell, other: Callable[..., Any]) -> None:
    run = ran(shell, "wait")
    shell("runs", "export", run, "-o", "open.jsonl")
    shell("runs", "answer", run, "fine", "--later", "--by", "ada")
    shell("runs", "export", run, "-o", "answered.jsonl")
    said = other("runs", "import", "answered.jsonl")
    assert said.code == 0
    assert "do not resume or answer it in the other journal" in said.err
    assert other("runs", "resume", run, "--json").json["output"] == "fine"
    assert other("runs", "import", "open.jsonl").err.startswith("C058")


def test_several_runs_of_one_file_are_imported(shell: Shell, other: Callable[..., Any]) -> None:
    runs = [ran(shell), ran(shell)]
    assert [
        json.loads(line)["run"] for line in shell("runs", "export", *runs, "-o", "all.jsonl", "--json").out.splitlines()
    ] == runs
    assert (
        shell("runs", "export", *runs).out
        == "".join(shell("runs", "export", run).out for run in runs)
        == Path("all.jsonl").read_text()
    )
    assert [line.split()[0] for line in other("runs", "import", "all.jsonl").out.splitlines()] == runs


def test_messages_are_not_delivered_a_second_time(shell: Shell, other: Callable[..., Any]) -> None:
    async def write() -> None:
        async with SqliteJournal.open(".orchestra/journal.db") as journal:
            for run in ("r1", "r2"):
                journal.append(
                    run,
                    [
                        RunStarted(seq=1, at=1.0, run=run, workflow="w", graph="", inputs={}),
                        AttemptFinished(seq=2, at=1.0, node="sent", attempt=1, value=run, final=True, outbox=True),
                        RunFinished(seq=3, at=1.0, status="done", outcome=ValueOutcome(1)),
                    ],
                )
                await journal.wait_durable(run, 3)
            await journal.mark_delivered([message.number for message in await journal.outbox() if message.run == "r1"])

    async def undelivered() -> list[str]:
        async with SqliteJournal.open("other.db") as journal:
            return [message.run for message in await journal.outbox()]

    Path(".orchestra").mkdir(exist_ok=True)
    asyncio.run(write())
    for run in ("r1", "r2"):
        shell("runs", "export", run, "-o", f"{run}.jsonl")
    assert other("runs", "import", "r1.jsonl", "r2.jsonl").code == 0
    assert asyncio.run(undelivered()) == ["r2"]


def test_messages_that_were_delivered_are_open_at_no_moment(shell: Shell) -> None:
    """A service that reads the outbox during the import would send them again."""
    seen: list[list[str]] = []

    class Watched(MemoryJournal):
        async def wait_durable(self, run: str, seq: int) -> None:
            seen.append([message.node for message in await self.outbox()])

    events: list[Event] = [
        RunStarted(seq=1, at=1.0, run="r1", workflow="w", graph="", inputs={}),
        AttemptFinished(seq=2, at=1.0, node="sent", attempt=1, value=1, final=True, outbox=True),
        AttemptFinished(seq=3, at=1.0, node="open", attempt=1, value=1, final=True, outbox=True),
        RunFinished(seq=4, at=1.0, status="done", outcome=ValueOutcome(1)),
    ]
    asyncio.run(
        put_run(Watched(), ExportedRun(SourceLocation("run.jsonl", 1), {"run": "r1", "undelivered": ["open"]}, events))
    )
    assert seen == [["open"]]


def test_a_run_that_was_under_way_is_not_imported(shell: Shell, other: Callable[..., Any]) -> None:
    async def write() -> None:
        async with SqliteJournal.open(".orchestra/journal.db") as journal:
            journal.append("r1", [RunStarted(seq=1, at=1.0, run="r1", workflow="w", graph="", inputs={})])
            await journal.wait_durable("r1", 1)
            await asyncio.to_thread(shell, "runs", "export", "r1", "-o", "going.jsonl")
        shell_out = await asyncio.to_thread(shell, "runs", "export", "r1", "-o", "cut.jsonl")
        assert shell_out.code == 0

    Path(".orchestra").mkdir(exist_ok=True)
    asyncio.run(write())
    assert other("runs", "import", "going.jsonl").err.startswith("C058")
    assert other("runs", "import", "cut.jsonl").out == "r1  interrupted\n"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: lines[1:],
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: lines[:-1],
        lambda lines: [*lines[:-1], lines[-1].replace('"base64":"', '"base64":"AA')],
        lambda lines: [line.replace("When?", "Why?") for line in lines],
        lambda lines: [*lines[:2], "what?", *lines[2:]],
        lambda lines: [line.replace('"run_finished"', '"run_flown"') for line in lines],
        lambda lines: [line.replace("export/v1", "export/v9") for line in lines],
        lambda lines: [],
    ],
)
def test_what_is_no_whole_export_is_refused_with_its_place(shell: Shell, other: Callable[..., Any], spoil: Any) -> None:
    lines = shell("runs", "export", ran(shell)).out.splitlines()
    Path("run.jsonl").write_text("".join(f"{line}\n" for line in spoil(lines)))
    said = other("runs", "import", "run.jsonl")
    assert (said.code, said.err[:4]) == (2, "C057")
    assert "run.jsonl:" in said.err
    assert not Path("other.db").exists()


def test_an_export_without_blobs_or_of_nothing_is_refused(shell: Shell, other: Callable[..., Any]) -> None:
    shell("runs", "export", ran(shell), "--no-blobs", "-o", "run.jsonl")
    assert "--no-blobs" in other("runs", "import", "run.jsonl").err
    assert other("runs", "import", "absent.jsonl").err.startswith("C057")


def test_an_export_of_an_earlier_version_is_imported(shell: Shell, other: Callable[..., Any]) -> None:
    head, *lines = shell("runs", "export", ran(shell)).out.splitlines()
    old = {name: value for name, value in json.loads(head).items() if name in ("schema", "run", "events", "blobs")}
    Path("run.jsonl").write_text("\n".join([json.dumps(old), *lines]))
    assert other("runs", "import", "run.jsonl").code == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("undelivered", None),
        ("undelivered", 5),
        ("undelivered", [[1]]),
        ("status", {}),
        ("chain", 1),
        ("events", "2"),
        ("run", 7),
    ],
)
def test_a_first_line_that_is_faulty_is_refused_before_anything_is_written(
    shell: Shell, other: Callable[..., Any], name: str, value: Any
) -> None:
    head, *lines = shell("runs", "export", ran(shell)).out.splitlines()
    Path("run.jsonl").write_text("\n".join([json.dumps({**json.loads(head), name: value}), *lines]))
    said = other("runs", "import", "run.jsonl")
    assert (said.code, said.err[:4]) == (2, "C057")
    assert not Path("other.db").exists()


@pytest.mark.parametrize(
    "name", ["", "last", "a\0b", "\x1b]0;owned\x07", "a\u202eb", "a b", "a/b", "-a", "a\n", "\ud800"]
)
def test_an_id_that_is_none_is_refused_and_does_not_reach_the_terminal(
    shell: Shell, other: Callable[..., Any], name: str
) -> None:
    run = ran(shell)
    head, *lines = shell("runs", "export", run).out.replace(json.dumps(run), json.dumps(name)).splitlines()
    Path("run.jsonl").write_text("\n".join([json.dumps({**json.loads(head), "chain": None}), *lines]))
    said = other("runs", "import", "run.jsonl")
    assert (said.code, said.err[:4]) == (2, "C057")
    assert not {"\x1b", "\0", "\x07", "\u202e"} & set(said.err + said.out)
    assert not Path("other.db").exists()


def test_two_exports_of_a_run_that_differ_are_refused_in_one_command(shell: Shell, other: Callable[..., Any]) -> None:
    run = ran(shell, "wait")
    shell("runs", "export", run, "-o", "old.jsonl")
    shell("runs", "answer", run, "fine", "--by", "ada")
    shell("runs", "export", run, "-o", "new.jsonl")
    said = other("runs", "import", "old.jsonl", "new.jsonl")
    assert (said.code, said.err[:4]) == (2, "C058")
    assert not Path("other.db").exists()
    assert other("runs", "import", "new.jsonl", "new.jsonl").out == f"{run}  done\n{run}  done: it exists already\n"


def test_a_pipe_is_imported(shell: Shell, other: Callable[..., Any]) -> None:
    run = ran(shell)
    text = shell("runs", "export", run).out
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_text(text), daemon=True)
    writer.start()
    assert other("runs", "import", "pipe").out == f"{run}  done\n"
    writer.join(10)


def test_an_import_that_was_cut_off_is_completed(
    shell: Shell, other: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ran(shell, "wait")
    shell("runs", "answer", run, "fine", "--later", "--by", "ada")
    shell("runs", "export", run, "-o", "run.jsonl")

    async def dies(*_: Any, **__: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SqliteJournal, "send", dies)
        assert other("runs", "import", "run.jsonl").code == 130
    assert "its missing parts were added" in other("runs", "import", "run.jsonl").out
    assert "it exists already" in other("runs", "import", "run.jsonl").out
    assert other("runs", "resume", run, "--json").json["output"] == "fine"


@pytest.mark.parametrize("answered", [False, True])
def test_a_run_whose_import_was_cut_off_waits_once_it_is_completed(
    shell: Shell, other: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    run = ran(shell, "wait")
    if answered:
        shell("runs", "answer", run, "fine", "--later")
    shell("runs", "export", run, "-o", "run.jsonl")

    async def dies(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SqliteJournal, "release", dies)
        assert other("runs", "import", "run.jsonl").code == 130
    assert other("runs", "list", "--json").json[0]["status"] == "interrupted"
    said = other("runs", "import", "run.jsonl")
    assert (
        said.out
        == f"{run}  {'interrupted: it exists already' if answered else 'waiting: its missing parts were added'}\n"
    )
    assert ("do not resume or answer it in the other journal" in said.err) is not answered
    assert other("runs", "import", "run.jsonl").out.endswith(": it exists already\n")
